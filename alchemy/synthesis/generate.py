"""Writes training pairs about chunks: from templates, or with a language model. Judging them is `grounding`.

Both providers answer a sequence of `Task`s with one `Outcome` each, in order, so that equal inputs (and, for
a model, equal answers out of the cache) give equal pairs whatever the threads do.
"""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import orjson

from alchemy.errors import BadInput, Unavailable
from alchemy.records import Chunk, Document, Insight
from alchemy.synthesis.client import BreakerOpen, BudgetSpent, Completion, LlmClient
from alchemy.synthesis.grounding import Candidate
from alchemy.synthesis.prompts import refine_messages
from alchemy.synthesis.templates import TEMPLATE, template_pairs

_ANSWER_TOKENS = 900  # three pairs of 80 words with their quotes
_FENCED = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Task:
    """One chunk to write pairs about, with what is known of its document."""

    document: Document
    chunk: Chunk
    insight: Insight | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a provider made of one task: pairs to judge, and reasons for what could not become one."""

    pairs: list[Candidate] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Provider(Protocol):
    """Writes pairs."""

    name: str

    def write(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """One outcome for each task, in order. May end early where nothing more can be written."""
        ...

    def notes(self) -> dict[str, Any]:
        """What it cost so far; goes into the metrics of the stage."""
        ...


class TemplateProvider:
    """Pairs out of the structure of the records; needs no model."""

    name = TEMPLATE

    def __init__(self, pairs_per_chunk: int) -> None:
        self._most = pairs_per_chunk

    def write(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        for task in tasks:
            yield Outcome(template_pairs(task.document, task.chunk, task.insight, self._most))

    def notes(self) -> dict[str, Any]:
        return {}


class LlmProvider:
    """Pairs that a model wrote, several chunks at a time."""

    def __init__(self, client: LlmClient, pairs_per_chunk: int, threads: int) -> None:
        self.name = client.model.model_id
        self._client = client
        self._most = pairs_per_chunk
        self._threads = threads
        self._budget_spent = False

    def notes(self) -> dict[str, Any]:
        return {**asdict(self._client.usage), "budget_spent": self._budget_spent}

    def write(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Raises BreakerOpen and BadConfig; what was answered before is in the client's cache."""
        with ThreadPoolExecutor(self._threads, thread_name_prefix="refine") as pool:
            futures = [pool.submit(self._one, task) for task in tasks]
            try:
                for future in futures:
                    try:
                        yield future.result()
                    except BudgetSpent:
                        self._budget_spent = True
                        return
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, task: Task) -> Outcome:
        messages = refine_messages(task.chunk, task.insight, self._most)
        try:
            completion = self._client.complete(messages, as_json=True, max_tokens=_ANSWER_TOKENS)
        except BadInput:
            return Outcome(failures=["refused_by_provider"])
        except BreakerOpen:
            raise
        except Unavailable:  # this one alone: the others go on
            return Outcome(failures=["no_answer"])
        return parse_answer(completion, task, self.name, self._most)


def parse_answer(completion: Completion, task: Task, provider: str, most: int) -> Outcome:
    """Reads a model's JSON without trusting it; what is no pair becomes a failure with its reason."""
    text = completion.text.strip()
    fenced = _FENCED.match(text)
    try:
        value: Any = orjson.loads(fenced.group(1) if fenced else text)
    except orjson.JSONDecodeError:
        cut = completion.finish_reason == "length" or not text.endswith(("}", "]", "`"))
        return Outcome(failures=["truncated_json" if cut else "not_json"])
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
        elif len(outcome.pairs) == most:
            outcome.failures.append("too_many")
        else:
            outcome.pairs.append(pair)
    return outcome


def _pair(row: Any, task: Task, provider: str) -> Candidate | None:
    if not isinstance(row, dict):
        return None
    question, answer, quote = (row.get(name) for name in ("instruction", "response", "evidence_quote"))
    if not isinstance(question, str) or not isinstance(answer, str) or not isinstance(quote, str):
        return None
    return Candidate(
        instruction=question.strip(),
        response=answer.strip(),
        evidence_quote=quote.strip(),
        chunk_id=task.chunk.id,
        document_id=task.document.id,
        kind="how" if question.strip().lower().startswith("how") else "fact",
        provider=provider,
    )
