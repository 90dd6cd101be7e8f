"""The training loop: steps, held-out evaluations, the early stop, and the state in between.

A plain loop over AdamW instead of a trainer class: every number that decides an adapter is drawn or added
up here. Not for reading pairs and writing adapters (see `lora`), nor for storing states (see `checkpoints`).
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from alchemy.settings import TrainOptions
from alchemy.training.base import Base
from alchemy.training.checkpoints import State
from alchemy.training.dataset import Example, Step, to_tensors
from alchemy.training.evaluate import mean_loss, summed_loss

EVALUATIONS = 6  # held-out evaluations spread over a run
PATIENCE = 2  # evaluations without a better loss after which a run ends early
WARM_UP = 0.1  # share of the steps
MAX_GRADIENT_NORM = 1.0

Progress = Callable[[int, int, dict[str, float]], None]  # steps done, steps in all, numbers


class TrainingRun:
    """The state of one training run."""

    def __init__(
        self,
        base: Base,
        model: Any,
        held_out: Sequence[Example],
        options: TrainOptions,
        progress: Progress | None,
        save: Callable[[State], None] | None,
    ) -> None:
        import torch

        self.base = base
        self.model = model
        self.held_out = held_out
        self.progress = progress
        self.save = save
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

    def train(self, steps: Sequence[Step], first: int = 0) -> None:
        """Takes the steps that are left.

        Args:
            steps: Of the whole run, those taken already among them.
            first: How many of them begin the run with other text than what is held out: there is nothing to
                judge them by, so the evaluations, and with them the early stop, come after.
        """
        every = max(1, math.ceil((len(steps) - first) / EVALUATIONS))
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
            if number == len(steps) or (number > first and (number - first) % every == 0):
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
            tensors = to_tensors(batch, self.base.device)
            # The backward pass too, because a checkpointed layer is computed again in it.
            with self.base.attention(tensors[0].shape[1]):
                with self.base.precision():
                    loss = summed_loss(self.model, *tensors) / step.labeled
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


def _state(model: Any) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    # Without embeddings: peft would otherwise ask the hub whether the vocabulary has grown.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().float().cpu().clone() for name, tensor in state.items()}
