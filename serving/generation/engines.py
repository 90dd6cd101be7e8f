"""What the service asks of whatever generates text: the batch engine here, or an endpoint elsewhere.

An answer is written under one adapter version, whichever comes and goes meanwhile. Closing a stream, or
canceling the task that reads it, ends the generation.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from alchemy.training.generate import GREEDY, Message
from alchemy.training.sampling import Sampling

Finish = Literal["stop", "length", "deadline"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text; the last one says why it is the last."""

    text: str
    finish: Finish | None = None
    prompt_tokens: int = 0
    tokens: int = 0  # generated so far


class Engine(Protocol):
    """Generates text with adapters of one base model."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not as it should be now, for /readyz."""

    def load(self, name: str, folder: Path) -> str:
        """Makes an adapter ready and returns what `stream` calls it; blocks.

        Raises:
            BadInput: The adapter cannot be used.
            Unavailable: The engine cannot be reached.
        """

    def unload(self, handle: str) -> None:
        """Lets go of an adapter; what is written with it ends first. Blocks."""

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling = GREEDY,
        *,
        adapter: str | None = None,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Text as it comes.

        Args:
            messages: The conversation, ending with the user's turn.
            sampling: How tokens are picked, and where the text ends.
            adapter: What `load` returned; None is the base alone.
            deadline_s: Seconds until the text ends, wherever it is.

        Raises:
            BadInput: The request cannot be met.
            NotFound: There is no such adapter.
            Unavailable: There are too many requests, or the engine is closing or out of reach.
        """

    def close(self) -> None:
        """Ends all generations as Unavailable; blocks for a moment."""


async def write(
    engine: Engine,
    messages: Sequence[Message],
    sampling: Sampling = GREEDY,
    *,
    adapter: str | None = None,
    deadline_s: float | None = None,
) -> Piece:
    """The whole text of a stream; arguments and errors are those of `Engine.stream`."""
    text = []
    async with aclosing(engine.stream(messages, sampling, adapter=adapter, deadline_s=deadline_s)) as pieces:
        async for piece in pieces:
            text.append(piece.text)
    return Piece("".join(text), piece.finish, piece.prompt_tokens, piece.tokens)
