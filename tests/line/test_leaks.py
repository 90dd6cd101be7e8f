"""Every secret and personal value that was planted in the sample corpus is gone from what is published."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.line.running import EXAMPLES, Line, Run, line_settings

pytestmark = pytest.mark.integration

PLANTED: list[dict[str, str]] = orjson.loads((EXAMPLES / "planted.json").read_bytes())
ASSETS = ("cleaned_corpus", "quarantine", "rag_chunks", "sft_pairs")
UP_TO_PAIRS = (
    *(f"raw/{one}" for one in ("git", "jira", "confluence", "documents", "database", "feedback")),
    *("cleaned_corpus", "rag_chunks", "metrics", "quant_features", "quant_insights", "sft_pairs"),
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, catalog: Path, models_folder: Path) -> tuple[Line, Run]:
    """The whole sample corpus up to the training pairs."""
    line = Line.of(line_settings(tmp_path_factory.mktemp("sample"), catalog, models_folder))
    for path in sorted((EXAMPLES / "raw").rglob("*")):
        if path.is_file():
            line.store.put(f"raw/{path.relative_to(EXAMPLES / 'raw').as_posix()}", path)
    run = line.materialize(*UP_TO_PAIRS)
    assert run.success, run.error
    return line, run


@pytest.fixture(scope="module")
def published(sample: tuple[Line, Run]) -> dict[str, bytes]:
    """Every byte of every file of the artifacts that carry text."""
    artifacts = sample[0].artifacts
    return {
        f"{asset}/{path.name}": path.read_bytes() + _unescaped(path)
        for asset in ASSETS
        for path in artifacts.parts(artifacts.latest(asset))
    }


def test_the_planted_values_stand_in_the_raw_data() -> None:
    kinds = {one["kind"] for one in PLANTED}
    assert len(PLANTED) > 100
    assert kinds >= {"email", "ipv4", "private_key", "github_token", "credit_card", "iban", "jwt", "person"}
    raw = b"".join(_unescaped(path) for path in (EXAMPLES / "raw").rglob("*") if path.is_file())
    missing = [one for one in PLANTED if not any(form in raw for form in _forms(one["value"]))]
    # Binary documents (PDF, DOCX) are compressed: their values are not readable in the raw bytes.
    assert all(one["object"].startswith("documents:") for one in missing)


@pytest.mark.parametrize("kind", sorted({one["kind"] for one in PLANTED} - {"person"}))
def test_no_planted_value_survives(published: dict[str, bytes], kind: str) -> None:
    left = [
        f"{one['value']!r} of {one['object']} in {name}"
        for one in PLANTED
        if one["kind"] == kind
        for name, data in published.items()
        if any(_stands_in(form, data) for form in _forms(one["value"]))
    ]
    assert left == []


def test_no_author_is_named_in_a_field(sample: tuple[Line, Run]) -> None:
    names = {one["value"] for one in PLANTED if one["kind"] == "person"}
    left = [
        (document["id"], field, value)
        for document in _rows(sample[0], "cleaned_corpus", "part-")
        for field, value in document["fields"].items()
        if any(name in value for name in names)
    ]
    assert left == []


def test_the_same_value_has_the_same_pseudonym_wherever_it_stands(sample: tuple[Line, Run]) -> None:
    texts = [document["text"] for document in _rows(sample[0], "cleaned_corpus", "part-")]
    tokens = [token for text in texts for token in re.findall(r"<[A-Z0-9_]+_[0-9a-f]{8}>", text)]
    assert 1 < len(set(tokens)) < len(tokens)


def test_the_leak_checks_agree(sample: tuple[Line, Run]) -> None:
    checks = sample[1].checks
    assert checks["cleaned_corpus:corpus_leaks"]
    assert checks["rag_chunks:chunk_leaks"]
    assert checks["sft_pairs:pair_leaks"]


def _unescaped(path: Path) -> bytes:
    r"""The file with `\u005f` written as what it stands for, so that an escaped value is found as well."""
    escape = re.compile(rb"\\u([0-9a-fA-F]{4})")
    return escape.sub(lambda found: chr(int(found[1], 16)).encode("utf-8", "replace"), path.read_bytes())


def _forms(value: str) -> set[bytes]:
    """The value as it is, and as it stands inside a JSON string."""
    escaped = orjson.dumps(value)[1:-1]
    ascii_only = value.encode("ascii", "backslashreplace")
    return {value.encode(), escaped, ascii_only}


def _stands_in(value: bytes, data: bytes) -> bool:
    """Whether the value stands there by itself: 192.0.2.5 does not stand in 192.0.2.53."""
    edge = rb"[0-9A-Za-z]"
    return re.search(rb"(?<!" + edge + rb")" + re.escape(value) + rb"(?!" + edge + rb")", data) is not None


def _rows(line: Line, asset: str, prefix: str) -> Iterator[dict[str, Any]]:
    for path in line.artifacts.parts(line.artifacts.latest(asset), prefix):
        for row in path.read_bytes().splitlines():
            yield orjson.loads(row)
