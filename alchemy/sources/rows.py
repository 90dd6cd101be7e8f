"""A database row as a draft: what every table format shares.

A row reads as one sentence per column. A column is a key, a number, or text, which its table decides once
(`describe`), so that a metric means the same in every row.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from alchemy.records import Draft, Part
from alchemy.sources.drafts import draft, iso, one_line, people
from alchemy.sources.reasons import Unreadable
from alchemy.text.decode import tidy

Value = str | int | float | bytes | None

MAX_NAMES = 200_000  # names of referenced rows that one file may keep in memory

_FIELD_CHARACTERS = 200  # longer values are text, not fields
_LONG = 160  # longer values stand in a paragraph of their own
_NAMES = (
    "title",
    "name",
    "full_name",
    "display_name",
    "subject",
    "label",
    "summary",
    "model",
    "hostname",
    "code",
)
_PEOPLE = frozenset(
    ("author", "assignee", "reporter", "creator", "commenter", "created_by", "updated_by", "login")
)
_DATES = ("updated_at", "updated", "modified", "last_modified", "modified_at", "created_at", "created")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_]+")
_NUMBER = re.compile(r"[+-]?(?:0|[1-9]\d{0,17})(?:\.\d{1,18})?(?:[eE][+-]?\d{1,3})?\Z")
_NO_PROSE = re.compile(
    r"(?:true|false|yes|no|null|none|nan|n/?a|[tfyn])\Z"  # truth values
    r"|\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d.*)?\Z"  # dates
    r"|(?:0x|\\x)?[0-9a-f-]{16,}\Z",  # hashes and UUIDs
    re.I,
)
_NO_IDS = frozenset(
    ("aid", "bid", "fluid", "grid", "mid", "paid", "prepaid", "rapid", "solid", "unpaid", "valid")
)
_UNSAFE = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of one table and what each is."""

    name: str
    columns: tuple[str, ...]
    key: tuple[int, ...] = ()  # the primary key's columns
    numeric: tuple[int, ...] = ()  # columns of numbers that are not keys
    labels: tuple[str, ...] = ()  # the columns' names as people would write them
    name_columns: tuple[int, ...] = ()  # what to call a row by
    references: tuple["Reference", ...] = ()  # columns that point to named rows of other tables


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key whose rows have names."""

    column: int
    label: str  # "Artist" for the column "ArtistId"
    names: Mapping[str, str]  # by key


@dataclass
class Names:
    """Names of the rows that foreign keys point to, by (table, column): bounded, so a part may lack one."""

    found: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    left: int = MAX_NAMES

    def want(self, table: str, column: str) -> None:
        self.found.setdefault((table, column), {})

    def remember(self, table: Table, values: Sequence["Value"]) -> None:
        """Keeps the row's name where one of its columns is wanted."""
        if not table.name_columns or self.left <= 0 or len(values) != len(table.columns):
            return
        name = ""
        for index, column in enumerate(table.columns):
            wanted = self.found.get((table.name, column))
            if wanted is None or (key := _text(values[index])) is None:
                continue
            name = name or _name(table, [_text(value) for value in values])
            if name and name != key:
                wanted[key] = name
                self.left -= 1


def describe(
    name: str,
    columns: Sequence[str],
    *,
    key: Iterable[str] = (),
    numeric: Iterable[str] = (),
    foreign: Iterable[str] = (),
    names: Mapping[str, Mapping[str, str]] | None = None,
) -> Table:
    """Decides what each column of a table is.

    Args:
        numeric: Columns that hold nothing but numbers.
        names: For columns that point to rows with names, the names by key.
    """
    columns = tuple(columns)
    keys = set(key)
    not_metrics = keys | set(foreign)
    numbers = set(numeric)
    return Table(
        name,
        columns,
        tuple(index for index, column in enumerate(columns) if column in keys),
        tuple(
            index
            for index, column in enumerate(columns)
            if column in numbers and column not in not_metrics and not _is_key_name(column)
        ),
        tuple(_label(column) for column in columns),
        _name_columns(name, columns),
        tuple(
            Reference(index, _reference_label(column, columns), found)
            for index, column in enumerate(columns)
            if (found := (names or {}).get(column))
        ),
    )


