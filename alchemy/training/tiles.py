"""How many rows a matrix product must have, for the bits of one row not to depend on the others.

Libraries choose the kernel of a product, and with it the order in which it adds, by the number of rows:
oneDNN takes another one for a single row in bfloat16, MKL works on groups of 4 in float32, cuBLAS changes.
So rows come out the same only among some sizes, and which, only trying tells. We try with columns that cancel
out in pairs: the exact sums are about zero, what comes out is the rounding error, and that shows the order.
(With ordinary numbers one element in 100,000 betrays it.)

Imports torch: for `decoding` alone.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import torch

Multiply = Callable[[slice], Any]  # the product of some of the rows


class Product(NamedTuple):
    """Rows of `in_size` times a matrix: as a linear layer, or added to something, as `mixing` does."""

    kind: Literal["linear", "add"]
    out_size: int
    in_size: int

    def prepare(self, top: int, dtype: Any, device: str) -> Multiply:
        """The product of at most `top` rows of canceling numbers."""
        rows, matrix = (side.to(device, dtype) for side in _canceling(1, top, self.out_size, self.in_size))
        rows, matrix = rows[0], matrix[0]
        if self.kind == "linear":
            return lambda part: torch.nn.functional.linear(rows[part].clone(), matrix)
        added = torch.full((top, self.out_size), 1e-6, dtype=dtype, device=device)
        matrix = matrix.t().contiguous()
        return lambda part: torch.addmm(added[part].clone(), rows[part].clone(), matrix)


class Attention(NamedTuple):
    """The two products of attention, as `slots` makes them: each row has `heads` times `queries`."""

    heads: int
    queries: int
    size: int
    width: int

    def prepare(self, top: int, dtype: Any, device: str) -> Multiply:
        """The products of at most `top` rows of canceling numbers."""
        lanes = top * self.heads
        query, keys = _canceling(lanes, self.queries, self.width, self.size)
        weights, values = _canceling(lanes, self.queries, self.size, self.width)
        query, keys, weights = (side.to(device, dtype) for side in (query, keys, weights))
        values = values.transpose(1, 2).to(device, dtype).contiguous()

        def multiply(part: slice) -> Any:
            part = slice(part.start * self.heads, part.stop * self.heads)
            scores = torch.bmm(query[part].clone(), keys[part].transpose(1, 2))
            output = torch.bmm(weights[part].clone(), values[part])
            return torch.cat([scores.flatten(1), output.flatten(1)], 1).view(
                -1, self.heads, scores[0].numel() + output[0].numel()
            )

        return multiply


def smallest_tile(products: Iterable[Product | Attention], most: int, dtype: Any, device: str) -> int:
    """The smallest power of two such that rows agree among all its multiples that hold up to `most` rows.

    At worst it holds all: then there is one size, and nothing that it could depend on.
    """
    tile = 1
    for product in set(products):
        while tile < most and not _agree(product, tile, most, dtype, device):
            tile *= 2
    return tile


@functools.cache
def _agree(product: Product | Attention, tile: int, most: int, dtype: Any, device: str) -> bool:
    top = -(-most // tile) * tile
    multiply = product.prepare(top, dtype, device)
    whole = multiply(slice(0, top))
    return all(
        torch.equal(multiply(slice(start, start + size)), whole[start : start + size])
        for size in range(tile, top, tile)
        for start in {0, top - size}
    )


def _canceling(lanes: int, rows: int, columns: int, size: int) -> tuple[Any, Any]:
    """[lanes, rows, size] and [lanes, columns, size], whose products are zero but for rounding."""
    chance = torch.Generator().manual_seed(0)
    half = -(-size // 2)
    order = torch.randperm(2 * half, generator=chance)[:size]
    left = torch.randn(lanes, rows, half, generator=chance).repeat(1, 1, 2)[:, :, order]
    right = torch.randn(lanes, columns, half, generator=chance)
    return left.contiguous(), torch.cat([right, -right], dim=2)[:, :, order].contiguous()
