"""What may be deleted, and how: versions that nothing needs, and results of pieces that are listed no more.

Kept are the releases of the last events, those that an alias names, every `latest`, what was the newest of
its asset within the grace (a run may be reading it), and all that those were made from. Aliases, the history
and folders that never had a manifest are not touched.

A version goes manifest first: from then on it does not exist, and what is left of it is no version. Its
manifest is set aside in the folder until all else is gone, so an interrupted prune is finished by the next
one, and a version that an alias names or a run has used meanwhile comes back.

A run that needs what goes at this very moment fails, and does well when it is repeated: nothing wrong is
published. What the grace cannot see is a run that publishes again the content of an old version between two
looks at the aliases; so prune when no run is under way.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter

import orjson

from alchemy.artifacts import MANIFEST, Artifact, Artifacts, Request, home, read_alias
from alchemy.corpus import CLEANER_VERSION, CleanJob, pieces_of
from alchemy.errors import Conflict, NotFound
from alchemy.lineage import known_assets
from alchemy.parts import read_parts
from alchemy.records import SOURCES, RawObject
from alchemy.release import history, named_releases, read_release
from alchemy.store import Store

GRACE = timedelta(hours=1)
PRUNED = "pruned.json"  # the manifest of a version that is being deleted
_RESULTS = "processed/objects"  # of `corpus.clean_piece`, by digest
_VERSION = re.compile(r"[0-9a-f]{20}")
_AT_ONCE = 16  # folders that are deleted at once

Key = tuple[str, str]  # asset, version


@dataclass(frozen=True, slots=True)
class Doomed:
    """A folder that goes."""

    folder: str
    keys: tuple[str, ...]  # all its objects, in the order to delete them
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes and what stays."""

    releases: tuple[str, ...]  # ids of those that stay
    versions: dict[Key, Doomed]  # in the order to take them away: none loses its inputs before it goes itself
    results: tuple[Doomed, ...]  # of cleaned pieces
    note: str = ""  # why the results are left alone, "" where they are not

    @property
    def size(self) -> int:
        """Bytes of all that goes."""
        return sum(one.size for one in (*self.versions.values(), *self.results))

    def counts(self) -> dict[str, int]:
        """Versions that go, by asset."""
        return dict(sorted(Counter(asset for asset, _ in self.versions).items()))


def plan_prune(
    artifacts: Artifacts, job: CleanJob, *, keep: int, now: datetime | None = None, grace: timedelta = GRACE
) -> Plan:
    """What a prune would delete.

    Args:
        job: How pieces are cleaned now; decides which results belong to a piece that is listed.
        keep: How many releases stay, by their last events, besides those that an alias names.
        grace: What is younger, or was the newest until then, stays.
    """
    cutoff = (now or datetime.now(UTC)) - grace
    versions = {asset: artifacts.versions(asset) for asset in known_assets(artifacts)}
    roots = {(one.asset, one.version) for found in versions.values() for one in recent(found, cutoff)}
    roots |= set(_latest(artifacts, versions))
    stay = _chosen_releases(artifacts, versions["release"], keep)
    stay |= {version for asset, version in roots if asset == "release"}
    releases = [one.version for one in versions["release"] if one.version in stay]
    for release in releases:
        roots |= {("release", release), *read_release(artifacts, release).parts.items()}
    complete = {(one.asset, one.version): one.inputs for found in versions.values() for one in found}
    kept = reachable(complete, roots)
    results, note = _doomed_results(artifacts, job, versions, cutoff)
    doomed = dict(_doomed_versions(artifacts.store, versions, complete, kept))
    order = TopologicalSorter({key: complete.get(key, {}).items() for key in doomed}).static_order()
    ordered = {key: doomed[key] for key in reversed(list(order)) if key in doomed}
    return Plan(tuple(releases), ordered, results, note)


def prune(artifacts: Artifacts, plan: Plan) -> Plan:
    """Deletes what was planned; returns what of it was deleted indeed."""
    store = artifacts.store
    going = {key: _set_aside(store, one.folder) for key, one in plan.versions.items()}
    # Since the plan was made an alias may have moved, or a run may have used a version; so far only manifests
    # are gone, and those of the versions that stay name all that has to come back.
    assets = known_assets(artifacts)
    roots = {("release", one) for one in named_releases(artifacts).values()} | set(_latest(artifacts, assets))
    roots |= {key for asset in assets for one in artifacts.versions(asset) for key in one.inputs.items()}
    needed = reachable(going, roots) & going.keys()
    for key in reversed(going):
        if key in needed:
            _restore(store, plan.versions[key].folder)
    versions = {key: one for key, one in plan.versions.items() if key not in needed}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda one: _delete(store, one), (*versions.values(), *plan.results)))
    return replace(plan, versions=versions)


def recent(versions: Sequence[Artifact], cutoff: datetime) -> list[Artifact]:
    """The versions of an asset, oldest first, that were its newest at some time after the cutoff."""
    until = [datetime.fromisoformat(one.created_at) for one in versions[1:]]
    superseded = sum(end <= cutoff for end in until)
    return list(versions[superseded:])


