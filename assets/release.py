"""The gate and the release: the one record that serving follows."""

from dataclasses import asdict
from typing import Any

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
from alchemy.evaluation.report import read_report, refusals_of, scores_of, weights_of
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
    artifacts = store.artifacts
    evaluated = artifacts.latest("evaluation")
    champion = read_release_alias(artifacts, "champion")
    names = [GENERAL, *catalog.catalog.adapters]
    made = Release(
        index=evaluated.inputs["faiss_index"],
        adapters={name: evaluated.inputs[name] for name in names},
        base_model=catalog.catalog.model_c.model_id,
        embedder=catalog.catalog.model_b.model_id,
        reranker=catalog.catalog.reranker.model_id,
        weights=weights_of(read_report(artifacts, evaluated.version)),
        prompts=PROMPTS_VERSION,
        evaluation=evaluated.version,
    )
    decision, facts = _judge(artifacts, made, champion, settings)

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
        seen = champion.release if champion else None
        note_judgment(artifacts, version, {"champion": seen, "passed": decision.passed, **facts})
    _move(artifacts, version, champion, decision)
    context.log.info(f"release {version}: {'champion' if decision.passed else '; '.join(decision.reasons)}")
    check = AssetCheckResult(
        check_name="gate",
        passed=decision.passed,
        severity=AssetCheckSeverity.ERROR,
        metadata=facts,
    )
    return result._replace(check_results=[check])


def _judge(
    artifacts: Artifacts, made: Release, champion: Alias | None, settings: Settings
) -> tuple[Decision, dict[str, Any]]:
    """The gate's decision, and what goes on record with it: every reason and the policy that held."""
    policy = read_policy(settings.gate)
    report, before = read_report(artifacts, made.evaluation), None
    sanitizer = Sanitizer(settings.pseudonym_salt, addresses=settings.clean.street_addresses)
    found = inspect_candidate(artifacts, made, lambda text: len(sanitizer.leaks(text)))
    if champion:
        before = scores_of(read_report(artifacts, read_release(artifacts, champion.release).evaluation))
    decision = decide(scores_of(report), before, policy, [*refusals_of(report), *found])
    file = str(settings.gate) if settings.gate.is_file() else f"{settings.gate} is missing: built-in numbers"
    return decision, {
        "reasons": list(decision.reasons),
        "compared": {name: asdict(one) for name, one in decision.compared.items()},
        "policy": policy.model_dump(),
        "policy_file": file,
    }


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
