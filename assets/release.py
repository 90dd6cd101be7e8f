"""The gate and the release: the one record that serving follows."""

from dataclasses import asdict
from typing import Any

import orjson
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetSpec,
    MaterializeResult,
    ResourceParam,
    multi_asset,
)

from alchemy.artifacts import Artifacts, Draft
from alchemy.errors import Conflict
from alchemy.evaluation import REPORT, refusals_of, scores_of, weights_of
from alchemy.gate import Decision, decide, read_policy
from alchemy.inspection import inspect_candidate
from alchemy.release import (
    RECORD,
    Alias,
    Release,
    note_judgment,
    point,
    promote,
    read_release,
    read_release_alias,
    release_line,
)
from alchemy.settings import Settings
from alchemy.synthesis.prompts import PROMPTS_VERSION
from alchemy.text.sanitize import Sanitizer
from assets.publishing import Inputs, publish
from assets.training import GENERAL
from resources.catalog import CatalogResource
from resources.store import StoreResource


@multi_asset(
    name="decide_release",  # the step's name; the asset's own would clash with the job `release`
    specs=[
        AssetSpec(
            "release",
            deps=["evaluation"],
            group_name="release",
            kinds={"json"},
            owners=["team:ml-platform"],
            code_version="1",
            description=(
                "What serves: index, adapters, models, tuned weights and their evaluation, in one immutable "
                "record. The alias `champion` moves only if the gate passes and nobody else has moved it "
                "meanwhile; a rejected release stays on record with its reasons, and the champion goes on."
            ),
        )
    ],
    check_specs=[
        AssetCheckSpec(
            "gate",
            asset="release",
            blocking=True,
            description=(
                "The release may serve: whole files, no pickle, known lineage, no leak, over the floors of "
                "gate.toml, not worse than the champion."
            ),
        )
    ],
)
def release(
    context: AssetExecutionContext,
    store: StoreResource,
    catalog: CatalogResource,
    settings: ResourceParam[Settings],
) -> MaterializeResult:
    """Makes the record, asks the gate, and moves the aliases."""
    artifacts, policy = store.artifacts, read_policy(settings.gate)
    evaluated = artifacts.latest("evaluation")
    report = orjson.loads((artifacts.fetch(evaluated) / REPORT).read_bytes())
    champion = read_release_alias(artifacts, "champion")
    policy_file = (
        str(settings.gate) if settings.gate.is_file() else f"{settings.gate} is missing: built-in numbers"
    )
    names = [GENERAL, *catalog.catalog.adapters]
    made = Release(
        index=evaluated.inputs["faiss_index"],
        adapters={name: evaluated.inputs[name] for name in names},
        base_model=catalog.catalog.model_c.model_id,
        embedder=catalog.catalog.model_b.model_id,
        reranker=catalog.catalog.reranker.model_id,
        weights=weights_of(report),
        prompts=PROMPTS_VERSION,
        evaluation=evaluated.version,
    )

    sanitizer = Sanitizer(settings.pseudonym_salt, addresses=settings.clean.street_addresses)
    found = inspect_candidate(artifacts, made, lambda text: len(sanitizer.leaks(text)))
    decision = decide(
        scores_of(report), _champion_scores(artifacts, champion), policy, (*refusals_of(report), *found)
    )

    def build(draft: Draft, _: Inputs) -> dict[str, Any]:
        (draft.folder / RECORD).write_bytes(release_line(made))
        return {"rows": 1}

    result = publish(
        context,
        artifacts,
        build,
        inputs=["evaluation", "faiss_index", *names],
        parameters={"release": asdict(made)},
    )
    version = str(result.metadata["sha256"])
    if champion is None or champion.release != version:
        facts = {
            "champion": champion.release if champion else None,
            **asdict(decision),
            "policy": policy.model_dump(),
            "policy_file": policy_file,
        }
        note_judgment(artifacts, version, facts)
    _move(artifacts, version, champion, decision)
    context.log.info(f"release {version}: {'champion' if decision.passed else '; '.join(decision.reasons)}")
    check = AssetCheckResult(
        check_name="gate",
        passed=decision.passed,
        severity=AssetCheckSeverity.ERROR,
        metadata={
            "reasons": list(decision.reasons),
            "policy": policy.model_dump(),
            "policy_file": policy_file,
        },
    )
    return result._replace(check_results=[check])


def _move(artifacts: Artifacts, version: str, champion: Alias | None, decision: Decision) -> None:
    """The newest release is the candidate; one that passed becomes the champion, unless it is already."""
    candidate = read_release_alias(artifacts, "candidate")
    if candidate is None or candidate.release != version:
        point(artifacts, "candidate", version, candidate)
    if not decision.passed or (champion and champion.release == version):
        return
    try:
        promote(artifacts, version, expected=champion, note="gate passed")
    except Conflict as error:
        raise Conflict("another promotion won while this release was judged; run the asset again") from error


def _champion_scores(artifacts: Artifacts, champion: Alias | None) -> Any:
    if champion is None:
        return None
    judged = artifacts.get("evaluation", read_release(artifacts, champion.release).evaluation)
    return scores_of(orjson.loads((artifacts.fetch(judged) / REPORT).read_bytes()))
