"""The adapters: loss on held-out pairs against the base, facts known by heart, attacks obeyed.

A pair's loss stands in the report for itself, so that the gate can compare two releases on the pairs that
both were judged by. What an adapter says is the text that likeliest tokens make, as in serving.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alchemy.errors import BadInput
from alchemy.evaluation.candidate import UNANSWERABLE, Judging, sample
from alchemy.evaluation.injections import injections
from alchemy.evaluation.tables import change, markdown_table, share
from alchemy.records import SftPair, fingerprint
from alchemy.retrieval.evaluate import relative_change
from alchemy.synthesis.grounding import identifiers, numbers
from alchemy.training.base import Base, load_base
from alchemy.training.dataset import Example, encode_pair, encode_prompt
from alchemy.training.evaluate import attached, mean_loss

MOST_PAIRS = 60
MOST_FACTS = 20  # each is generated twice, without and with the adapter
MOST_TOKENS = 24  # of a generated answer
MAX_LENGTH = 1024  # tokens of a pair; longer ones are left out

_AT_ONCE = 32  # prompts that are answered together


@dataclass(frozen=True, slots=True)
class _Task:
    """What every adapter is asked."""

    examples: Mapping[str, Example]  # by the pair's text
    facts: Sequence[SftPair]

    @property
    def labeled(self) -> int:
        return sum(example.labeled for example in self.examples.values())


def judge_adapters(judging: Judging) -> dict[str, Any]:
    """Nothing where there is no pair to judge by.

    An adapter that must not be loaded, or does not fit, is `refused` with the reason: the gate tells it.
    """
    candidate = judging.candidate
    if not judging.held or not candidate.adapters:
        return {"adapters": {}}
    base = load_base(candidate.base.model_id, candidate.base.device, candidate.models)
    task = _task(base, judging.held)
    if not task.examples:
        return {"adapters": {}}
    plain = _losses(base, base.model, task)
    known = _known(task.facts, generate_all(base, base.model, [pair.instruction for pair in task.facts]))
    rows: dict[str, dict[str, Any]] = {}
    for name, folder in candidate.adapters.items():
        try:
            with attached(base, folder) as model:
                rows[name] = _row(base, model, task, plain) | {"facts_base": known}
        except BadInput as error:
            reason = str(error).replace(str(folder), name)  # a report knows nothing of this machine
            rows[name] = {"base_loss": sum(plain.values()) / task.labeled, "refused": reason}
    return {"adapters": rows}


def facts_of(pair: SftPair) -> set[str]:
    """Numbers and identifiers of the answer that the question does not give away."""
    return (numbers(pair.response) | identifiers(pair.response)) - (
        numbers(pair.instruction) | identifiers(pair.instruction)
    )


def has_facts(text: str, pair: SftPair) -> bool:
    """Whether a text holds every fact of the pair's answer exactly."""
    return facts_of(pair) <= numbers(text) | identifiers(text)


def render_adapters(report: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, one in report["adapters"].items():
        base = f"{one['base_loss']:.3f}"
        if "refused" in one:
            rows.append([name, base, "refused", "", "", ""])
            continue
        loss = "not a number" if one["loss"] is None else f"{one['loss']:.3f}"
        perplexity = "-" if one["perplexity"] is None else f"{one['perplexity']:.1f}"
        facts = f"{share(one['facts'])} ({share(one['facts_base'])}) of {one['facts_asked']}"
        rows.append([name, base, loss, change(one["change"]), perplexity, facts])
    head = ["adapter", "base", "adapter", "change (95 % interval)", "perplexity", "facts known (by the base)"]
    return ["## Adapters: loss per token on held-out pairs", "", *markdown_table(head, rows)]


def _task(base: Base, held: Sequence[SftPair]) -> _Task:
    pairs = sample(held, MOST_PAIRS)
    encoded = {fingerprint(one.instruction, one.response): encode_pair(base.tokenizer, one) for one in pairs}
    fitting = {key: one for key, one in encoded.items() if one.tokens <= MAX_LENGTH}
    factual = (one for one in held if one.kind != UNANSWERABLE and facts_of(one))
    return _Task(fitting, sample(factual, MOST_FACTS))


def _row(base: Base, model: Any, task: _Task, plain: Mapping[str, float]) -> dict[str, Any]:
    losses = _losses(base, model, task)
    loss = sum(losses.values()) / task.labeled
    finite = math.isfinite(loss)
    attacks = [one.question for one in injections()]
    said = generate_all(base, model, [*attacks, *(pair.instruction for pair in task.facts)])
    attacked, known = said[: len(attacks)], said[len(attacks) :]
    return {
        "base_loss": sum(plain.values()) / task.labeled,
        "loss": loss if finite else None,  # JSON has no infinity
        "perplexity": math.exp(min(loss, 700)) if finite else None,
        "change": asdict(relative_change(list(losses.values()), list(plain.values()))) if finite else None,
        "pairs": len(losses),
        "by_pair": losses if finite else {},
        "facts": _known(task.facts, known),
        "facts_asked": len(task.facts),
        "obeyed": [
            one.id for one, text in zip(injections(), attacked, strict=True) if one.is_obeyed_by(text)
        ],
    }


def _losses(base: Base, model: Any, task: _Task) -> dict[str, float]:
    """Nats of each pair's response."""
    return {
        key: mean_loss(base, model, [example]) * example.labeled for key, example in task.examples.items()
    }


def _known(facts: Sequence[SftPair], said: Sequence[str]) -> float | None:
    """Share of the answers that hold their facts."""
    good = [has_facts(text, pair) for pair, text in zip(facts, said, strict=True)]
    return sum(good) / len(good) if good else None


def generate_all(base: Base, model: Any, questions: Sequence[str]) -> list[str]:
    """What the model answers to each question, at most `MOST_TOKENS` long; many are answered at once."""
    import torch

    tokenizer, texts = base.tokenizer, []
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    for start in range(0, len(questions), _AT_ONCE):
        block = questions[start : start + _AT_ONCE]
        prompts = [encode_prompt(tokenizer, [{"role": "user", "content": one}]) for one in block]
        width = max(map(len, prompts))
        # Padded on the left: all answers begin at one place.
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode(), base.precision():
            output = model.generate(
                input_ids=ids.to(base.device),
                attention_mask=mask.to(base.device),
                max_new_tokens=MOST_TOKENS,
                do_sample=False,
                pad_token_id=pad,
            )
        texts += tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
    return texts
