from collections.abc import Iterator
from pathlib import Path

import polars as pl

from alchemy.quant import measure
from alchemy.quant.measure import write_metrics
from alchemy.records import Document


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


def test_one_row_per_document_and_one_sorted_column_per_metric(tmp_path: Path) -> None:
    documents = [document(1, {"votes": 3}), document(2, {"additions": 4.5}, "git", "commit"), document(3, {})]
    result = write_metrics(documents, tmp_path)
    frame = pl.read_parquet(tmp_path / "part-00000.parquet")
    assert frame.columns == ["document_id", "source", "kind", "additions", "votes"]
    assert frame.rows() == [
        ("jira:1", "jira", "issue", None, 3.0),
        ("git:2", "git", "commit", 4.5, None),
        ("jira:3", "jira", "issue", None, None),
    ]
    assert frame.schema["votes"] == pl.Float64
    assert result == {
        "rows": 3,
        "columns": 2,
        "documents_with_metrics": 2,
        "by_source": {"git": 1, "jira": 2},
    }


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    write_metrics([document(1, {"a": float("nan"), "b": float("inf"), "c": 1})], tmp_path)
    assert pl.read_parquet(tmp_path / "part-00000.parquet").columns[3:] == ["c"]


def test_a_metric_cannot_replace_an_identifying_column(tmp_path: Path) -> None:
    write_metrics([document(1, {"kind": 7})], tmp_path)
    assert pl.read_parquet(tmp_path / "part-00000.parquet").row(0) == ("jira:1", "jira", "issue", 7.0)


def test_no_documents_give_an_empty_table_with_its_columns(tmp_path: Path) -> None:
    assert write_metrics([], tmp_path)["rows"] == 0
    assert pl.read_parquet(tmp_path / "part-00000.parquet").columns == ["document_id", "source", "kind"]


def test_an_iterator_that_can_be_read_once_is_enough_and_bytes_repeat(tmp_path: Path) -> None:
    def once() -> Iterator[Document]:
        for number in range(5000):
            yield document(number, {"votes": number % 7, f"rare_{number % 3}": number / 3})

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_metrics(once(), tmp_path / name)
    parts = [(tmp_path / name / "part-00000.parquet").read_bytes() for name in ("first", "second")]
    assert parts[0] == parts[1]
    assert pl.read_parquet(tmp_path / "first").height == 5000


def test_rows_spread_over_part_files_in_order(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(measure, "ROWS_PER_PART", 32_768)
    write_metrics((document(number, {"n": number}) for number in range(70_000)), tmp_path)
    parts = sorted(tmp_path.iterdir())
    assert [path.name for path in parts] == [f"part-0000{index}.parquet" for index in range(3)]
    assert pl.read_parquet(parts)["n"].to_list() == list(range(70_000))
