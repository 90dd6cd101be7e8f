"""Decides which documents repeat another one almost word for word: MinHash finds pairs, true Jaccard decides.

A text is a set of shingles: five words in a row, or five characters of Chinese, Japanese or Korean. The
`Sketch` of a document, its hashed LSH bands, is made when the document is and kept with it, so a run over
unchanged objects compares sketches only; the texts of the few candidates are read again to count what they
really share.

Two documents are near duplicates only if they name the same identifiers in the same order: words with a
digit (versions, issue keys, dates, amounts, pseudonyms), and the key of a record that is a thing of its own
(issue, pull request, commit, row, feedback). So what a template made stays: release notes of two versions,
two issues with one text, "from 1.2 to 1.3" and its revert. The identifiers are hashed into every band; texts
that differ in one never even meet.

Of near duplicates the longest stays, of equally long ones the newest, then the first in order. A document
is dropped only for one that is kept and is itself alike enough: likeness is never passed on along a chain.
"""

import base64
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alchemy.records import Document
from alchemy.text.dedup import Dropped, OrderKey, moment

WORDS = 5  # of a shingle
LEAST_SHINGLES = 20  # shorter texts are compared exactly only
# A pair as alike as j is found with 1 - (1 - j**8)**12: 0.9988 at 0.9, 0.51 at 0.7, 0.05 at 0.5.
_BANDS, _BAND_ROWS = 12, 8
_SEED = 1
_MOST_COMPARED = 64  # kept documents that one band remembers; bounds the work on masses of alike texts
_OWN_THINGS = frozenset({"issue", "pull_request", "commit", "row", "feedback"})

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
# From the beginning of a word: each of its other letters would be one more start that fails.
_IDENTIFIER = re.compile(rf"(?<![^\W{_CJK}])[^\W\d{_CJK}]*+\d(?:[^\W{_CJK}]|[-.:/](?=\w))*")


@dataclass(frozen=True, slots=True)
class Sketch:
    """A published document as this module sees it. `bands` is what `sketch` returned."""

    id: str
    order_key: OrderKey
    updated: str
    size: int
    bands: str


Shingles = Callable[[Sequence[OrderKey]], Mapping[OrderKey, np.ndarray]]


def sketch(document: Document) -> str:
    """The hashed bands of a document as base64, 128 characters; empty for a short text."""
    import rensa

    shingles = _shingles(f"{document.title}\n{document.text}")
    if len(shingles) < LEAST_SHINGLES:
        return ""
    minhash = rensa.RMinHash(num_perm=_BANDS * _BAND_ROWS, seed=_SEED)
    minhash.update(sorted(shingles))
    rows = np.array(minhash.digest(), dtype="<u4").reshape(_BANDS, _BAND_ROWS)
    identity = "\0".join(_identifiers(document)).encode()
    hashes = (
        hashlib.blake2b(bytes([number]) + row.tobytes() + identity, digest_size=8).digest()
        for number, row in enumerate(rows)
    )
    return base64.b64encode(b"".join(hashes)).decode()


def shingle_hashes(title: str, text: str) -> np.ndarray:
    """Sorted 32-bit hashes of a document's shingles; what `jaccard` counts."""
    hashes = {zlib.crc32(shingle.encode()) for shingle in _shingles(f"{title}\n{text}")}
    return np.array(sorted(hashes), dtype="<u4")


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Shared part of two sets, each sorted and without repetitions."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def plan_near_duplicates(
    sketches: Sequence[Sketch], shingles: Shingles, threshold: float
) -> dict[tuple[str, OrderKey], Dropped]:
    """Which documents to drop, by (id, order key); it does not depend on the order of `sketches`.

    Shingles are asked for once, for documents that share a band.
    """
    wide = [one for one in sketches if one.bands] if threshold else []
    bands = _bands(base64.b64decode(one.bands) for one in wide)
    shared = _shared(bands)
    meeting = np.flatnonzero(shared.any(axis=1)).tolist()
    chosen = _by_preference([(wide[number], bands[number][shared[number]].tolist()) for number in meeting])
    sets = shingles([one.order_key for one, _ in chosen])
    dropped: dict[tuple[str, OrderKey], Dropped] = {}
    kept: dict[int, list[int]] = {}
    for number, (one, own) in enumerate(chosen):
        keeper = _alike(sets[one.order_key], own, kept, chosen, sets, threshold)
        if keeper:
            dropped[one.id, one.order_key] = Dropped("near_duplicate", keeper.id, keeper.order_key)
            continue
        for band in own:
            members = kept.setdefault(band, [])
            if len(members) < _MOST_COMPARED:
                members.append(number)
    return dropped


