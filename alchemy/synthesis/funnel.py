"""Judges every pair that was written, and counts it: `written` = `kept` + the sum of `rejected` by reason.

Pairs come holdout first, then eval, then train. Of alike questions the first stays, so the one that measures
stays and the one that teaches goes; questions that people wrote for `alchemy eval` are there before all.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from alchemy.errors import Unavailable
from alchemy.records import SftPair, Split, fingerprint
from alchemy.settings import SynthesisOptions
from alchemy.synthesis.answers import until_spent
from alchemy.synthesis.generate import Outcome, Provider, Task
from alchemy.synthesis.grounding import Candidate, check
from alchemy.synthesis.judge import Case, Judge
from alchemy.synthesis.kinds import quota
from alchemy.synthesis.questions import Questions

_WAVE = 64  # tasks given to a provider at a time
_KNOWN = "known"  # the origin of questions that people wrote

# The stages in the order in which a pair meets them, each with the reasons that it gives.
STAGES: dict[str, tuple[str, ...]] = {
    "answer": (
        *("no_answer", "refused_by_provider", "truncated_json", "not_json", "wrong_shape", "unknown_kind"),
        "too_many",
    ),
    "form": ("empty", "echo", "chat_markup", "refers_to_passage", "masked_value", "answers_unanswerable"),
    "length": ("too_short", "too_long"),
    "refusal": ("refusal",),
    "grounding": ("quote_not_in_chunk", "ungrounded_number", "ungrounded_identifier", "no_measured_number"),
    "language": ("other_language",),
    "leak scan": ("leak",),
    "judge": ("judged_unsupported", "judged_off_question", "not_judged", "budget_spent"),
    "quota": ("over_quota", "kind_over_quota"),
    "decontamination": ("near_evaluation_question",),
    "near duplicates": ("near_duplicate_question",),
}


class Funnel:
    """What became of the pairs of one run."""

    def __init__(
        self,
        options: SynthesisOptions,
        known_questions: Iterable[str] = (),
        leaks: Callable[[str], Any] | None = None,
        judge: Judge | None = None,
    ) -> None:
        self._options = options
        self._leaks = leaks
        self._judge = judge
        self._questions = Questions(options.near_question_jaccard)
        for question in known_questions:
            self._questions.add(question, _KNOWN)
        self._written = 0
        self._rejected: Counter[str] = Counter()
        self._kept: dict[str, Counter[str]] = {
            name: Counter() for name in ("split", "source", "kind", "record")
        }

    def run(self, provider: Provider, tasks: Iterator[Task], split: Split, most: int) -> Iterator[SftPair]:
        """Has tasks written about in waves until `most` pairs passed, the tasks end, or the budget."""
        kinds: Counter[str] = Counter()
        while kinds.total() < most:
            wanted = -(-(most - kinds.total()) // self._options.pairs_per_chunk)
            wave = [task for _, task in zip(range(min(_WAVE, wanted)), tasks, strict=False)]
            outcomes = until_spent(provider.write(wave))
            written = [
                (task, pair) for task, outcome in zip(wave, outcomes, strict=False) for pair in outcome.pairs
            ]
            self._count(outcomes)
            reasons = self._reasons(written)
            for (task, pair), found in zip(written, reasons, strict=True):
                reason = found or self._surplus(pair, kinds, most) or self._repeated(pair, split)
                if reason:
                    self._rejected[reason] += 1
                    continue
                kinds[pair.kind] += 1
                yield self._keep(pair, task, split)
            if not wave or len(outcomes) < len(wave) or "budget_spent" in reasons:
                return  # nothing left to ask about, or nothing left to pay with

    def check_answers(self) -> None:
        """Raises Unavailable where the provider answered nothing at all: that is no empty result."""
        if self._written and self._rejected["no_answer"] == self._written:
            raise Unavailable(f"the model answered none of {self._written} requests")

    def summary(self) -> dict[str, Any]:
        """The counts."""
        return {
            "written": self._written,
            "kept": self._kept["split"].total(),
            "rejected": dict(sorted(self._rejected.items())),
            **{f"kept_by_{name}": dict(sorted(counts.items())) for name, counts in self._kept.items()},
        }

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._written += len(outcome.pairs) + len(outcome.failures)
            self._rejected.update(outcome.failures)

    def _reasons(self, written: Sequence[tuple[Task, Candidate]]) -> list[str | None]:
        """Why a pair is none by itself; the judge is asked about those that have no other fault."""
        reasons = [
            check(pair, task.chunk, task.insight, task.document.fields, self._leaks) for task, pair in written
        ]
        if self._judge is None:
            return reasons
        passed = [number for number, reason in enumerate(reasons) if reason is None]
        cases = [Case(pair, task) for task, pair in (written[one] for one in passed)]
        verdicts = until_spent(self._judge.reasons(cases))
        verdicts += ["budget_spent"] * (len(cases) - len(verdicts))
        for number, verdict in zip(passed, verdicts, strict=True):
            reasons[number] = verdict
        return reasons

    def _surplus(self, pair: Candidate, kinds: Counter[str], most: int) -> str | None:
        if kinds.total() == most:
            return "over_quota"
        full = kinds[pair.kind] == quota(pair.kind, self._options.kinds, most)
        return "kind_over_quota" if full else None

    def _repeated(self, pair: Candidate, split: Split) -> str | None:
        origins = self._questions.origins_of_alike(pair.instruction)
        if split != "holdout" and origins & {_KNOWN, "holdout"}:
            return "near_evaluation_question"
        return "near_duplicate_question" if origins - {_KNOWN} else None

    def _keep(self, pair: Candidate, task: Task, split: Split) -> SftPair:
        self._questions.add(pair.instruction, split)
        values = (split, task.chunk.source, pair.kind, task.chunk.kind)
        for counts, value in zip(self._kept.values(), values, strict=True):
            counts[value] += 1
        return SftPair(
            id=fingerprint(pair.chunk_id, pair.instruction, pair.response),
            instruction=pair.instruction,
            response=pair.response,
            evidence_quote=pair.evidence_quote,
            chunk_id=pair.chunk_id,
            document_id=pair.document_id,
            split=split,
            kind=pair.kind,
            provider=pair.provider,
            project=task.document.project,
        )


def render_funnel(metrics: Mapping[str, Any]) -> str:
    """The funnel as a Markdown table: how many pairs each stage took for which reasons, and what was left."""
    left, rejected = metrics["written"], metrics["rejected"]
    lines = [
        "| stage | rejected | left | reasons |",
        "| --- | --- | --- | --- |",
        f"| written | | {left} | |",
    ]
    for stage, reasons in STAGES.items():
        found = {reason: rejected[reason] for reason in reasons if reason in rejected}
        left -= sum(found.values())
        why = ", ".join(f"{reason} {count}" for reason, count in found.items())
        lines.append(f"| {stage} | {sum(found.values())} | {left} | {why} |")
    kinds = ", ".join(f"{kind} {count}" for kind, count in metrics["kept_by_kind"].items())
    return "\n".join([*lines, f"| **kept** | | {metrics['kept']} | {kinds} |"])
