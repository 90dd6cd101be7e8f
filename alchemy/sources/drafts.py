"""What the readers share when they make a draft: tidy text, typed access to JSON fields, people, dates.

`draft` is the only place where a `Draft` is built, so every text of every source is free of NULs and stray
whitespace, empty parts and empty fields are gone, and neighboring prose is one part (a chunk never leaves
its block, so a part per paragraph would make tiny chunks).
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from alchemy.records import Draft, Part, RawObject, Rejected
from alchemy.sources.reasons import Unreadable
from alchemy.text.decode import tidy

_TITLE_CHARACTERS = 300
_ISSUE_KEY = re.compile(r"\b[A-Z][A-Z0-9]{1,9}-[1-9]\d{0,5}\b")
# Standards and products that look like issue keys.
_NOT_PROJECTS = frozenset((
    "UTF", "ISO", "RFC", "CVE", "CWE", "SHA", "SHA1", "SHA2", "SHA3", "AES", "RSA", "MD", "TLS", "SSL",
    "HTTP", "JSR", "JDK", "JRE", "JAVA", "PR", "GH", "IEC", "IEEE", "ECMA", "ANSI", "ASCII", "UCS",
    "UTC", "GMT", "CP", "BASE", "IBM", "MACH", "PDP", "KOI8", "WINDOWS", "LATIN", "ISO8859", "EUC",
    "GB", "BIG5", "RC", "GPT", "COVID", "PDF",
))  # fmt: skip
# Names that belong to nobody: masking them everywhere would spoil the text.
_NOBODY = frozenset((
    "admin", "administrator", "anonymous", "apache", "contributor", "automation", "bot", "bugs",
    "builds", "ci", "cli", "dependabot", "dev", "developers", "docs", "email", "git", "github",
    "gitlab", "hudson", "info", "issues", "jenkins", "jira", "localhost", "mail", "master", "noreply",
    "no-reply", "nobody", "none", "null", "root", "service", "support", "system", "team", "test",
    "tester", "unassigned", "unknown", "user", "users", "web-flow", "webmaster", "author", "owner",
    "me", "you", "file", "files", "data", "code", "build", "release", "release-bot", "renovate",
))  # fmt: skip
# Words of organizations and products; a document's author field often names one.
_ORGANIZATION = frozenset((
    "the", "inc", "inc.", "ltd", "ltd.", "llc", "corp", "corp.", "gmbh", "bank", "company", "department",
    "foundation", "group", "institute", "office", "project", "software", "team", "university", "user",
))  # fmt: skip


def draft(
    kind: str,
    key: str,
    title: str,
    parts: Iterable[Part],
    locator: str,
    *,
    project: str = "",
    fields: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    people: Iterable[str] = (),
    url: str = "",
    updated: str = "",
) -> Draft:
    """A draft with tidy texts. Fields that are None or empty and metrics that are no number are left out.

    A title that is too long is cut and stands in full before the parts.
    """
    whole = one_line(title)
    if len(whole) > _TITLE_CHARACTERS:
        parts = [Part(whole), *parts]
    return Draft(
        kind=kind,
        key=one_line(key),
        title=one_line(whole, _TITLE_CHARACTERS),
        parts=tuple(joined(parts)),
        locator=locator,
        project=one_line(project),
        fields={name: text for name, value in (fields or {}).items() if (text := one_line(value))},
        metrics={
            name: number
            for name, value in (metrics or {}).items()
            if (number := as_number(value)) is not None
        },
        people=tuple(dict.fromkeys(people)),
        url=one_line(url),
        updated=updated,
    )


def located(rows: Iterable[Draft | Rejected], raw: RawObject, place: str) -> Iterator[Draft | Rejected]:
    """Rows of a file inside `raw` as rows of `raw`: their locators begin with its place."""
    for row in rows:
        locator = ": ".join(part for part in (place, row.locator) if part)
        if isinstance(row, Rejected):
            yield replace(row, raw_key=raw.key, locator=locator)
        else:
            yield replace(row, locator=locator)


def joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Tidy parts without empty ones; neighboring prose becomes one part with a blank line between."""
    prose: list[str] = []
    for part in parts:
        text = tidy(part.text)
        if part.kind == "prose":
            if text := trim_lines(text):
                prose.append(text)
            continue
        text = text.strip("\n").rstrip() if part.kind == "code" else text.strip()
        if not text:
            continue
        if prose:
            yield Part("\n\n".join(prose))
            prose = []
        yield Part(text, part.kind)
    if prose:
        yield Part("\n\n".join(prose))


