"""The reviewed tables of what may be said differently (`rewording.toml`), as the languages look them up."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from alchemy.retrieval.lexical import stem

Words = tuple[str, ...]


@dataclass(frozen=True)
class Tables:
    """The English tables, as they are looked up."""

    frames: frozenset[Words]
    asides: frozenset[Words]
    phrases: Mapping[Words, Words]
    words: Mapping[str, str]
    predicates: Mapping[str, str]
    attributes: Mapping[str, str]
    properties: frozenset[str]  # of which "X's size", "X size" and "size of X" are one
    measures: frozenset[str]  # those of which "size for X" is, too
    policies: frozenset[str]  # what we do is done
    lasting: frozenset[str]  # what is being done is done
    past: Mapping[str, str]  # irregular past forms and participles, to their verb
    foreign: frozenset[str]
    longest: int  # words of a frame or phrase


@cache
def rewordings() -> dict[str, Any]:
    """The reviewed tables of `rewording.toml`."""
    import tomllib

    return tomllib.loads(files("serving.caching").joinpath("rewording.toml").read_text("utf-8"))


@cache
def english() -> Tables:
    """The English tables."""
    rows = rewordings()["english"]
    phrases = {tuple(left.split()): tuple(right.split()) for left, right in rows["phrases"].items()}
    frames = frozenset(tuple(frame.split()) for frame in rows["frames"])
    words = {stem(word): stem(to) for to, others in rows["words"].items() for word in others}
    return Tables(
        frames,
        frozenset(tuple(aside.split()) for aside in rows["asides"]),
        phrases,
        words,
        rows["predicates"],
        rows["attributes"],
        frozenset(map(_root, (*rows["properties"], *rows["measures"]))),
        frozenset(map(_root, rows["measures"])),
        frozenset(words.get(stem(verb), stem(verb)) for verb in rows["policies"]),
        frozenset(rows["lasting"]),
        {form: verb for verb, forms in rows["irregular"].items() for form in forms.split()},
        frozenset(rows["foreign"]),
        max(map(len, (*phrases, *frames))),
    )


def _root(word: str) -> str:
    return word if word.endswith(("ing", "ed")) else stem(word)  # as `english_words.same`
