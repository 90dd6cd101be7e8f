"""Numbers about the documents, expanded, made free of redundancy, and turned into facts and scores."""

from typing import Any

import orjson
import polars as pl
from dagster import AssetExecutionContext, MaterializeResult, ResourceParam, asset

from alchemy.artifacts import Artifact, Draft
from alchemy.assembly import COLUMNS
from alchemy.quant.expand import expand
from alchemy.quant.features import build_features, sampled_correlations
from alchemy.quant.insight import SCORE, write_insights
from alchemy.quant.labels import read_labels
from alchemy.quant.measure import write_metrics
from alchemy.quant.pictures import correlation_picture
from alchemy.quant.sketch import write_sketch
from alchemy.records import Insight
from alchemy.settings import Settings
from assets.corpus import cleaned_corpus
from assets.publishing import Inputs, head, picture, publish, table
from resources.store import StoreResource

_MAPPED = 40  # columns of a heat map


@asset(
    group_name="quant",
    kinds={"parquet", "polars"},
    owners=["team:data-platform"],
    code_version="3",
    deps=[cleaned_corpus],
)
def metrics(context: AssetExecutionContext, store: StoreResource) -> MaterializeResult:
    """What was measured on each document: additions, files changed, comments, votes, age, length and more.

    Grain: one document; one nullable column per measure. `sketch.json` remembers the distribution of each
    column for later runs to be compared with. Used by `quant_features` and `quant_insights`.
    """
    artifacts = store.artifacts

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        corpus = inputs["cleaned_corpus"]
        names = orjson.loads(artifacts.file(corpus, COLUMNS).read_bytes())
        counts = draft.derive(
            corpus, lambda part, target: write_metrics(part, target, names), suffix=".parquet", context=names
        )
        write_sketch(draft.parts(), draft.folder)
        return {
            "rows": sum(count["rows"] for count in counts),
            "columns": len(names),
            "documents_with_metrics": sum(count["measured"] for count in counts),
        }

    def describe(artifact: Artifact) -> dict[str, Any]:
        frame = pl.scan_parquet(list(artifacts.parts(artifact, "part-"))).head(10).collect()
        shown = [name for name in frame.columns if frame[name].null_count() < frame.height][:8]
        return {"sample": table(frame.to_dicts(), shown)}

    return publish(context, artifacts, build, inputs=["cleaned_corpus"], describe=describe)


@asset(
    group_name="quant",
    kinds={"parquet", "polars"},
    owners=["team:data-platform"],
    code_version="3",
    deps=[metrics],
)
def quant_features(
    context: AssetExecutionContext, store: StoreResource, settings: ResourceParam[Settings]
) -> MaterializeResult:
    """Squares and pairwise products of the metrics, without the redundant ones.

    Grain: one document. `report.json` names for every dropped column why, and the kept column that it
    repeats. Used by `quant_insights`.
    """
    artifacts = store.artifacts

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        measured = list(artifacts.parts(inputs["metrics"], "part-"))
        report = build_features(measured, draft.folder, settings.quant)
        return {"rows": report.rows, **report.counts}

    def describe(artifact: Artifact) -> dict[str, Any]:
        report = orjson.loads(artifacts.file(artifact, "report.json").read_bytes())
        shown = {"dropped": table(report["dropped"], ["feature", "reason", "witness", "r"])}
        if columns := report["base_columns"]:
            measured = list(artifacts.parts(artifacts.get("metrics", artifact.inputs["metrics"]), "part-"))
            considered = expand(columns)
            kept = [one for one in considered if one.name in set(report["kept"])]
            maps = [sampled_correlations(measured, columns, some[:_MAPPED]) for some in (considered, kept)]
            shown["correlations"] = picture(correlation_picture(*maps), "correlations before and after")
        return shown

    parameters = {"options": settings.quant.model_dump()}
    return publish(context, artifacts, build, inputs=["metrics"], parameters=parameters, describe=describe)


@asset(
    group_name="quant",
    kinds={"json", "polars"},
    owners=["team:data-platform"],
    code_version="2",
    deps=[cleaned_corpus, metrics, quant_features],
)
def quant_insights(
    context: AssetExecutionContext, store: StoreResource, settings: ResourceParam[Settings]
) -> MaterializeResult:
    """Percentile facts as text and the quant insight score in [0, 1].

    Grain: one document that has metrics. Facts go into training pairs, scores into `faiss_index`. The score
    is learned from the feedback in the corpus where there is enough of it and that is shown to be better than
    the mean percentile; `score.json` says which it is, why, and all that was learned.
    """
    artifacts = store.artifacts

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        features = list(artifacts.parts(inputs["quant_features"], "part-"))
        measured = list(artifacts.parts(inputs["metrics"], "part-"))
        labels = read_labels(artifacts.parts(inputs["cleaned_corpus"], "part-"))
        made = write_insights(features, measured, draft.folder, settings.quant, labels)
        return {"rows": made["insights"], **made}

    def describe(artifact: Artifact) -> dict[str, Any]:
        rows = [
            {"document_id": one.document_id, "score": round(one.score, 3), "facts": "; ".join(one.facts)}
            for one in head(artifacts, artifact, Insight)
        ]
        shown = {"sample": table(rows, ["document_id", "score", "facts"])}
        learned = orjson.loads(artifacts.file(artifact, SCORE).read_bytes())["learned"]
        if learned:
            weights = [{"feature": name, "weight": value} for name, value in learned["coefficients"].items()]
            shown["top_features"] = table(weights, ["feature", "weight"])
        return shown

    parameters = {"options": settings.quant.model_dump()}
    return publish(
        context,
        artifacts,
        build,
        inputs=["cleaned_corpus", "metrics", "quant_features"],
        parameters=parameters,
        describe=describe,
    )
