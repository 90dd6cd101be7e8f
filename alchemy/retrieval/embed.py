"""Text to vectors: one embedder for the index, queries and the semantic cache.

A folder with `model.onnx` runs in onnxruntime; anything else (a folder or a hub name) is a
sentence-transformers model. On a CPU with bfloat16 instructions the latter runs under bf16 autocast:
2.8 times the rate of plain fp32, least cosine to it 0.99997 (MiniLM; `benchmarks/embed.py`).
"""

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import orjson

from alchemy.catalog import EmbeddingModel
from alchemy.models import resolve
from alchemy.retrieval.reading import Reading

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]  # (done, total)

BATCH = 16  # larger batches are slower on a CPU: the activations leave its cache
ONNX = "model.onnx"
_MAX_TOKENS = 512


class Embedding(Protocol):
    """What index and search need of an embedder; `Embedder` is the real one."""

    @property
    def model_id(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    def embed_passages(self, texts: Sequence[str], progress: Progress | None = None) -> Floats: ...
    def embed_queries(self, texts: Sequence[str]) -> Floats: ...
    def reads(self, text: str) -> float: ...


class Embedder:
    """A model of the catalog; its weights are loaded by the first call. Safe to call from threads."""

    def __init__(self, model: EmbeddingModel, models: Path) -> None:
        self._model = model
        self._models = models
        # One forward pass at a time: it uses all cores, and fast tokenizers cannot be shared meanwhile.
        self._lock = threading.RLock()

    @property
    def model_id(self) -> str:
        return self._model.model_id

    @property
    def dimension(self) -> int:
        with self._lock:
            return self._backend.dimension

    def embed_passages(self, texts: Sequence[str], progress: Progress | None = None) -> Floats:
        """Vectors of passages, [n, d] float32, L2-normalized."""
        return self._embed([self._model.passage_prompt + text for text in texts], progress)

    def embed_queries(self, texts: Sequence[str]) -> Floats:
        """Vectors of queries, [n, d] float32, L2-normalized."""
        return self._embed([self._model.query_prompt + text for text in texts], None)

    def reads(self, text: str) -> float:
        """Share of the text that the model can read, see `Reading`."""
        with self._lock:
            return self._reading.share(text)

    def _embed(self, texts: list[str], progress: Progress | None) -> Floats:
        # Longest first: like lengths share a batch, so little padding; and memory runs out at once if ever.
        order = sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))
        with self._lock:
            vectors = np.empty((len(texts), self._backend.dimension), np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            with self._lock:
                vectors[batch] = self._backend.encode([texts[i] for i in batch])
            if progress:
                progress(min(start + BATCH, len(order)), len(order))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(norms, 1e-12)

    @cached_property
    def _backend(self) -> "_OnnxBackend | _TorchBackend":
        location = resolve(self._model.model_id, self._models)
        if (Path(location) / ONNX).is_file():
            return _OnnxBackend(Path(location))
        return _TorchBackend(location, self._model.device)

    @cached_property
    def _reading(self) -> Reading:
        return Reading(self._backend.tokenizer)


class _TorchBackend:
    def __init__(self, location: str, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(location, device=None if device == "auto" else device)
        self._model.eval()
        dimension = self._model.get_embedding_dimension()
        assert dimension is not None
        self.dimension: int = dimension
        self._bf16 = self._model.device.type == "cpu" and cpu_has_bf16()

    @property
    def tokenizer(self) -> Any:
        return plain_tokenizer(self._model.tokenizer)

    def encode(self, texts: list[str]) -> Floats:
        import torch

        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            vectors = self._model.encode(
                texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False
            )
        return vectors.float().cpu().numpy()


class _OnnxBackend:
    """A BERT encoder: CLS pooling unless `1_Pooling/config.json` asks for the mean."""

    def __init__(self, folder: Path) -> None:
        self._encoder = OnnxEncoder(folder)
        self.tokenizer = self._encoder.tokenizer
        pooling = folder / "1_Pooling" / "config.json"
        self._mean = pooling.is_file() and orjson.loads(pooling.read_bytes()).get("pooling_mode_mean_tokens")
        self.dimension: int = self.encode(["a"]).shape[1]

    def encode(self, texts: list[str]) -> Floats:
        # One at a time: int8 weights are dynamic, so padding would change the scale and thus the vector.
        return np.stack([self._pool(*self._encoder.run(text)) for text in texts])

    def _pool(self, output: Floats, attention: npt.NDArray[np.int64]) -> Floats:
        hidden = output[0]
        return hidden.mean(axis=0) if self._mean else hidden[0]


class OnnxEncoder:
    """`model.onnx` and `tokenizer.json` of a folder, run on one text or pair at a time."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(_MAX_TOKENS, strategy="longest_first")
        self._session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]

    def run(self, text: str, pair: str | None = None) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The model's first output and the attention mask [1, tokens]."""
        encoding = self.tokenizer.encode(text, pair)
        arrays = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        feed = {name: np.array([arrays[name]], np.int64) for name in self._inputs}
        return self._session.run(None, feed)[0], feed["attention_mask"]


def plain_tokenizer(tokenizer: Any) -> Any:
    """The `tokenizers.Tokenizer` inside a transformers one, as a copy of its own for another thread."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX or AVX-512 BF16)."""
    import torch

    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
