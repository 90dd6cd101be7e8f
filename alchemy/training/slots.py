"""Memory of running sequences: keys and values in rows of a few fixed widths, and attention over them.

A sequence takes one row, of the narrowest width that holds its prompt and all that it may write, so that
memory follows the request and not the model's longest context. The rows of one width lie dense in one tensor
a layer: a sequence that ends is replaced by the last row, so a step never gathers and nobody is prefilled
again. Attention looks at a row's own width alone. It is made of plain products, whose results for a row do
not depend on how many rows there are; torch's fused attention splits work over threads by the whole batch,
and in float32 its last bits change with that.

Imports torch: for `decoding` alone.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from alchemy.errors import BadInput

ATTENTION = "alchemy_slots"  # its name inside transformers
_NARROWEST = 64  # tokens; each next width is twice as wide


@dataclass(eq=False, slots=True)
class Row:
    """The place of one sequence."""

    width: int  # most tokens
    length: int = 0  # tokens that are in it


@dataclass(slots=True)
class _Pool:
    """All rows of one width. `keys` and `values`: [capacity, heads, width, head size] a layer."""

    rows: list[Row] = field(default_factory=list)
    reserved: int = 0  # rows of sequences that are still being prefilled
    capacity: int = 0
    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


class Slots:
    """Rows for sequences, within a bound of memory.

    Args:
        like: A prefilled `DynamicCache`, which shows what a layer keeps of a token.
        most_bytes: Bound of all rows together. While a pool grows, one layer of it is there twice.
        tile: Rows of one width take part in the products in multiples of it (see `tiles`).
    """

    def __init__(self, like: Any, most_bytes: int, tile: int) -> None:
        self._tile = tile
        self._shapes = [
            tuple((tensor.shape[1], tensor.shape[3], tensor.dtype) for tensor in (layer.keys, layer.values))
            for layer in like.layers
        ]
        self._device = like.layers[0].keys.device
        self._token_bytes = sum(
            heads * size * dtype.itemsize for pair in self._shapes for heads, size, dtype in pair
        )
        self._most_bytes = most_bytes
        self._pools: dict[int, _Pool] = {}

    @property
    def rows(self) -> list[Row]:
        """The running rows, in the order of a batch."""
        return [row for width in sorted(self._pools) for row in self._pools[width].rows]

    @property
    def bytes(self) -> int:
        """Memory that is taken now."""
        return sum(self._bytes(width, pool.capacity) for width, pool in self._pools.items())

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens fits where nobody else is."""
        return self._bytes(_width(tokens), self._tile) <= self._most_bytes

    def reserve(self, tokens: int) -> Row | None:
        """A row for a sequence of at most so many tokens; None while others have the memory."""
        width = _width(tokens)
        pool = self._pools.setdefault(width, _Pool())
        needed = self._padded(len(pool.rows) + pool.reserved + 1)
        if needed > pool.capacity and not self._grow(width, needed):
            return None
        pool.reserved += 1
        return Row(width)

    def fill(self, row: Row, cache: Any) -> None:
        """Lets a reserved row run, with what its prefill left in a `DynamicCache`."""
        pool = self._pools[row.width]
        at, row.length = len(pool.rows), cache.get_seq_length()
        for layer, kept in enumerate(cache.layers):
            for whole, new in ((pool.keys[layer], kept.keys), (pool.values[layer], kept.values)):
                whole[at, :, : row.length] = new[0]
                whole[at, :, row.length :] = 0
        pool.reserved -= 1
        pool.rows.append(row)

    def release(self, row: Row) -> None:
        """Frees a row, reserved or running."""
        pool = self._pools[row.width]
        if row not in pool.rows:
            pool.reserved -= 1
            return
        at, last = pool.rows.index(row), pool.rows.pop()
        if last is row:
            return
        pool.rows[at] = last
        for tensor in (*pool.keys, *pool.values):
            tensor[at, :, : last.length] = tensor[len(pool.rows), :, : last.length]
            tensor[at, :, last.length : row.length] = 0

    def step(self) -> "StepCache":
        """A cache for one forward pass of one new token a row; afterwards every row is one longer."""
        groups, start = [], 0
        for width in sorted(self._pools):
            pool = self._pools[width]
            if pool.rows:
                groups.append(_Group(start, pool, width, self._padded(len(pool.rows)), self._device))
                start += len(pool.rows)
        return StepCache(groups)

    def _padded(self, rows: int) -> int:
        return -(-rows // self._tile) * self._tile

    def _bytes(self, width: int, rows: int) -> int:
        return width * rows * self._token_bytes

    def _grow(self, width: int, needed: int) -> bool:
        """Makes room by doubling, by less, or by taking from other pools what they do not use."""
        pool = self._pools[width]
        others = self.bytes - self._bytes(width, pool.capacity)
        for capacity in (max(needed, 2 * pool.capacity), needed):
            if others + self._bytes(width, capacity) <= self._most_bytes:
                self._resize(width, capacity)
                return True
        for other in self._pools:
            if other != width:
                self._resize(other, self._padded(len(self._pools[other].rows) + self._pools[other].reserved))
        others = self.bytes - self._bytes(width, pool.capacity)
        if others + self._bytes(width, needed) > self._most_bytes:
            return False
        self._resize(width, needed)
        return True

    def _resize(self, width: int, capacity: int) -> None:
        pool = self._pools[width]
        if capacity == pool.capacity:
            return
        # What all layers hold, also where memory runs out half-way. One layer after the other, because all of
        # them beside the old ones would take half as much again as the bound.
        pool.capacity = min(pool.capacity, capacity)
        pool.keys = pool.keys or [None] * len(self._shapes)
        pool.values = pool.values or [None] * len(self._shapes)
        for layer, shapes in enumerate(self._shapes):
            for tensors, (heads, size, dtype) in zip((pool.keys, pool.values), shapes, strict=True):
                new = torch.zeros(capacity, heads, width, size, dtype=dtype, device=self._device)
                if pool.rows:
                    new[: len(pool.rows)] = tensors[layer][: len(pool.rows)]
                tensors[layer] = new
        pool.capacity = capacity


def _width(tokens: int) -> int:
    return max(_NARROWEST, 1 << (tokens - 1).bit_length())


class _Group:
    """The rows of one width in one step, with what all layers share: places to write to, and masks."""

    def __init__(self, start: int, pool: _Pool, width: int, padded: int, device: Any) -> None:
        self.pool = pool
        self.width = width
        self.count = len(pool.rows)
        self.padding = padded - self.count
        self.batch = slice(start, start + self.count)
        self._at = torch.tensor([row.length for row in pool.rows], device=device)
        self._places: dict[int, Any] = {}
        self._masks: dict[int | None, Any] = {}

    def write(self, tensor: Any, new: Any) -> None:
        """Puts [rows, heads, 1, size] behind what is in `tensor`: [capacity, heads, width, size]."""
        heads, size = tensor.shape[1], tensor.shape[3]
        if heads not in self._places:
            lanes = torch.arange(self.count * heads, device=self._at.device) * self.width
            self._places[heads] = lanes + self._at.repeat_interleave(heads)
        tensor.view(-1, size).index_copy_(0, self._places[heads], new.reshape(-1, size))

    def mask(self, window: int | None) -> Any:
        """What a new token must not see is -inf, else 0: float32, [rows, 1, 1, width]."""
        if window not in self._masks:
            place = torch.arange(self.width, device=self._at.device)
            at = torch.nn.functional.pad(self._at, (0, self.padding))[:, None]
            hidden = place > at
            if window is not None:
                hidden |= place <= at - window
            zeros = torch.zeros(hidden.shape, device=self._at.device)
            self._masks[window] = zeros.masked_fill_(hidden, float("-inf"))[:, None, None]
        return self._masks[window]


class StepCache(Cache):
    """Takes the new keys and values of a forward pass, and stands for all of them before `attend`."""

    def __init__(self, groups: list[_Group]) -> None:
        super().__init__(layers=[])
        self.groups = groups

    # Compiled code ends here and goes on behind the attention: so it sees the number of rows alone.
    @torch.compiler.disable
    def update(self, key_states: Any, value_states: Any, layer_idx: int, *_: Any, **__: Any) -> Any:
        for group in self.groups:
            group.write(group.pool.keys[layer_idx], key_states[group.batch])
            group.write(group.pool.values[layer_idx], value_states[group.batch])
        layer = _Layer(self.groups, layer_idx)
        return layer, layer

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(row.length for group in self.groups for row in group.pool.rows)

    def advance(self) -> None:
        """The forward pass is through."""
        for group in self.groups:
            for row in group.pool.rows:
                row.length += 1


@dataclass(frozen=True, slots=True)
class _Layer:
    """All keys and values of one layer."""

    groups: list[_Group]
    index: int


@torch.compiler.disable
def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Any, None]:
    """Attention as transformers calls it: of a prompt torch's own, of a step that over the rows.

    Returns [batch, tokens, heads, head size]. Rows of the batch that have no slot (padding) become zeros.
    """
    if not isinstance(key, _Layer):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if unknown:
        raise BadInput(f"attention with {', '.join(unknown)} cannot be batched")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    outputs = [
        _attend(query[group.batch], group, key.index, group.mask(sliding_window), scale)
        for group in key.groups
    ]
    padding = len(query) - sum(group.count for group in key.groups)
    if padding:
        outputs.append(outputs[0].new_zeros(padding, *outputs[0].shape[1:]))
    return (torch.cat(outputs) if len(outputs) > 1 else outputs[0]), None


def _attend(query: Any, group: _Group, layer: int, mask: Any, scale: float) -> Any:
    """Query: [rows, heads, 1, size]; several of its heads share one of the keys' and values'."""
    if group.padding:
        query = torch.nn.functional.pad(query, (0, 0, 0, 0, 0, 0, 0, group.padding))
    keys, values = (tensors[layer][: len(query)] for tensors in (group.pool.keys, group.pool.values))
    rows, heads, _, size = query.shape
    shared, width = keys.shape[1], keys.shape[2]
    lanes = rows * shared
    scores = torch.bmm(
        query.reshape(lanes, heads // shared, size), keys.view(lanes, width, size).transpose(1, 2)
    )
    scores = scores.view(rows, shared, heads // shared, width).float().mul_(scale).add_(mask)
    weights = torch.softmax(scores, dim=-1).to(values.dtype)
    output = torch.bmm(weights.view(lanes, heads // shared, width), values.view(lanes, width, -1))
    return output.view(rows, 1, heads, -1)[: group.count]


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
