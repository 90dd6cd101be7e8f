"""Releases: the one record that says what serves, and the aliases that say which record.

A release is an artifact (`releases/<id>/release.json`) and so never changes. `champion` is what serves,
`previous` what served before it, `candidate` the newest, and `pinned`, where it is set, what serves whatever
the champion is. All moves are compare-and-swap: of two promotions that race, one wins and the other gets
Conflict. What was decided and moved, by the gate or by hand, is an append-only history.
"""

import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from alchemy.artifacts import Artifact, Artifacts, home, move_alias, read_alias
from alchemy.errors import BadInput, Conflict, NotFound
from alchemy.records import to_line
from alchemy.retrieval.fuse import SearchWeights

RECORD = "release.json"
ALIASES = ("champion", "previous", "candidate", "pinned")
_NONE = {name: f"there is no {name} yet; materialize the `release` asset" for name in ALIASES[:3]} | {
    "pinned": "no release is pinned"
}
_HISTORY = f"{home('release')}/history"


@dataclass(frozen=True, slots=True)
class Release:
    """Everything an answer depends on. Versions are those of the artifacts of the same name."""

    index: str  # version of faiss_index
    adapters: dict[str, str]  # adapter name -> version
    base_model: str
    embedder: str
    reranker: str
    weights: SearchWeights
    prompts: str  # version of the prompts that its training pairs were written with
    evaluation: str  # version of the evaluation

    @property
    def parts(self) -> dict[str, str]:
        """The artifacts that it is made of, asset -> version."""
        parts = {"faiss_index": self.index, **self.adapters, "evaluation": self.evaluation}
        return {asset: version for asset, version in parts.items() if version}


@dataclass(frozen=True, slots=True)
class Alias:
    """Where an alias points, and the etag to move it with."""

    release: str  # "": nowhere any more
    etag: str


def read_release(artifacts: Artifacts, release_id: str) -> Release:
    """The release of that id. Raises NotFound."""
    row = orjson.loads(artifacts.store.get(f"{home('release')}/{release_id}/{RECORD}"))
    return Release(**{**row, "weights": SearchWeights(**row["weights"])})


def release_line(release: Release) -> bytes:
    """The bytes of `release.json`: equal releases are equal bytes, and so have the same id."""
    return to_line(release)


def list_releases(artifacts: Artifacts) -> list[Artifact]:
    """Every release's manifest, oldest first."""
    return artifacts.versions("release")


def read_release_alias(artifacts: Artifacts, name: str) -> Alias | None:
    """Where one of `ALIASES` points; None where it was never set."""
    value, etag = read_alias(artifacts.store, _alias_key(name))
    return Alias(value["release"], etag) if value and etag else None


def named_releases(artifacts: Artifacts) -> dict[str, str]:
    """Every alias that names a release now, and that release."""
    folder = f"{home('release')}/aliases"
    names = [meta.key.rpartition("/")[2] for meta in artifacts.store.objects(folder)]
    aliases = {name: read_release_alias(artifacts, name) for name in names}
    return {name: alias.release for name, alias in aliases.items() if alias and alias.release}


def resolve_release(artifacts: Artifacts, name: str) -> str:
    """The id behind an alias, an id, or the beginning of one.

    A name that is neither is given back; reading it says that there is no such release.
    Raises NotFound for an alias that was never set and BadInput where several ids begin so.
    """
    if name in ALIASES:
        alias = read_release_alias(artifacts, name)
        if alias is None or not alias.release:
            raise NotFound(_NONE[name])
        return alias.release
    found = [one.version for one in list_releases(artifacts) if one.version.startswith(name)]
    if len(found) > 1 and name not in found:
        raise BadInput(f"several releases begin with {name!r}: {', '.join(found)}")
    return found[0] if len(found) == 1 else name


def point(artifacts: Artifacts, name: str, release_id: str, expected: Alias | None, note: str = "") -> None:
    """Moves an alias from where the caller saw it. Raises Conflict when it has moved since."""
    value: dict[str, Any] = {"release": release_id, "note": note}
    move_alias(artifacts.store, _alias_key(name), value, expected.etag if expected else None)


