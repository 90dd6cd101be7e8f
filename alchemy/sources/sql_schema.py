"""What a SQL dump says about its tables: columns, which of them are numbers, keys, and where they point."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

NAME = r"""(?:"(?:[^"]|"")+"|`[^`]+`|\[[^\]]+\]|[\w$]+)"""
QUALIFIED = rf"({NAME}(?:\s*\.\s*{NAME})?)"
CREATE_TABLE = re.compile(
    rf"\s*CREATE\s+(?:\w+\s+){{0,2}}TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{QUALIFIED}\s*\(", re.I
)
ALTER_TABLE = re.compile(rf"\s*ALTER\s+TABLE\s+(?:ONLY\s+)?{QUALIFIED}", re.I)
_PRIMARY = re.compile(r"PRIMARY\s+KEY\s*\(([^)]*)\)", re.I)
_FOREIGN = re.compile(r"FOREIGN\s+KEY\s*\(([^)]*)\)", re.I)
_REFERENCES = re.compile(rf"\bREFERENCES\s+{QUALIFIED}\s*(?:\(([^)]*)\))?", re.I)
_COLUMN = re.compile(rf"\s*({NAME})\s+([a-z]\w*)", re.I)
_CONSTRAINT = re.compile(
    r"\s*(?:CONSTRAINT|PRIMARY\s+KEY|FOREIGN\s+KEY|UNIQUE|CHECK|KEY|INDEX|FULLTEXT|SPATIAL|EXCLUDE|LIKE)\b",
    re.I,
)
_NUMBERS = re.compile(
    r"(?:(?:tiny|small|medium|big)?int|integer|numeric|decimal|real|double|float|money|(?:big)?serial)\d?\b",
    re.I,
)
_ITEM = re.compile(NAME)


@dataclass
class Schema:
    """One table."""

    columns: list[str] = field(default_factory=list)
    numeric: set[str] = field(default_factory=set)
    key: list[str] = field(default_factory=list)
    # The table and column that a column points to; ("", "") for a key of several columns.
    foreign: dict[str, tuple[str, str]] = field(default_factory=dict)


def add_table(schemas: dict[str, Schema], text: str) -> None:
    """Adds the table of a CREATE TABLE statement."""
    found = CREATE_TABLE.match(text)
    if not found:
        return
    schema = schemas.setdefault(bare(found.group(1)), Schema())
    for definition in _split(text[found.end() :]):
        if primary := _PRIMARY.search(definition):
            schema.key = items(primary.group(1))
        _add_foreign(schema, definition)
        column = None if _CONSTRAINT.match(definition) else _COLUMN.match(definition)
        if column:
            column_name = bare(column.group(1))
            schema.columns.append(column_name)
            if references := _REFERENCES.search(definition):
                schema.foreign[column_name] = _target(references)
            if _NUMBERS.match(column.group(2)):
                schema.numeric.add(column_name)
            if re.search(r"\bPRIMARY\s+KEY\b", definition, re.I):
                schema.key = [column_name]


def alter_table(schemas: dict[str, Schema], text: str) -> None:
    """Adds the keys of an ALTER TABLE statement."""
    found = ALTER_TABLE.match(text)
    schema = schemas.get(bare(found.group(1))) if found else None
    if schema is None:
        return
    if primary := _PRIMARY.search(text):
        schema.key = items(primary.group(1))
    _add_foreign(schema, text)


def items(text: str) -> list[str]:
    return [bare(item) for item in _ITEM.findall(text)]


def bare(name: str) -> str:
    """A name without schema and quotes."""
    last = _ITEM.findall(name)[-1]
    return last.strip('"`[]').replace('""', '"')


def shown(name: str) -> str:
    return ".".join(part.strip('"`[]') for part in _ITEM.findall(name))


def _add_foreign(schema: Schema, text: str) -> None:
    foreign = _FOREIGN.search(text)
    if not foreign:
        return
    columns, references = items(foreign.group(1)), _REFERENCES.search(text)
    target = _target(references) if references and len(columns) == 1 else ("", "")
    schema.foreign.update(dict.fromkeys(columns, target))


def _target(references: re.Match[str]) -> tuple[str, str]:
    columns = items(references.group(2) or "")
    return bare(references.group(1)), columns[0] if columns else ""


def _split(text: str) -> Iterator[str]:
    """Column definitions of a CREATE TABLE: split at commas outside parentheses and quotes."""
    depth, start = 0, 0
    for found in re.finditer(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|[(),]", text):
        mark = found.group()
        if mark == "(":
            depth += 1
        elif mark == ")":
            depth -= 1
            if depth < 0:
                yield text[start : found.start()]
                return
        elif mark == "," and not depth:
            yield text[start : found.start()]
            start = found.end()
    yield text[start:]
