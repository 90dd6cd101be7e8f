"""One of 300 objects changed: what the run after it costs, against a run from scratch.

    python benchmarks/incremental.py                 # 300 objects of 100 kB, two minutes

Both runs list the raw objects, clean, deduplicate, chunk and measure them, and publish every artifact; each
in a process of its own, timed after its imports and a first run over four tiny files, which loads what is
loaded once a process (rules, language model, tokenizer). The rival is the run from scratch over the changed
data, whose artifacts must have the same versions.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from raw_data import raw_text, write_raw
from rich.console import Console
from rich.table import Table

from alchemy.artifacts import Artifacts, Request
from alchemy.assembly import COLUMNS, wash
from alchemy.catalog import load_catalog
from alchemy.corpus import CleanJob
from alchemy.engine import PythonEngine
from alchemy.listing import RAW, list_raw
from alchemy.models import resolve
from alchemy.quant.measure import write_metrics
from alchemy.records import SOURCES, fingerprint
from alchemy.settings import load_settings
from alchemy.store import Store
from alchemy.text.chunking import Tokenizer, write_chunks
from alchemy.upload import upload_raw

NOTHING = "nothing changed"
CHANGED = "1 object changed"
SCRATCH = "from scratch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--bytes", type=int, default=100_000, help="of one object, about")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        with tempfile.TemporaryDirectory(prefix="incremental-benchmark-") as warm:
            write_raw(Path(warm) / RAW, 4, 500)
            run_stages(Path(warm))
        print(json.dumps(run_stages(arguments.child)))
        return
    results = {}
    with tempfile.TemporaryDirectory(prefix="incremental-benchmark-") as name:
        folder = Path(name)
        size = write_raw(folder / "raw", arguments.objects, arguments.bytes)
        grown, scratch = folder / "grown", folder / "scratch"
        upload_raw(Store(str(grown)), folder / "raw")
        measure(grown)
        results[NOTHING] = measure(grown)
        number = arguments.objects // 8 * 4  # a file of commits
        changed = folder / "raw" / "git" / f"{number:05d}.jsonl"
        changed.write_text(raw_text("git", number, arguments.bytes, seed=1), encoding="utf-8")
        upload_raw(Store(str(grown)), folder / "raw")
        upload_raw(Store(str(scratch)), folder / "raw")
        results[CHANGED] = measure(grown)
        results[SCRATCH] = measure(scratch)
    if results[CHANGED]["versions"] != results[SCRATCH]["versions"]:
        sys.exit("the versions differ: the change gave other bytes than the run from scratch")
    table = Table("", "pieces cleaned", "parts written", "seconds", "CPU seconds", "share of all", box=None)
    for name, row in results.items():
        share = row["cpu"] / results[SCRATCH]["cpu"]
        parts = f"{row['parts_written']} of {row['parts']}"
        values = f"{row['cleaned']}", parts, f"{row['seconds']:.2f}", f"{row['cpu']:.2f}", f"{share:.1%}"
        table.add_row(name, *values)
    Console().print(f"{arguments.objects} objects, {size / 1e6:.1f} MB; versions are equal")
    Console().print(table)


def measure(store: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", str(store)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run_stages(folder: Path) -> dict[str, Any]:
    """Everything from the listing to the metrics, with one process."""
    settings = load_settings()
    catalog = load_catalog(settings.catalog)
    tokenizer = Tokenizer(Path(resolve(catalog.model_b.model_id, settings.models)) / "tokenizer.json")
    store = Store(str(folder))
    artifacts = Artifacts(store, folder / "cache")
    job = CleanJob(store.url, None, settings.clean, settings.pseudonym_salt)
    started, cpu = time.perf_counter(), time.process_time()
    objects = [raw for source in SOURCES for raw in list_raw(store, source)]
    listing = fingerprint([[raw.key, raw.sha256] for raw in objects])
    with artifacts.draft(Request("cleaned_corpus", {"listing": listing}, "1")) as draft:
        made, cleaned = wash(artifacts, job, objects, PythonEngine(1).clean, draft)
        corpus = artifacts.publish(draft, {})
    names = orjson.loads(artifacts.file(corpus, COLUMNS).read_bytes())
    inputs = {"cleaned_corpus": corpus.version}
    with artifacts.draft(Request("rag_chunks", inputs, "1")) as draft:
        draft.derive(corpus, lambda part, target: write_chunks(part, target, tokenizer, settings.chunk))
        chunks = artifacts.publish(draft, {})
    with artifacts.draft(Request("metrics", inputs, "1")) as draft:
        draft.derive(
            corpus, lambda part, target: write_metrics(part, target, names), suffix=".parquet", context=names
        )
        metrics = artifacts.publish(draft, {})
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "cleaned": cleaned,
        "parts": made.parts,
        "parts_written": made.parts_written,
        "versions": [corpus.version, chunks.version, metrics.version],
    }


if __name__ == "__main__":
    main()
