"""Asset checks over what was published. They count again by other means than the stage that wrote.

The gate's own check is with the `release` asset, whose decision it is.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import orjson
from dagster import AssetCheckResult, AssetCheckSeverity, ResourceParam, asset_check

from alchemy.artifacts import Artifact, Artifacts
from alchemy.assembly import CONSERVATION, unbalanced
from alchemy.errors import NotFound
from alchemy.parts import read_parts
from alchemy.quant.drift import measure_drift
from alchemy.quant.pictures import drift_picture
from alchemy.quant.reference import released_metrics
from alchemy.quant.sketch import FILE as SKETCH
from alchemy.quant.sketch import read_sketch
from alchemy.quant.validate import validate_metrics
from alchemy.records import Chunk, Document, Insight, Rejected, SftPair
from alchemy.settings import Settings
from alchemy.sources.reasons import REMEDIES
from alchemy.synthesis.verify import verify_pairs
from alchemy.text.sanitize import Sanitizer
from assets.corpus import cleaned_corpus, rag_chunks
from assets.publishing import picture, table
from assets.quant import metrics
from assets.synthesis import sft_pairs
from resources.store import StoreResource

_SPLITS = ("train", "eval", "holdout")


@asset_check(asset=cleaned_corpus, blocking=True)
def conservation(store: StoreResource) -> AssetCheckResult:
    """Every record that was read is kept, duplicate, filtered or quarantined: none is lost, none is twice.

    What the stage counted while reading is held against the rows that stand in the published files.
    """
    artifacts = store.artifacts
    corpus = artifacts.latest("cleaned_corpus")
    counted = orjson.loads(artifacts.file(corpus, CONSERVATION).read_bytes())
    written: dict[str, Counter[str]] = {source: Counter() for source in counted}
    reasons: Counter[tuple[str, str, str]] = Counter()
    for document in read_parts(Document, artifacts.parts(corpus, "part-")):
        written[document.source]["kept"] += 1
    for row in read_parts(Rejected, artifacts.parts(artifacts.latest("quarantine"), "part-")):
        written[row.source][row.outcome] += 1
        reasons[row.source, row.outcome, row.reason] += 1
    found = {
        source: {"records_in": counted[source]["records_in"], **{name: count[name] for name in _OUTCOMES}}
        for source, count in written.items()
    }
    missing = unbalanced(found)
    rows = [
        {"source": source, "outcome": outcome, "reason": reason, "rows": count}
        for (source, outcome, reason), count in reasons.most_common()
    ]
    return AssetCheckResult(
        passed=not missing,
        severity=AssetCheckSeverity.ERROR,
        metadata={"missing": missing, "rejected": table(rows, ["source", "outcome", "reason", "rows"])},
    )


@asset_check(asset=cleaned_corpus)
def quarantined(store: StoreResource) -> AssetCheckResult:
    """Few records of a source are quarantined; shows how many for which reason, what to do, and some of them.

    Warns where it is more than 5 % of a source: an export went wrong, or a reader has a gap.
    """
    corpus, quarantine = (store.artifacts.latest(name) for name in ("cleaned_corpus", "quarantine"))
    read = orjson.loads(store.artifacts.file(corpus, CONSERVATION).read_bytes())
    reasons: Counter[tuple[str, str]] = Counter()
    samples: dict[tuple[str, str], Rejected] = {}
    for row in read_parts(Rejected, store.artifacts.parts(quarantine, "part-")):
        if row.outcome == "quarantined":
            reasons[row.source, row.reason] += 1
            samples.setdefault((row.source, row.reason), row)
    shares = {
        source: sum(count for (name, _), count in reasons.items() if name == source) / counts["records_in"]
        for source, counts in read.items()
    }
    rows = [
        {"source": source, "reason": reason, "rows": count, "what to do": REMEDIES[reason]}
        for (source, reason), count in reasons.most_common()
    ]
    shown = [asdict(samples[key]) for key, _ in reasons.most_common()]
    return AssetCheckResult(
        passed=all(share <= _QUARANTINED_SHARE for share in shares.values()),
        severity=AssetCheckSeverity.WARN,
        metadata={
            "share": {source: round(share, 4) for source, share in shares.items()},
            "reasons": table(rows, ["source", "reason", "rows", "what to do"]),
            "sample": table(shown, ["raw_key", "locator", "reason", "detail", "sample"]),
        },
    )


@asset_check(asset=cleaned_corpus, blocking=True)
def corpus_leaks(store: StoreResource, settings: ResourceParam[Settings]) -> AssetCheckResult:
    """No pattern of a secret or of personal data is left in any field of a document."""
    corpus = store.artifacts.latest("cleaned_corpus")
    documents = read_parts(Document, store.artifacts.parts(corpus, "part-"))
    texts = (
        (
            one.id,
            [one.title, one.text, one.url, *(f"{name}: {value}" for name, value in one.fields.items())],
            "",
        )
        for one in documents
    )
    return _leaks(texts, settings)


@asset_check(asset=rag_chunks, blocking=True)
def chunk_leaks(store: StoreResource, settings: ResourceParam[Settings]) -> AssetCheckResult:
    """No pattern of a secret or of personal data is left in a chunk or in the header that is embedded."""
    chunks = read_parts(Chunk, store.artifacts.parts(store.artifacts.latest("rag_chunks"), "part-"))
    # The header cuts title and section short, and without its context a version looks like an address.
    texts = ((one.id, [one.text, one.title, one.section, one.url], one.header) for one in chunks)
    return _leaks(texts, settings)


@asset_check(asset=sft_pairs, blocking=True)
def pair_leaks(store: StoreResource, settings: ResourceParam[Settings]) -> AssetCheckResult:
    """No pattern of a secret or of personal data is left in a training pair."""
    pairs = _pairs(store.artifacts)
    texts = ((one.id, [one.instruction, one.response, one.evidence_quote], "") for one in pairs)
    return _leaks(texts, settings)


@asset_check(asset=rag_chunks, blocking=True)
def exact_spans(store: StoreResource) -> AssetCheckResult:
    """`document.text[start:end] == chunk.text` for every chunk, and every chunk's document exists."""
    artifacts = store.artifacts
    corpus, chunks = artifacts.latest("cleaned_corpus"), artifacts.latest("rag_chunks")
    documents = read_parts(Document, artifacts.parts(corpus, "part-"))
    # Chunks stand in the order of their documents: both are read once, side by side.
    document, wrong, count = next(documents, None), [], 0
    for chunk in read_parts(Chunk, artifacts.parts(chunks, "part-")):
        count += 1
        while document is not None and document.id != chunk.document_id:
            document = next(documents, None)
        if document is None or document.text[chunk.start : chunk.end] != chunk.text:
            wrong.append(chunk.id)
    return AssetCheckResult(passed=not wrong, metadata={"chunks": count, "wrong": wrong[:10]})


