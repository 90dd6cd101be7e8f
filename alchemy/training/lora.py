"""LoRA fine-tuning of a base model on grounded pairs, and the two files that an adapter is.

A plain loop over AdamW instead of a trainer class: what decides the bytes of an adapter can be read here.
A run that was killed goes on from its newest checkpoint and ends in the bytes it would have ended in.
The artifact holds weights and configuration alone; times and losses go into the report, because they
differ from machine to machine and an artifact's version is the hash of its files.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from alchemy.catalog import LoraOptions
from alchemy.records import SftPair, fingerprint
from alchemy.settings import TrainOptions
from alchemy.training.base import MODELS, Base, load_base, portable_name, quiet_peft
from alchemy.training.checkpoints import Checkpoints, State
from alchemy.training.dataset import Example, Step, encode, plan_steps, to_tensors
from alchemy.training.evaluate import CONFIG, WEIGHTS, mean_loss, micro_tokens, summed_loss

log = logging.getLogger(__name__)

# Part of an adapter's request and of a checkpoint's name. Raise it when equal arguments give other bytes, or
# when a checkpoint holds something else.
RECIPE = "1"
EVALUATIONS = 6  # held-out evaluations spread over a run
PATIENCE = 2  # evaluations without a better loss after which a run ends early
WARM_UP = 0.1  # share of the steps
MAX_GRADIENT_NORM = 1.0

Progress = Callable[[int, int, dict[str, float]], None]  # steps done, steps in all, numbers


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a run did, with all that it had done before it was killed and went on.

    Losses are nats per response token; the adapter kept is the best by `eval_loss`.
    """

    steps: int
    tokens: int  # trained on, prompts included, padding not
    tokens_per_second: float
    initial_train_loss: float  # of the first step, before it
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
    loaded = load_base(base, device, models)
    encoded = encode(loaded.tokenizer, train, options.max_length)
    held_out = encode(loaded.tokenizer, evaluation, options.max_length).examples
    steps = plan_steps(encoded.examples, options, micro_tokens(loaded.device))
    # The random numbers of LoRA's first weights and of dropout, without touching the caller's.
    gpus = [loaded.device] if loaded.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=gpus), quiet_peft():
        torch.manual_seed(options.seed)
        model = _wrap(loaded, lora)
        run = _Run(loaded, model, held_out, options, progress)
        if checkpoints:
            name = _name_run(loaded, lora, options, encoded.examples, held_out)
            run.save = partial(checkpoints.save, name)
            found = checkpoints.load(name)
            if found:
                log.info("training goes on after step %d of %d", found.step, len(steps))
                run.restore(found)
        training = time.monotonic()
        run.train(steps)
        training = time.monotonic() - training
    _save(model, run.best, portable_name(base), folder)
    tail = [loss for _, loss in run.curve[-max(1, len(run.curve) // 10) :]]
    return TrainReport(
        steps=len(run.curve),
        tokens=run.tokens,
        tokens_per_second=run.tokens / run.step_seconds,
        initial_train_loss=run.curve[0][1],
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


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        base: Base,
        model: Any,
        held_out: Sequence[Example],
        options: TrainOptions,
        progress: Progress | None,
    ) -> None:
        import torch

        self.base = base
        self.model = model
        self.held_out = held_out
        self.progress = progress
        self.save: Callable[[State], None] | None = None
        self.saved = time.monotonic()
        self.checkpoint_seconds = options.checkpoint_seconds
        self.learning_rate = options.learning_rate
        self.weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=options.learning_rate, weight_decay=0.0)
        # Half-precision gradients underflow unless the loss is scaled; bfloat16 has float32's range.
        self.scaler = torch.amp.GradScaler("cuda", enabled=base.dtype == torch.float16)
        self.tokens = 0
        self.step_seconds = 0.0
        self.curve: list[tuple[int, float]] = []
        self.eval_curve: list[tuple[int, float]] = []
        self.best: dict[str, Any] = {}

    def train(self, steps: Sequence[Step]) -> None:
        """Takes the steps that are left."""
        every = max(1, math.ceil(len(steps) / EVALUATIONS))
        done = len(self.curve)
        if not done:
            self._evaluate()
        for number, step in enumerate(steps[done:], start=done + 1):
            if self._is_over():
                return
            started = time.monotonic()
            loss = self._step(step, self.learning_rate * schedule(number - 1, len(steps)))
            self.step_seconds += time.monotonic() - started
            self.tokens += step.tokens
            self.curve.append((self.tokens, loss))
            numbers = {"train_loss": loss, "tokens": self.tokens}
            if number % every == 0 or number == len(steps):
                self._evaluate()
                if self.eval_curve:
                    numbers["eval_loss"] = self.eval_curve[-1][1]
            self._save_when_due()
            if self.progress:
                self.progress(number, len(steps), numbers)

    def state(self) -> State:
        """All that the next step depends on, besides the arguments of the run."""
        import torch

        moments = self.optimizer.state_dict()["state"]
        tensors = {
            "random": torch.get_rng_state(),
            **{f"weights/{number}": weight.detach() for number, weight in enumerate(self.weights)},
            **{
                f"optimizer/{number}/{key}": value
                for number, entry in moments.items()
                for key, value in entry.items()
            },
            **{f"best/{name}": tensor for name, tensor in self.best.items()},
        }
        if self.base.device.startswith("cuda"):
            tensors["random_gpu"] = torch.cuda.get_rng_state(self.base.device)
        values = {
            "tokens": self.tokens,
            "step_seconds": self.step_seconds,
            "curve": self.curve,
            "eval_curve": self.eval_curve,
            "scaler": self.scaler.state_dict(),
        }
        return State(len(self.curve), tensors, values)

    def restore(self, state: State) -> None:
        """The inverse of `state`, on a run that has not begun."""
        import torch

        moments: dict[int, dict[str, Any]] = {}
        for name, tensor in state.tensors.items():
            part, _, rest = name.partition("/")
            if part == "best":
                self.best[rest] = tensor
            elif part == "weights":
                self.weights[int(rest)].data.copy_(tensor)
            elif part == "optimizer":
                number, key = rest.split("/")
                moments.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.scaler.load_state_dict(state.values["scaler"])
        self.tokens = state.values["tokens"]
        self.step_seconds = state.values["step_seconds"]
        self.curve = [(tokens, loss) for tokens, loss in state.values["curve"]]
        self.eval_curve = [(tokens, loss) for tokens, loss in state.values["eval_curve"]]
        torch.set_rng_state(state.tensors["random"])
        if "random_gpu" in state.tensors:
            torch.cuda.set_rng_state(state.tensors["random_gpu"], self.base.device)

    def _save_when_due(self) -> None:
        if self.save and time.monotonic() - self.saved >= self.checkpoint_seconds:
            self.save(self.state())
            self.saved = time.monotonic()

    def _step(self, step: Step, learning_rate: float) -> float:
        """Forward and backward through the micro-batches, one update; the loss before the update."""
        import torch

        self.model.train()
        total = 0.0
        for batch in step.batches:
            ids, labels = to_tensors(batch, self.base.device)
            with self.base.precision():
                loss = summed_loss(self.model, ids, labels) / step.labeled
            self.scaler.scale(loss).backward()
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.weights, MAX_GRADIENT_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _evaluate(self) -> None:
        """Held-out loss now; keeps a copy of the adapter where it is the best so far."""
        if not self.held_out:
            self.best = _state(self.model)
            return
        self.model.eval()
        loss = mean_loss(self.base, self.model, self.held_out)
        if not self.eval_curve or loss < min(known for _, known in self.eval_curve):
            self.best = _state(self.model)
        self.eval_curve.append((self.tokens, loss))

    def _is_over(self) -> bool:
        losses = [loss for _, loss in self.eval_curve]
        return len(losses) > PATIENCE and min(losses[-PATIENCE:]) > min(losses)


def schedule(step: int, steps: int) -> float:
    """Share of the full learning rate: linear warm-up, then half a cosine that ends at zero."""
    warm_up = max(1, round(steps * WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _name_run(
    base: Base,
    lora: LoraOptions,
    options: TrainOptions,
    train: Sequence[Example],
    held_out: Sequence[Example],
) -> str:
    """A fingerprint of everything that decides the adapter's bytes.

    The machine belongs to it: another number of threads adds in another order, and rounds otherwise.
    """
    import peft
    import torch
    import transformers

    kind = base.device.split(":")[0]
    machine = [kind, str(base.dtype), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    libraries = [torch.__version__, transformers.__version__, peft.__version__]
    arguments = [base.model_id, lora.model_dump(), options.deciding, train, held_out]
    return fingerprint(RECIPE, arguments, machine, libraries)


def _wrap(base: Base, lora: LoraOptions) -> Any:
    """The base with fresh adapter weights in float32, the only ones with gradients."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base.model, config)


def _state(model: Any) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    # Without embeddings: peft would otherwise ask the hub whether the vocabulary has grown.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().float().cpu().clone() for name, tensor in state.items()}


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