def reachable(inputs: Mapping[Key, Mapping[str, str]], roots: Iterable[Key]) -> set[Key]:
    """The roots and all that they were made from, by the inputs of each version."""
    found: set[Key] = set()
    waiting = list(roots)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += inputs.get(key, {}).items()
    return found


def _chosen_releases(artifacts: Artifacts, releases: Sequence[Artifact], keep: int) -> set[str]:
    """Ids of the releases that an alias names, and of those with the last events."""
    last = {
        one.version: max([one.created_at, *(row["at"] for row in history(artifacts, one.version))])
        for one in releases
    }
    newest = sorted(last, key=lambda release: (last[release], release))[-keep:]
    return {*named_releases(artifacts).values(), *newest}


def _latest(artifacts: Artifacts, assets: Iterable[str]) -> Iterator[Key]:
    for asset in assets:
        alias, _ = read_alias(artifacts.store, f"{home(asset)}/latest")
        if alias:
            yield asset, alias["version"]


def _doomed_versions(
    store: Store, assets: Iterable[str], complete: Collection[Key], kept: Collection[Key]
) -> Iterator[tuple[Key, Doomed]]:
    """The versions that nothing needs, and what an interrupted prune has left of others."""
    for asset in assets:
        for name in store.folders(home(asset)):
            folder = f"{home(asset)}/{name}"
            if not _VERSION.fullmatch(name) or (asset, name) in kept:
                continue
            if (asset, name) not in complete and not _is_set_aside(store, folder):
                continue  # a run may be publishing it
            objects = [meta for meta in store.objects(folder) if meta.key not in _manifests(folder)]
            keys = (*(meta.key for meta in objects), f"{folder}/{PRUNED}")
            yield (asset, name), Doomed(folder, keys, sum(meta.size for meta in objects))


def _manifests(folder: str) -> tuple[str, str]:
    """Where the manifest of a version is, and where it is set aside."""
    return f"{folder}/{MANIFEST}", f"{folder}/{PRUNED}"


def _is_set_aside(store: Store, folder: str) -> bool:
    manifest, aside = _manifests(folder)
    return store.head(manifest) is None and store.head(aside) is not None


def _doomed_results(
    artifacts: Artifacts, job: CleanJob, versions: Mapping[str, Sequence[Artifact]], cutoff: datetime
) -> tuple[tuple[Doomed, ...], str]:
    """Results of pieces that no listing has, or why that cannot be told."""
    names = [f"raw/{source}" for source in SOURCES]
    current = dict(_latest(artifacts, names))
    parameters = {"options": job.options.model_dump(), "salt": job.salt_digest}
    wanted = Request("cleaned_corpus", current, CLEANER_VERSION, parameters)
    corpus, _ = read_alias(artifacts.store, f"{home('cleaned_corpus')}/latest")
    if corpus is None or corpus["fingerprint"] != wanted.fingerprint:
        # With other options or another salt every result would look unused.
        return (), "cleaned_corpus was not made from the current listings with these settings"
    listings = {key: artifacts.get(*key) for key in current.items()}
    for name in names:
        listings |= {(one.asset, one.version): one for one in recent(versions.get(name, ()), cutoff)}
    used = {
        job.digest(piece)
        for listing in listings.values()
        for piece in pieces_of(read_parts(RawObject, artifacts.parts(listing)))
    }
    found: dict[str, list[tuple[str, int]]] = {}
    young = set()
    for meta in artifacts.store.objects(_RESULTS):
        folder, _, name = meta.key.rpartition("/")
        if folder.rpartition("/")[2] not in used:
            found.setdefault(folder, []).append((meta.key, meta.size))
            if meta.modified > cutoff:
                young.add(folder)
    return tuple(_doomed_result(folder, rows) for folder, rows in found.items() if folder not in young), ""


def _doomed_result(folder: str, rows: Sequence[tuple[str, int]]) -> Doomed:
    summary = f"{folder}/summary.json"  # says that the rest is whole, so it goes first
    keys = sorted((key for key, _ in rows), key=lambda key: key != summary)
    return Doomed(folder, tuple(keys), sum(size for _, size in rows))


def _set_aside(store: Store, folder: str) -> dict[str, str]:
    """Takes the version away from readers; returns its inputs."""
    manifest, aside = _manifests(folder)
    try:
        data = store.get(manifest)
    except NotFound:  # an interrupted prune has done it
        data = store.get(aside)
    else:
        store.put(aside, data)
        store.delete(manifest)
    return dict(orjson.loads(data)["inputs"])


def _restore(store: Store, folder: str) -> None:
    manifest, aside = _manifests(folder)
    with suppress(Conflict):  # published again meanwhile
        store.create(manifest, store.get(aside))
    store.delete(aside)


def _delete(store: Store, doomed: Doomed) -> None:
    for key in doomed.keys:
        store.delete(key)