@asset_check(asset=sft_pairs, blocking=True)
def split_leakage(store: StoreResource) -> AssetCheckResult:
    """No document has pairs in two of train, eval and holdout."""
    splits: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for pair in _pairs(store.artifacts):
        splits.setdefault(pair.document_id, set()).add(pair.split)
        counts[pair.split] += 1
    mixed = sorted(document for document, found in splits.items() if len(found) > 1)
    return AssetCheckResult(passed=not mixed, metadata={"documents": mixed[:10], **counts})


@asset_check(asset=sft_pairs, blocking=True)
def pairs_proven(store: StoreResource) -> AssetCheckResult:
    """Every pair quotes its chunk word for word, and the source holds all its numbers and identifiers."""
    artifacts = store.artifacts
    found = verify_pairs(
        _pairs(artifacts),
        read_parts(Chunk, artifacts.parts(artifacts.latest("rag_chunks"), "part-")),
        read_parts(Document, artifacts.parts(artifacts.latest("cleaned_corpus"), "part-")),
        read_parts(Insight, artifacts.parts(artifacts.latest("quant_insights"), "part-")),
    )
    rows = [
        {"reason": reason, "pairs": len(ids), "the first": ids[0]}
        for reason, ids in sorted(found.wrong.items())
    ]
    return AssetCheckResult(
        passed=not found.wrong,
        severity=AssetCheckSeverity.ERROR,
        metadata={"pairs": found.pairs, "wrong": table(rows, ["reason", "pairs", "the first"])},
    )


