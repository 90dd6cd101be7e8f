"""The gate: may this candidate replace the champion? A pure function with every reason named.

Scores come from the `evaluation` artifacts of both. A rejection is a recorded fact and leaves the champion.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scores:
    """The few numbers of an evaluation that decide. None: could not be measured (no questions, no pairs)."""

    recall_at_5: float | None  # share of held-out questions whose document is in the top 5
    ndcg_at_10: float | None
    base_loss: float | None  # nats per response token on held-out pairs, without the adapter
    adapter_loss: float | None  # the same with the adapter
    leaks: int  # secrets or personal data found in what would be served


@dataclass(frozen=True, slots=True)
class Policy:
    """What a release must reach."""

    min_recall_at_5: float = 0.5
    retrieval_margin: float = 0.05  # how far recall and nDCG may lie under the champion's
    loss_margin: float = 0.05  # by what share the adapter's loss may exceed the champion adapter's


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict and, for a rejection, every reason."""

    passed: bool
    reasons: tuple[str, ...]


def decide(candidate: Scores, champion: Scores | None, policy: Policy) -> Decision:
    """Passes a candidate without leaks, over the floors, and not worse than the champion by over a margin."""
    reasons = []
    if candidate.leaks:
        reasons.append(f"{candidate.leaks} secrets or personal data are left in what would be served")
    if candidate.recall_at_5 is not None and candidate.recall_at_5 < policy.min_recall_at_5:
        reasons.append(f"recall@5 {candidate.recall_at_5:.3f} is under the floor {policy.min_recall_at_5}")
    both = candidate.adapter_loss is not None and candidate.base_loss is not None
    if both and not candidate.adapter_loss < candidate.base_loss:  # type: ignore[operator]
        reasons.append(
            f"the adapter's held-out loss {candidate.adapter_loss:.3f} is not under the base's "
            f"{candidate.base_loss:.3f}"
        )
    if champion is not None:
        reasons += _worse("recall@5", candidate.recall_at_5, champion.recall_at_5, policy.retrieval_margin)
        reasons += _worse("nDCG@10", candidate.ndcg_at_10, champion.ndcg_at_10, policy.retrieval_margin)
        if candidate.adapter_loss is not None and champion.adapter_loss is not None:
            most = champion.adapter_loss * (1 + policy.loss_margin)
            if candidate.adapter_loss > most:
                reasons.append(
                    f"the adapter's held-out loss {candidate.adapter_loss:.3f} is over the champion's "
                    f"{champion.adapter_loss:.3f} by more than {policy.loss_margin:.0%}"
                )
    return Decision(not reasons, tuple(reasons))


def _worse(name: str, candidate: float | None, champion: float | None, margin: float) -> list[str]:
    if candidate is None or champion is None or candidate >= champion - margin:
        return []
    return [f"{name} {candidate:.3f} is more than {margin} under the champion's {champion:.3f}"]
