import math
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alchemy.errors import BadInput
from alchemy.quant import validate
from alchemy.quant.validate import Validation, validate_metrics
from alchemy.records import SOURCES
from tests.quant.test_measure import document, measure


def check(folder: Path, **columns) -> Validation:
    rows = len(next(iter(columns.values())))
    table = {
        "document_id": [f"d{row}" for row in range(rows)],
        "source": ["git"] * rows,
        "kind": ["commit"] * rows,
        **columns,
    }
    pl.DataFrame(table).write_parquet(folder / "m.parquet")
    return validate_metrics([folder / "m.parquet"])


def test_what_the_metrics_stage_writes_is_valid(tmp_path: Path) -> None:
    documents = [document(1, {"votes": 3, "code_share": 0.5}), document(2, {"additions": math.inf})]
    measure(documents, tmp_path)
    found = validate_metrics([tmp_path / "part-00000.parquet"])
    assert found == Validation(rows=2, columns=6, broken={})
    assert found.passed


def test_each_broken_rule_is_counted_by_its_rows(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        document_id=["a", "a", None, ""],
        source=["git", "svn", "jira", None],
        size=[1.0, math.nan, math.inf, None],
        code_share=[0.0, 1.0, 1.5, -0.1],
    )
    assert found.broken == {
        "code_share|max": 1,
        "code_share|min": 1,
        "document_id|min_length": 1,
        "document_id|nullability": 1,
        "document_id|unique": 2,
        "size|inf": 1,
        "size|nan": 1,
        "source|check__known": 1,
        "source|nullability": 1,
    }
    assert not found.passed


def test_a_column_that_is_not_of_doubles_is_named(tmp_path: Path) -> None:
    assert check(tmp_path, votes=[1, 2]).broken == {"votes|double": 2}


def test_a_missing_id_column_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"document_id": ["a"], "source": ["git"]}).write_parquet(tmp_path / "m.parquet")
    with pytest.raises(BadInput, match="no text column kind"):
        validate_metrics([tmp_path / "m.parquet"])


def test_batches_count_as_one_table_does(tmp_path: Path, monkeypatch) -> None:
    columns = {"x": [float(row) if row % 7 else math.nan for row in range(5000)]}
    whole = check(tmp_path, **columns)
    monkeypatch.setattr(validate, "_CELLS_AT_ONCE", 1)
    assert check(tmp_path, **columns) == whole
    assert whole.broken == {"x|nan": 715}


_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(_NAMES, st.floats(allow_nan=False, allow_infinity=False), max_size=5))
@example({"*": 1.0})
@example({"^.*$": 1.0, "^": 2.0})
def test_metrics_of_any_name_are_valid(tmp_path_factory, metrics: dict[str, float]) -> None:
    folder = tmp_path_factory.mktemp("v")
    measure([document(1, {n: v for n, v in metrics.items() if not n.endswith("_share")})], folder)
    assert validate_metrics([folder / "part-00000.parquet"]).passed
    assert document(1, {}).source in SOURCES
