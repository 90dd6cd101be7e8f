"""The raw sources as assets: what lies in `raw/<source>/`, by content. One factory, six assets."""

from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, asset

from alchemy.artifacts import Artifact, Draft
from alchemy.listing import list_raw, write_listing
from alchemy.records import SOURCES, fingerprint
from assets.publishing import Inputs, publish, table
from resources.store import StoreResource

_HOLDS = {
    "git": "Commits (JSON lines) and pull requests (GitHub REST JSON)",
    "jira": "Issues (REST v2 search pages)",
    "confluence": "Wiki pages (HTML)",
    "documents": "Manuals and notes (PDF, DOCX, Markdown, text, HTML)",
    "database": "Tables (CSV, SQLite, SQL dumps)",
    "feedback": "What people said of answers (JSON lines)",
}


def raw_asset(source: str) -> AssetsDefinition:
    """The asset `raw/<source>`: a listing of the source's objects. The data itself is never copied."""

    @asset(
        key=["raw", source],
        group_name="ingestion",
        kinds={"json", "s3"},
        owners=["team:data-platform"],
        code_version="2",
        description=(
            f"{_HOLDS[source]} under `raw/{source}/`. Holds a listing with key, size and sha256 of every "
            "object; grain: one object. Used by `cleaned_corpus`, which reads only those whose digest is new."
        ),
    )
    def raw(context: AssetExecutionContext, store: StoreResource) -> MaterializeResult:
        objects = list_raw(store.store, source)

        def build(draft: Draft, _: Inputs) -> dict[str, Any]:
            rows = write_listing(draft.folder, objects)
            return {"rows": rows, "raw_bytes": sum(one.size for one in objects)}

        def describe(artifact: Artifact) -> dict[str, Any]:
            rows = [{"key": one.key, "size": one.size, "sha256": one.sha256[:16]} for one in objects]
            return {"sample": table(rows, ["key", "size", "sha256"])}

        # The request names the content, so an unchanged source is answered by the version that is there.
        listing = fingerprint([[one.key, one.sha256] for one in objects])
        return publish(context, store.artifacts, build, parameters={"listing": listing}, describe=describe)

    return raw


raw_assets = [raw_asset(source) for source in SOURCES]
