"""However the examples are laid out and computed, the gradient is that of every example by itself."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from alchemy.catalog import LoraOptions
from alchemy.settings import TrainOptions
from alchemy.training.base import Base, load_base, quiet_peft
from alchemy.training.dataset import IGNORED, Batch, Example, encode, lay_out, to_tensors
from alchemy.training.evaluate import summed_loss
from alchemy.training.lora import wrap

LORA = LoraOptions(r=4, alpha=8)


@pytest.fixture
def base(tiny_base) -> Base:
    """In float32 on every machine, so that sums differ by rounding alone."""
    import torch

    loaded = load_base(tiny_base, "cpu")
    return dataclasses.replace(loaded, model=loaded.model.float(), dtype=torch.float32)


@pytest.fixture
def examples(base, train_pairs) -> Sequence[Example]:
    """Of many lengths."""
    longer = [
        dataclasses.replace(pair, response=pair.response * (1 + number % 3))
        for number, pair in enumerate(train_pairs[:12])
    ]
    return encode(base.tokenizer, longer, 128).examples


def wrapped(base: Base, **options: Any) -> Any:
    """The base with an adapter that is not nothing, as it is in the middle of a training."""
    import torch

    with torch.random.fork_rng(), quiet_peft():
        torch.manual_seed(5)
        model = wrap(base, LORA, TrainOptions(**options)).train()
        for weight in trained(model).values():
            torch.nn.init.normal_(weight, std=0.1)
    return model


def trained(model: Any) -> dict[str, Any]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def gradients(base: Base, model: Any, batches: Sequence[Batch], width: int) -> tuple[float, dict[str, Any]]:
    """Summed loss and gradients, with the attention that rows of at most `width` tokens get."""
    model.zero_grad(set_to_none=True)
    total = 0.0
    with base.attention(width):
        for batch in batches:
            loss = summed_loss(model, *to_tensors(batch, "cpu"))
            loss.backward()
            total += loss.item()
    return total, {name: weight.grad.clone() for name, weight in trained(model).items()}


def assert_equal(one: tuple[float, dict[str, Any]], other: tuple[float, dict[str, Any]]) -> None:
    import torch

    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert any(gradient.abs().max() > 1e-2 for gradient in one[1].values())
    for name, gradient in one[1].items():
        scale = gradient.abs().max()
        torch.testing.assert_close(other[1][name] / scale, gradient / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("width", [512, 4096], ids=["plain products", "fused attention"])
@pytest.mark.parametrize("row_tokens", [0, 128, 1024], ids=["padded", "several rows", "one row"])
def test_the_gradient_of_a_batch_is_the_sum_of_its_examples_gradients(base, examples, row_tokens, width):
    model = wrapped(base)
    alone = gradients(base, model, [((example,),) for example in examples], width)
    batches = lay_out(examples, 2048, row_tokens)
    assert len(batches) == 1
    assert (len(batches[0]) < len(examples)) == (row_tokens > 0)
    assert_equal(alone, gradients(base, model, batches, width))


def test_an_example_does_not_see_the_one_before_it_in_its_row(base, examples):
    import torch

    model = wrapped(base)
    last = examples[-1]

    def loss_behind(first: Example) -> torch.Tensor:
        unlabeled = Example(first.ids, len(first.ids))
        return summed_loss(model, *to_tensors([(unlabeled, last)], "cpu")).detach()

    other = Example(tuple(reversed(examples[0].ids)), 1)
    torch.testing.assert_close(loss_behind(examples[0]), loss_behind(other), rtol=1e-5, atol=0)


def test_recomputed_activations_give_the_same_gradients(base, examples, tiny_base):
    batches = lay_out(examples, 256)
    kept = gradients(base, wrapped(base), batches, 512)
    again = dataclasses.replace(base, model=load_base(tiny_base, "cpu").model.float())
    model = wrapped(again, gradient_checkpointing=True)
    calls = []
    attention = model.base_model.model.model.layers[0].self_attn
    attention.register_forward_pre_hook(lambda *_: calls.append(1))
    assert_equal(kept, gradients(again, model, batches, 512))
    assert len(calls) == 2 * len(batches)  # forward, and once more on the way back


def test_the_fused_cross_entropy_is_torchs():
    import torch

    from alchemy.training.loss import summed_cross_entropy

    chance = torch.Generator().manual_seed(2)
    logits = torch.randn(70, 300, generator=chance).mul_(5).requires_grad_()
    targets = torch.randint(300, (70,), generator=chance)
    targets[::3] = IGNORED
    wanted = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    found = summed_cross_entropy(logits, targets)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    slopes = [torch.autograd.grad(3 * loss, logits)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-5)
