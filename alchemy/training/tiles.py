"""How many rows a matrix product must have, for the bits of one row not to depend on the others.

Libraries choose the kernel of a product, and with it the order in which it adds, by the number of rows:
oneDNN takes another one for a single row in bfloat16, MKL works on groups of 4 in float32, cuBLAS changes.
So rows come out the same only among some sizes, and which, only trying tells. We try with columns that cancel
out in pairs: the exact sums are about zero, what comes out is the rounding error, and that shows the order.
(With ordinary numbers one element in 100,000 betrays it.)

Imports torch: for `decoding` alone.
"""

import functools
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch


class Product(NamedTuple):
    """Rows of `in_size` times a matrix: as a linear layer, or added to something, as `mixing` does."""

    kind: Literal["linear", "add"]
    out_size: int
    in_size: int


def smallest_tile(products: Iterable[Product], most: int, dtype: Any, device: str) -> int:
    """The smallest power of two such that rows agree among all its multiples that hold up to `most` rows.

    At worst it holds all: then there is one size, and nothing that it could depend on.
    """
    tile = 1
    for product in sorted(set(products)):
        while tile < most and not _agree(product, tile, most, dtype, device):
            tile *= 2
    return tile


@functools.cache
def _agree(product: Product, tile: int, most: int, dtype: Any, device: str) -> bool:
    top = -(-most // tile) * tile
    rows, matrix = _canceling(top, product, dtype, device)
    added = torch.full((top, product.out_size), 1e-6, dtype=dtype, device=device)

    def multiply(part: slice) -> Any:
        if product.kind == "linear":
            return torch.nn.functional.linear(rows[part].clone(), matrix.t())
        return torch.addmm(added[part].clone(), rows[part].clone(), matrix)

    whole = multiply(slice(top))
    return all(
        torch.equal(multiply(slice(start, start + size)), whole[start : start + size])
        for size in range(tile, top, tile)
        for start in {0, top - size}
    )


def _canceling(top: int, product: Product, dtype: Any, device: str) -> tuple[Any, Any]:
    """Rows [top, in] and a matrix [in, out], in the layout of the product's kind."""
    chance = torch.Generator().manual_seed(0)
    half = max(1, product.in_size // 2)
    order = torch.randperm(2 * half, generator=chance)[: product.in_size]
    left = torch.randn(top, half, generator=chance).repeat(1, 2)[:, order]
    right = torch.randn(product.out_size, half, generator=chance)
    right = torch.cat([right, -right], dim=1)[:, order]
    if product.in_size > 2 * half:
        left, right = (
            torch.nn.functional.pad(side, (0, product.in_size - 2 * half)) for side in (left, right)
        )
    left, right = left.to(device, dtype), right.to(device, dtype)
    return left, right.t() if product.kind == "linear" else right.t().contiguous()
