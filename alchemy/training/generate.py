"""Text from the base model through an adapter: the service's intuition, and samples before and after.

The base is loaded once; adapters come, change and go around it. A stream keeps the adapter version that it
began with, even when another replaces it half-way, so that no answer ever mixes two.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alchemy.errors import BadInput, NotFound
from alchemy.training.base import MODELS, attach, load_base, load_weights
from alchemy.training.dataset import encode_prompt
from alchemy.training.evaluate import check_adapter

Message = dict[str, str]  # role, content


@dataclass(slots=True)
class _Slot:
    """One loaded version of an adapter; `key` is its name inside peft."""

    key: str
    streams: int = 0  # that still generate with it
    retired: bool = False


class AdapterModel:
    """A base model with any number of adapters; safe to use from several threads.

    One forward pass runs at a time; streams take turns token by token, so none waits for another's end.
    """

    def __init__(
        self,
        base: str,
        adapters: Mapping[str, Path] | None = None,
        *,
        device: str = "auto",
        models: Path = MODELS,
    ) -> None:
        """Loads the base and the adapters (name -> folder). Raises like `load_base` and `put`."""
        self.base = load_base(base, device, models)
        self._model = self.base.model  # the peft model around it as soon as there is an adapter
        self._slots: dict[str, _Slot] = {}
        self._active: str | None = None
        self._versions = itertools.count()
        self._lock = threading.RLock()
        for name, folder in (adapters or {}).items():
            self.put(name, folder)

    @property
    def adapters(self) -> list[str]:
        """Names that `stream` takes."""
        with self._lock:
            return sorted(self._slots)

    def put(self, name: str, folder: Path) -> None:
        """Loads an adapter, or replaces the one of that name; the base stays where it is.

        Raises:
            BadInput: The adapter is unsafe, broken, or was trained on another base.
        """
        check_adapter(folder, self.base.model_id)
        with self._lock:
            slot = _Slot(f"adapter{next(self._versions)}")
            self._load(folder, slot.key)
            old = self._slots.get(name)
            self._slots[name] = slot
            if old is not None:
                self._retire(old)

    def remove(self, name: str) -> None:
        """Drops an adapter; streams that use it end first. Raises NotFound."""
        with self._lock:
            self._retire(self._slots.pop(self._known(name)))

    def generate(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        stop: threading.Event | None = None,
        deadline_s: float | None = None,
        *,
        adapter: str | None = None,
        seed: int = 0,
    ) -> str:
        """The whole text of `stream`."""
        return "".join(
            self.stream(messages, max_new_tokens, temperature, stop, deadline_s, adapter=adapter, seed=seed)
        )

    def stream(
        self,
        messages: Sequence[Message],
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        stop: threading.Event | None = None,
        deadline_s: float | None = None,
        *,
        adapter: str | None = None,
        seed: int = 0,
    ) -> Iterator[str]:
        """Pieces of text as they come.

        Args:
            messages: The conversation, ending with the user's turn.
            max_new_tokens: The text ends here at the latest.
            temperature: 0 takes the likeliest token each time.
            stop: Set it to end the text after the current token.
            deadline_s: Seconds from the first piece asked for until the text ends, wherever it is.
            adapter: A name of `adapters`; None is the base alone.
            seed: Of the sampling; equal arguments give equal texts on one machine.

        Raises:
            BadInput: The prompt leaves no room for `max_new_tokens`.
            NotFound: There is no adapter of that name.
        """
        prompt = encode_prompt(self.base.tokenizer, messages)
        room = getattr(self.base.model.config, "max_position_embeddings", None)
        if room is not None and len(prompt) + max_new_tokens > room:
            raise BadInput(
                f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones do not fit into {room}"
            )
        if adapter is not None:
            self._known(adapter)  # fail here, not at the first piece
        return self._stream(prompt, max_new_tokens, temperature, stop, deadline_s, adapter, seed)

    def _stream(
        self,
        prompt: list[int],
        max_new_tokens: int,
        temperature: float,
        stop: threading.Event | None,
        deadline_s: float | None,
        adapter: str | None,
        seed: int,
    ) -> Iterator[str]:
        import torch
        from tokenizers.decoders import DecodeStream
        from transformers import DynamicCache

        end = time.monotonic() + deadline_s if deadline_s is not None else None
        chance = torch.Generator().manual_seed(seed)
        text = DecodeStream(skip_special_tokens=True)
        cache = DynamicCache()
        ids = prompt
        with self._using(adapter) as slot:
            for _ in range(max_new_tokens):
                if (stop is not None and stop.is_set()) or (end is not None and time.monotonic() >= end):
                    return
                logits = self._forward(ids, cache, slot)
                token = _choose(logits, temperature, chance)
                if token == self.base.tokenizer.eos_token_id:
                    return
                ids = [token]
                piece = text.step(self.base.tokenizer.backend_tokenizer, token)
                if piece:
                    yield piece

    def _forward(self, ids: list[int], cache: Any, slot: _Slot | None) -> Any:
        """Logits of the next token, float32 on the CPU: [vocabulary]. Extends the cache."""
        import torch

        batch = torch.tensor([ids], device=self.base.device)
        with self._lock, torch.inference_mode(), self.base.precision():
            self._activate(slot.key if slot else None)
            output = self._model(input_ids=batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return output.logits[0, -1].float().cpu()

    @contextlib.contextmanager
    def _using(self, adapter: str | None) -> Iterator[_Slot | None]:
        """Holds an adapter's present version until the stream ends, or its caller drops it half-way."""
        if adapter is None:
            yield None
            return
        with self._lock:
            slot = self._slots[self._known(adapter)]
            slot.streams += 1
        try:
            yield slot
        finally:
            with self._lock:
                slot.streams -= 1
                self._collect(slot)

    def _known(self, name: str) -> str:
        if name not in self._slots:
            raise NotFound(f"no adapter {name}; loaded are: {', '.join(sorted(self._slots)) or 'none'}")
        return name

    def _load(self, folder: Path, key: str) -> None:
        if self._model is self.base.model:
            self._model = attach(self.base, folder, key)
            self._active = key
            return
        try:
            load_weights(self._model, folder, key, self.base.device)
        except BadInput:
            self._model.delete_adapter(key)
            raise
        self._model.eval()

    def _activate(self, key: str | None) -> None:
        """Routes the next forward pass through one adapter, or through none."""
        if self._model is self.base.model or key == self._active:
            return
        tuner = self._model.base_model
        if key is None:
            tuner.disable_adapter_layers()
        else:
            if self._active is None:
                tuner.enable_adapter_layers()
            self._model.set_adapter(key, inference_mode=True)
        self._active = key

    def _retire(self, slot: _Slot) -> None:
        slot.retired = True
        self._collect(slot)

    def _collect(self, slot: _Slot) -> None:
        """Frees a replaced adapter once nobody generates with it."""
        if not slot.retired or slot.streams:
            return
        if len(self._model.peft_config) == 1:
            # peft cannot be left without any adapter: take its layers out again, the base's own remain.
            self._model.unload()
            self._model = self.base.model
            self._active = None
            return
        others = [key for key in self._model.peft_config if key != slot.key]
        self._activate(others[0])
        self._model.delete_adapter(slot.key)


def _choose(logits: Any, temperature: float, chance: Any) -> int:
    import torch

    if temperature <= 0:
        return int(logits.argmax())
    weights = torch.softmax(logits / temperature, dim=-1)
    return int(torch.multinomial(weights, 1, generator=chance))
