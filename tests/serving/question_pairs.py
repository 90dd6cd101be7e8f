"""Pairs of questions for the answer cache, written by hand.

The two of `different_questions.jsonl` look alike and ask for something else; in the kinds tenant, release,
access and parameters the question is the same and its scope another. Those of `same_questions.jsonl` ask the
same in other words.
`written` says when: "before" the guard was tuned, "after" it was finished, and "last", when nothing was to
change any more; "review", by a reviewer of that guard, and "hunt", by ourselves after what the review found
was mended: what passed the guard in these two led to its next version. "fresh" paraphrases came after it.
docs/cache.md has the figures of each.
"""

from dataclasses import dataclass
from pathlib import Path

import orjson

SCOPES = ("release", "tenant", "access", "parameters")


@dataclass(frozen=True)
class Pair:
    a: str
    b: str
    kind: str
    language: str
    written: str


def _read(name: str) -> tuple[Pair, ...]:
    lines = Path(__file__).with_name(name).read_bytes().splitlines()
    return tuple(Pair(**orjson.loads(line)) for line in lines)


DIFFERENT = _read("different_questions.jsonl")
SAME = _read("same_questions.jsonl")
