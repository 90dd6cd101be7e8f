"""Several LoRA adapters around one base, each row of a batch with its own.

The factors of all adapters lie side by side: down-projections stacked to [slots * rank, in], up-projections
to [slots * rank, out]. One pair of products serves the whole batch, and zeros in between keep every row to
its own adapter's rank. peft's `adapter_names` runs each adapter of the batch after the other instead.
The products always have the width of all slots, also for a single row: so a row's bits do not depend on the
adapters of the others. (They may on how many slots there are, which doubles when adapters need more.)

Imports torch: for `decoding` alone.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alchemy.errors import BadInput
from alchemy.training.evaluate import WEIGHTS
from alchemy.training.tiles import Product

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# What would change more than the product of two factors.
_UNSERVED = ("use_dora", "lora_bias", "modules_to_save", "layer_replication", "trainable_token_indices")


class Adapters:
    """The adapters of one base model, by slot."""

    def __init__(self, model: Any, dtype: Any, device: str) -> None:
        self._model = model
        self._dtype = dtype
        self._device = device
        self._rank = 0  # of the widest adapter so far
        self._free: list[int] = []
        self._slots = 0
        self._layers: dict[str, _MixedLinear] = {}
        self._routes = _Routes()

    @property
    def products(self) -> set[Product]:
        """The shapes of the products that adapters add to a pass."""
        width = self._slots * self._rank
        sizes = {_weight(layer.base) for layer in self._layers.values()}
        return {Product("linear", width, in_size) for _, in_size in sizes} | {
            Product("add", out_size, width) for out_size, _ in sizes
        }

    def put(self, folder: Path, config: dict[str, Any]) -> int:
        """Loads an adapter that `check_adapter` has passed; returns its slot.

        Raises BadInput where it is not plain LoRA or does not fit the base, and changes nothing.
        """
        factors = _read(folder, config, self._model)
        rank = max(down.shape[0] for down, _ in factors.values())
        if rank > self._rank or not self._free:
            # Room for as many again: growing copies all factors.
            self._resize(max(2 * self._slots, 2) if not self._free else self._slots, max(rank, self._rank))
        for name in factors:
            if name not in self._layers:
                self._wrap(name)
        slot = self._free[-1]
        for name, layer in self._layers.items():
            layer.put(slot, self._rank, *factors.get(name, (None, None)))
        return self._free.pop()

    def free(self, slot: int) -> None:
        """Makes a slot's place another adapter's; nobody may run with it."""
        self._free.append(slot)

    def route(self, slots: Sequence[int | None]) -> None:
        """Sends each row of the next forward passes through the adapter of a slot; None is the base alone.

        A single slot holds for all rows, as those of a prompt are.
        """
        used = [slot for slot in slots if slot is not None]
        if not used:
            self._routes.mask = None
            return
        mask = torch.zeros(len(slots), self._slots, self._rank, dtype=self._dtype, device=self._device)
        mask[[row for row, slot in enumerate(slots) if slot is not None], used] = 1
        self._routes.mask = mask.flatten(1)

    def _wrap(self, name: str) -> None:
        layer = _MixedLinear(self._model.get_submodule(name), self._routes)
        layer.down, layer.up = layer.resized(self._slots, self._rank, 0, self._dtype, self._device)
        self._layers[name] = layer
        parent, _, last = name.rpartition(".")
        setattr(self._model.get_submodule(parent), last, layer)

    def _resize(self, slots: int, rank: int) -> None:
        # All before any is kept: where memory runs out half-way, every layer still has what it had.
        resized = [
            (layer, layer.resized(slots, rank, self._rank, self._dtype, self._device))
            for layer in self._layers.values()
        ]
        for layer, (down, up) in resized:
            layer.down, layer.up = down, up
        self._free = [*range(slots - 1, self._slots - 1, -1), *self._free]
        self._slots, self._rank = slots, rank


class _Routes:
    """What all layers look at: the ranks that each row goes through."""

    def __init__(self) -> None:
        self.mask: Any = None  # [rows or 1, slots * rank], 1 where a row's adapter is; None for no adapters


class _MixedLinear(nn.Module):
    """A linear layer and the factors of all adapters on it."""

    def __init__(self, base: Any, routes: _Routes) -> None:
        super().__init__()
        self.base = base
        self._routes = routes
        out_size, in_size = _weight(base)
        self.down = torch.empty(0, in_size)
        self.up = torch.empty(0, out_size)

    def resized(self, slots: int, rank: int, before: int, dtype: Any, device: str) -> tuple[Any, Any]:
        """`down` and `up` for so many adapters of at most that rank; `before` is the rank until now."""
        return (
            _resized(self.down, slots, rank, before, dtype, device),
            _resized(self.up, slots, rank, before, dtype, device),
        )

    def put(self, slot: int, rank: int, down: Any, up: Any) -> None:
        """Writes one adapter's factors; None where it leaves this layer alone."""
        for whole, factor in ((self.down, down), (self.up, up)):
            place = whole[slot * rank : (slot + 1) * rank].zero_()
            if factor is not None:
                place[: len(factor)] = factor

    @property
    def weight(self) -> Any:
        """Some models look at a layer's weights, for their precision."""
        return self.base.weight

    def forward(self, states: Any) -> Any:
        output = self.base(states)
        mask = self._routes.mask
        if mask is None:
            return output
        narrow = nn.functional.linear(states.view(-1, states.shape[-1]), self.down).mul_(mask)
        return torch.addmm(output.view(-1, output.shape[-1]), narrow, self.up).view(output.shape)