@asset_check(asset=metrics, blocking=True)
def metrics_schema(store: StoreResource) -> AssetCheckResult:
    """Ids are present and unique, sources are known, numbers are finite or null, shares are in [0, 1]."""
    artifacts = store.artifacts
    found = validate_metrics(list(artifacts.parts(artifacts.latest("metrics"), "part-")))
    rows = [{"rule": rule, "rows": count} for rule, count in found.broken.items()]
    return AssetCheckResult(
        passed=found.passed,
        severity=AssetCheckSeverity.ERROR,
        metadata={"rows": found.rows, "columns": found.columns, "broken": table(rows, ["rule", "rows"])},
    )


@asset_check(asset=metrics)
def feature_drift(store: StoreResource) -> AssetCheckResult:
    """Each metric is distributed as in the release that serves; says which are not, and by how much."""
    artifacts = store.artifacts
    try:
        released = released_metrics(artifacts)
    except NotFound as error:
        return AssetCheckResult(passed=True, metadata={"reference": f"none: {error}"})
    if released is None or not any(file.path == SKETCH for file in released.files):
        why = "no release serves yet" if released is None else "the release is older than sketches"
        return AssetCheckResult(passed=True, metadata={"reference": f"none: {why}"})
    now = artifacts.latest("metrics")
    report = measure_drift(read_sketch(artifacts.file(released, SKETCH)), list(artifacts.parts(now, "part-")))
    worst = list(report.drifted or report.columns)
    metadata: dict[str, Any] = {
        "reference": released.version,
        "rows": f"{report.rows_before} -> {report.rows_now}",
        "drifted": [one.column for one in report.drifted],
        "new": list(report.new),
        "gone": list(report.gone),
        "columns": table([_rounded(asdict(one)) for one in worst], _DRIFT_COLUMNS),
    }
    if worst:
        metadata["plot"] = picture(drift_picture(worst[:_PICTURED]), "the columns that drifted most")
    return AssetCheckResult(
        passed=not report.drifted,
        severity=AssetCheckSeverity.WARN,  # new data may be different for good reasons; a person looks
        metadata=metadata,
    )


_PICTURED = 4
_QUARANTINED_SHARE = 0.05
_DRIFT_COLUMNS = (
    "column",
    "psi",
    "threshold",
    "ks",
    "wasserstein",
    "cramers_v",
    "nulls_before",
    "nulls_now",
    "adjusted_p",
)
_OUTCOMES = ("kept", "duplicate", "filtered", "quarantined")


def _pairs(artifacts: Artifacts) -> Iterator[SftPair]:
    pairs: Artifact = artifacts.latest("sft_pairs")
    for split in _SPLITS:
        yield from read_parts(SftPair, artifacts.parts(pairs, f"sft_{split}"))


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in row.items()}


def _leaks(texts: Iterator[tuple[str, list[str], str]], settings: Settings) -> AssetCheckResult:
    """Scans records of (name, whole fields, a text that repeats parts of them and may add some)."""
    sanitizer = Sanitizer(settings.pseudonym_salt, addresses=settings.clean.street_addresses)
    kinds: Counter[str] = Counter()
    places: list[dict[str, Any]] = []
    for name, fields, cut in texts:
        whole = "\n".join(fields)
        added = (one for one in sanitizer.leaks(cut) if cut[one.start : one.end] not in whole)
        for finding in (*sanitizer.leaks(whole), *added):
            kinds[finding.kind] += 1
            places.append({"record": name, "kind": finding.kind, "rule": finding.rule})
    return AssetCheckResult(
        passed=not places,
        severity=AssetCheckSeverity.ERROR,
        metadata={"kinds": dict(kinds), "places": table(places, ["record", "kind", "rule"])},
    )
