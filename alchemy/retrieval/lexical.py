"""Keyword search: BM25 over words, identifiers and Chinese, Japanese and Korean character pairs.

The tokenizer keeps an identifier whole *and* in parts (`TIKA-4833`, `NullPointerException`, `foo_bar`,
`a.b.C`, `2.7.11`), because people paste identifiers and also ask for half of one. Text without spaces is
cut into character bigrams. bm25s computes and stores the statistics; the query side reads its columns
directly, because it also needs to know which terms a passage holds (`coverage`), not only the sum.
"""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemy.errors import ContractBroken

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

K1, B = 1.2, 0.75  # Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework", section 3.4

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = rf"[^\W_{_CJK}]+"
_UNIT = re.compile(
    rf"(?P<cjk>[{_CJK}]+)"
    rf"|(?P<word>{_WORD}(?:(?:[._/:\\@-]|_+|::|->){_WORD})*(?:\+\+|\#)?)(?:['’](?:s|t|re|ve|ll|d|m)\b)?"
)
_MEMBERS = re.compile(r"[/:\\@]+|->")
_PIECE = re.compile(_WORD)
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_CAMEL = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]{2}")  # not the plural of an acronym: APIs
_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[a-f]")
_VOWEL = re.compile(r"[aeiouy]")
_NUMBER = re.compile(r"\d{1,6}[A-Za-z]?|\d+(?:\.\d+)+")
_MONTH_NAMES = """january jan,february feb,march mar,april apr,may,june jun,july jul,august aug,
september sep sept,october oct,november nov,december dec"""
MONTHS = {
    name: number for number, names in enumerate(_MONTH_NAMES.split(","), start=1) for name in names.split()
}
_MONTH = rf"(?P<month>{'|'.join(sorted(MONTHS, key=len, reverse=True))})\.?"
_DATES = (
    re.compile(
        rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?{_MONTH},? (?P<year>\d{{4}})\b", re.IGNORECASE
    ),
    re.compile(rf"\b{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})\b", re.IGNORECASE),
    re.compile(r"(?P<year>\d{4}) ?年 ?(?P<month>\d{1,2}) ?月 ?(?P<day>\d{1,2}) ?日"),
    re.compile(r"\b(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?=T\d)"),
)
_VERSION = re.compile(r"v?\d+(?:\.\d+)+", re.IGNORECASE)
_SHORTEST_DIGEST = 7  # what git shows of a commit's name; headers of chunks have ten digits
_DIGEST = re.compile(rf"(?=.*\d)[0-9a-f]{{{_SHORTEST_DIGEST},64}}")
_LONGEST_WHOLE = 80  # a longer compound (a URL, a path) is only found by its parts