def row_draft(
    table: Table, values: Sequence[Value], *, file: str, number: int, locator: str, per_file: bool = False
) -> Draft:
    """A draft of one row.

    Args:
        number: The row's 1-based number, its key where the table has none.
        per_file: The file is the table (CSV), and the document key does not repeat its name.

    Raises:
        Unreadable: `no_text` (as filtered) if nothing in the row is made of words.
    """
    texts = [_text(value) for value in values]
    if not any(text and _is_prose(text) for text in texts):
        raise Unreadable("no_text", "The row holds only keys, numbers and dates.", "filtered")
    keys = [texts[index] for index in table.key]
    row_key = ",".join(key or "" for key in keys) if keys and any(keys) else str(number)
    fields = {
        column: text
        for column, text in zip(table.columns, texts, strict=True)
        if text and len(text) <= _FIELD_CHARACTERS
    }
    named = [
        (one.label, name) for one in table.references if (name := one.names.get(texts[one.column] or ""))
    ]
    fields |= {label: name for label, name in named if label not in fields}
    by_lower = {column.lower(): text for column, text in zip(table.columns, texts, strict=True) if text}
    prefix = _UNSAFE.sub("_", table.name).strip("_")
    return draft(
        "row",
        f"{file}#{row_key}" if per_file else f"{file}/{table.name}#{row_key}",
        f"{table.name}: {_name(table, texts) or row_key}",
        [Part(_sentences(table, texts, named))],
        locator,
        project=table.name,
        fields=fields,
        metrics={
            f"{prefix}.{_UNSAFE.sub('_', table.columns[index]).strip('_')}": _number(texts[index])
            for index in table.numeric
        },
        people=people(*(text for column, text in by_lower.items() if column in _PEOPLE)),
        updated=next((date for column in _DATES if (date := iso(by_lower.get(column)))), ""),
    )


def is_number(text: str) -> bool:
    """Whether a text is a plain number; "007" is not, because numbers have no leading zeros."""
    return bool(_NUMBER.match(text))


def _number(text: str | None) -> float | None:
    return float(text) if text and is_number(text) else None


def _text(value: Value) -> str | None:
    """The value as text, None for null and blank."""
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return tidy(str(value)).strip() or None


def _sentences(table: Table, texts: Sequence[str | None], named: Sequence[tuple[str, str]]) -> str:
    """ "Title: Restless and Wild. Artist id: 2. Artist: Accept."; long values follow as paragraphs."""
    short, long = [], []
    for label, text in [*zip(table.labels, texts, strict=True), *named]:
        if text is None:
            continue
        if len(text) > _LONG or "\n" in text:
            long.append(f"{label}: {text}")
        else:
            short.append(f"{label}: {text}{'' if text.endswith(('.', '!', '?', '。')) else '.'}")
    return "\n\n".join([" ".join(short), *long]).strip()


def _name(table: Table, texts: Sequence[str | None]) -> str:
    names = [text for index in table.name_columns if (text := texts[index])]
    return one_line(" ".join(names), 120)


def _name_columns(table: str, columns: Sequence[str]) -> tuple[int, ...]:
    """The column that names a row: `title`, `name`, `<table>_name` ..., or first and last name."""
    lowered = [_UNSAFE.sub("_", column.strip().lower()) for column in columns]
    flat = [column.replace("_", "") for column in lowered]
    if "firstname" in flat and "lastname" in flat:
        return flat.index("firstname"), flat.index("lastname")
    own = table.lower().rpartition(".")[2].rstrip("s") + "_name"
    for wanted in (*_NAMES, own):
        if wanted in lowered:
            return (lowered.index(wanted),)
    return next(((index,) for index, column in enumerate(lowered) if column.endswith("_name")), ())


def _is_key_name(column: str) -> bool:
    words = _WORDS.findall(column)
    if not words:
        return False
    last = words[-1].lower()
    return last in ("id", "key", "uuid", "pk", "fk") or (last.endswith("id") and last not in _NO_IDS)


def _label(column: str) -> str:
    """`BillingCountry` and `billing_country` read as "Billing country"; `HTTPCode` keeps its capitals."""
    words = _WORDS.findall(column)
    if not words:
        return column or "Column"
    words = [
        word if len(word) > 1 and word.isupper() and not column.isupper() else word.lower() for word in words
    ]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _reference_label(column: str, columns: Sequence[str]) -> str:
    """`ArtistId` points to an "Artist"; a column without "id" at its end gets " name" instead."""
    words = _label(column).split()
    if len(words) > 1 and words[-1].lower() in ("id", "key", "uuid", "fk", "no", "code"):
        words.pop()
        label = " ".join(words)
        if label.lower() not in {_label(other).lower() for other in columns}:
            return label
    return f"{_label(column)} name"


def _is_prose(text: str) -> bool:
    return any(map(str.isalpha, text)) and not _NO_PROSE.match(text)
