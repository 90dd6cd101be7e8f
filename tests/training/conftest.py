"""Training on the tiny Llama of `tests.tiny_models`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from alchemy.catalog import LoraOptions
from alchemy.records import SftPair
from alchemy.settings import TrainOptions, load_settings
from tests.tiny_models import make_base, pairs


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and on a busy machine those wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def train_pairs() -> list[SftPair]:
    return pairs("train", 48)


@pytest.fixture(scope="session")
def eval_pairs() -> list[SftPair]:
    return pairs("eval", 8)


@pytest.fixture(scope="session")
def options() -> TrainOptions:
    return TrainOptions(max_tokens=20_000, max_length=128, epochs=10, learning_rate=1e-2, batch_tokens=256)


@pytest.fixture(scope="session")
def lora() -> LoraOptions:
    return LoraOptions(r=8, alpha=16)


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Where fetched weights are kept between test runs."""
    return load_settings().models


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a two-layer Llama that was taught another pattern of answers than the pairs have."""
    return make_base(tmp_path_factory.mktemp("models") / "tiny-llama", hidden=64)


@pytest.fixture(scope="session")
def adapter(tiny_base, train_pairs, eval_pairs, lora, options, tmp_path_factory) -> Path:
    """A trained adapter of the tiny base."""
    from alchemy.training.lora import train_lora

    folder = tmp_path_factory.mktemp("adapter")
    train_lora(tiny_base, train_pairs, eval_pairs, lora, options, device="cpu", folder=folder)
    return folder
