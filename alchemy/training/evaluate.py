"""Held-out loss: how well a base model, with or without an adapter, predicts responses it never saw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from alchemy.errors import BadInput
from alchemy.records import SftPair
from alchemy.training.base import MODELS, Base, attach, load_base, portable_name
from alchemy.training.dataset import IGNORED, Example, encode, lay_out, to_tensors

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Loss on held-out pairs; `tokens` are response tokens and ends of sequence."""

    loss: float  # nats per response token
    perplexity: float
    tokens: int
    pairs: int
    left_out: int  # pairs longer than max_length


def held_out_loss(
    base: str | Base,
    adapter: Path | None,
    pairs: Sequence[SftPair],
    device: str = "auto",
    *,
    models: Path = MODELS,
    max_length: int = 1024,
) -> HeldOut:
    """Loss per response token of the base, or of the base with the adapter in a folder.

    Args:
        base: A model of models.yaml, or one that `load_base` has loaded (then it is left as it was).
        adapter: A folder with adapter_config.json and adapter_model.safetensors, or None.
        pairs: Held-out pairs.
        device: Where to compute; not used with a loaded base.
        models: The folder of packaged weights; not used with a loaded base.
        max_length: Pairs with more tokens are left out and counted.

    Raises:
        BadInput: No pair is short enough, or the adapter is unsafe or not made for this base.
    """
    if adapter is not None:
        check_adapter(adapter, base if isinstance(base, str) else base.model_id)
    loaded = load_base(base, device, models) if isinstance(base, str) else base
    encoded = encode(loaded.tokenizer, pairs, max_length)
    if not encoded.examples:
        raise BadInput(f"none of {len(pairs)} held-out pairs is at most {max_length} tokens long")
    model = loaded.model
    if adapter is not None:
        model = attach(loaded, adapter, "held_out")
    try:
        loss = mean_loss(loaded, model, encoded.examples)
    finally:
        if adapter is not None:
            model.unload()
    tokens = sum(example.labeled for example in encoded.examples)
    return HeldOut(loss, math.exp(min(loss, 700)), tokens, len(encoded.examples), encoded.left_out)


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