def promote(
    artifacts: Artifacts, release_id: str, *, expected: Alias | None, note: str = "", by: str = ""
) -> None:
    """Makes a release the champion if the champion is still `expected`; the old one becomes `previous`.

    `note` says why and `by` who; both stand in the history.
    Raises NotFound for an unknown release and Conflict when somebody else promoted in between.
    """
    artifacts.get("release", release_id)  # its manifest: a record without one is being pruned
    point(artifacts, "champion", release_id, expected, note)
    champion = expected.release if expected else None
    note_event(artifacts, release_id, "promoted", note=note, by=by, champion=champion)
    if expected and expected.release != release_id:
        _force(artifacts, "previous", expected.release)


def rollback(artifacts: Artifacts, *, by: str = "") -> str:
    """Makes `previous` the champion again and returns its id. Raises NotFound where there is none."""
    champion, previous = (read_release_alias(artifacts, name) for name in ("champion", "previous"))
    if previous is None:
        raise NotFound("no previous release to roll back to")
    promote(artifacts, previous.release, expected=champion, note="rollback", by=by)
    return previous.release


def pin(
    artifacts: Artifacts, release_id: str, *, expected: Alias | None, note: str = "", by: str = ""
) -> None:
    """Makes a release serve until it is unpinned, whatever is promoted meanwhile.

    Raises NotFound for an unknown release and Conflict when the pin is not where the caller saw it.
    """
    artifacts.get("release", release_id)
    point(artifacts, "pinned", release_id, expected, note)
    note_event(artifacts, release_id, "pinned", note=note, by=by)


def unpin(artifacts: Artifacts, *, expected: Alias | None, by: str = "") -> None:
    """Lets the champion serve again. Raises NotFound where nothing is pinned, and Conflict like `pin`."""
    if expected is None or not expected.release:
        raise NotFound(_NONE["pinned"])
    point(artifacts, "pinned", "", expected)
    note_event(artifacts, expected.release, "unpinned", by=by)


def note_event(artifacts: Artifacts, release_id: str, event: str, **facts: Any) -> None:
    """Appends to the history that a release was judged, promoted or pinned; `facts` are JSON values."""
    now = datetime.now(UTC)
    row = {"release": release_id, "event": event, "at": now.isoformat(timespec="milliseconds"), **facts}
    # Names sort by time; the token keeps two events of one moment apart.
    name = f"{now:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}.json"
    artifacts.store.create(f"{_HISTORY}/{release_id}/{name}", orjson.dumps(row))


def note_judgment(artifacts: Artifacts, release_id: str, facts: dict[str, Any]) -> None:
    """Notes that a release was judged, unless that is what its last judgment says already."""
    facts = orjson.loads(orjson.dumps(facts))
    last = [row for row in history(artifacts, release_id) if row["event"] == "judged"][-1:]
    if not last or any(last[0].get(name) != value for name, value in facts.items()):
        note_event(artifacts, release_id, "judged", **facts)


def history(artifacts: Artifacts, release_id: str) -> list[dict[str, Any]]:
    """What happened to a release, oldest first: rows with `event`, `at` and the event's facts."""
    keys = [meta.key for meta in artifacts.store.objects(f"{_HISTORY}/{release_id}")]
    return [orjson.loads(artifacts.store.get(key)) for key in keys]


def describe(artifacts: Artifacts, release_id: str) -> dict[str, Any]:
    """The release with the gate's last judgment, its history and the aliases that point at it, for people."""
    aliases = {name: read_release_alias(artifacts, name) for name in ALIASES}
    manifest = artifacts.get("release", release_id)
    events = history(artifacts, release_id)
    judged = [row for row in events if row["event"] == "judged"]
    return {
        "id": release_id,
        "created_at": manifest.created_at,
        "aliases": [name for name, alias in aliases.items() if alias and alias.release == release_id],
        "gate": judged[-1] if judged else None,
        "history": events,
        **asdict(read_release(artifacts, release_id)),
    }


def _alias_key(name: str) -> str:
    return f"{home('release')}/aliases/{name}"


def _force(artifacts: Artifacts, name: str, release_id: str) -> None:
    while True:
        try:
            point(artifacts, name, release_id, read_release_alias(artifacts, name))
            return
        except Conflict:
            continue
