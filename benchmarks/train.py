"""Training: tokens/s and held-out loss of ours against TRL's SFTTrainer, at equal optimizer steps.

    python benchmarks/train.py --raw ../shared/corpus/raw       # pairs by the template provider
    python benchmarks/train.py --store data --steps 40          # pairs of a store's latest `sft_pairs`

The same base, LoRA, learning rate, schedule and clipping, and the same examples in the same steps. TRL gets
each step as one packed row without padding, the best that it can do with it, and in a second run padded
batches grouped by length, as many pairs a step as ours has on the average (there the pairs of a step are
others). It has bfloat16 where ours has it, and no gradient checkpointing. Tokens are real ones, padding is
not counted; the clock runs from the end of the first step, which warms up. One function measures the held-out
losses of all. Each contender has a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alchemy.artifacts import Artifacts
from alchemy.catalog import load_catalog
from alchemy.records import SftPair, read_lines
from alchemy.settings import load_settings
from alchemy.store import Store
from alchemy.training.base import load_base, quiet_peft
from alchemy.training.dataset import IGNORED, Example, Step, encode, plan_steps
from alchemy.training.evaluate import mean_loss, micro_tokens
from alchemy.training.lora import wrap
from alchemy.training.run import MAX_GRADIENT_NORM, WARM_UP, TrainingRun
from alchemy.upload import upload_raw

HELD_OUT = 60  # pairs, as many as the evaluation judges by


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--raw", type=Path, default=Path("examples/raw"))
    parser.add_argument("--store", help="take the pairs from here instead of making them")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of one run")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS), help="may be repeated")
    parser.add_argument("--pairs", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pairs:
        print(json.dumps(CONTENDERS[arguments.only[0]](Setting(arguments.pairs, arguments.steps))))
        return
    with tempfile.TemporaryDirectory(prefix="train-benchmark-") as name:
        pairs = find_pairs(arguments.store or make_pairs(arguments.raw, Path(name)))
        results = {one: measure(one, pairs, arguments.steps) for one in arguments.only or CONTENDERS}
    show(results)


class Setting:
    """What is the same for every contender."""

    def __init__(self, pairs: Path, steps: int) -> None:
        settings, catalog = load_settings(), load_catalog(load_settings().catalog)
        self.options, self.lora = settings.train, catalog.model_c.lora
        self.count = steps
        self.base = load_base(catalog.model_c.model_id, catalog.model_c.device, settings.models)
        self.examples = self._encode(pairs / "sft_train.jsonl")
        self.held_out = self._encode(pairs / "sft_holdout.jsonl")[:HELD_OUT]
        self.base_loss = mean_loss(self.base, self.base.model, self.held_out)

    def steps(self) -> list[Step]:
        micro, batch = micro_tokens(self.base.device), self.options.batch_tokens
        seed = self.options.seed
        return plan_steps(self.examples, micro, tokens=10**9, epochs=9, batch_tokens=batch, seed=seed)[
            : self.count
        ]

    def result(self, model: Any, clock: "Clock", tokens: Sequence[int]) -> dict[str, float]:
        """`tokens` are those of each step."""
        counted = sum(tokens[1 : self.count])
        return {
            "tokens": counted,
            "seconds": clock.seconds[-1] - clock.seconds[0],
            "cpu": clock.cpu[-1] - clock.cpu[0],
            "base_loss": self.base_loss,
            "loss": mean_loss(self.base, model, self.held_out),
        }

    def _encode(self, path: Path) -> tuple[Example, ...]:
        return encode(self.base.tokenizer, read_lines(SftPair, path), self.options.max_length).examples


class Clock:
    """The time at the end of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def tick(self) -> None:
        self.seconds.append(time.perf_counter())
        self.cpu.append(time.process_time())


def run_ours(setting: Setting) -> dict[str, float]:
    import torch

    steps, clock = setting.steps(), Clock()
    torch.manual_seed(setting.options.seed)
    with quiet_peft():
        model = wrap(setting.base, setting.lora, setting.options)
        run = TrainingRun(setting.base, model, [], setting.options, lambda *_: clock.tick(), None)
        run.train(steps)
    return setting.result(model.eval(), clock, [step.tokens for step in steps])