def one_line(value: Any, limit: int = 0) -> str:
    """Text on one line, whitespace collapsed; "" for None."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    text = " ".join(tidy(text).split())
    return text if not limit or len(text) <= limit else text[: limit - 1].rstrip() + "…"


def trim_lines(text: str) -> str:
    """Without blanks at line ends, and with at most one empty line in a row."""
    text = re.sub(r"[ \t]+$", "", text, flags=re.M) if " \n" in text or "\t\n" in text else text
    text = re.sub(r"\n{3,}", "\n\n", text) if "\n\n\n" in text else text
    return text.strip("\n").rstrip()


def comma(values: Iterable[Any]) -> str:
    return ", ".join(text for value in values if (text := one_line(value)))


def as_number(value: Any) -> float | None:
    """A finite float, or None; booleans and text are no numbers here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value) if abs(value) < 1e300 else math.inf
    return number if math.isfinite(number) else None


def required(record: Mapping[str, Any], name: str) -> str:
    """A field that the record cannot do without, as text.

    Raises:
        Unreadable: `missing_field` or `wrong_shape`.
    """
    value = record.get(name)
    if value is None or value == "":
        raise Unreadable("missing_field", f"The record has no {name!r}.")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unreadable("wrong_shape", f"The field {name!r} is {_type(value)}, not text.")
    return str(value)


def optional_text(record: Mapping[str, Any], name: str) -> str:
    """Text of a field that may be missing or null; raises Unreadable (`wrong_shape`) on another type."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable("wrong_shape", f"The field {name!r} is {_type(value)}, not text.")
    return value


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def names(values: Any, field: str = "name") -> list[str]:
    """The `field` of each object of a list; plain strings stand for themselves."""
    found = [value.get(field) if isinstance(value, dict) else value for value in as_list(values)]
    return [value for value in found if isinstance(value, str) and value]


def issue_keys(text: str) -> str:
    """Issue keys in `text` in order of appearance, comma separated, without look-alikes such as UTF-8."""
    found = dict.fromkeys(_ISSUE_KEY.findall(text))
    return ", ".join(key for key in found if key.rpartition("-")[0] not in _NOT_PROJECTS)


def people(*values: Any) -> list[str]:
    """Names to mask: as given, and the local part of an e-mail address. Bots and role names are left out."""
    found = []
    for value in values:
        if not isinstance(value, str):
            continue
        name = one_line(value)
        found.append(name.partition("@")[0] if "@" in name else name)
    return [name for name in dict.fromkeys(found) if _is_somebody(name)]


def iso(value: Any) -> str:
    """ISO 8601 with an offset where the text has one, "" where it is no date."""
    if not isinstance(value, str) or not value:
        return ""
    try:
        return datetime.fromisoformat(value.strip()).isoformat()
    except ValueError:
        return ""


def days_between(start: Any, end: Any) -> float | None:
    """Days from one ISO date to another, at least 0; None where one is missing."""
    first, last = iso(start), iso(end)
    if not first or not last:
        return None
    span = _aware(last) - _aware(first)
    return max(0.0, round(span.total_seconds() / 86400, 3))


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_somebody(name: str) -> bool:
    lowered = name.lower()
    return (
        len(name) >= 3
        and len(name) <= 80
        and lowered not in _NOBODY
        and not lowered.endswith(("[bot]", "-bot"))
        and _ORGANIZATION.isdisjoint(lowered.split())
        and any(character.isalpha() for character in name)
    ) or (len(name) == 2 and not name.isascii())  # two characters are a whole Chinese name


def _type(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), type(value).__name__)
