"""`alchemy releases`: what was released and what serves, shown and moved."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from alchemy.console import Json, bounded, command, open_artifacts, show
from alchemy.settings import load_settings

releases = typer.Typer(no_args_is_help=True, help="What was released, and what serves.")


@command(releases, "ls")
def releases_ls(as_json: Json = False) -> None:
    """List every release, oldest first."""
    from alchemy.release import describe, list_releases

    artifacts = open_artifacts(load_settings())
    rows = [describe(artifacts, one.version) for one in list_releases(artifacts)]
    if not as_json:
        columns = ("id", "created_at", "aliases", "index", "evaluation")
        rows = [
            {name: row[name] for name in columns} | {"passed": bool(row["gate"] and row["gate"]["passed"])}
            for row in rows
        ]
    show(rows, as_json)


@command(releases, "show")
def releases_show(
    release: Annotated[str, typer.Argument(help="A release id, or an alias.")] = "champion",
    as_json: Json = False,
) -> None:
    """Show one release with its parts and the gate's reasons."""
    from alchemy.release import describe, resolve_release

    artifacts = open_artifacts(load_settings())
    show(describe(artifacts, resolve_release(artifacts, release)), as_json)


@command(releases, "diff")
def releases_diff(
    before: Annotated[str, typer.Argument(help="A release id, its beginning, or an alias.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    as_json: Json = False,
) -> None:
    """Tell what differs between two releases: parts, scores, documents and chunks."""
    from alchemy.comparison import compare_releases
    from alchemy.release import resolve_release

    artifacts = open_artifacts(load_settings())
    names = (resolve_release(artifacts, name) for name in (before, after))
    found = asdict(compare_releases(artifacts, *names))
    if as_json:
        show(found, as_json)
        return
    for kind in ("parts", "scores"):
        for name, (old, new) in found.pop(kind).items():
            found[name] = f"{old} -> {new}"
    for kind in ("documents", "chunks"):
        changes = found.pop(kind) or {}
        found |= {f"{kind} {how}": names for how, names in changes.items()}
    show(bounded(found), as_json)


@command(releases, "promote")
def releases_promote(release: str, as_json: Json = False) -> None:
    """Make a release the champion by hand; the alias records that it was forced."""
    from alchemy.release import promote, read_release_alias, resolve_release

    artifacts = open_artifacts(load_settings())
    chosen = resolve_release(artifacts, release)
    promote(artifacts, chosen, expected=read_release_alias(artifacts, "champion"), note="forced by hand")
    show({"champion": chosen}, as_json)


@command(releases, "rollback")
def releases_rollback(as_json: Json = False) -> None:
    """Make the previous release the champion again."""
    from alchemy.release import rollback

    show({"champion": rollback(open_artifacts(load_settings()))}, as_json)


@command(releases, "pin")
def releases_pin(
    release: Annotated[str, typer.Argument(help="A release id, its beginning, or an alias.")],
    as_json: Json = False,
) -> None:
    """Let a release serve until it is unpinned; promotions go on, but the service stays with it."""
    from alchemy.release import pin, read_release_alias, resolve_release

    artifacts = open_artifacts(load_settings())
    expected, chosen = read_release_alias(artifacts, "pinned"), resolve_release(artifacts, release)
    pin(artifacts, chosen, expected=expected)
    show({"pinned": chosen}, as_json)


@command(releases, "unpin")
def releases_unpin(as_json: Json = False) -> None:
    """Let the champion serve again."""
    from alchemy.release import read_release_alias, unpin

    artifacts = open_artifacts(load_settings())
    unpin(artifacts, expected=read_release_alias(artifacts, "pinned"))
    show({"pinned": None}, as_json)


@command(releases, "prune")
def releases_prune(
    keep: Annotated[int, typer.Option(min=1, help="Releases to keep, besides those with an alias.")] = 5,
    grace_minutes: Annotated[
        int, typer.Option(min=0, help="Leave alone what was in use so lately: a run may be reading it.")
    ] = 60,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Delete versions that no kept release was made from, and results of objects that are gone."""
    from alchemy.corpus import CleanJob
    from alchemy.retention import plan_prune, prune

    settings = load_settings()
    artifacts = open_artifacts(settings)
    job = CleanJob(artifacts.store.url, settings.s3_endpoint, settings.clean, settings.pseudonym_salt)
    plan = plan_prune(artifacts, job, keep=keep, grace=timedelta(minutes=grace_minutes))
    done = plan if dry_run else prune(artifacts, plan)
    report = {
        "deleted": not dry_run,
        "releases_kept": list(done.releases),
        "versions": len(done.versions),
        "by_asset": done.counts(),
        "results_of_pieces": len(done.results),
        "bytes": done.size,
        "note": done.note,
    }
    show(report if as_json else bounded(report), as_json)
