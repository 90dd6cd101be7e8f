"""The base model in this process: loaded once, with adapters that come and go, and its batch engine.

An adapter is swapped between two rounds of the engine, and by compare-and-swap: of two swaps that race, one
wins and the other is told so (`Conflict`). What is being written ends with the adapter it began with.
"""

import itertools
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from alchemy.catalog import BaseModelEntry
from alchemy.training.base import mend_attention
from alchemy.training.generate import ANY, GREEDY, AdapterModel, Bounds, Message
from alchemy.training.sampling import Sampling
from serving.generation.batch import BatchEngine
from serving.generation.engines import Piece
from serving.watching.metrics import GenerationMetrics


class ModelManager:
    """An `Engine` in this process. Loading blocks until the model is warm.

    Args:
        model_id: The base; `entry` says how to run it.
        entry: model_c of `models.yaml`.
        models: The folder of packaged weights.
        metrics: Where the engine counts.

    Raises like `AdapterModel`.
    """

    def __init__(
        self, model_id: str, entry: BaseModelEntry, models: Path, metrics: GenerationMetrics
    ) -> None:
        options = entry.engine
        self._problem = mend_attention(entry.device)
        self.model = AdapterModel(
            model_id,
            device=entry.device,
            models=models,
            bounds=Bounds(rows=options.rows, bytes=options.kv_mib << 20),
            compiled=options.compile,
        )
        self.engine = BatchEngine(self.model, most_waiting=options.waiting, metrics=metrics)
        self._handles = itertools.count()

    @property
    def problems(self) -> tuple[str, ...]:
        """See `Engine.problems`."""
        return tuple(problem for problem in (self._problem, self.engine.problem) if problem)

    @property
    def adapters(self) -> dict[str, str]:
        """The labels of the adapters that are loaded, by name."""
        return self.model.adapters

    def put(self, name: str, folder: Path, *, expected: str | None = ANY) -> str:
        """Loads an adapter in place of the one with the label `expected` (None: of none); its label.

        Raises BadInput where it cannot be used, and Conflict where another swap came first.
        """
        return self.model.put(name, folder, expected=expected)

    def remove(self, name: str, *, expected: str | None = ANY) -> None:
        """Drops an adapter. Raises NotFound, or Conflict like `put`."""
        self.model.remove(name, expected=expected)

    def load(self, name: str, folder: Path) -> str:
        """See `Engine.load`. Every loading has a handle of its own: an old release may still use its own."""
        handle = f"{name}#{next(self._handles)}"
        self.put(handle, folder, expected=None)
        return handle

    def unload(self, handle: str) -> None:
        """See `Engine.unload`."""
        self.remove(handle)

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling = GREEDY,
        *,
        adapter: str | None = None,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """See `Engine.stream`."""
        return self.engine.stream(messages, sampling, adapter=adapter, deadline_s=deadline_s)

    def close(self) -> None:
        """See `Engine.close`."""
        self.engine.close()