def run_trl(setting: Setting, *, packed: bool) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    clock, steps = Clock(), setting.steps()
    pairs = [example for step in steps for example in step.examples]
    rows = [list(step.examples) for step in steps] if packed else [[pair] for pair in pairs]
    tokens: list[int] = []

    class Listener(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    torch.manual_seed(setting.options.seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SFTTrainer(
            model=setting.base.model,
            args=SFTConfig(
                output_dir=folder,
                use_cpu=setting.base.device == "cpu",
                bf16=setting.base.dtype == torch.bfloat16,
                max_steps=len(steps),
                per_device_train_batch_size=1 if packed else round(len(pairs) / len(steps)),
                padding_free=packed,
                max_length=None,
                train_sampling_strategy="sequential" if packed else "group_by_length",
                gradient_checkpointing=False,
                learning_rate=setting.options.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=max(1, round(len(steps) * WARM_UP)),
                max_grad_norm=MAX_GRADIENT_NORM,
                weight_decay=0.0,
                seed=setting.options.seed,
                dataset_kwargs={"skip_prepare_dataset": True},
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([_trl_row(row) for row in rows]),
            processing_class=setting.base.tokenizer,
            peft_config=LoraConfig(
                r=setting.lora.r,
                lora_alpha=setting.lora.alpha,
                lora_dropout=setting.lora.dropout,
                target_modules=setting.lora.target_modules,
                task_type="CAUSAL_LM",
            ),
            callbacks=[Listener()],
        )
        collate = trainer.data_collator

        def counting(batch: list[dict[str, Any]]) -> Any:
            tokens.append(sum(len(row["input_ids"]) for row in batch))
            return collate(batch)

        trainer.data_collator = counting
        trainer.train()
    return setting.result(trainer.model.eval(), clock, tokens)


def _trl_row(row: Sequence[Example]) -> dict[str, list[int]]:
    """TRL's own form of a packed row."""
    return {
        "input_ids": [token for pair in row for token in pair.ids],
        "labels": [
            label
            for pair in row
            for label in [IGNORED] * pair.response_start + list(pair.ids[pair.response_start :])
        ],
        "seq_lengths": [pair.tokens for pair in row],
    }


CONTENDERS: dict[str, Callable[[Setting], dict[str, float]]] = {
    "trl, packed": partial(run_trl, packed=True),
    "trl, grouped by length": partial(run_trl, packed=False),
    "alchemy": run_ours,
}


def make_pairs(raw: Path, folder: Path) -> str:
    """The line up to the pairs, on a store of its own; returns where that is."""
    store = str(folder / "store")
    upload_raw(Store(store), raw)
    environment = {"ALCHEMY_STORE": store, "ALCHEMY_CACHE": str(folder / "cache"), "DAGSTER_HOME": ""}
    command = [sys.executable, "-m", "dagster", "asset", "materialize"]
    command += ["--select", "+sft_pairs", "-m", "dagster_project.definitions"]
    subprocess.run(command, check=True, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    return store


def find_pairs(store: str) -> Path:
    artifacts = Artifacts(Store(store), load_settings().cache)
    return artifacts.fetch(artifacts.latest("sft_pairs"))


def measure(name: str, pairs: Path, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--pairs", str(pairs), "--steps", str(steps), "--only", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(results: dict[str, dict[str, float]]) -> None:
    """The ratio is that of the last contender's tokens/s to a row's, on the clock and on the processor."""
    last = list(results.values())[-1]
    table = Table("", "tokens", "tokens/s", "CPU s", "ratio", "ratio, CPU", "held-out loss", box=None)
    for name, row in results.items():
        speed, cpu = row["tokens"] / row["seconds"], row["tokens"] / row["cpu"]
        ratio = last["tokens"] / last["seconds"] / speed
        cpu_ratio = last["tokens"] / last["cpu"] / cpu
        cells = (
            f"{row['tokens']:,.0f}",
            f"{speed:.0f}",
            f"{row['cpu']:.0f}",
            f"{ratio:.2f}x",
            f"{cpu_ratio:.2f}x",
        )
        table.add_row(name, *cells, f"{row['loss']:.3f}")
    Console().print(f"held-out loss of the base: {last['base_loss']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
