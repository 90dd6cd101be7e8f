"""Remembers questions and finds those that ask the same in nearly the same words.

A question is the set of its telling words: function words say nothing, a quoted title or an identifier is
one word, Chinese, Japanese and Korean are taken in pairs of characters. Two questions are alike when their
sets are (Jaccard) and they name the same numbers and identifiers: "the status of HAUL-97" is not "the status
of HAUL-98".

Exact, and not quadratic: alike sets share a word among their first few in any fixed order (prefix filter:
Bayardo, Ma, Srikant, "Scaling Up All Pairs Similarity Search", WWW 2007). Long words come first because they
are rare, so that few questions are ever compared.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass

from alchemy.synthesis.grounding import identifiers, normalize_question, numbers

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_QUOTED = re.compile(r'"[^"]+"|“[^”]+”|《[^》]+》|「[^」]+」')
_WORD = re.compile(rf"[{_CJK}]+|[^\W{_CJK}]+")
# What is left when these are gone decides; who, when, where, why and how ask for different things.
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an the this that these those is are was were be been do does did has have had can could would "
        "will should may might i we you it its they me us our your of in on at to for from by with about "
        "as and or there what which please tell explain describe s"
    )
)
_FUNCTION_CHARACTERS = re.compile("[的了吗呢吧请是]")


@dataclass(frozen=True, slots=True)
class _Known:
    words: frozenset[str]
    names: frozenset[str]
    origin: str


class Questions:
    """Questions, each with the word for where it comes from."""

    def __init__(self, threshold: float) -> None:
        """Questions are alike from this Jaccard similarity on; 1: equal but for function words."""
        self._threshold = threshold
        self._by_word: defaultdict[str, list[_Known]] = defaultdict(list)

    def add(self, question: str, origin: str) -> None:
        """Remembers a question."""
        known = _Known(telling_words(question), _names(question), origin)
        for word in self._prefix(known.words):
            self._by_word[word].append(known)

    def origins_of_alike(self, question: str) -> set[str]:
        """Where the remembered questions come from that are alike."""
        words, names = telling_words(question), _names(question)
        met = [known for word in self._prefix(words) for known in self._by_word.get(word, ())]
        return {
            known.origin
            for known in met
            if known.names == names and jaccard(known.words, words) >= self._threshold
        }

    def _prefix(self, words: frozenset[str]) -> list[str]:
        """As many words as a set must have for one of them to be in every set that is alike enough."""
        ordered = sorted(words, key=lambda word: (-len(word), word))
        return ordered[: len(words) - math.ceil(self._threshold * len(words) - 1e-9) + 1]


def telling_words(question: str) -> frozenset[str]:
    """The words that make a question this one and no other; never empty for a text with a letter."""
    quoted = {normalize_question(match) for match in _QUOTED.findall(question)}
    unquoted = _QUOTED.sub(" ", question)
    names, rest = identifiers(unquoted), unquoted.casefold()
    for name in sorted(names, key=len, reverse=True):
        rest = rest.replace(name, " ")
    words = {part for word in _WORD.findall(rest) for part in _parts(word)}
    return frozenset(quoted | names | words - _FUNCTION_WORDS) or frozenset([normalize_question(question)])


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity of two sets."""
    return len(one & other) / len(one | other)


def _parts(word: str) -> list[str]:
    if not re.match(f"[{_CJK}]", word):
        return [word]
    telling = _FUNCTION_CHARACTERS.sub("", word)
    return [telling[at : at + 2] for at in range(max(1, len(telling) - 1))] if telling else []


def _names(question: str) -> frozenset[str]:
    return frozenset(numbers(question) | identifiers(question))
