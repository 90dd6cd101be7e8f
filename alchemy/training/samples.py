"""What a base model says before and after its training: a few questions, both answers side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alchemy.records import SftPair, fingerprint
from alchemy.training.base import MODELS
from alchemy.training.generate import AdapterModel
from alchemy.training.sampling import Sampling

SHORT = Sampling(max_new_tokens=48)  # the training pairs' answers are about as long


@dataclass(frozen=True, slots=True)
class Sample:
    """One question that no training saw."""

    question: str
    wanted: str
    before: str  # the base's answer
    after: str  # the adapter's


def answer_samples(
    base: str, folder: Path, pairs: Sequence[SftPair], *, device: str, models: Path = MODELS, most: int = 3
) -> list[Sample]:
    """Asks the base, without and with the adapter in `folder`, the same questions of `pairs` every time.

    Raises:
        Unavailable: The base model or the device is not there.
        BadInput: The adapter is not one of this base, or a question is too long for it.
    """
    model = AdapterModel(base, {"trained": folder}, device=device, models=models)
    asked = sorted(pairs, key=lambda pair: fingerprint("sample", pair.id))[:most]
    return [
        Sample(pair.instruction, pair.response, *(_answer(model, pair, name) for name in (None, "trained")))
        for pair in asked
    ]


def _answer(model: AdapterModel, pair: SftPair, adapter: str | None) -> str:
    question = [{"role": "user", "content": pair.instruction}]
    return model.generate(question, SHORT, adapter=adapter).strip()
