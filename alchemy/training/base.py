"""The base model of the adapters: loading it, and the precision in which a device computes fastest."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alchemy.errors import BadInput, Unavailable
from alchemy.models import find, no_progress_bars, resolve

MODELS = Path("data/models")  # the default of Settings.models

_SHORT = 512  # tokens; the products take the square of it in memory

# For base models that were never tuned for chat, as the contract's TinyLlama checkpoint.
PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}### Response:\n{{ message['content'] }}{{ eos_token }}\n"
    "{% else %}### {{ 'Instruction' if message['role'] == 'user' else 'System' }}:\n"
    "{{ message['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base model. `model` is a causal language model of transformers, in evaluation mode."""

    model_id: str
    model: Any
    tokenizer: Any
    device: str
    dtype: Any  # torch.dtype of the weights and of the matrix products

    def precision(self) -> Any:
        """A context in which float32 adapter weights are multiplied in `dtype`."""
        import torch

        kind = self.device.split(":")[0]
        return torch.autocast(kind, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @contextlib.contextmanager
    def attention(self, width: int) -> Iterator[None]:
        """Forward and backward passes over rows of at most `width` tokens, in the fastest way.

        torch's fused attention is made for long rows; of short ones a CPU makes the plain products two to
        four times as fast. (5 rows of 100 tokens in bfloat16, both passes: 15 ms against 4 ms.)
        """
        before = self.model.config._attn_implementation
        if self.device == "cpu" and width <= _SHORT:
            self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(before)


def load_base(model_id: str, device: str = "auto", models: Path = MODELS, *, four_bit: bool = False) -> Base:
    """Loads a model of `models.yaml`, frozen, without gradients.

    Args:
        model_id: A packaged model, a folder, or a hub name.
        device: auto, cpu, cuda, cuda:N (CUDA and ROCm alike) or mps.
        models: The folder of packaged weights.
        four_bit: Keep the weights in 4 bits (QLoRA's NF4, https://arxiv.org/abs/2305.14314).

    Raises:
        Unavailable: The weights cannot be had, or 4 bits not be computed with here.
        BadInput: The model has no end-of-sequence token, so an answer would never end.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = pick_device(device)
    dtype = pick_dtype(place)
    quantized = _in_four_bits(place, dtype) if four_bit else {}
    source = resolve(model_id, models)
    with no_progress_bars():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, use_safetensors=True, **quantized
            )
        except OSError as error:
            raise Unavailable(
                f"{model_id}: cannot be loaded ({error}); check model_id in models.yaml, or that the hub can "
                f"be reached, or put the model into a folder and name that"
            ) from error
    if tokenizer.eos_token_id is None:
        raise BadInput(f"{model_id}: its tokenizer has no end-of-sequence token; take another base model")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    model.requires_grad_(False)
    if not four_bit:  # quantized weights are made on their device and stay there
        model = model.to(place)
    return Base(model_id, model.eval(), tokenizer, place, dtype)


def pick_device(device: str) -> str:
    """`auto` becomes the GPU where there is one; ROCm's builds of torch call theirs cuda as well."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Unavailable(f"device {device} is not there; set device to auto or cpu in models.yaml")
    return device


def pick_dtype(device: str) -> Any:
    """bfloat16 where the hardware multiplies it, float16 on older GPUs, else float32.

    On two AVX512-BF16 cores bfloat16 trains 2.6 times as fast as float32.
    """
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device == "cpu":
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    return torch.float32


def mend_attention(device: str) -> str | None:
    """Compares torch's fused attention on ROCm with the plain one; where it is wrong, turns it off.

    Its kernels there are newer than the hardware list they run on, and have returned wrong numbers.

    Returns:
        What is wrong, or None.
    """
    import torch

    if torch.version.hip is None or not pick_device(device).startswith("cuda"):
        return None
    return compare_attention(device, torch.nn.functional.scaled_dot_product_attention)


def compare_attention(device: str, attention: Any) -> str | None:
    """`mend_attention` of any attention function on any device."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    place = pick_device(device)
    chance = torch.Generator().manual_seed(0)
    shape = (3, 1, 4, 96, 64)
    query, key, value = torch.randn(shape, generator=chance).to(place, pick_dtype(place))
    with sdpa_kernel(SDPBackend.MATH):
        wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    try:
        found = attention(query, key, value, is_causal=True)
        wrong = not torch.allclose(found.float(), wanted.float(), rtol=0.02, atol=0.02)
        reason = "gives other results than the plain one"
    except RuntimeError as error:
        wrong, reason = True, f"fails ({error})"
    if not wrong:
        return None
    for backend in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{backend}_sdp")(False)
    return f"attention: the fused kernel on {place} {reason}; the plain one is used, which is slower"


def _in_four_bits(device: str, dtype: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained`. Raises Unavailable where there is no GPU or no bitsandbytes."""
    import importlib.util

    from transformers import BitsAndBytesConfig

    if not device.startswith("cuda") or importlib.util.find_spec("bitsandbytes") is None:
        raise Unavailable(
            "train.four_bit needs a CUDA or ROCm device and `pip install bitsandbytes`; set it to false"
        )
    return {
        "device_map": {"": device},
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    }


def portable_name(model_id: str) -> str:
    """What an adapter calls its base: the hub name, or a folder's last part; never this machine's path."""
    model = find(model_id)
    if model is not None:
        return model.model_id
    return Path(model_id).resolve().name if Path(model_id).is_dir() else model_id


def attach(base: Base, folder: Path, name: str) -> Any:
    """Wraps the base with an adapter that `check_adapter` has passed; returns the peft model around it.

    Raises BadInput where the weights do not fit, and leaves the base as it was.
    """
    from peft import LoraConfig, PeftModelForCausalLM

    config = LoraConfig.from_pretrained(str(folder))
    config.inference_mode = True
    with quiet_peft():
        model = PeftModelForCausalLM(base.model, config, adapter_name=name)
    try:
        load_weights(model, folder, name, base.device)
    except BadInput:
        model.unload()
        raise
    return model.eval()


def load_weights(model: Any, folder: Path, name: str, device: str) -> None:
    """Loads the adapter in `folder` into a peft model as `name`. Raises BadInput where it does not fit."""
    try:
        with quiet_peft():
            result = model.load_adapter(str(folder), adapter_name=name, torch_device=device)
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"{folder}: the adapter does not fit the base model ({error})") from error
    unfit = [*result.missing_keys, *result.unexpected_keys]
    if unfit:
        raise BadInput(f"{folder}: {len(unfit)} tensors are missing or fit nowhere, the first is {unfit[0]}")


@contextlib.contextmanager
def quiet_peft() -> Iterator[None]:
    """Drops two warnings: peft 0.21 uses a name that transformers 5.23 has deprecated, and it only warns of
    missing weights, which `load_weights` makes an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield
