"""Cross-encoder scores of (query, passage) pairs, as logits.

A folder with `model.onnx` runs in onnxruntime, one pair at a time: the packaged weights are dynamic int8,
whose scale depends on everything in a batch, and on a CPU a batch of one is as fast as any. So a score
never depends on which passages were scored with it. Any other name is a sentence-transformers model.
"""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alchemy.catalog import LocalModel
from alchemy.models import resolve
from alchemy.retrieval.embed import ONNX, OnnxEncoder, cpu_has_bf16, plain_tokenizer
from alchemy.retrieval.reading import Reading

Floats = npt.NDArray[np.float32]


class Reranking(Protocol):
    """What search needs of a reranker; `Reranker` is the real one."""

    @property
    def model_id(self) -> str: ...
    def score(self, query: str, passages: Sequence[str]) -> Floats: ...
    def reads(self, text: str) -> float: ...


class Reranker:
    """A model of the catalog; its weights are loaded by the first call. Safe to call from threads."""

    def __init__(self, model: LocalModel, models: Path) -> None:
        self._model = model
        self._models = models
        self._lock = threading.RLock()

    @property
    def model_id(self) -> str:
        return self._model.model_id

    def score(self, query: str, passages: Sequence[str]) -> Floats:
        """One logit per passage, [n] float32; sigmoid(logit) is the contract's `Rerank_Score`."""
        if not passages:
            return np.empty(0, np.float32)
        with self._lock:
            return self._backend.score(query, list(passages))

    def reads(self, text: str) -> float:
        """Share of the text that the model can read, see `Reading`."""
        with self._lock:
            return self._reading.share(text)

    @cached_property
    def _backend(self) -> "_OnnxBackend | _TorchBackend":
        location = resolve(self._model.model_id, self._models)
        if (Path(location) / ONNX).is_file():
            return _OnnxBackend(Path(location))
        return _TorchBackend(location, self._model.device)

    @cached_property
    def _reading(self) -> Reading:
        return Reading(self._backend.tokenizer)


class _OnnxBackend:
    def __init__(self, folder: Path) -> None:
        self._encoder = OnnxEncoder(folder)
        self.tokenizer = self._encoder.tokenizer

    def score(self, query: str, passages: list[str]) -> Floats:
        logits = [self._encoder.run(query, passage)[0].reshape(-1)[0] for passage in passages]
        return np.array(logits, np.float32)


class _TorchBackend:
    def __init__(self, location: str, device: str) -> None:
        from sentence_transformers import CrossEncoder

        self._model = CrossEncoder(location, device=None if device == "auto" else device)
        self._bf16 = self._model.device.type == "cpu" and cpu_has_bf16()

    @property
    def tokenizer(self) -> Any:
        return plain_tokenizer(self._model.tokenizer)

    def score(self, query: str, passages: list[str]) -> Floats:
        import torch

        pairs = [(query, passage) for passage in passages]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            logits = self._model.predict(
                pairs,
                activation_fn=torch.nn.Identity(),
                batch_size=16,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        return logits.float().cpu().numpy().reshape(-1)
