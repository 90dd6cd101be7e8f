"""A clause of a question, and how words become one: in their order, or as a noun phrase.

Not for which of the two holds; that is grammar (`english`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serving.caching import rewording
from serving.caching.english_words import PREPOSITIONS, is_plural, same
from serving.caching.rewording import Words

_SEAM = "|"


@dataclass(frozen=True)
class Clause:
    """One statement of a question; equal where it says the same."""

    link: str = ""  # what ties it to the rest: if, that, because
    asks: str = ""  # which, who, how many, whether...; "" in a statement
    marks: Words = ()  # tense, mood, negation, who acts and adverbs of the verb, sorted
    acts: Words = ()  # verbs whose object is what is spoken of: "do we store X" is "is X stored"
    words: Words = ()  # what is spoken of, in order
    phrases: tuple[Words, ...] = ()  # led by a preposition, in order


def nouns(tokens: Sequence[str], marks: Iterable[str]) -> Clause:
    """Nouns and their phrases without a verb between them: "the size of X" is "X's size"."""
    return _clause(tokens, marks, owned)


def in_order(tokens: Sequence[str], marks: Iterable[str]) -> Clause:
    """Words among which a verb hides: every word in its order."""
    return _clause(tokens, marks, list)


def owned(tokens: Sequence[str]) -> list[str]:
    """A noun phrase, where a property stands behind what has it: "size of X" is "X's size".

    Only the properties of the table: the criticism of the vendor is not the vendor's, and to notify customers
    of outages is not to notify customers' outages. The master key is not the master's; but of what has a
    name there is one only, so the Kafka version is Kafka's.
    """
    properties = rewording.english().properties
    groups: list[list[str]] = [[]]
    for word in tokens:
        if word == "of":
            groups.append([])
        else:
            groups[-1].append(word)
    *before, phrase = groups
    for group in reversed(before):
        belongs = group and phrase and "of" not in phrase and same(group[-1]) in properties
        own = group[group[:1] == ["the"] :]  # the size of X, X's size
        phrase = [*phrase, "'s", *own] if belongs else [*group, "of", *phrase]
    belongs = phrase and same(phrase[-1]) in properties and "of" not in phrase and phrase.count("'s") < 2
    if belongs and any(word[:1].isupper() for word in phrase):
        return [word for word in phrase if word not in {"'s", "the"}]
    return phrase


def _anybodys(words: list[str]) -> list[str]:
    """Our policy is the policy, our backups are backups."""
    several = bool(words) and is_plural(words[-1])
    return ["the" if word == "our" else word for word in words if word != "our" or not several]


def _clause(
    tokens: Sequence[str], marks: Iterable[str], arranged: Callable[[Sequence[str]], list[str]]
) -> Clause:
    tables = rewording.english()
    parts: list[tuple[list[str], list[str]]] = [([], [])]
    for before, word in pairwise(("", *tokens)):
        if word == "for" and same(before) in tables.measures:
            parts[-1][1].append("of")
        elif word in PREPOSITIONS:
            parts.append(([word], []))
        else:
            parts[-1][1].append(word)
    said = [(*lead, *map(same, _anybodys(arranged(words)))) for lead, words in parts]
    return Clause(marks=tuple(sorted(marks)), words=said[0], phrases=tuple(said[1:]))


def joined(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """What stands before and after a verb that went.

    The seam stays where it says who does what to whom ("which customers do partners call?" is not "which
    customer partners call?") or to what a phrase belongs: which files of, in or from March did we delete, or
    which did we delete in March?
    """
    parted = PREPOSITIONS.intersection(before) or (after and after[0] not in PREPOSITIONS)
    return [*before, *([_SEAM] if before and parted else []), *after]
