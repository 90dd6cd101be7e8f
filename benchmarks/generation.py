"""The batch engine against one `model.generate` after the other, and what torch.compile adds.

    OMP_NUM_THREADS=2 python -m benchmarks.generation            # SmolLM2-135M-Instruct, the default base
    OMP_NUM_THREADS=2 python -m benchmarks.generation --compile  # the same steps, compiled

The rival is transformers' own `generate` under peft, with all adapters loaded and `set_adapter` before each
answer. Its factors have the base's precision (peft's default, float32 under autocast, takes longer). Both
sides begin with messages and end with text, write the same number of tokens (no end-of-sequence token),
greedily, and take turns; what is printed are medians. The adapters are random: four of rank 16 on all
linear layers. Alone: one request after the other, each measured from its call to its last token.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from alchemy.catalog import BaseModelEntry, EngineOptions, load_catalog
from alchemy.settings import load_settings
from alchemy.training.base import load_base, portable_name, quiet_peft
from alchemy.training.sampling import Sampling
from serving.generation.engines import write
from serving.generation.model_manager import ModelManager
from serving.watching.metrics import GenerationMetrics

NAMES = ["support", "delivery", "sensors", "people"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", type=int, default=7, help="repeats of a lone request")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    catalog, models = load_catalog(load_settings().catalog), load_settings().models
    base = catalog.model_c.model_id
    with tempfile.TemporaryDirectory(prefix="generation-benchmark-") as folder:
        adapters = make_adapters(base, models, Path(folder))
        rival = Rival(base, models, adapters, arguments.tokens)
        ours = Ours(base, models, adapters, arguments.tokens, compiled=arguments.compile)
    asyncio.run(compare(rival, ours, arguments))
    ours.manager.close()


async def compare(rival: "Rival", ours: "Ours", arguments: argparse.Namespace) -> None:
    questions = [ask(number) for number in range(arguments.requests)]
    names = [NAMES[number % len(NAMES)] for number in range(arguments.requests)]
    tokens = arguments.requests * arguments.tokens
    rival.answer(questions[0], names[0])
    await ours.answer(questions[0], names[0])
    single, batched = [], []
    for _ in range(arguments.repeats):
        batched.append(await timed(lambda: ours.answer_all(questions, names)))
        began = time.perf_counter()
        for question, name in zip(questions, names, strict=True):
            rival.answer(question, name)
        single.append(time.perf_counter() - began)
    table = Table("", "transformers", "batch engine", "ratio", title=ours.title)
    slow, fast = (tokens / statistics.median(seconds) for seconds in (single, batched))
    label = f"{arguments.requests} requests, {len(NAMES)} adapters: tokens/s"
    table.add_row(label, f"{slow:.1f}", f"{fast:.1f}", f"{fast / slow:.1f}")
    for name in (None, NAMES[0]):
        theirs, mine = await alone(rival, ours, questions[1], name, arguments.alone)
        label = f"alone, {'an adapter' if name else 'the base'}: ms an answer"
        table.add_row(label, f"{theirs:.1f}", f"{mine:.1f}", f"{mine - theirs:+.1f} ms")
    Console().print(table)
    print(f"rows are padded to {ours.tile}; recompiled after the warm-up: {ours.manager.model.recompiles}")


async def alone(
    rival: "Rival", ours: "Ours", question: list[dict[str, str]], name: str | None, repeats: int
) -> tuple[float, float]:
    """Milliseconds of one answer when there is no other."""
    rival.answer(question, name)
    await ours.answer(question, name)
    theirs, mine = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        rival.answer(question, name)
        theirs.append((time.perf_counter() - began) * 1000)
        mine.append(await timed(lambda: ours.answer(question, name)) * 1000)
    return statistics.median(theirs), statistics.median(mine)


async def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


class Rival:
    """One `generate` at a time."""

    def __init__(self, base: str, models: Path, adapters: dict[str, Path], tokens: int) -> None:
        from peft import PeftModel

        self._base = load_base(base, models=models)
        self._base.model.generation_config.eos_token_id = None
        self._tokens = tokens
        first, *others = adapters.items()
        with quiet_peft():
            self._model = PeftModel.from_pretrained(
                self._base.model, str(first[1]), first[0], autocast_adapter_dtype=False
            )
            for name, folder in others:
                self._model.load_adapter(str(folder), name, autocast_adapter_dtype=False)
        self._model = self._model.to(self._base.dtype).eval()

    def answer(self, messages: list[dict[str, str]], name: str | None) -> str:
        import contextlib

        import torch

        tokenizer = self._base.tokenizer
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self._base.device)
        if name:
            self._model.set_adapter(name)
        route = contextlib.nullcontext() if name else self._model.disable_adapter()
        with torch.inference_mode(), route:
            found = self._model.generate(**prompt, max_new_tokens=self._tokens, do_sample=False)
        return str(tokenizer.decode(found[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


class Ours:
    """The engine as the service runs it."""

    def __init__(
        self, base: str, models: Path, adapters: dict[str, Path], tokens: int, *, compiled: bool
    ) -> None:
        entry = BaseModelEntry(model_id=base, engine=EngineOptions(compile=compiled))
        began = time.perf_counter()
        self.manager = ModelManager(base, entry, models, GenerationMetrics(CollectorRegistry()))
        self._names = {name: self.manager.load(name, folder) for name, folder in adapters.items()}
        self.title = f"{base}, {'compiled' if compiled else 'eager'}, {tokens} tokens an answer; "
        self.title += f"loaded in {time.perf_counter() - began:.0f} s"
        self._sampling = Sampling(max_new_tokens=tokens)
        self.manager.model._ends = set()

    @property
    def tile(self) -> int:
        return int(self.manager.model._decoder.tile)

    async def answer(self, messages: list[dict[str, str]], name: str | None) -> None:
        handle = self._names[name] if name else None
        piece = await write(self.manager, messages, self._sampling, adapter=handle)
        assert piece.tokens == self._sampling.max_new_tokens

    async def answer_all(self, questions: list[list[dict[str, str]]], names: list[str]) -> None:
        await asyncio.gather(*(self.answer(*pair) for pair in zip(questions, names, strict=True)))


def ask(number: int) -> list[dict[str, str]]:
    text = (
        f"Ticket {number}: the gateway dropped a delivery after three retries. What should the operator do?"
    )
    return [{"role": "user", "content": text}]


def make_adapters(base: str, models: Path, folder: Path) -> dict[str, Path]:
    """Random adapters, saved by peft."""
    import torch
    from peft import LoraConfig, get_peft_model

    loaded = load_base(base, models=models)
    adapters = {}
    for number, name in enumerate(NAMES):
        torch.manual_seed(number)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        with quiet_peft():
            model = get_peft_model(loaded.model, config)
            for parameter, weight in model.named_parameters():
                if "lora_B" in parameter:
                    torch.nn.init.normal_(weight, std=0.01)
            model.save_pretrained(str(folder / name), save_embedding_layers=False)
            model.unload()
        described = folder / name / "adapter_config.json"
        row = orjson.loads(described.read_bytes()) | {"base_model_name_or_path": portable_name(base)}
        described.write_bytes(orjson.dumps(row))
        adapters[name] = folder / name
    return adapters


if __name__ == "__main__":
    main()
