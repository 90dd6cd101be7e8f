"""The gate: may this candidate replace the champion? A pure function with every reason named.

Scores come from the `evaluation` artifacts of both, hard stops from `inspection`, the numbers to reach from
`gate.toml`. A rejection is a recorded fact and leaves the champion.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alchemy.errors import BadConfig
from alchemy.retrieval.evaluate import interval

Measure = Literal["recall_at_5", "ndcg_at_10"]
_NAMES: dict[Measure, str] = {"recall_at_5": "recall@5", "ndcg_at_10": "nDCG@10"}


@dataclass(frozen=True, slots=True)
class Scores:
    """The few numbers of an evaluation that decide. None: could not be measured (no questions, no pairs)."""

    recall_at_5: float | None  # share of held-out questions whose document is in the top 5
    ndcg_at_10: float | None
    base_loss: float | None  # nats per response token on held-out pairs, without the adapter
    adapter_loss: float | None  # the same with the adapter
    leaks: int  # secrets or personal data found in what would be served
    by_question: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # question -> measure


class Policy(BaseModel):
    """What a release must reach; the entries of `gate.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    min_recall_at_5: float = Field(0.5, ge=0, le=1, description="Floor of recall@5 on held-out questions.")
    retrieval_margin: float = Field(
        0.05, ge=0, le=1, description="How far recall@5 and nDCG@10 may lie under the champion's."
    )
    loss_margin: float = Field(
        0.05, ge=0, le=1, description="Share by which the adapter's loss may exceed the champion adapter's."
    )
    min_shared_questions: int = Field(
        20, ge=2, description="Questions asked of both below which no interval of the difference is taken."
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict and, for a rejection, every reason."""

    passed: bool
    reasons: tuple[str, ...]


def read_policy(path: Path) -> Policy:
    """The policy in a TOML file; the built-in one where there is no such file.

    Raises BadConfig naming the file and every entry that is unknown or out of range.
    """
    try:
        return Policy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read ({error.strerror}); set ALCHEMY_GATE") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)]
        raise BadConfig(f"{path}:\n  " + "\n  ".join(lines)) from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise BadConfig(f"{path}: not TOML: {error}") from None


def decide(
    candidate: Scores, champion: Scores | None, policy: Policy, faults: Sequence[str] = ()
) -> Decision:
    """Passes a candidate that is whole, leaks nothing, is over the floors and not inferior to the champion.

    Args:
        candidate: What the release would serve with.
        champion: What serves now; None: nothing does.
        policy: The numbers to reach.
        faults: What `inspection` found; each is a hard stop that no score makes good.
    """
    reasons = list(dict.fromkeys(faults))
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
        for measure in _NAMES:
            reasons += _inferior(measure, candidate, champion, policy)
        if candidate.adapter_loss is not None and champion.adapter_loss is not None:
            most = champion.adapter_loss * (1 + policy.loss_margin)
            if candidate.adapter_loss > most:
                reasons.append(
                    f"the adapter's held-out loss {candidate.adapter_loss:.3f} is over the champion's "
                    f"{champion.adapter_loss:.3f} by more than {policy.loss_margin:.0%}"
                )
    return Decision(not reasons, tuple(reasons))


def _inferior(measure: Measure, candidate: Scores, champion: Scores, policy: Policy) -> list[str]:
    """Compares the means, and the answers to the very same questions.

    When the held-out questions change, easier ones can lift the mean of a worse index. The paired bootstrap
    over the questions that both were asked is blind to that.
    """
    name, margin, reasons = _NAMES[measure], policy.retrieval_margin, []
    mine, theirs = getattr(candidate, measure), getattr(champion, measure)
    if mine is not None and theirs is not None and mine < theirs - margin:
        reasons.append(f"{name} {mine:.3f} is more than {margin} under the champion's {theirs:.3f}")
    shared = sorted(candidate.by_question.keys() & champion.by_question.keys())
    if len(shared) >= policy.min_shared_questions:
        change = interval(
            [candidate.by_question[one][measure] - champion.by_question[one][measure] for one in shared]
        )
        if change.high < -margin:
            reasons.append(
                f"{name} on the {len(shared)} questions that the champion was asked too changed by "
                f"{change.low:+.3f} to {change.high:+.3f} (95 % interval), all under -{margin}"
            )
    return reasons
