"""Training pairs and texts as token ids, and the optimizer steps that a token budget buys.

The prompt is what the chat template makes of the instruction, exactly as at generation time; loss falls on
the response and on the end-of-sequence token alone, so the model learns to answer and to stop.

Several examples may share a row (packing); none of them sees another one.
"""

import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alchemy.records import SftPair, fingerprint

IGNORED = -100  # torch's own mark of a position without loss

# Examples share rows of at most so many tokens; a longer one has its own. Pairs of 100 tokens fill such rows
# well, and attention, which grows with the square, stays cheap: 8 % more tokens/s on a CPU than one row a
# pair and length grouping, or than rows of 512 (SmolLM2-135M).
ROW_TOKENS = 320


@dataclass(frozen=True, slots=True)
class Example:
    """One pair: prompt, response, end of sequence; or a piece of text."""

    ids: tuple[int, ...]
    response_start: int  # ids[response_start:] carry the loss; at least 1

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def labeled(self) -> int:
        return len(self.ids) - self.response_start


@dataclass(frozen=True, slots=True)
class Encoded:
    examples: tuple[Example, ...]
    left_out: int  # pairs longer than max_length


Row = tuple[Example, ...]  # examples one behind the other: none attends to another
Batch = tuple[Row, ...]  # the rows of one forward pass


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: micro-batches of rows of similar length, whose gradients add up."""

    batches: tuple[Batch, ...]

    @property
    def examples(self) -> Iterator[Example]:
        return (example for batch in self.batches for row in batch for example in row)

    @property
    def tokens(self) -> int:
        return sum(example.tokens for example in self.examples)

    @property
    def labeled(self) -> int:
        return sum(example.labeled for example in self.examples)


def encode_prompt(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a conversation up to where the assistant's words begin."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_pair(tokenizer: Any, pair: SftPair) -> Example:
    """Tokenizes prompt and response apart, so that training sees the token border that generation sees."""
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": pair.instruction}])
    response = tokenizer(pair.response, add_special_tokens=False)["input_ids"]
    return Example((*prompt, *response, tokenizer.eos_token_id), len(prompt))


def encode(tokenizer: Any, pairs: Iterable[SftPair], max_length: int) -> Encoded:
    """Encodes every pair of at most `max_length` tokens and counts the others."""
    encoded = [encode_pair(tokenizer, pair) for pair in pairs]
    fitting = tuple(example for example in encoded if example.tokens <= max_length)
    return Encoded(fitting, len(encoded) - len(fitting))


def encode_texts(tokenizer: Any, texts: Iterable[str], max_length: int) -> Iterator[Example]:
    """Plain text for continued pre-training: pieces of at most `max_length` tokens, all with loss.

    The first token of a piece has nothing before it to be foretold from; a last token left alone is dropped.
    """
    for text in texts:
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for start in range(0, len(ids) - 1, max_length):
            yield Example(tuple(ids[start : start + max_length]), 1)


def sample_texts(texts: Iterable[str], characters: int) -> list[str]:
    """Texts of about so many characters in all, chosen by a hash: the same ones in whatever order they come.

    Holds little more than what it returns, however large the corpus is.
    """
    heap: list[tuple[int, str]] = []
    held = 0
    for text in texts:
        # Negated, for the largest hash is the first to go.
        heapq.heappush(heap, (-int(fingerprint("text", text), 16), text))
        held += len(text)
        while held - len(heap[0][1]) >= characters:
            held -= len(heapq.heappop(heap)[1])
    return [text for _, text in sorted(heap, reverse=True)]


def plan_steps(
    examples: Sequence[Example], micro_tokens: int, *, tokens: int, epochs: int, batch_tokens: int, seed: int
) -> list[Step]:
    """The steps of a training: shuffled epochs, cut into steps, each cut into micro-batches.

    The order follows from the seed alone. It ends with the epochs or with the last example that fits into
    `tokens`, whichever comes first; one example is always trained on.

    Args:
        examples: What to learn from; without any there is no step.
        micro_tokens: Of one forward pass, padding included.
        tokens: The budget, all epochs together.
        epochs: How often each example is seen at most.
        batch_tokens: Of one step, at most.
        seed: Of the order.
    """
    queue: list[list[Example]] = []
    spent = room = 0
    for epoch in range(epochs):
        order = list(examples)
        random.Random(f"{seed}/{epoch}").shuffle(order)  # noqa: S311 - no secret
        room = 0  # a step never spans two epochs: no pair twice in one gradient
        for example in order:
            if queue and spent + example.tokens > tokens:
                return [Step(lay_out(step, micro_tokens)) for step in queue]
            if example.tokens > room:
                queue.append([])
                room = batch_tokens
            queue[-1].append(example)
            room -= example.tokens
            spent += example.tokens
    return [Step(lay_out(step, micro_tokens)) for step in queue]


def lay_out(
    examples: Sequence[Example], micro_tokens: int, row_tokens: int = ROW_TOKENS
) -> tuple[Batch, ...]:
    """All examples in rows, longest first, in batches of at most `micro_tokens` with padding."""
    batches: list[list[Row]] = []
    widest = 0
    rows = _pack(examples, min(row_tokens, micro_tokens))
    for row in sorted(rows, key=lambda row: (-_tokens(row), row[0].ids)):
        # The first row of a batch sets its padded width.
        if not batches or (len(batches[-1]) + 1) * widest > micro_tokens:
            batches.append([])
            widest = _tokens(row)
        batches[-1].append(row)
    return tuple(tuple(batch) for batch in batches)


def _pack(examples: Sequence[Example], row_tokens: int) -> list[Row]:
    """Best fit, longest first (best-fit decreasing): each example into the fullest row with room for it."""
    rows: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda example: (-example.tokens, example.ids)):
        fitting = [number for number, left in enumerate(room) if example.tokens <= left]
        if fitting:
            best = min(fitting, key=room.__getitem__)
            rows[best].append(example)
            room[best] -= example.tokens
        else:
            rows.append([example])
            room.append(row_tokens - example.tokens)
    return [tuple(row) for row in rows]


def _tokens(row: Row) -> int:
    return sum(example.tokens for example in row)


def to_tensors(batch: Batch, device: str) -> tuple[Any, Any, Any]:
    """Input ids, positions and labels, each [rows, longest row], padded on the right.

    Positions begin anew with every example. From that, transformers makes a mask that keeps attention within
    the example (`masking_utils.find_packed_sequence_indices`). The padding counts on from the last example,
    which never sees it: attention is causal.
    """
    import torch

    width = max(_tokens(row) for row in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED, dtype=torch.long)
    positions = torch.zeros(len(batch), width, dtype=torch.long)
    for number, row in enumerate(batch):
        start = 0
        for example in row:
            end = start + example.tokens
            ids[number, start:end] = torch.tensor(example.ids)
            labeled = slice(start + example.response_start, end)
            labels[number, labeled] = ids[number, labeled]
            positions[number, start:] = torch.arange(width - start)
            start = end
    return ids.to(device), positions.to(device), labels.to(device)