def _resized(old: Any, slots: int, rank: int, before: int, dtype: Any, device: str) -> Any:
    new = torch.zeros(slots, rank, old.shape[1], dtype=dtype, device=device)
    if before:
        kept = old.view(-1, before, old.shape[1])
        new[: len(kept), :before] = kept
    return new.view(-1, old.shape[1])


def _read(folder: Path, config: dict[str, Any], model: Any) -> dict[str, tuple[Any, Any]]:
    """The factors by layer, [rank, in] and [rank, out]; the second holds the scaling as well."""
    from safetensors.torch import load_file

    unserved = [name for name in _UNSERVED if config.get(name)]
    if unserved or config.get("bias", "none") != "none":
        raise BadInput(f"{folder}: only plain LoRA is served, this has {', '.join(unserved) or 'biases'}")
    factors: dict[str, dict[str, Any]] = {}
    for key, tensor in load_file(folder / WEIGHTS).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise BadInput(f"{folder}: {key} fits nowhere in the base model")
        factors.setdefault(match[1], {})[match[2]] = tensor
    missing = sorted(_targets(config, model) - factors.keys())
    if missing:
        raise BadInput(
            f"{folder}: {len(missing)} layers of the adapter are missing, the first is {missing[0]}"
        )
    return {name: _pair(folder, config, model, name, pair) for name, pair in factors.items()}


def _targets(config: dict[str, Any], model: Any) -> set[str]:
    """The layers that the adapter must have, where its configuration says so plainly, as peft writes it."""
    targets = config.get("target_modules")
    if not isinstance(targets, list) or config.get("layers_to_transform") or config.get("exclude_modules"):
        return set()
    return {
        name
        for name, _ in model.named_modules()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    }


def _pair(
    folder: Path, config: dict[str, Any], model: Any, name: str, pair: dict[str, Any]
) -> tuple[Any, Any]:
    try:
        base = model.get_submodule(name)
        out_size, in_size = _weight(base.base if isinstance(base, _MixedLinear) else base)
        down, up = pair["A"], pair["B"].t()
        fits = (down.shape, up.shape) == ((len(down), in_size), (len(down), out_size))
    except (AttributeError, KeyError):
        fits = False
    if not fits:
        raise BadInput(f"{folder}: the adapter does not fit the base model at {name}")
    return down, up.float() * _scaling(config, name, len(down))


def _scaling(config: dict[str, Any], name: str, rank: int) -> float:
    """peft's: alpha / rank, or alpha / sqrt(rank) (https://arxiv.org/abs/2312.03732), alpha by pattern."""
    patterns = config.get("alpha_pattern") or {}
    alpha = next(
        (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name)),
        config.get("lora_alpha", 8),
    )
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _weight(layer: Any) -> tuple[int, int]:
    """(out, in) of a linear layer; GPT-2's Conv1D keeps its weight the other way round."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if hasattr(layer, "nf"):
        return layer.nf, layer.weight.shape[0]
    raise AttributeError("not a linear layer")
