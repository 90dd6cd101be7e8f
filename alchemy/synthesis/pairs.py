"""The synthesis stage: which chunks are asked about, and what becomes of every pair that was written.

`max_samples` is shared over the splits first and then, in turns, over sources and kinds, so ten thousand
commits do not crowd out thirty pages. Within a kind the order is a hash: a sample, not the beginning.
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from alchemy.errors import Unavailable
from alchemy.records import Chunk, Document, Insight, SftPair, Split, fingerprint, to_line
from alchemy.settings import SynthesisOptions
from alchemy.synthesis.generate import Provider, Task
from alchemy.synthesis.grounding import Candidate, check, normalize_question
from alchemy.synthesis.split import assign_splits, content_key

_WAVE = 64  # tasks given to a provider at a time
_Stratum = tuple[Split, str, str]  # split, source, kind


def write_pairs(
    folder: Path,
    documents: Callable[[], Iterable[Document]],
    chunks: Iterable[Chunk],
    insights: Iterable[Insight],
    provider: Provider,
    options: SynthesisOptions,
    leaks: Callable[[str], Any] | None = None,
) -> dict[str, Any]:
    """Writes `sft_train.jsonl`, `sft_eval.jsonl`, `sft_holdout.jsonl` and `train.jsonl`.

    Args:
        folder: Where the files go.
        documents: Opens the cleaned corpus; it is read three times and never held.
        chunks: The chunks of the same corpus.
        insights: Insights of the same corpus; documents may lack one.
        provider: Who writes the pairs.
        options: Sizes and shares.
        leaks: True for a text with a secret or personal data; such pairs are rejected.

    Returns:
        The funnel: `written` = `kept` + the sum of `rejected` (by reason), and how the kept ones are spread.

    Raises:
        Unavailable: The provider answers nobody, or nothing at all.
    """
    splits = assign_splits(documents(), options)
    texts = _write_texts(folder / "train.jsonl", documents(), splits)
    sample = _sample(chunks, splits, options)
    funnel = _Funnel(provider.name, leaks)
    left = options.max_samples
    tasks = _tasks(sample, documents(), insights)
    with ExitStack() as stack:
        # Holdout first: of two equal questions the one that measures stays, the one that teaches goes.
        for split in ("holdout", "eval", "train"):
            file = stack.enter_context((folder / f"sft_{split}.jsonl").open("wb"))
            quota = left if split == "train" else min(left, _quota(split, options))
            for pair in funnel.run(provider, _turns(tasks, split), split, quota, options.pairs_per_chunk):
                file.write(to_line(pair))
                left -= 1
    funnel.check_answers()
    return {
        "provider": provider.name,
        "documents": len(splits),
        "documents_by_split": dict(sorted(Counter(splits.values()).items())),
        "texts": texts,
        **funnel.summary(),
        **provider.notes(),
    }


class _Funnel:
    """Judges pairs, and counts every one of them."""

    def __init__(self, provider: str, leaks: Callable[[str], Any] | None) -> None:
        self._provider = provider
        self._leaks = leaks
        self._questions: set[str] = set()
        self._written = 0
        self._rejected: Counter[str] = Counter()
        self._kept: dict[str, Counter[str]] = {
            name: Counter() for name in ("split", "source", "kind", "record")
        }

    def run(
        self, provider: Provider, tasks: Iterator[Task], split: Split, quota: int, per_task: int
    ) -> Iterator[SftPair]:
        """Has tasks written about in waves until `quota` pairs passed or the tasks end."""
        kept = 0
        while kept < quota:
            wanted = -(-(quota - kept) // per_task)
            wave = [task for _, task in zip(range(min(_WAVE, wanted)), tasks, strict=False)]
            answered = 0
            for task, outcome in zip(wave, provider.write(wave), strict=False):
                answered += 1
                self._written += len(outcome.pairs) + len(outcome.failures)
                self._rejected.update(outcome.failures)
                for candidate in outcome.pairs:
                    reason = "over_quota" if kept == quota else self._judge(candidate, task)
                    if reason:
                        self._rejected[reason] += 1
                    else:
                        kept += 1
                        yield self._keep(candidate, task, split)
            if not wave or answered < len(wave):
                return  # nothing left to ask about, or nothing left to pay with

    def check_answers(self) -> None:
        """Raises Unavailable where the provider answered nothing at all: that is no empty result."""
        if self._written and self._rejected["no_answer"] == self._written:
            raise Unavailable(f"{self._provider}: answered none of {self._written} requests")

    def summary(self) -> dict[str, Any]:
        kept = sum(self._kept["split"].values())
        return {
            "written": self._written,
            "kept": kept,
            "rejected": dict(sorted(self._rejected.items())),
            **{f"kept_by_{name}": dict(sorted(counts.items())) for name, counts in self._kept.items()},
        }

    def _judge(self, candidate: Candidate, task: Task) -> str | None:
        reason = check(candidate, task.chunk, task.insight, task.document.fields, self._leaks)
        if reason is None and normalize_question(candidate.instruction) in self._questions:
            return "duplicate_question"
        return reason

    def _keep(self, candidate: Candidate, task: Task, split: Split) -> SftPair:
        self._questions.add(normalize_question(candidate.instruction))
        values = (split, task.chunk.source, candidate.kind, task.chunk.kind)
        for counts, value in zip(self._kept.values(), values, strict=True):
            counts[value] += 1
        return SftPair(
            id=fingerprint(candidate.chunk_id, candidate.instruction, candidate.response),
            instruction=candidate.instruction,
            response=candidate.response,
            evidence_quote=candidate.evidence_quote,
            chunk_id=candidate.chunk_id,
            document_id=candidate.document_id,
            split=split,
            kind=candidate.kind,
            provider=candidate.provider,
            project=task.document.project,
        )


def _quota(split: Split, options: SynthesisOptions) -> int:
    share = options.holdout_share if split == "holdout" else options.eval_share
    return max(1, round(options.max_samples * share))


def _write_texts(path: Path, documents: Iterable[Document], splits: dict[str, Split]) -> int:
    """The texts of the train documents for continued pre-training, each text once."""
    seen: set[str] = set()
    with path.open("wb") as file:
        for document in documents:
            if splits[document.id] == "train" and (key := content_key(document)) not in seen:
                seen.add(key)
                file.write(to_line({"text": document.text}))
    return len(seen)


def _sample(
    chunks: Iterable[Chunk], splits: dict[str, Split], options: SynthesisOptions
) -> dict[_Stratum, list[Chunk]]:
    """For each stratum the chunks with the smallest hashes, in their order: as many as could be needed."""
    heaps: defaultdict[_Stratum, list[tuple[int, str, Chunk]]] = defaultdict(list)
    for chunk in chunks:
        split = splits.get(chunk.document_id)
        if split is None:
            continue
        # Whole numbers, negated, make the largest hash the first to go.
        entry = (-int(fingerprint("sample", chunk.id, length=16), 16), chunk.id, chunk)
        heap = heaps[split, chunk.source, chunk.kind]
        if len(heap) < options.max_samples:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
    return {
        stratum: [chunk for _, _, chunk in sorted(heap, key=lambda entry: (-entry[0], entry[1]))]
        for stratum, heap in sorted(heaps.items())
    }


def _tasks(
    sample: dict[_Stratum, list[Chunk]], documents: Iterable[Document], insights: Iterable[Insight]
) -> dict[_Stratum, deque[Task]]:
    wanted = {chunk.document_id for chunks in sample.values() for chunk in chunks}
    # Without their texts, of which the chunks hold what is needed: a document may be many megabytes.
    known = {of.id: replace(of, text="", blocks=()) for of in documents if of.id in wanted}
    measured = {insight.document_id: insight for insight in insights if insight.document_id in wanted}
    return {
        stratum: deque(
            Task(known[chunk.document_id], chunk, measured.get(chunk.document_id)) for chunk in chunks
        )
        for stratum, chunks in sample.items()
    }


def _turns(tasks: dict[_Stratum, deque[Task]], split: Split) -> Iterator[Task]:
    """One task of each source and kind in turn."""
    queues = [queue for stratum, queue in tasks.items() if stratum[0] == split]
    while any(queues):
        for queue in queues:
            if queue:
                yield queue.popleft()
