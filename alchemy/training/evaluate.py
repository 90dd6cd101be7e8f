"""Held-out loss: how well a base model, with or without an adapter, predicts responses it never saw."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from alchemy.errors import BadInput
from alchemy.training.base import Base, attach, portable_name
from alchemy.training.dataset import IGNORED, Example, lay_out, to_tensors

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@contextmanager
def attached(base: Base, folder: Path) -> Iterator[Any]:
    """The base with the adapter of a folder around it; afterwards the base is as it was.

    Raises BadInput where the adapter is unsafe or not made for this base.
    """
    check_adapter(folder, base.model_id)
    model = attach(base, folder, "held_out")
    try:
        yield model
    finally:
        model.unload()


def mean_loss(base: Base, model: Any, examples: Sequence[Example]) -> float:
    """Nats per labeled token. `model` is the base's own or a peft model around it."""
    import torch

    total = 0.0
    with torch.inference_mode(), base.precision():
        for batch in lay_out(examples, micro_tokens(base.device)):
            tensors = to_tensors(batch, base.device)
            with base.attention(tensors[0].shape[1]):
                total += float(summed_loss(model, *tensors))
    return total / sum(example.labeled for example in examples)


def summed_loss(model: Any, ids: Any, positions: Any, labels: Any) -> Any:
    """Cross-entropy in nats, summed over the labeled tokens of a batch; the arguments are of `to_tensors`.

    Logits are made only for the columns in which some row has a label: with a vocabulary of 49,152 they
    are a fifth of the work and most of the memory.
    """
    from alchemy.training.loss import summed_cross_entropy

    targets = labels[:, 1:]
    columns = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
    logits = model(input_ids=ids, position_ids=positions, logits_to_keep=columns, use_cache=False).logits
    return summed_cross_entropy(logits.flatten(0, 1), targets[:, columns].flatten())


def micro_tokens(device: str) -> int:
    """Padded tokens of one forward pass. On a CPU 1024 are as fast and take 1 GB more (SmolLM2-135M)."""
    return 512 if device == "cpu" else 8192


def check_adapter(folder: Path, base_model_id: str) -> dict[str, Any]:
    """Refuses an adapter that must not or cannot be loaded on this base; returns its configuration.

    Raises:
        BadInput: The folder holds pickles (loading one runs its code), is incomplete or broken, or the
            adapter was trained on another base model.
    """
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in _PICKLES)
    if pickles:
        raise BadInput(f"{folder}: {pickles[0]} is a pickle and may run code; convert it to {WEIGHTS}")
    try:
        config = orjson.loads((folder / CONFIG).read_bytes())
        trained_on = config["base_model_name_or_path"]
        kind = config["peft_type"]
    except FileNotFoundError:
        raise BadInput(f"{folder}: no {CONFIG}; this is not an adapter") from None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInput(f"{folder / CONFIG}: not a peft configuration ({error})") from None
    if kind != "LORA":
        raise BadInput(f"{folder / CONFIG}: peft_type is {kind}, only LORA is served")
    if trained_on != portable_name(base_model_id):
        raise BadInput(
            f"{folder}: the adapter was trained on {trained_on}, the base model is {base_model_id}; train it "
            f"again or set model_c in models.yaml to {trained_on}"
        )
    _check_weights(folder / WEIGHTS)
    return dict(config)


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
    except FileNotFoundError:
        raise BadInput(f"{path.parent}: no {path.name}; the adapter is incomplete") from None
    except SafetensorError as error:
        raise BadInput(f"{path}: not a safetensors file ({error})") from None
    if not names:
        raise BadInput(f"{path}: holds no tensors")
