"""From cleaned pieces to the published corpus: deduplicated part files, quarantine, conservation counts.

A part file holds the documents of a run of pieces. Where a run ends depends on each piece alone, never on its
neighbors (content-defined chunking: Muthitacharoen et al., "A Low-bandwidth Network File System", 2001). So
a change of one object changes one part; all others are kept from the version before, byte for byte what a
run from scratch writes. Every later stage makes its parts from these, one from one.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from alchemy.artifacts import Artifacts, Draft
from alchemy.corpus import (
    Cleaned,
    CleanJob,
    Piece,
    Run,
    clean_pieces,
    document_lines,
    pieces_of,
    rejected_lines,
)
from alchemy.errors import ContractBroken
from alchemy.ledger import Counted, Ledger, enter, plan_drops
from alchemy.records import RawObject, Rejected, fingerprint, to_line
from alchemy.settings import CleanOptions
from alchemy.store import Store
from alchemy.text.dedup import Dropped

CONSERVATION = "conservation.json"
COLUMNS = "columns.json"  # names of all metrics that the documents have
_MOST_PARTS = 1024  # about; a larger corpus gets larger parts
_OUTCOMES = ("duplicate", "filtered", "quarantined")


@dataclass(frozen=True, slots=True)
class Corpus:
    """What `assemble` made: counts per source, rejected rows per reason, and how much of it was new."""

    conservation: dict[str, dict[str, int]]
    reasons: dict[str, int]
    documents: int
    parts: int
    parts_written: int


def wash(
    artifacts: Artifacts,
    job: CleanJob,
    objects: Sequence[RawObject],
    run: Run,
    corpus: Draft,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Corpus, int]:
    """Cleans what is new, fills the draft of the corpus and publishes the quarantine beside it.

    Args:
        run: Cleans pieces: `clean` of an engine.
        progress: Called with bytes that are cleaned, and all that have to be.

    Returns:
        What was made, and how many pieces had to be cleaned.
    """
    new = 0

    def cleaned() -> Iterator[Cleaned]:
        nonlocal new
        for one, is_new in clean_pieces(job, pieces_of(objects), run, progress):
            new += is_new
            yield one

    ledger = enter(cleaned())
    with artifacts.draft(replace(corpus.request, asset="quarantine")) as quarantine:
        made = assemble(artifacts.store, ledger, corpus, quarantine, job.options)
        artifacts.publish(quarantine, {"rows": sum(made.reasons.values()), "reasons": made.reasons})
    return made, new


def assemble(store: Store, ledger: Ledger, corpus: Draft, quarantine: Draft, options: CleanOptions) -> Corpus:
    """Writes the documents that stay and all rejected rows as part files, in order of raw key.

    `records_in = kept + duplicate + filtered + quarantined` holds for every source by what was read and
    what was written, counted apart.

    Raises:
        ContractBroken: The stored rows of a piece are not as many as were made of it.
    """
    dropped = plan_drops(store, ledger, options)
    groups = group([one.piece for one in ledger.pieces], options.part_bytes)
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    columns: set[str] = set()
    documents = written = 0
    for number, members in enumerate(groups):
        path = f"part-{number:05d}.jsonl"
        pieces = [ledger.pieces[member] for member in members]
        drops = [dropped.get(member, {}) for member in members]
        made_from = fingerprint(
            [[one.digest, sorted(drop.items())] for one, drop in zip(pieces, drops, strict=True)], length=40
        )
        if corpus.had(made_from) and quarantine.had(made_from):
            row = corpus.keep(path, made_from)
            quarantine.keep(path, made_from)
        else:
            row = _write_part(store, pieces, drops, corpus.folder / path, quarantine.folder / path)
            corpus.note(path, made_from, row)
            quarantine.note(path, made_from, {})
            written += 1
        for one in pieces:
            count = counts.setdefault(one.piece.raw.source, Counter())
            count["records_in"] += one.documents + one.rejected
            columns.update(one.columns)
        for source, outcomes in row["written"].items():
            counts[source].update(outcomes)
        reasons.update(row["reasons"])
        documents += row["rows"]
    conservation = {
        source: {name: count[name] for name in ("records_in", "kept", *_OUTCOMES)}
        for source, count in sorted(counts.items())
    }
    (corpus.folder / CONSERVATION).write_bytes(orjson.dumps(conservation, option=orjson.OPT_INDENT_2))
    (corpus.folder / COLUMNS).write_bytes(orjson.dumps(sorted(columns)))
    return Corpus(conservation, dict(sorted(reasons.items())), documents, len(groups), written)


def unbalanced(conservation: dict[str, dict[str, int]]) -> dict[str, int]:
    """The sources whose records do not add up, with how many are missing (negative: too many)."""
    missing = {
        source: count["records_in"] - sum(count[name] for name in ("kept", *_OUTCOMES))
        for source, count in conservation.items()
    }
    return {source: number for source, number in missing.items() if number}


def group(pieces: Sequence[Piece], part_bytes: int) -> list[list[int]]:
    """Runs of pieces that share a part file, as indexes; at least one, empty where there are no pieces.

    A piece ends its run with a probability of its bytes over the bytes that a part aims for, decided by the
    hash of its place. The aim is a power of two, so that it seldom moves while a corpus grows.
    """
    total = sum(piece.end - piece.start for piece in pieces)
    aim = max(part_bytes, 1 << max(0, total // _MOST_PARTS).bit_length())
    groups: list[list[int]] = [[]]
    for number, piece in enumerate(pieces):
        groups[-1].append(number)
        place = f"{piece.raw.key}\0{piece.start}".encode()
        draw = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest()) / 2**64
        if draw * aim < piece.end - piece.start and number + 1 < len(pieces):
            groups.append([])
    return groups


def _write_part(
    store: Store,
    pieces: Sequence[Counted],
    drops: Sequence[Mapping[int, Dropped]],
    documents: Path,
    quarantine: Path,
) -> dict[str, Any]:
    """One part of the corpus and of the quarantine; what was written, by source and by reason."""
    written: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    with documents.open("wb") as kept, quarantine.open("wb") as others:
        for one, drop in zip(pieces, drops, strict=True):
            raw = one.piece.raw
            count = written.setdefault(raw.source, Counter())
            before = count.total()
            for index, line in enumerate(document_lines(store, one.digest, one.documents)):
                if index not in drop:
                    kept.write(line)
                    count["kept"] += 1
                    continue
                row = _duplicate(one.piece, orjson.loads(line)["locator"], drop[index])
                others.write(to_line(row))
                count["duplicate"] += 1
                reasons[row.reason] += 1
            for line in rejected_lines(store, one.digest, one.rejected):
                others.write(line)
                found = orjson.loads(line)
                count[found["outcome"]] += 1
                reasons[found["reason"]] += 1
            if count.total() - before != one.documents + one.rejected:
                raise ContractBroken(
                    f"{raw.key}: {one.documents + one.rejected} records were read and"
                    f" {count.total() - before} are stored under processed/objects/{one.digest};"
                    " delete that folder and run again"
                )
    rows = sum(count["kept"] for count in written.values())
    return {"rows": rows, "written": written, "reasons": reasons}


def _duplicate(piece: Piece, locator: str, drop: Dropped) -> Rejected:
    raw = piece.raw
    return Rejected(raw.source, raw.key, raw.sha256, locator, "duplicate", "dedup", drop.reason, drop.kept_id)
