"""The kinds of questions, and which of them a chunk is asked for.

Every chunk gets a plan: one kind for each pair it may give. A plan is a systematic sample of the configured
shares (Cochran, "Sampling Techniques", 1977, chapter 8) that starts at a hash of the chunk. So all chunks
together are asked for every kind in its share, one chunk is asked for different kinds, and no chunk's plan
(nor the prompt that is paid for) changes when other chunks come or go.
"""

import math
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Literal, get_args

from alchemy.records import Chunk, Insight, fingerprint
from alchemy.settings import KindShares
from alchemy.synthesis.grounding import Candidate

# how: a way or a reason; numeric: from the measured facts; unanswerable: asks for what is not there.
Kind = Literal["fact", "how", "comparison", "numeric", "unanswerable"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def possible_kinds(chunk: Chunk, insight: Insight | None) -> frozenset[Kind]:
    """What can be asked of a chunk: numbers need facts, and only a whole document shows what it lacks."""
    impossible = set[Kind]()
    if not (insight and insight.facts):
        impossible.add("numeric")
    if chunk.total_chunks > 1:
        impossible.add("unanswerable")
    return frozenset(KINDS) - impossible


def plan_kinds(chunk_id: str, shares: KindShares, most: int, possible: Collection[Kind]) -> tuple[Kind, ...]:
    """`most` kinds for a chunk; facts stand for what cannot be asked of it."""
    ends = list(accumulate(getattr(shares, kind) for kind in KINDS))
    start = int(fingerprint("kinds", chunk_id, length=12), 16) / 16**12
    places = [(start + number) / most * ends[-1] for number in range(most)]
    plan = [next(kind for kind, end in zip(KINDS, ends, strict=True) if place < end) for place in places]
    return tuple(kind if kind in possible else "fact" for kind in plan)


def pick(pairs: Sequence[Candidate], plan: Sequence[Kind]) -> list[Candidate]:
    """The first pair, then for each further kind of the plan the next pair of it, or else the next fact."""
    picked = list(pairs[:1])
    for wanted in plan[1:]:
        for kind in (wanted, "fact"):
            found = next((one for one in pairs if one.kind == kind and one not in picked), None)
            if found:
                picked.append(found)
                break
    return picked


def quota(kind: str, shares: KindShares, pairs: int) -> int:
    """How many of `pairs` may be of a kind. Facts take what the others leave."""
    if kind == "fact":
        return pairs
    whole = sum(getattr(shares, one) for one in KINDS)
    return math.ceil(pairs * getattr(shares, kind) / whole)
