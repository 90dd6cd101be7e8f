"""The reference of drift: the metrics that the release which serves was made from."""

from typing import Any

from alchemy.artifacts import Artifact, Artifacts
from alchemy.release import read_release, read_release_alias


def released_metrics(artifacts: Artifacts) -> Artifact | None:
    """The metrics behind the champion's index, by lineage; None without a champion, or where it has none.

    Raises NotFound when a version in the lineage is no longer in the store.
    """
    champion = read_release_alias(artifacts, "champion")
    if champion is None:
        return None
    release = read_release(artifacts, champion.release)
    version = _find(artifacts.lineage("faiss_index", release.index), "metrics")
    return None if version is None else artifacts.get("metrics", version)


def _find(lineage: dict[str, Any], asset: str) -> str | None:
    if lineage["asset"] == asset:
        return str(lineage["version"])
    found = (_find(one, asset) for one in lineage["inputs"])
    return next((version for version in found if version), None)
