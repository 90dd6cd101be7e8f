"""Whether what the cache gave was right: comparing it with a fresh answer, and the rate with its interval."""

from serving.answer import Answer

_Z = 1.959964  # of a 95 % interval


def agree(cached: Answer, fresh: Answer) -> bool:
    """Whether two answers say the same: the rule of the shadow.

    Both refuse, or both answer; then extractive answers must quote the same spans, as they are their quotes.
    A language model never writes the same text twice, so of two written answers the documents cited must
    be the same at least by half (Jaccard).
    """
    if not (cached.answerable and fresh.answerable):
        return cached.answerable == fresh.answerable
    if cached.finalist == fresh.finalist == "extractive":
        return _spans(cached) == _spans(fresh)
    one, other = ({citation.document_id for citation in answer.citations} for answer in (cached, fresh))
    return len(one & other) * 2 >= len(one | other)


def wilson(successes: int, trials: int) -> tuple[float, float, float]:
    """A share and its 95 % score interval (Wilson 1927): [share, low, high]. `trials` is at least 1."""
    share, z2 = successes / trials, _Z * _Z
    center = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * ((share * (1 - share) + z2 / (4 * trials)) / trials) ** 0.5 / (1 + z2 / trials)
    return share, max(0.0, center - half), min(1.0, center + half)


def _spans(answer: Answer) -> set[tuple[str, int, int]]:
    return {(c.document_id, c.start, c.end) for c in answer.citations}
