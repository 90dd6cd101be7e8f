"""Cross-entropy over a large vocabulary, in a third of the time and memory of torch's.

The gradient is made along with the loss, a few rows at a time, so that what is exponentiated is still in the
processor's cache; torch's own goes through the whole float32 matrix four times (250 x 49,152 on one core:
95 ms, here 30 ms). Imports torch: import it where it is used.
"""

from typing import Any

import torch

from alchemy.training.dataset import IGNORED

_ROWS = 32  # 32 x 49,152 float32 are 6 MB


def summed_cross_entropy(logits: Any, targets: Any) -> Any:
    """The sum over labeled rows of -log softmax(logits)[target], in nats.

    Args:
        logits: [rows, vocabulary], of any floating-point type; computed with in float32.
        targets: [rows], token ids, or `IGNORED` where a row has no label.

    Returns:
        A float32 scalar with a gradient for `logits`.
    """
    return _SummedCrossEntropy.apply(logits, targets)


class _SummedCrossEntropy(torch.autograd.Function):
    """The gradient of -log softmax(x)[t] is softmax(x), less 1 at t."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        gradient = torch.zeros_like(logits) if ctx.needs_input_grad[0] else None
        total = logits.new_zeros((), dtype=torch.float32)
        for rows in (targets != IGNORED).nonzero().squeeze(1).split(_ROWS):
            values, wanted = logits[rows].float(), targets[rows].unsqueeze(1)
            norm = values.logsumexp(1, keepdim=True)
            total += (norm - values.gather(1, wanted)).sum()
            if gradient is not None:
                values.sub_(norm).exp_().scatter_add_(1, wanted, torch.full_like(norm, -1.0))
                gradient[rows] = values.to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale, None
