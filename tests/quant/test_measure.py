import math
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from alchemy.quant import measure as measure_module
from alchemy.quant.measure import write_metrics
from alchemy.records import Document, write_lines


def document(number: int, metrics: dict[str, float], source: str = "jira", kind: str = "issue") -> Document:
    return Document(
        id=f"{source}:{number}",
        version="v",
        source=source,
        kind=kind,
        key=str(number),
        title="",
        project="",
        text="",
        blocks=(),
        fields={},
        metrics=metrics,
        url="",
        updated="",
        raw_key="",
        raw_sha256="",
        locator="",
    )


def measure(documents: Iterable[Document], folder: Path) -> dict[str, int]:
    """`write_metrics` of documents, with all their metrics, as `part-00000.parquet`."""
    rows = list(documents)
    write_lines(folder / "documents.jsonl", rows)
    names = sorted({name for row in rows for name in row.metrics})
    return write_metrics(folder / "documents.jsonl", folder / "part-00000.parquet", names)


def test_one_row_per_document_and_one_column_per_metric(tmp_path: Path) -> None:
    documents = [document(1, {"votes": 3}), document(2, {"additions": 4.5}, "git", "commit"), document(3, {})]
    result = measure(documents, tmp_path)
    frame = pl.read_parquet(tmp_path / "part-00000.parquet")
    assert frame.columns == ["document_id", "source", "kind", "additions", "votes"]
    assert frame.rows() == [
        ("jira:1", "jira", "issue", None, 3.0),
        ("git:2", "git", "commit", 4.5, None),
        ("jira:3", "jira", "issue", None, None),
    ]
    assert frame.schema["votes"] == pl.Float64
    assert result == {"rows": 3, "measured": 2}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_null(value: float, tmp_path: Path, monkeypatch) -> None:
    # JSON has no such numbers, so they cannot come out of a file; a caller that builds documents could.
    monkeypatch.setattr(measure_module, "read_lines", lambda *_: iter([document(1, {"a": value, "b": 2.5})]))
    write_metrics(tmp_path / "none", tmp_path / "m.parquet", ["a", "b"])
    assert pl.read_parquet(tmp_path / "m.parquet").row(0)[3:] == (None, 2.5)


def test_a_metric_cannot_replace_an_identifying_column(tmp_path: Path) -> None:
    measure([document(1, {"kind": 7})], tmp_path)
    frame = pl.read_parquet(tmp_path / "part-00000.parquet")
    assert frame.row(0) == ("jira:1", "jira", "issue", 7.0)
    assert frame.columns[-1] == "metric_kind"


def test_no_documents_give_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [])
    assert write_metrics(tmp_path / "a.jsonl", tmp_path / "m.parquet", ["votes"]) == {
        "rows": 0,
        "measured": 0,
    }
    assert pl.read_parquet(tmp_path / "m.parquet").columns == ["document_id", "source", "kind", "votes"]


def test_tables_of_many_row_groups_repeat_byte_for_byte(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        measure(
            (document(n, {"votes": n % 7, f"rare_{n % 3}": n / 3}) for n in range(70_000)), tmp_path / name
        )
    parts = [tmp_path / name / "part-00000.parquet" for name in ("first", "second")]
    assert parts[0].read_bytes() == parts[1].read_bytes()
    assert pl.scan_parquet(parts[0]).select(pl.len()).collect().item() == 70_000
    assert pl.read_parquet(parts[0])["votes"].to_list() == [n % 7 for n in range(70_000)]
