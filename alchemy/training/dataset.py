"""Training pairs as token ids, and the optimizer steps that a token budget buys.

The prompt is what the chat template makes of the instruction, exactly as at generation time; loss falls on
the response and on the end-of-sequence token alone, so the model learns to answer and to stop.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alchemy.errors import BadInput
from alchemy.records import SftPair
from alchemy.settings import TrainOptions

IGNORED = -100  # torch's own mark of a position without loss


@dataclass(frozen=True, slots=True)
class Example:
    """One pair: prompt, response, end of sequence."""

    ids: tuple[int, ...]
    response_start: int  # ids[response_start:] carry the loss

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


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: micro-batches of similar length whose gradients add up."""

    batches: tuple[tuple[Example, ...], ...]

    @property
    def tokens(self) -> int:
        return sum(example.tokens for batch in self.batches for example in batch)

    @property
    def labeled(self) -> int:
        return sum(example.labeled for batch in self.batches for example in batch)


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


def plan_steps(examples: Sequence[Example], options: TrainOptions, micro_tokens: int) -> list[Step]:
    """The steps of a whole run: shuffled epochs, cut into steps, each cut into micro-batches.

    The order follows from the seed alone. A run ends with its epochs or with the last example that fits
    into `max_tokens`, whichever comes first; one example is always trained on.
    """
    if not examples:
        raise BadInput("no training pair is left to learn from; check the pairs, or raise train.max_length")
    queue: list[list[Example]] = []
    spent = room = 0
    for epoch in range(options.epochs):
        order = list(examples)
        random.Random(f"{options.seed}/{epoch}").shuffle(order)  # noqa: S311 - no secret
        room = 0  # a step never spans two epochs: no pair twice in one gradient
        for example in order:
            if queue and spent + example.tokens > options.max_tokens:
                return [Step(_micro_batches(step, micro_tokens)) for step in queue]
            if example.tokens > room:
                queue.append([])
                room = options.batch_tokens
            queue[-1].append(example)
            room -= example.tokens
            spent += example.tokens
    return [Step(_micro_batches(step, micro_tokens)) for step in queue]


def in_batches(examples: Sequence[Example], micro_tokens: int) -> tuple[tuple[Example, ...], ...]:
    """All examples by length, in batches of at most `micro_tokens` with padding."""
    return _micro_batches(examples, micro_tokens)


def _micro_batches(examples: Sequence[Example], micro_tokens: int) -> tuple[tuple[Example, ...], ...]:
    batches: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: (-example.tokens, example.ids)):
        # Longest first: the first example of a batch sets its padded width.
        if not batches or (len(batches[-1]) + 1) * batches[-1][0].tokens > micro_tokens:
            batches.append([])
        batches[-1].append(example)
    return tuple(tuple(batch) for batch in batches)


def to_tensors(batch: Sequence[Example], device: str) -> tuple[Any, Any]:
    """Input ids and labels, both [batch, longest], padded on the right.

    No attention mask is needed: causal attention of a real token never reaches the padding behind it.
    """
    import torch

    width = max(example.tokens for example in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), IGNORED, dtype=torch.long)
    for row, example in enumerate(batch):
        ids[row, : example.tokens] = torch.tensor(example.ids)
        labels[row, example.response_start : example.tokens] = torch.tensor(
            example.ids[example.response_start :]
        )
    return ids.to(device), labels.to(device)
