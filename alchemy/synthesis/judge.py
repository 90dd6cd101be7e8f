"""A language model's verdict on pairs that passed every other filter: it sees the source beside the pair.

A verdict is two decisions, whether the source supports the answer and whether the answer is one to this very
question; both have to hold. What the judge is worth is measured in every run that uses it, see `plants`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alchemy.errors import BadInput, Unavailable
from alchemy.synthesis.answers import UnreadableAnswer, ask_each, read_json
from alchemy.synthesis.client import BreakerOpen, LlmClient
from alchemy.synthesis.generate import Task
from alchemy.synthesis.grounding import Candidate
from alchemy.synthesis.prompts import judge_messages

_VERDICT_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Case:
    """A pair beside what it was written from."""

    pair: Candidate
    task: Task


class Judge:
    """Judges several cases at a time."""

    def __init__(self, client: LlmClient, threads: int) -> None:
        self._client = client
        self._threads = threads

    def reasons(self, cases: Sequence[Case]) -> Iterator[str | None]:
        """For each case, in order, the code of the reason against its pair, or None.

        Raises:
            BudgetSpent: At the first case that there is no money for.
            BreakerOpen: The model fails everybody.
            BadConfig: The model refuses the key.
        """
        return ask_each(self._reason, cases, self._threads)

    def _reason(self, case: Case) -> str | None:
        pair, task = case.pair, case.task
        messages = judge_messages(
            task.chunk, task.insight, task.document.fields, pair.instruction, pair.response
        )
        try:
            verdict = read_json(self._client.complete(messages, as_json=True, max_tokens=_VERDICT_TOKENS))
        except BreakerOpen:
            raise
        except (BadInput, Unavailable, UnreadableAnswer):  # no verdict is no acquittal
            return "not_judged"
        return _read(verdict)


def _read(verdict: Any) -> str | None:
    decisions = [verdict.get(name) for name in ("supported", "answers")] if isinstance(verdict, dict) else []
    if not decisions or not all(isinstance(one, bool) for one in decisions):
        return "not_judged"
    supported, answers = decisions
    if not supported:
        return "judged_unsupported"
    return None if answers else "judged_off_question"
