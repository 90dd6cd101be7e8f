"""Quant: all squares and products of N columns, without the redundant ones, against doing it at once.

    OMP_NUM_THREADS=2 python benchmarks/quant.py                    # 100,000 rows, half a minute
    OMP_NUM_THREADS=2 python benchmarks/quant.py --rows 1000000     # polars takes 10 GB, sklearn 21

Each contender makes the same features of the same Parquet file in a child process of its own:
- alchemy: `build_features`: judges all features, writes those that survive.
- polars: sinks all features in one lazy plan; it judges none.
- sklearn: PolynomialFeatures(degree=2) in memory, then one numpy corrcoef and the same greedy choice.
Peak memory is the child's over what it held after its imports. CPU seconds are of all its threads; on a busy
machine they say more than the wall clock does. Each output is deleted before the next contender starts, so
that none waits for the disk to store another's.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

CONTENDERS = ("alchemy", "polars", "sklearn")
_ROWS_AT_ONCE = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--nulls", type=float, default=0.0, help="share of null values; sklearn then rests")
    parser.add_argument("--only", choices=CONTENDERS, action="append")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(*arguments.child)
        return
    with tempfile.TemporaryDirectory(prefix="quant-benchmark-") as name:
        folder = Path(name)
        write_table(folder / "table.parquet", arguments.rows, arguments.columns, arguments.nulls)
        chosen = arguments.only or [one for one in CONTENDERS if one != "sklearn" or not arguments.nulls]
        results = {one: measure(one, folder) for one in chosen}
    heads = ("", "considered", "written", "seconds", "CPU s", "peak MB", "file MB", "time x", "memory x")
    table = Table(*heads, box=None)
    ours = results.get("alchemy", {})
    for one, row in results.items():
        if "failed" in row:
            table.add_row(one, "-", "-", row["failed"])
            continue
        table.add_row(
            one,
            f"{row['considered']:,}",
            f"{row['written']:,}",
            f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['megabytes']:,.0f}",
            f"{row['output']:,.0f}",
            f"{row['seconds'] / ours['seconds']:.2f}" if "seconds" in ours else "",
            f"{row['megabytes'] / ours['megabytes']:.2f}" if "seconds" in ours else "",
        )
    console = Console()
    console.print(f"{arguments.rows:,} rows x {arguments.columns} columns, {os.cpu_count()} cores")
    console.print(table)


def write_table(path: Path, rows: int, width: int, nulls: float) -> None:
    """Log-normal columns, every third of which nearly repeats the next, as measures of documents do."""
    rng = np.random.default_rng(17)
    names = [f"c{index:02d}" for index in range(width)]
    schema = pa.schema([("document_id", pa.string()), *((name, pa.float64()) for name in names)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, rows - start)
            values = rng.lognormal(0, 1, (width, count))
            for index in range(0, width - 1, 3):
                values[index] = 2 * values[index + 1] + rng.normal(0, 0.01, count)
            mask = rng.random(values.shape) < nulls if nulls else None
            columns = [pa.array([f"d{row}" for row in range(start, start + count)])]
            for index in range(width):
                columns.append(pa.array(values[index], mask=None if mask is None else mask[index]))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def measure(contender: str, folder: Path) -> dict:
    out = folder / contender
    out.mkdir()
    command = [sys.executable, __file__, "--child", contender, str(folder / "table.parquet"), str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:60]}
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    shutil.rmtree(out)
    return {**json.loads(done.stdout), "output": size}


def run_child(contender: str, table: str, out: str) -> None:
    work = {"alchemy": run_alchemy, "polars": run_polars, "sklearn": run_sklearn}[contender]
    work(None, None)  # imports
    before, started, cpu = peak_megabytes(), time.perf_counter(), time.process_time()
    considered, written = work(Path(table), Path(out))
    print(
        json.dumps(
            {
                "considered": considered,
                "written": written,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - cpu,
                "megabytes": peak_megabytes() - before,
            }
        )
    )


def run_alchemy(table: Path | None, out: Path | None) -> tuple[int, int]:
    from alchemy.quant.features import build_features
    from alchemy.settings import QuantOptions

    if table is None or out is None:
        return 0, 0
    counts = build_features([table], out, QuantOptions()).counts
    return counts["considered"], counts["kept"]


def run_polars(table: Path | None, out: Path | None) -> tuple[int, int]:
    from alchemy.quant.expand import base_columns, expand

    if table is None or out is None:
        return 0, 0
    names = sorted(pl.scan_parquet(table).collect_schema().names()[1:])
    features = expand(names)
    base = pl.scan_parquet(table).select("document_id", *base_columns(names))
    base.select("document_id", *(one.expression() for one in features)).sink_parquet(out / "all.parquet")
    return len(features), len(features)


def run_sklearn(table: Path | None, out: Path | None) -> tuple[int, int]:
    from sklearn.preprocessing import PolynomialFeatures

    if table is None or out is None:
        return 0, 0
    frame = pl.read_parquet(table)
    names = sorted(frame.columns[1:])
    maker = PolynomialFeatures(degree=2, include_bias=False)
    values = maker.fit_transform(frame.select(names).to_numpy())
    r = np.abs(np.corrcoef(values, rowvar=False))
    kept: list[int] = []
    for index in range(len(r)):
        if not kept or r[index, kept].max() < 0.95:
            kept.append(index)
    made = pl.DataFrame(
        values[:, kept], schema=[str(one) for one in maker.get_feature_names_out(names)[kept]]
    )
    made.with_columns(frame["document_id"]).write_parquet(out / "kept.parquet")
    return len(r), len(kept)


def peak_megabytes() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
