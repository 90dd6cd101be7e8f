"""Hard stops: is a candidate whole, safe to load, and made from what it claims to be made from?

Facts are gathered here and decided on in `gate`; how good a candidate is, is `evaluation`'s to say. Nothing
is trusted because of its name: every file is read. All faults are told at once, not only the first.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from alchemy.artifacts import Artifact, Artifacts
from alchemy.errors import BadInput, ContractBroken, NotFound
from alchemy.manifest import MANIFEST
from alchemy.parts import read_parts
from alchemy.records import SftPair
from alchemy.release import Release
from alchemy.retrieval.index import SUMMARY, Index
from alchemy.training.evaluate import CONFIG, WEIGHTS, check_adapter

_PNG = b"\x89PNG\r\n\x1a\n"
_ALLOWED = (".safetensors", ".json", ".png")  # what an adapter may hold; the picture is its loss curve
_RANK_AXIS = re.compile(r"\.lora_(?:embedding_)?([AB])\b")  # rank is the first axis of A, the second of B
_SPLITS = ("train", "eval", "holdout")

# What an artifact must have been made from, whatever else it read; "raw/" is any listing of raw objects.
_ORIGINS = {
    "faiss_index": ("rag_chunks",),
    "sft_pairs": ("cleaned_corpus", "rag_chunks"),
    "rag_chunks": ("cleaned_corpus",),
    "cleaned_corpus": ("raw/",),
}
_ORIGINS_OF_ADAPTERS = ("sft_pairs",)


def inspect_candidate(
    artifacts: Artifacts, release: Release, count_leaks: Callable[[str], int]
) -> tuple[str, ...]:
    """Every reason for which the release must not serve, whatever its scores are; empty for a sound one.

    Args:
        artifacts: Where the parts of the release are.
        release: The candidate; its models are those of the catalog.
        count_leaks: How many secrets and personal data a text holds.
    """
    faults: list[str] = []
    index = _whole(artifacts, "faiss_index", release.index, faults)
    found = {name: _whole(artifacts, name, version, faults) for name, version in release.adapters.items()}
    adapters = {name: one for name, one in found.items() if one}
    evaluation = _whole(artifacts, "evaluation", release.evaluation, faults)
    if index:
        faults += inspect_index(artifacts.fetch(index), release.embedder)
    for name, adapter in adapters.items():
        faults += inspect_adapter(artifacts.fetch(adapter), release.base_model, name)
    for name, version in {"faiss_index": release.index, **release.adapters}.items():
        faults += inspect_lineage(artifacts, name, version)
    learnt_or_judged = [one for one in (*adapters.values(), evaluation) if one and "sft_pairs" in one.inputs]
    versions = sorted({one.inputs["sft_pairs"] for one in learnt_or_judged})
    pairs = {version: _whole(artifacts, "sft_pairs", version, faults) for version in versions}
    judged_by = pairs.get(evaluation.inputs.get("sft_pairs", "")) if evaluation else None
    for one in filter(None, pairs.values()):
        faults += inspect_pairs(artifacts, one, count_leaks)
        if judged_by:
            faults += inspect_splits(artifacts, one, judged_by)
    return tuple(dict.fromkeys(faults))


def inspect_index(folder: Path, embedder: str) -> list[str]:
    """The index opens, and was built with the embedder that questions will be asked with."""
    try:
        with closing(Index.open(folder)) as index:
            built = index.summary.get("embedder")
    except ContractBroken as error:
        return [str(error).replace(str(folder), "faiss_index")]
    if built != embedder:
        return [f"faiss_index/{SUMMARY}: built with {built}, the embedder is {embedder}"]
    return []


def inspect_adapter(folder: Path, base_model: str, name: str) -> list[str]:
    """The adapter holds no code, is made for the base, and its tensors are finite and of one rank."""
    faults = [
        f"{name}/{path.relative_to(folder).as_posix()}: {wrong}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and (wrong := _unlike_its_name(path))
    ]
    try:
        config = check_adapter(folder, base_model)
    except BadInput as error:
        return [*faults, str(error).replace(str(folder), name)]
    return [*faults, *(f"{name}/{WEIGHTS}: {wrong}" for wrong in _wrong_tensors(folder / WEIGHTS, config))]


def inspect_lineage(artifacts: Artifacts, asset: str, version: str) -> list[str]:
    """What the index or the adapter was made from is on record, all the way to listings of raw objects."""
    try:
        tree = artifacts.lineage(asset, version)
    except NotFound as error:
        return [f"{asset}: its lineage has a gap: {error}"]
    origins = {asset: _ORIGINS_OF_ADAPTERS, **_ORIGINS}
    return [f"{asset}: its lineage has a gap: {gap}" for gap in dict.fromkeys(_gaps(tree, origins))]


def inspect_splits(artifacts: Artifacts, learnt_from: Artifact, judged_by: Artifact) -> list[str]:
    """No document that judges has taught: neither the adapters nor the search weights."""
    held_out = _documents(artifacts, judged_by, "holdout")
    seen = {
        "training": held_out & _documents(artifacts, learnt_from, "train"),
        "tuning": held_out & _documents(artifacts, judged_by, "eval"),
    }
    return [
        f"sft_pairs: {len(both)} held-out documents are in the {split} pairs too, the first is {min(both)}"
        for split, both in seen.items()
        if both
    ]


def inspect_pairs(artifacts: Artifacts, pairs: Artifact, count_leaks: Callable[[str], int]) -> list[str]:
    """No pair holds a secret or personal data: an adapter would learn it by heart."""
    texts = (
        text
        for split in _SPLITS
        for pair in _pairs(artifacts, pairs, split)
        for text in (pair.instruction, pair.response)
    )
    leaks = sum(count_leaks(text) for text in texts)
    return [f"sft_pairs: {leaks} secrets or personal data are left in {pairs.version}"] if leaks else []


def _whole(artifacts: Artifacts, asset: str, version: str, faults: list[str]) -> Artifact | None:
    """The artifact, if every file of it is what was published."""
    try:
        artifact = artifacts.get(asset, version)
        artifacts.verify(artifact)
    except (NotFound, ContractBroken) as error:
        faults.append(f"{asset}: {error}")
        return None
    return artifact


def _unlike_its_name(path: Path) -> str | None:
    """What is wrong with a file of an adapter, by its content: a pickle can be called anything."""
    if path.suffix not in _ALLOWED:
        return f"only {', '.join(_ALLOWED)} may be in an adapter; a pickle runs its code when it is loaded"
    if path.suffix == ".json":
        try:
            orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            return f"not JSON ({error})"
    if path.suffix == ".png" and not path.read_bytes().startswith(_PNG):
        return "not a PNG"
    return None


def _wrong_tensors(path: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Says what is wrong with the tensors A [rank, in] and B [out, rank] of the layers (Hu et al. 2021)."""
    from safetensors import safe_open

    ranks = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    wrong = defaultdict(list)
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            kind, shape = file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()
            if axis := _RANK_AXIS.search(name):
                rank = shape["AB".index(axis[1])] if len(shape) > 1 else None
                if rank not in ranks:
                    wrong[f"not of the rank {config.get('r')} that {CONFIG} says"].append(name)
            if kind not in ("F16", "F32", "F64"):
                wrong["not of a type that can be checked; save them as F32"].append(name)
            elif not np.isfinite(file.get_tensor(name)).all():
                wrong["not finite"].append(name)
    for what, names in wrong.items():
        yield f"{len(names)} tensors are {what}, the first is {names[0]}"


def _gaps(node: Mapping[str, Any], origins: Mapping[str, Sequence[str]]) -> Iterator[str]:
    asset, used = node["asset"], [one["asset"] for one in node["inputs"]]
    if asset.startswith("raw/"):
        return
    for needed in origins.get(asset, ("",)):  # of any other artifact: something
        if not any(name.startswith(needed) for name in used):
            yield f"{asset} {node['version']} was made from no {needed or 'input'}"
    for one in node["inputs"]:
        yield from _gaps(one, origins)


def _documents(artifacts: Artifacts, pairs: Artifact, split: str) -> set[str]:
    return {pair.document_id for pair in _pairs(artifacts, pairs, split)}


def _pairs(artifacts: Artifacts, pairs: Artifact, split: str) -> Iterator[SftPair]:
    return read_parts(SftPair, artifacts.parts(pairs, f"sft_{split}"))
