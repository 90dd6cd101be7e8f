"""LoRA fine-tuning of a base model on grounded pairs, and the two files that an adapter is.

What decides its bytes is here and in `run`, the loop. A run that was killed goes on from its newest
checkpoint and ends in the bytes that it would have ended in.

The artifact holds weights and configuration alone; times and losses go into the report, because they
differ from machine to machine and an artifact's version is the hash of its files.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from alchemy.catalog import LoraOptions
from alchemy.errors import BadInput
from alchemy.records import SftPair, fingerprint
from alchemy.settings import TrainOptions
from alchemy.training.base import MODELS, Base, load_base, portable_name, quiet_peft
from alchemy.training.checkpoints import Checkpoints
from alchemy.training.dataset import Example, Step, encode, encode_texts, plan_steps, sample_texts
from alchemy.training.evaluate import CONFIG, WEIGHTS, micro_tokens
from alchemy.training.run import Progress, TrainingRun

log = logging.getLogger(__name__)

# Part of an adapter's request and of a checkpoint's name. Raise it when equal arguments give other bytes, or
# when a checkpoint holds something else.
RECIPE = "2"

_MOST_CHARACTERS = 16  # of a token, on the average over a text; a text of longer ones is trained on in part


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a run did, with all that it had done before it was killed and went on.

    Losses are nats per response token; the adapter kept is the best by `eval_loss`.
    """

    steps: int
    tokens: int  # trained on, prompts included, padding not
    pretraining_tokens: int  # those of them that were plain text
    tokens_per_second: float
    initial_train_loss: float  # of the first step on pairs, before it
    final_train_loss: float  # mean of the last tenth of the steps
    base_eval_loss: float | None  # None where there were no evaluation pairs
    eval_loss: float | None
    loss_curve: tuple[tuple[int, float], ...]  # (tokens trained on, loss of the step)
    eval_curve: tuple[tuple[int, float], ...]
    trainable_parameters: int
    seconds: float  # since it last went on
    peak_memory_mb: float  # of the GPU, or of this process so far
    dtype: str
    left_out: int  # training pairs longer than max_length
    stopped_early: bool


def train_lora(
    base: str,
    train: Sequence[SftPair],
    evaluation: Sequence[SftPair],
    lora: LoraOptions,
    options: TrainOptions,
    *,
    device: str,
    folder: Path,
    texts: Iterable[str] = (),
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
    models: Path = MODELS,
) -> TrainReport:
    """Trains an adapter and writes `adapter_model.safetensors` and `adapter_config.json` into `folder`.

    On one machine, equal arguments give equal bytes on the CPU, also where a run was killed and another one
    went on from its checkpoints.

    Args:
        base: A model of models.yaml: packaged, a folder, or a hub name.
        train: Pairs to learn from.
        evaluation: Pairs that choose the best moment; without any the last one is kept.
        lora: Rank, alpha, dropout and the layers that get an adapter.
        options: Budget, learning rate and seed.
        device: auto, cpu, cuda, cuda:N or mps.
        folder: An existing folder.
        texts: Plain text to learn from before the pairs, as much as `options.pretraining_tokens` says; read
            only where that is not 0.
        progress: Called after every step.
        checkpoints: Where a run that was killed left its state; the caller clears them when the adapter is
            safe. Without any, every run begins anew.
        models: The folder of packaged weights.

    Raises:
        BadInput: No pair to learn from.
        Unavailable: The base model or the device is not there.
    """
    import torch

    started = time.monotonic()
    loaded = load_base(base, device, models, four_bit=options.four_bit)
    encoded = encode(loaded.tokenizer, train, options.max_length)
    if not encoded.examples:
        raise BadInput("no training pair is left to learn from; check the pairs, or raise train.max_length")
    held_out = encode(loaded.tokenizer, evaluation, options.max_length).examples
    plan = partial(
        plan_steps,
        micro_tokens=micro_tokens(loaded.device),
        batch_tokens=options.batch_tokens,
        seed=options.seed,
    )
    before = _plan_pretraining(loaded, texts, options, plan)
    steps = [*before, *plan(encoded.examples, tokens=options.max_tokens, epochs=options.epochs)]
    # The random numbers of LoRA's first weights and of dropout, without touching the caller's.
    gpus = [loaded.device] if loaded.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=gpus), quiet_peft():
        torch.manual_seed(options.seed)
        model = wrap(loaded, lora, options)
        name = _name_run(loaded, lora, options, steps, held_out)
        save = partial(checkpoints.save, name) if checkpoints else None
        run = TrainingRun(loaded, model, held_out, options, progress, save)
        found = checkpoints.load(name) if checkpoints else None
        if found:
            log.info("training goes on after step %d of %d", found.step, len(steps))
            run.restore(found)
        run.train(steps, first=len(before))
    _save(model, run.best, portable_name(base), folder)
    tail = [loss for _, loss in run.curve[-max(1, len(run.curve) // 10) :]]
    return TrainReport(
        steps=len(run.curve),
        tokens=run.tokens,
        pretraining_tokens=sum(step.tokens for step in before),
        tokens_per_second=run.tokens / run.step_seconds,
        initial_train_loss=run.curve[len(before)][1],
        final_train_loss=sum(tail) / len(tail),
        base_eval_loss=run.eval_curve[0][1] if run.eval_curve else None,
        eval_loss=min(loss for _, loss in run.eval_curve) if run.eval_curve else None,
        loss_curve=tuple(run.curve),
        eval_curve=tuple(run.eval_curve),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=time.monotonic() - started,
        peak_memory_mb=_peak_memory_mb(loaded.device),
        dtype=str(loaded.dtype).removeprefix("torch."),
        left_out=encoded.left_out,
        stopped_early=len(run.curve) < len(steps),
    )


def _plan_pretraining(
    base: Base, texts: Iterable[str], options: TrainOptions, plan: Callable[..., list[Step]]
) -> list[Step]:
    """One pass over a sample of the texts, up to the budget; no step without one."""
    budget = options.pretraining_tokens
    if not budget:
        return []
    sample = sample_texts(texts, budget * _MOST_CHARACTERS)
    pieces = list(encode_texts(base.tokenizer, sample, options.max_length))
    return plan(pieces, tokens=budget, epochs=1)


def _name_run(
    base: Base,
    lora: LoraOptions,
    options: TrainOptions,
    steps: Sequence[Step],
    held_out: Sequence[Example],
) -> str:
    """A fingerprint of everything that decides the adapter's bytes.

    The machine belongs to it: another number of threads adds in another order, and rounds otherwise.
    """
    import peft
    import torch
    import transformers

    machine = [base.device.split(":")[0], str(base.dtype)]
    if base.device == "cpu":
        machine += [torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())]
    libraries = [torch.__version__, transformers.__version__, peft.__version__]
    arguments = [base.model_id, lora.model_dump(), options.deciding, steps, held_out]
    return fingerprint(RECIPE, arguments, machine, libraries)


def wrap(base: Base, lora: LoraOptions, options: TrainOptions) -> Any:
    """The base with fresh adapter weights in float32, the only ones with gradients."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    if options.gradient_checkpointing:
        base.model.activation_checkpointing_enable()
    return get_peft_model(base.model, config)


def _save(model: Any, state: dict[str, Any], base_name: str, folder: Path) -> None:
    """Writes what `PeftModel.save_pretrained` would, in bytes that depend on the content alone."""
    from safetensors.torch import save_file

    save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict() | {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
    }
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / CONFIG).write_bytes(orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def _peak_memory_mb(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated(device) / 2**20)
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
