"""A causal language model of transformers, run for many sequences at once: prompts alone, steps together.

A prompt goes through the model's ordinary forward pass in chunks, alone. One step makes one token for every
running row, in one forward pass with a cache of our own (`slots`) and adapters side by side (`mixing`).

The decision to know: no row's logits depend on the other rows, bit for bit. A step is padded to a multiple of
the `tile` that makes it so (see `tiles`): 2 for bfloat16 in oneDNN (AVX512-BF16), 4 for float32 in MKL, at
worst the largest batch. A lone sequence pays little for it: reading the weights takes the time.

Imports torch: for `generate` alone.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from alchemy.errors import BadInput
from alchemy.training.base import Base
from alchemy.training.mixing import Adapters
from alchemy.training.slots import ATTENTION, Slots
from alchemy.training.tiles import Attention, Product, smallest_tile

CHUNK = 256  # tokens of a prompt that go through the model at once

_UNFIT = (RuntimeError, ValueError, TypeError, AttributeError)  # what foreign modeling code fails with


class Decoder:
    """Runs one base model. Not thread-safe.

    Args:
        base: The model; it is this decoder's from now on.
        most_rows: Sequences in one step.
        most_bytes: Memory for the keys and values of running sequences.
        compiled: Let torch.compile fuse what lies between the products of a step.

    Raises:
        BadInput: The model cannot be run in batches, as one whose attention is none.
    """

    def __init__(self, base: Base, *, most_rows: int, most_bytes: int, compiled: bool = False) -> None:
        self.base = base
        self.most_rows = most_rows
        self.adapters = Adapters(base.model, base.dtype, base.device)
        self.tile = 1
        self._compiled = compiled
        base.model.set_attn_implementation(ATTENTION)
        if compiled:
            # Else a layer's own number makes every layer a graph of its own.
            torch._dynamo.config.allow_unspec_int_on_nn_module = True
            torch._dynamo.config.recompile_limit = 64  # sizes, with and without adapters
            for layer in _layers(base.model):
                layer.compile()
        probe, _ = self._probe(4)
        tile = smallest_tile(_attention(base.model, probe), most_rows, base.dtype, base.device)
        self.slots = Slots(probe, most_bytes, tile)
        self.tile = self._find_tile()
        self._examine()
        self._warm_up()

    @property
    def recompiles(self) -> int:
        """Graphs that torch.compile made after the warm-up, in this process."""
        return _graphs() - self._graphs if self._compiled else 0

    def put(self, folder: Path, config: dict[str, Any]) -> int:
        """Loads an adapter that `check_adapter` has passed; returns its slot. Raises BadInput."""
        before = self.adapters.products
        slot = self.adapters.put(folder, config)
        if self.adapters.products != before:
            self.tile = self._find_tile()
            self._warm_up()
        return slot

    def prefill(self, ids: Sequence[int], cache: Any, slot: int | None) -> Any:
        """Adds a chunk of a prompt to its cache; logits of the next token, float32 on the CPU: [vocabulary].

        A chunk alone decides the shapes, so prompts that are cut in equal places give equal bits.
        """
        batch = torch.tensor([ids], device=self.base.device)
        self.adapters.route([slot])
        with self._eager():
            # By its index, because of a slice torch's matmul copies the whole vocabulary's weights.
            last = torch.tensor([len(ids) - 1], device=self.base.device)
            output = self._forward(batch, past_key_values=cache, logits_to_keep=last)
        return output.logits[0, -1].float().cpu()

    def step(self, tokens: Sequence[int], slots: Sequence[int | None]) -> Any:
        """Adds one token to every running row, in the order of `slots.rows`.

        Args:
            tokens: Of each row.
            slots: The adapter of each row; None is the base alone.

        Returns:
            Logits of the next tokens, float32 on the CPU: [rows, vocabulary].
        """
        rows = self.slots.rows
        padding = -len(rows) % self.tile
        if self._compiled:  # few shapes, each of which is compiled once
            padding = _bucket(len(rows), self.tile, self.most_rows) - len(rows)
        device = self.base.device
        ids = torch.tensor([*tokens, *[0] * padding], device=device)[:, None]
        positions = torch.tensor([*(row.length for row in rows), *[0] * padding], device=device)[:, None]
        self.adapters.route([*slots, *[None] * padding])
        cache = self.slots.step()
        # A mask of four dimensions is taken as it is, and ours lie in the cache.
        mask = torch.empty(0, 0, 0, 0, device=device)
        output = self._forward(ids, position_ids=positions, past_key_values=cache, attention_mask=mask)
        cache.advance()
        return output.logits[: len(rows), -1].float().cpu()

    def _forward(self, ids: Any, **arguments: Any) -> Any:
        with torch.inference_mode():
            return self.base.model(input_ids=ids, use_cache=True, **arguments)

    @contextlib.contextmanager
    def _eager(self) -> Iterator[None]:
        """Prompts have too many lengths to compile."""
        if not self._compiled:
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            yield

    def _probe(self, length: int) -> tuple[Any, Any]:
        """A prompt of random tokens: its cache, and the logits behind it."""
        chance = torch.Generator().manual_seed(length)
        vocabulary = self.base.model.get_input_embeddings().weight.shape[0]
        ids = torch.randint(vocabulary, (length,), generator=chance).tolist()
        cache = DynamicCache()
        try:
            return cache, self.prefill(ids, cache, None)
        except _UNFIT as error:
            raise BadInput(f"{self.base.model_id}: cannot be run in batches ({error})") from error

    def _examine(self) -> None:
        """Compares a step with the ordinary forward pass."""
        lengths = [5 + 6 * (number % 3) for number in range(min(3, self.most_rows))]
        token = 7
        try:
            found = self._steps(lengths, token)[0]
        except _UNFIT as error:
            raise BadInput(f"{self.base.model_id}: cannot be run in batches ({error})") from error
        cache, _ = self._probe(lengths[0])
        wanted = self.prefill([token], cache, None)
        rough = torch.finfo(self.base.dtype).eps ** 0.5
        if not torch.allclose(found, wanted, rtol=rough, atol=float(wanted.abs().max()) * rough):
            raise BadInput(f"{self.base.model_id}: cannot be run in batches (its logits come out otherwise)")

    def _warm_up(self) -> None:
        """Compiles the steps of all sizes, without and with adapters, before anybody waits for them."""
        if not self._compiled:
            return
        for size in buckets(self.tile, self.most_rows):
            for slot in (None, 0) if self.adapters.products else (None,):
                self._steps([5] * min(size, self.most_rows), 7, slot)
        self._graphs = _graphs()

    def _find_tile(self) -> int:
        weights = {tuple(layer.weight.shape) for layer in self.base.model.modules() if _is_linear(layer)}
        products = {Product("linear", *shape) for shape in weights} | self.adapters.products
        return smallest_tile(products, self.most_rows, self.base.dtype, self.base.device)

    def _steps(self, lengths: Sequence[int], token: int, slot: int | None = None) -> Any:
        """Logits of one step of random prompts of these lengths."""
        probes = {length: self._probe(length)[0] for length in set(lengths)}
        rows = []
        try:
            for length in lengths:
                row = self.slots.reserve(length + 1)
                if row is None:
                    raise BadInput(
                        f"the memory for keys and values does not hold {len(lengths)} short sequences"
                    )
                rows.append(row)
                self.slots.fill(row, probes[length])
            return self.step([token] * len(rows), [slot] * len(rows))
        finally:
            for row in reversed(rows):
                self.slots.release(row)


def buckets(tile: int, most: int) -> list[int]:
    """Numbers of rows that a compiled step has: the tile, doubled until it holds the most."""
    sizes = [tile]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], -(-most // tile) * tile))
    return sizes


def _bucket(rows: int, tile: int, most: int) -> int:
    return next(size for size in buckets(tile, most) if size >= rows)


def _attention(model: Any, probe: Any) -> set[Attention]:
    """The products of attention over the widths at which libraries still change their kernels."""
    heads, size = probe.layers[0].keys.shape[1], probe.layers[0].keys.shape[3]
    queries = max(1, getattr(model.config, "num_attention_heads", heads) // heads)
    return {Attention(heads, queries, size, width) for width in (64, 128, 256, 512)}


def _graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _is_linear(layer: Any) -> bool:
    return isinstance(layer, torch.nn.Linear)


def _layers(model: Any) -> Any:
    """The repeated blocks of a decoder: the longest list of modules, as all of transformers' models have."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len)
