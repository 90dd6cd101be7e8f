"""A clause of a question, and how words become one: in their order, or as nouns that may be put two ways.

Not for which of the two holds; that is grammar (`english`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serving.caching import rewording
from serving.caching.english_words import GENITIVE, PREPOSITIONS, same
from serving.caching.rewording import Words

_SEAM = "|"
_COMPLEMENTS = frozenset(("+of", "+for"))
_WITH_OF = frozenset("notify inform warn remind advis convinc accus think hear dispos complain".split())  # noqa: SIM905


@dataclass(frozen=True, order=True)
class Clause:
    """One statement of a question; equal where it says the same."""

    link: str = ""  # what ties it to the rest: if, that, because
    asks: str = ""  # which, who, how many, whether...; "" in a statement
    marks: Words = ()  # tense, mood, negation and adverbs of the verb, sorted
    acts: Words = ()  # verbs whose object is what is spoken of: "do we store X" is "is X stored"
    words: Words = ()  # what is spoken of, in order
    phrases: tuple[Words, ...] = ()  # led by a preposition, sorted: they may stand in front or at the end


def nouns(tokens: Sequence[str], marks: set[str], verb: str = "") -> Clause:
    """Nouns and their phrases without a verb between them, where "X of Y" is "Y X".

    Beside a verb "for" may be the verb's, and "of" with some: to bill customers for tags is not to bill
    customers of tags.
    """
    genitive = {"of"} - ({"of"} if verb in _WITH_OF else set()) if verb else GENITIVE
    parts: list[tuple[list[str], list[list[str]]]] = [([], [[]])]
    for token, after in pairwise([*tokens, "in"]):
        # A preposition without its noun asks for that: whom do we pay, and whom do we pay for?
        headless = after in PREPOSITIONS or not any(parts[-1][1])
        if token in genitive and not headless:
            parts[-1][1].append([])
        elif token in PREPOSITIONS | GENITIVE | _COMPLEMENTS:
            parts.append(([token.removeprefix("+")], [[]]))
        else:
            parts[-1][1][-1].append(token)
    return _built(
        ((lead, [word for group in reversed(groups) for word in group]) for lead, groups in parts), marks
    )


def swapped(tokens: Sequence[str]) -> list[str]:
    """A noun phrase in front of an auxiliary: "version of Kafka" is "Kafka version"."""
    if PREPOSITIONS.intersection(tokens):
        return [*tokens]
    groups: list[list[str]] = [[]]
    for word in tokens:
        if word == "of":
            groups.append([])
        else:
            groups[-1].append(word)
    return [word for group in reversed(groups) for word in group]


def in_order(tokens: Sequence[str], marks: set[str]) -> Clause:
    """Words among which a verb hides: every word in its order."""
    parts: list[tuple[list[str], list[str]]] = [([], [])]
    for token in tokens:
        if token in PREPOSITIONS | _COMPLEMENTS:
            parts.append(([token.removeprefix("+")], []))
        else:
            parts[-1][1].append(token)
    return _built(iter(parts), marks)


def _built(parts: Iterator[tuple[list[str], list[str]]], marks: set[str]) -> Clause:
    dropped = rewording.english().dropped
    said = [(*lead, *(same(word) for word in words if word not in dropped)) for lead, words in parts]
    return Clause(marks=tuple(sorted(marks)), words=said[0], phrases=tuple(sorted(said[1:])))


def joined(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What stands before and after a verb that went. The seam stays: it says who does what to whom.

    "Which customers do partners call?" is not "which customer partners call?"
    """
    seam = before and after and after[0] not in PREPOSITIONS | GENITIVE
    return [*before, *([_SEAM] if seam else []), *(complement(after) if before else after)]


def complement(after: Sequence[str]) -> list[str]:
    """What follows a verb: its "for" and "of" belong to the verb, as in "pay for"."""
    return [f"+{after[0]}", *after[1:]] if after and after[0] in GENITIVE else [*after]