def sharing_a_band(sketches: Iterable[bytes]) -> npt.NDArray[np.bool_]:
    """For each of many decoded sketches, none of them empty, whether it shares a band with another one.

    Memory: 110 bytes a sketch, and 30 more while it works.
    """
    return np.asarray(_shared(_bands(sketches)).any(axis=1))


def _bands(sketches: Iterable[bytes]) -> npt.NDArray[np.uint64]:
    """The bands as numbers, [sketches, bands]."""
    data = bytearray()
    for sketch in sketches:
        data += sketch
    return np.frombuffer(data, dtype="<u8").reshape(-1, _BANDS)


def _shared(bands: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which of the bands another sketch has too. A band's hash holds its number: columns never meet."""
    shared = np.zeros(bands.shape, np.bool_)
    for number in range(_BANDS):
        values, counts = np.unique(bands[:, number], return_counts=True)
        shared[:, number] = np.isin(bands[:, number], values[counts > 1])
    return shared


def _by_preference(rows: list[tuple[Sketch, list[int]]]) -> list[tuple[Sketch, list[int]]]:
    rows.sort(key=lambda row: row[0].order_key)
    rows.sort(key=lambda row: moment(row[0].updated), reverse=True)  # stable: equals keep their order
    rows.sort(key=lambda row: -row[0].size)
    return rows


def _alike(
    own: np.ndarray,
    bands: Sequence[int],
    kept: Mapping[int, list[int]],
    chosen: Sequence[tuple[Sketch, list[int]]],
    sets: Mapping[OrderKey, np.ndarray],
    threshold: float,
) -> Sketch | None:
    """The kept document, best first, that is at least `threshold` alike."""
    met = Counter(number for band in bands for number in kept.get(band, ()))
    for number in sorted(met):
        other = chosen[number][0]
        theirs = sets[other.order_key]
        sizes = sorted((len(own), len(theirs)))
        if sizes[0] >= threshold * sizes[1] and jaccard(own, theirs) >= threshold:
            return other
    return None


class ShingleFile:
    """Shingles of many documents in one file, so that memory holds only those that are compared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[OrderKey, tuple[int, int]] = {}

    def write(self, rows: Iterator[tuple[OrderKey, np.ndarray]]) -> None:
        position = 0
        with self._path.open("wb") as file:
            for order_key, hashes in rows:
                file.write(hashes.tobytes())
                self._places[order_key] = position, len(hashes)
                position += len(hashes)

    def read(self) -> Mapping[OrderKey, np.ndarray]:
        whole = np.memmap(self._path, dtype="<u4", mode="r") if self._places else np.empty(0, "<u4")
        return {key: whole[start : start + length] for key, (start, length) in self._places.items()}


def _shingles(text: str) -> set[str]:
    tokens = _TOKEN.findall(text.casefold())
    return {" ".join(tokens[start : start + WORDS]) for start in range(len(tokens) - WORDS + 1)}


def _identifiers(document: Document) -> list[str]:
    """What a document names, each once and in order."""
    own = [document.kind, document.source, document.key] if document.kind in _OWN_THINGS else []
    found = _IDENTIFIER.findall(f"{document.title}\n{document.text}".casefold())
    return [*own, *dict.fromkeys(found)]
