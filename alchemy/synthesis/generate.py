"""Writes training pairs about chunks: from templates, or with a language model. Judging them is `grounding`.

Both providers answer a sequence of `Task`s with one `Outcome` each, in order, so that equal inputs (and, for
a model, equal answers out of the cache) give equal pairs whatever the threads do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from alchemy.errors import BadInput, Unavailable
from alchemy.records import Chunk, Document, Insight
from alchemy.synthesis.answers import UnreadableAnswer, ask_each, read_json
from alchemy.synthesis.client import BreakerOpen, Completion, LlmClient
from alchemy.synthesis.grounding import Candidate
from alchemy.synthesis.kinds import KINDS, Kind, pick
from alchemy.synthesis.prompts import refine_messages
from alchemy.synthesis.templates import TEMPLATE, template_pairs

_PAIR_TOKENS = 300  # 80 words with their quote


@dataclass(frozen=True, slots=True)
class Task:
    """One chunk to write pairs about, with what is known of its document: at most one for each of `kinds`."""

    document: Document
    chunk: Chunk
    insight: Insight | None
    kinds: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a provider made of one task: pairs to judge, and reasons for what could not become one."""

    pairs: list[Candidate] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Provider(Protocol):
    """Writes pairs."""

    name: str

    def write(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """One outcome for each task, in order. Raises BudgetSpent where no more can be paid."""
        ...


class TemplateProvider:
    """Pairs out of the structure of the records; needs no model."""

    name = TEMPLATE

    def write(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        for task in tasks:
            yield Outcome(pick(template_pairs(task.document, task.chunk, task.insight), task.kinds))


class LlmProvider:
    """Pairs that a model wrote, several chunks at a time."""

    def __init__(self, client: LlmClient, threads: int) -> None:
        self.name = client.model.model_id
        self._client = client
        self._threads = threads

    def write(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Raises BudgetSpent, BreakerOpen and BadConfig; what was answered by then is in the cache."""
        return ask_each(self._one, tasks, self._threads)

    def _one(self, task: Task) -> Outcome:
        messages = refine_messages(task.chunk, task.insight, task.document.fields, task.kinds)
        most = _PAIR_TOKENS * len(task.kinds)
        try:
            completion = self._client.complete(messages, as_json=True, max_tokens=most)
        except BadInput:
            return Outcome(failures=["refused_by_provider"])
        except BreakerOpen:
            raise
        except Unavailable:  # this one alone: the others go on
            return Outcome(failures=["no_answer"])
        return parse_answer(completion, task, self.name)


def parse_answer(completion: Completion, task: Task, provider: str) -> Outcome:
    """Reads a model's JSON without trusting it; what is no pair becomes a failure with its reason."""
    try:
        value = read_json(completion)
    except UnreadableAnswer as error:
        return Outcome(failures=[str(error)])
    rows = (
        value.get("pairs", [value] if "instruction" in value else None) if isinstance(value, dict) else value
    )
    if not isinstance(rows, list):
        return Outcome(failures=["wrong_shape"])
    outcome = Outcome()
    for row in rows:
        pair = _pair(row, task, provider)
        if pair is None:
            outcome.failures.append("wrong_shape")
        elif pair.kind not in KINDS:
            outcome.failures.append("unknown_kind")
        elif len(outcome.pairs) == len(task.kinds):
            outcome.failures.append("too_many")
        else:
            outcome.pairs.append(pair)
    return outcome


def _pair(row: Any, task: Task, provider: str) -> Candidate | None:
    if not isinstance(row, dict):
        return None
    texts = [row.get(name) for name in ("instruction", "response", "evidence_quote", "kind")]
    if not all(isinstance(text, str) for text in texts):
        return None
    question, answer, quote, kind = (str(text).strip() for text in texts)
    return Candidate(
        instruction=question,
        response=answer,
        evidence_quote=quote,
        chunk_id=task.chunk.id,
        document_id=task.document.id,
        kind=kind.lower(),
        provider=provider,
    )
