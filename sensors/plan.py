"""What a change of the raw objects asks for: a pure function from a listing and a cursor to a request.

The cursor holds one digest per source and a counter, never object names. The counter makes the run key of
every change new, so content that returns to an earlier state is processed again, while a tick that is
evaluated twice asks for the same run once. All sources that changed between two ticks share one run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from alchemy.records import fingerprint


@dataclass(frozen=True, slots=True)
class Seen:
    """One raw object as a listing saw it; `digest` is an ETag or a sha256: it changes with the content."""

    key: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """The run that a change asks for."""

    run_key: str
    sources: tuple[str, ...]  # those that changed
    objects: int  # how many objects they hold now


@dataclass(frozen=True, slots=True)
class Plan:
    request: Wanted | None
    cursor: str


def plan(listing: Mapping[str, Iterable[Seen]], cursor: str | None) -> Plan:
    """One request if any source's content is not the cursor's, else none.

    A source that was empty and still is asks for nothing; one that was emptied does.
    """
    before: dict[str, Any] = orjson.loads(cursor) if cursor else {"changes": 0, "sources": {}}
    rows = {
        source: sorted((one.key, one.size, one.digest) for one in seen) for source, seen in listing.items()
    }
    digests = {source: fingerprint(found) for source, found in rows.items() if found}
    known = before["sources"]
    changed = tuple(sorted(name for name in rows if digests.get(name) != known.get(name)))
    if not changed:
        return Plan(None, _dump(before))
    changes = before["changes"] + 1
    sources = {**{name: known[name] for name in known if name not in rows}, **digests}
    objects = sum(len(rows[name]) for name in changed)
    wanted = Wanted(f"raw:{changes}:{fingerprint(sources)}", changed, objects)
    return Plan(wanted, _dump({"changes": changes, "sources": sources}))


def _dump(cursor: dict[str, Any]) -> str:
    return orjson.dumps(cursor, option=orjson.OPT_SORT_KEYS).decode()
