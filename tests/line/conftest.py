"""One line for the whole session: made once with the Python engine on a folder, then read or copied."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from alchemy.models import resolve
from alchemy.settings import load_settings
from tests.line.running import (
    ROOT,
    Line,
    Run,
    change_one_object,
    copy_line,
    copy_small_raw,
    line_settings,
    write_catalog,
)
from tests.tiny_models import make_base


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """Where fetched weights are kept between test runs."""
    folder = load_settings().models
    folder = folder if folder.is_absolute() else ROOT / folder
    for name in ("sentence-transformers/all-MiniLM-L6-v2", "cross-encoder/ms-marco-MiniLM-L-12-v2"):
        resolve(name, folder)
    return folder


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models.yaml with a tiny Llama as the base of the adapters: training takes a second."""
    folder = tmp_path_factory.mktemp("catalog")
    return write_catalog(folder / "models.yaml", make_base(folder / "tiny-llama", hidden=64))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads; and with one thread sums are added in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, catalog: Path, models_folder: Path) -> tuple[Line, Run]:
    """The whole line, made on a folder by the Python engine, and its first run. Not to be changed."""
    line = Line.of(line_settings(tmp_path_factory.mktemp("line"), catalog, models_folder))
    copy_small_raw(line.store)
    return line, line.materialize()


@pytest.fixture(scope="session")
def line(made: tuple[Line, Run]) -> Line:
    return made[0]


@pytest.fixture(scope="session")
def first_run(made: tuple[Line, Run]) -> Run:
    return made[1]


@pytest.fixture(scope="session")
def changed(line: Line, tmp_path_factory: pytest.TempPathFactory) -> tuple[Line, Run]:
    """A copy of the line after one object has changed, and that run. Not to be changed further."""
    copy = copy_line(line, tmp_path_factory.mktemp("changed"))
    change_one_object(copy.store)
    return copy, copy.materialize()


@pytest.fixture
def own_line(line: Line, tmp_path: Path) -> Line:
    """A copy of the made line that a test may change."""
    return copy_line(line, tmp_path)
