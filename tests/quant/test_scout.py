from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from alchemy.errors import BadInput
from alchemy.quant.scout import scout


def test_names_types_rows_nulls_and_extremes_over_all_files(tmp_path: Path) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    pl.DataFrame({"id": ["x", "y"], "n": [1.5, None], "m": [4, 5]}).write_parquet(paths[0])
    pl.DataFrame({"id": ["z"], "n": [-2.0], "m": [9]}).write_parquet(paths[1])
    profile = scout(paths)
    assert (profile.files, profile.rows, profile.numeric) == (2, 3, ("m", "n"))
    by_name = {column.name: column for column in profile.columns}
    assert (by_name["n"].nulls, by_name["n"].minimum, by_name["n"].maximum) == (1, -2.0, 1.5)
    assert (by_name["m"].type, by_name["m"].minimum, by_name["m"].maximum) == ("int64", 4, 9)
    assert not by_name["id"].numeric
    assert profile.bytes == sum(column.bytes for column in profile.columns) > 0


def test_only_the_footer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.parquet"
    pl.DataFrame({"n": [float(value * value % 9973) for value in range(100_000)]}).write_parquet(path)
    before = scout([path])
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little") + 8
    data[4:-footer] = b"\xff" * (len(data) - footer - 4)
    path.write_bytes(data)
    assert scout([path]) == before
    with pytest.raises(OSError):  # the data themselves are gone
        pq.read_table(path)


def test_files_of_two_schemas_are_refused_by_name(tmp_path: Path) -> None:
    pl.DataFrame({"n": [1.0]}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"m": [1.0]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(BadInput, match=r"b\.parquet"):
        scout([tmp_path / "a.parquet", tmp_path / "b.parquet"])


def test_what_is_not_parquet_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadInput, match=r"x\.parquet"):
        scout([tmp_path / "x.parquet"])
    with pytest.raises(BadInput, match="no Parquet file"):
        scout([])
