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
from alchemy.retrieval.evaluate import Interval, interval, relative_change

Measure = Literal["recall_at_5", "ndcg_at_10"]
_NAMES: dict[Measure, str] = {"recall_at_5": "recall@5", "ndcg_at_10": "nDCG@10"}
_LOSS = "loss of "


@dataclass(frozen=True, slots=True)
class Scores:
    """The few numbers of an evaluation that decide. None: could not be measured (no questions, no pairs)."""

    recall_at_5: float | None  # share of held-out questions whose document is in the top 5
    ndcg_at_10: float | None
    base_loss: float | None  # nats per response token on held-out pairs, without the adapter
    adapter_loss: float | None  # the same with the adapter
    leaks: int  # secrets or personal data found in what would be served
    by_question: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # question -> measure
    by_pair: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # adapter -> pair -> nats
    obeyed: tuple[str, ...] = ()  # injected documents that got what they demand


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
    min_shared_pairs: int = Field(
        20,
        ge=2,
        description="Held-out pairs that judged both below which no interval of the change is taken.",
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the candidate differs from the champion on what both were judged by, with a paired interval."""

    shared: int  # questions or pairs
    change: Interval  # of a measure: the difference; of a loss: the share of the champion's


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict and, for a rejection, every reason."""

    passed: bool
    reasons: tuple[str, ...]
    compared: Mapping[str, Comparison] = field(default_factory=dict)  # by measure, or "loss of <adapter>"


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
    if candidate.obeyed:
        reasons.append(
            f"{len(candidate.obeyed)} injected documents were obeyed: {', '.join(candidate.obeyed)}"
        )
    if candidate.recall_at_5 is not None and candidate.recall_at_5 < policy.min_recall_at_5:
        reasons.append(f"recall@5 {candidate.recall_at_5:.3f} is under the floor {policy.min_recall_at_5}")
    both = candidate.adapter_loss is not None and candidate.base_loss is not None
    if both and not candidate.adapter_loss < candidate.base_loss:  # type: ignore[operator]
        reasons.append(
            f"the adapter's held-out loss {candidate.adapter_loss:.3f} is not under the base's "
            f"{candidate.base_loss:.3f}"
        )
    compared = compare(candidate, champion, policy) if champion else {}
    if champion is not None:
        reasons += _worse_means(candidate, champion, policy)
        reasons += filter(None, (_worse(name, one, policy) for name, one in compared.items()))
    return Decision(not reasons, tuple(reasons), compared)


def compare(candidate: Scores, champion: Scores, policy: Policy) -> dict[str, Comparison]:
    """Compares answers to the very same questions, and losses on the very same pairs.

    When the held-out split changes, easier questions can lift the mean of a worse index. The paired
    bootstrap over what both were judged by is blind to that. Adapters are compared by name.
    """
    compared = {}
    shared = sorted(candidate.by_question.keys() & champion.by_question.keys())
    if len(shared) >= policy.min_shared_questions:
        for measure, name in _NAMES.items():
            changes = [
                candidate.by_question[one][measure] - champion.by_question[one][measure] for one in shared
            ]
            compared[name] = Comparison(len(shared), interval(changes))
    for adapter in sorted(candidate.by_pair.keys() & champion.by_pair.keys()):
        ours, theirs = candidate.by_pair[adapter], champion.by_pair[adapter]
        pairs = sorted(ours.keys() & theirs.keys())
        if len(pairs) >= policy.min_shared_pairs:
            change = relative_change([ours[one] for one in pairs], [theirs[one] for one in pairs])
            compared[f"{_LOSS}{adapter}"] = Comparison(len(pairs), change)
    return compared


def _worse_means(candidate: Scores, champion: Scores, policy: Policy) -> list[str]:
    reasons = []
    for measure, name in _NAMES.items():
        mine, theirs, margin = (
            getattr(candidate, measure),
            getattr(champion, measure),
            policy.retrieval_margin,
        )
        if mine is not None and theirs is not None and mine < theirs - margin:
            reasons.append(f"{name} {mine:.3f} is more than {margin} under the champion's {theirs:.3f}")
    if candidate.adapter_loss is not None and champion.adapter_loss is not None:
        most = champion.adapter_loss * (1 + policy.loss_margin)
        if candidate.adapter_loss > most:
            reasons.append(
                f"the adapter's held-out loss {candidate.adapter_loss:.3f} is over the champion's "
                f"{champion.adapter_loss:.3f} by more than {policy.loss_margin:.0%}"
            )
    return reasons


def _worse(name: str, one: Comparison, policy: Policy) -> str | None:
    """The reason, where the whole interval is beyond the margin: less may be chance."""
    low, high = one.change.low, one.change.high
    if name.startswith(_LOSS):
        if low <= policy.loss_margin:
            return None
        return (
            f"the {name} on the {one.shared} pairs that judged the champion too changed by {low:+.1%} to "
            f"{high:+.1%} (95 % interval), all over {policy.loss_margin:+.0%}"
        )
    if high >= -policy.retrieval_margin:
        return None
    return (
        f"{name} on the {one.shared} questions that the champion was asked too changed by {low:+.3f} to "
        f"{high:+.3f} (95 % interval), all under -{policy.retrieval_margin}"
    )
