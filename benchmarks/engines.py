"""The engines of the cleaning stage on one raw folder: Python with 1 and 2 processes, and Spark local[2].

    python benchmarks/engines.py --megabytes 1000      # an hour
    python benchmarks/engines.py --megabytes 100       # five minutes

Raw data: files of about 1 MB of four sources, and one file of commits with a quarter of all bytes, which is
read in slices. Each engine works in a process of its own on a store of its own; all must publish the same
versions. Seconds are those of cleaning and assembling, after imports and after the Spark session is up.
Memory is the resident memory of the process with all its children (the JVM too), at its highest, sampled ten
times a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from raw_data import raw_text, write_raw
from rich.console import Console
from rich.table import Table

from alchemy.artifacts import Artifacts, Request
from alchemy.assembly import wash
from alchemy.corpus import CleanJob
from alchemy.engine import Engine, PythonEngine
from alchemy.listing import RAW, list_raw
from alchemy.records import SOURCES
from alchemy.settings import load_settings
from alchemy.store import Store

CONTENDERS = ("python-1", "python-2", "spark-local[2]")
_MEGABYTE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--only", choices=CONTENDERS, action="append")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(run_engine(*arguments.child)))
        return
    results = {}
    with tempfile.TemporaryDirectory(prefix="engines-benchmark-") as name:
        folder = Path(name)
        size = write_raw(folder / RAW, arguments.megabytes * 3 // 4, _MEGABYTE)
        with (folder / RAW / "git" / "large.jsonl").open("w", encoding="utf-8") as file:
            for number in range(arguments.megabytes // 4):
                size += file.write(raw_text("git", number, _MEGABYTE, seed=1))
        for contender in arguments.only or CONTENDERS:
            store = folder / contender
            store.mkdir()
            (store / RAW).symlink_to(folder / RAW)
            results[contender] = measure(contender, store)
    if len({tuple(row["versions"]) for row in results.values()}) > 1:
        sys.exit("the engines published different bytes")
    table = Table("", "seconds", "start-up", "MB/s", "peak MB", "speed over python-2", box=None)
    base = results.get("python-2")
    for name, row in results.items():
        table.add_row(
            name,
            f"{row['seconds']:.1f}",
            f"{row['start']:.1f}",
            f"{size / 1e6 / row['seconds']:.2f}",
            f"{row['peak'] / 1e6:,.0f}",
            f"{base['seconds'] / row['seconds']:.2f}" if base else "",
        )
    first = next(iter(results.values()))
    Console().print(f"{size / 1e6:,.0f} MB in {first['pieces']} pieces, {first['documents']:,} documents")
    Console().print(table)


def measure(contender: str, store: Path) -> dict[str, Any]:
    """Runs the contender in a process of its own and watches its memory."""
    command = [sys.executable, __file__, "--child", contender, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        peak, root = 0, psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, _resident(root))
            time.sleep(0.1)
        assert child.stdout is not None
        output = child.stdout.read()
    if child.returncode:
        sys.exit(f"{contender} failed")
    return {**json.loads(output.splitlines()[-1]), "peak": peak}


def run_engine(contender: str, folder: str) -> dict[str, Any]:
    settings = load_settings()
    store = Store(folder)
    artifacts = Artifacts(store, Path(folder) / "cache")
    job = CleanJob(store.url, None, settings.clean, settings.pseudonym_salt)
    objects = [raw for source in SOURCES for raw in list_raw(store, source)]
    started = time.perf_counter()
    engine: Engine
    if contender.startswith("python"):
        engine = PythonEngine(int(contender[-1]))
    else:
        from spark_jobs.clean import SparkEngine, start_session

        engine = SparkEngine("local[2]", start_session("local[2]"))
    ready = time.perf_counter()
    with artifacts.draft(Request("cleaned_corpus", {}, "1")) as draft:
        made, pieces = wash(artifacts, job, objects, engine.clean, draft)
        corpus = artifacts.publish(draft, {})
    return {
        "start": ready - started,
        "seconds": time.perf_counter() - ready,
        "pieces": pieces,
        "documents": made.documents,
        "versions": [corpus.version, artifacts.latest("quarantine").version],
    }


def _resident(root: psutil.Process) -> int:
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:  # it ended between listing and asking
        pass
    return total


if __name__ == "__main__":
    main()