_STOP_WORDS = """
a about after all also am an and any are aren as at be because been before being between both but by can
could couldn did didn do does doesn doing don done during each for from had hadn has hasn have haven having
he her here hers him his how i if in into is isn it its itself just many may me might more most much must my
no nor not of off often on once only or other our out over own please same shall she should shouldn so some
such tell than that the their them then there these they this those through to too under until up upon us
very was wasn we were weren what when where whether which while who whom whose why will with won would
wouldn you your
"""
_STOP = frozenset(_STOP_WORDS.split())
# Characters of Chinese question and function words: a bigram that holds one says nothing about the topic.
_STOP_CJK = frozenset(
    "的了吗呢吧啊是在和与及或个这那哪什么谁怎样多少几如何为被把从到对会能可应该请问有没不要多少其"
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A word, identifier or character bigram of a text: found by `whole`, or in part by its `parts`."""

    whole: str
    parts: tuple[str, ...] = ()
    identifier: bool = False  # a key, version, qualified or camel-case name: worth an exact match
    content: bool = True  # False for function words and the single characters of a CJK run


def units(text: str) -> list[Unit]:
    """The units of a text in reading order. NFKC first: full-width letters and digits are ordinary ones.

    Two kinds of units more come from several words: a capitalized name with a number ("Lantern 1" is not
    "Lantern 2"), and a date, which is one unit in ISO form however it is written.
    """
    text = unicodedata.normalize("NFKC", text)
    found: list[Unit] = []
    name, name_end = "", -1
    for match in _UNIT.finditer(text):
        if run := match["cjk"]:
            found += _cjk_units(run)
            continue
        word = match["word"]
        found.append(_word_unit(word))
        if name and text[name_end : match.start()] == " " and _NUMBER.fullmatch(word):
            found.append(Unit(f"{name} {word}".lower(), identifier=True))
        is_name = (
            word[0].isupper() and word.isalpha() and word.lower() not in _STOP and word.lower() not in MONTHS
        )
        name, name_end = (word, match.end("word")) if is_name else ("", -1)
    return found + [Unit(date, identifier=True) for pattern in _DATES for date in _dates(pattern, text)]


def tokenize(text: str) -> list[str]:
    """What is indexed: every unit whole and in parts, in reading order, with repetitions."""
    return [token for unit in units(text) for token in (unit.whole, *unit.parts)]


def scored_tokens(found: Iterable[Unit]) -> list[str]:
    """What of a text's units can be asked for, in reading order, with repetitions: all but function words."""
    scored = (unit for unit in found if unit.content or _is_single_cjk(unit))
    return [token for unit in scored for token in (unit.whole, *unit.parts)]


def stem(word: str) -> str:
    """Harman's S stemmer (1991, "How effective is suffixing?"), then -ing, -ed and a final e.

    nDCG@10 of BM25 without / with S / with both: Cranfield .369 / .380 / .380, SciFact .680 / .700 / .701;
    the second step does not order better, but `coverage` sees that "disabling" is there as "disabled".
    """
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    word = _singular(word)
    for suffix in ("ing", "ed"):
        base = word.removesuffix(suffix)
        if base != word and len(base) >= 3 and _VOWEL.search(base):
            word = base[:-1] if base[-1] == base[-2] and base[-1] not in "lsz" else base
            break
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def _singular(word: str) -> str:
    if not word.endswith("s") or word.endswith(("us", "ss", "sis", "xis", "aes", "ees", "oes")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]


def _dates(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        month = match["month"].lower()
        yield f"{match['year']}-{MONTHS.get(month) or int(month):02d}-{int(match['day']):02d}"


def _cjk_units(run: str) -> list[Unit]:
    if len(run) == 1:
        return [Unit(run, content=run not in _STOP_CJK)]
    pairs = [run[i : i + 2] for i in range(len(run) - 1)]
    singles = [Unit(character, content=False) for character in run]
    return [Unit(pair, content=not _STOP_CJK.intersection(pair)) for pair in pairs] + singles


def _word_unit(word: str) -> Unit:
    members = _MEMBERS.split(word)
    if len(members) > 1:  # a path, a URL, 3.3.12/3.4.5: its members are found as if they stood alone
        inner = [_word_unit(member) for member in members]
        parts = dict.fromkeys(token for unit in inner for token in (unit.whole, *unit.parts))
        return _compound(word.lower(), parts, identifier=True)
    lowered = word.lower()
    if _VERSION.fullmatch(word):
        numbers = lowered.lstrip("v").split(".")
        prefixes = [".".join(numbers[:n]) for n in range(2, len(numbers))]  # 2.7.11 is found by 2.7
        plain = [lowered.lstrip("v")] if lowered.startswith("v") else []
        return Unit(lowered, (*plain, *prefixes), identifier=True)
    pieces = _PIECE.findall(word)
    humps = [hump for piece in pieces for hump in (_HUMP.findall(piece) if _is_camel(piece) else [piece])]
    if len(humps) == 1 and lowered == humps[0].lower():
        mixed = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)  # E404, utf8
        if lowered in _STOP and not (word.isupper() and len(word) > 1):  # IT is a department, it is not
            return Unit(lowered, content=False)
        return Unit(stem(lowered), identifier=mixed)
    names = {piece.lower() for piece in pieces} if len(pieces) > 1 else set()
    camel = [piece.lower() for piece in pieces if _is_camel(piece)]  # as it is where it stands alone
    parts = dict.fromkeys([*camel, *(stem(part.lower()) for part in (*pieces, *humps))])
    identifier = any(c.isdigit() for c in word) or any(c in word for c in "_.#+") or len(names) < 1
    return _compound(lowered if len(names) > 1 or identifier else stem(lowered), parts, identifier=identifier)


def _compound(whole: str, parts: Iterable[str], *, identifier: bool) -> Unit:
    if len(whole) > _LONGEST_WHOLE:
        first, *rest = parts
        return Unit(first, tuple(rest))
    return Unit(whole, tuple(part for part in parts if part != whole), identifier=identifier)


def _is_camel(piece: str) -> bool:
    return _CAMEL.search(piece) is not None


class Lexical:
    """BM25 statistics of the passages 0..n-1, memory-mapped; see `build` and `open`."""

    def __init__(self, vocabulary: dict[str, int], scores: dict[str, Any]) -> None:
        self.count = int(scores["num_docs"])
        self._vocabulary = vocabulary
        self._data, self._indices, self._indptr = scores["data"], scores["indices"], scores["indptr"]

    @classmethod
    def build(cls, folder: Path, texts: Iterable[str]) -> "Lexical":
        """Indexes the texts in order and writes the statistics (npy and JSON, no pickle) to a folder."""
        import bm25s

        vocabulary: dict[str, int] = {}
        rows = [[vocabulary.setdefault(t, len(vocabulary)) for t in tokenize(text)] for text in texts]
        vocabulary.setdefault("", len(vocabulary))  # bm25s wants a token for empty queries
        index = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
        index.index((rows, vocabulary), show_progress=False)
        _sort_columns(index.scores)
        index.save(folder, allow_pickle=False, show_progress=False)
        return cls(vocabulary, index.scores)

    @classmethod
    def open(cls, folder: Path) -> "Lexical":
        """Maps the statistics of a folder. Raises ContractBroken naming a missing or damaged file."""
        import bm25s

        try:
            index = bm25s.BM25.load(folder, mmap=True, allow_pickle=False, load_corpus=False)
            return cls(index.vocab_dict, {**index.scores, "num_docs": index.scores["num_docs"]})
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ContractBroken(f"{folder}: the BM25 statistics cannot be read: {error}") from error

    def query(self, text: str) -> "LexicalQuery":
        """The query's terms looked up in the vocabulary; a digest is known by its beginning."""
        return LexicalQuery(self, [whole for unit in units(text) for whole in self._whole(unit)])

    def scores(self, query: str, k: int) -> tuple[Ids, Floats]:
        """The k best passages (ids, BM25 scores), best first, ties by id; fewer where fewer match."""
        return best(self.query(query).scores(), k)

    def idf(self, token: str) -> float:
        """ln(1 + (N - df + 0.5) / (df + 0.5)), Lucene's form; largest for a token that is nowhere."""
        frequency = len(self.holders(token))
        return float(np.log1p((self.count - frequency + 0.5) / (frequency + 0.5)))

    def holders(self, token: str) -> npt.NDArray[np.int32]:
        """Ids of the passages that hold a token, ascending."""
        return self._column(token)[0]

    def _whole(self, unit: Unit) -> list[Unit]:
        """The digests that an unknown digest abbreviates, or is abbreviated by; else the unit itself."""
        asked = unit.whole
        if asked in self._vocabulary or not _DIGEST.fullmatch(asked):
            return [unit]
        first, after = (bisect_left(self._digests, end) for end in (asked, asked + "g"))
        shorter = (asked[:length] for length in range(len(asked) - 1, _SHORTEST_DIGEST - 1, -1))
        found = [*self._digests[first:after], *(short for short in shorter if short in self._vocabulary)]
        # Without a letter it is a number, which has no abbreviation.
        known = [digest for digest in found if _LETTER.search(max(asked, digest, key=len))]
        return [Unit(digest, identifier=True) for digest in known] or [unit]

    @cached_property
    def _digests(self) -> list[str]:
        return sorted(filter(_DIGEST.fullmatch, self._vocabulary))

    def _column(self, token: str) -> tuple[npt.NDArray[np.int32], Floats]:
        number = self._vocabulary.get(token)
        if number is None:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        span = slice(int(self._indptr[number]), int(self._indptr[number + 1]))
        return self._indices[span], self._data[span]


class LexicalQuery:
    """One query against the statistics: BM25 scores, term coverage and exact identifiers per passage."""

    def __init__(self, lexical: Lexical, query_units: Sequence[Unit]) -> None:
        self._lexical = lexical
        self._units = list(dict.fromkeys(unit for unit in query_units if unit.content))
        self._tokens = list(dict.fromkeys(scored_tokens(query_units)))

    def scores(self) -> Floats:
        """BM25 of every passage, [count]; zero where no term occurs."""
        total = np.zeros(self._lexical.count, np.float32)
        for token in self._tokens:
            ids, values = self._lexical._column(token)
            total[ids] += values
        return total

    @property
    def attainable(self) -> float:
        """The sum of the terms' idf: no passage can score more (Lucene's term part is below 1)."""
        return sum(self._lexical.idf(token) for token in self._tokens if len(self._lexical.holders(token)))

    def coverage(self, ids: Ids) -> Floats:
        """Idf-weighted share of the query's content units that each passage holds, [len(ids)] in [0, 1].

        A unit that is not there whole counts by the share of its parts. Unlike a BM25 score, this means
        the same for every query: 1 where everything asked about is mentioned.
        """
        return self._held(ids, self._units)

    def exact(self, ids: Ids) -> Floats:
        """Idf-weighted share of the query's *known* identifiers that stand whole in each passage, [len(ids)].

        Zero everywhere for a query without identifiers, or whose identifiers the index has never seen.
        """
        return self._held(ids, [Unit(unit.whole) for unit in self._known_identifiers()])

    def named(self, ids: Ids) -> Floats:
        """Share of the query's numbered identifiers that stand whole in each passage; 1 where it has none.

        Other than `exact` this counts identifiers that the index has never seen: HM-6120 and "Lantern 1" have
        no synonyms, so a passage without them is about something else.
        """
        wanted = [Unit(u.whole) for u in self._units if u.identifier and _DIGIT.search(u.whole)]
        return self._held(ids, wanted) if wanted else np.ones(len(ids), np.float32)

    def identifier_holders(self, limit: int) -> Ids:
        """Passages that hold an identifier of the query whole, rarest identifier first."""
        wholes = sorted(
            (unit.whole for unit in self._known_identifiers()),
            key=lambda whole: (len(self._lexical.holders(whole)), whole),
        )
        found = [self._lexical.holders(whole)[:limit] for whole in wholes]
        return np.unique(np.concatenate(found)).astype(np.int64) if found else np.empty(0, np.int64)

    def _known_identifiers(self) -> list[Unit]:
        return [u for u in self._units if u.identifier and len(self._lexical.holders(u.whole))]

    def _held(self, ids: Ids, wanted: Sequence[Unit]) -> Floats:
        held = np.zeros(len(ids), np.float64)
        weight = 0.0
        for unit in wanted:
            known = len(self._lexical.holders(unit.whole)) > 0
            idf = (
                self._lexical.idf(unit.whole)
                if known or not unit.parts
                else sum(self._lexical.idf(part) for part in unit.parts) / len(unit.parts)
            )
            whole = _contains(self._lexical.holders(unit.whole), ids)
            if unit.parts:
                parts = [_contains(self._lexical.holders(part), ids) for part in unit.parts]
                whole = np.maximum(whole, np.mean(parts, axis=0))
            held += idf * whole
            weight += idf
        return (held / weight if weight else held).astype(np.float32)


def best(scores: Floats, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
    """The k largest positive scores (ids, scores), best first, ties by id."""
    ids = np.flatnonzero(scores > 0) if allowed is None else allowed[scores[allowed] > 0]
    if len(ids) > k:
        floor = np.partition(scores[ids], len(ids) - k)[len(ids) - k]
        ids = ids[scores[ids] >= floor]
    order = np.lexsort((ids, -scores[ids]))[:k]
    return ids[order].astype(np.int64), scores[ids[order]]


def _is_single_cjk(unit: Unit) -> bool:
    return len(unit.whole) == 1 and not unit.whole.isascii()


def _contains(holders: npt.NDArray[np.int32], ids: Ids) -> npt.NDArray[np.float64]:
    if not len(holders):
        return np.zeros(len(ids))
    places = np.minimum(np.searchsorted(holders, ids), len(holders) - 1)
    return (holders[places] == ids).astype(np.float64)


def _sort_columns(scores: dict[str, Any]) -> None:
    """Passage ids ascending within each term, so that membership is a binary search."""
    starts = scores["indptr"].astype(np.int64)
    columns = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((scores["indices"], columns))
    scores["data"], scores["indices"] = scores["data"][order], scores["indices"][order]
