"""How one sequence picks its tokens and becomes text: sampling parameters, choice, stop strings.

Every choice depends on the sequence's own logits and its own random numbers, never on its neighbors in a
batch. Not for running the model (see `decoding`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alchemy.errors import BadInput

_HEAD = 1024  # tokens that are sorted to find the nucleus; more only where they do not hold it


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request may ask of its text; OpenAI's names and meanings.

    Attributes:
        max_new_tokens: The text ends here at the latest.
        temperature: 0 takes the likeliest token each time.
        top_p: Sample from the likeliest tokens that have this probability together
            (https://arxiv.org/abs/1904.09751).
        top_k: Sample from so many of the likeliest tokens; 0 is all.
        repetition_penalty: Divides the odds of tokens that were seen, in the prompt or the text
            (https://arxiv.org/abs/1909.05858); 1 is none. From 0.01 to 100, so that no logit overflows.
        seed: Equal arguments and seeds give equal texts on one machine.
        stop: The text ends before the first of these strings.

    Raises:
        BadInput: A value is out of its bounds.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [
            name
            for name, right in (
                ("max_new_tokens", self.max_new_tokens >= 1),
                ("temperature", 0 <= self.temperature <= 100),
                ("top_p", 0 < self.top_p <= 1),
                ("top_k", self.top_k >= 0),
                ("repetition_penalty", 0.01 <= self.repetition_penalty <= 100),
                ("seed", -(2**63) <= self.seed < 2**64),  # what torch's generators take
                ("stop", len(self.stop) <= 16 and all(0 < len(text) <= 256 for text in self.stop)),
            )
            if not right
        ]
        if wrong:
            raise BadInput(f"out of bounds: {', '.join(f'{name}={getattr(self, name)}' for name in wrong)}")


class Choice:
    """Picks the next token of one sequence."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        import torch

        self._sampling = sampling
        self._chance = torch.Generator().manual_seed(sampling.seed)
        self._seen = dict.fromkeys(prompt) if sampling.repetition_penalty != 1 else None

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is all it ever takes, so that a whole batch may be picked at once."""
        return self._sampling.temperature == 0 and self._seen is None

    def pick(self, logits: Any) -> int:
        """The next token. Logits: float32 on the CPU, [vocabulary]; they are left as they are."""
        if self._seen is not None:
            logits = self._penalized(logits)
        token = int(logits.argmax()) if self._sampling.temperature == 0 else self._sample(logits)
        if self._seen is not None:
            self._seen[token] = None
        return token

    def _penalized(self, logits: Any) -> Any:
        import torch

        seen = torch.tensor(list(self._seen or ()), dtype=torch.long)
        values, penalty = logits[seen], self._sampling.repetition_penalty
        return logits.index_copy(0, seen, torch.where(values > 0, values / penalty, values * penalty))

    def _sample(self, logits: Any) -> int:
        import torch

        # Relative to the likeliest: however low the temperature, that one stays 0 and others become -inf. One
        # whose reciprocal is no float32 would make a NaN of the 0.
        temperature = max(self._sampling.temperature, torch.finfo(logits.dtype).tiny)
        weights, tokens = torch.softmax((logits - logits.max()) / temperature, dim=-1), None
        if self._sampling.top_k:
            weights, tokens = weights.topk(min(self._sampling.top_k, len(weights)))
        if self._sampling.top_p < 1:
            weights, tokens = _nucleus(weights, tokens, self._sampling.top_p)
        picked = int(torch.multinomial(weights, 1, generator=self._chance))
        return picked if tokens is None else int(tokens[picked])


def _nucleus(weights: Any, tokens: Any, top_p: float) -> tuple[Any, Any]:
    """The fewest likeliest weights that reach `top_p` of their sum, and whose they are."""
    wanted = top_p * float(weights.sum())
    head, order = weights.topk(min(_HEAD, len(weights)))
    if float(head.sum()) < wanted:
        head, order = weights.sort(descending=True)
    kept = int((head.cumsum(0) < wanted).sum()) + 1
    return head[:kept], order[:kept] if tokens is None else tokens[order[:kept]]


class Text:
    """Tokens as text, in pieces, up to the first stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._held = ""  # the end of the text, as long as it may be the beginning of a stop string

    def add(self, token: int) -> tuple[str, bool]:
        """The text that is sure now, and whether a stop string ends it here."""
        piece = self._stream.step(self._tokenizer, token) or ""
        if not self._stop:
            return piece, False
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def rest(self) -> str:
        """What was held back, where the text ended otherwise."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text with which the stop string begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
