"""Train, eval or holdout: decided for a document before a word is generated from it.

Documents that tell the same story fall into one split: equal texts, and an issue with the commits and pull
requests whose titles name it. The split is a hash of what they share, so it does not change when other
documents come or go.
"""

import re
from collections.abc import Iterable
from typing import get_args

from alchemy.records import Document, Split, fingerprint
from alchemy.settings import SynthesisOptions

SPLITS: tuple[Split, ...] = get_args(Split)
_KEY = re.compile(r"\b[A-Z][A-Z0-9]{1,9}-[1-9]\d{0,5}\b")
_NOISE = re.compile(r"[\W_]+")


def content_key(document: Document) -> str:
    """Equal for documents whose texts differ at most in case, punctuation and spacing."""
    normalized = _NOISE.sub(" ", document.text.casefold()).strip()
    return fingerprint(normalized or document.id)


def assign_splits(documents: Iterable[Document], options: SynthesisOptions) -> dict[str, Split]:
    """The split of every document by id. With three or more clusters no split is empty."""
    parents: dict[str, str] = {}  # a forest over the keys that documents share; a root is its smallest key
    of_document: dict[str, str] = {}
    for document in documents:
        # The digit makes an issue, the steadier name of a cluster, sort before a content hash.
        content, issue = f"1{content_key(document)}", about_issue(document)
        of_document[document.id] = content
        parents.setdefault(content, content)
        if issue:
            _join(parents, content, parents.setdefault(f"0{issue}", f"0{issue}"))
    clusters = {document_id: _root(parents, key) for document_id, key in of_document.items()}
    places = {key: int(fingerprint("split", key, length=16), 16) / 16**16 for key in clusters.values()}
    ordered = sorted(places, key=lambda key: (places[key], key))
    splits: dict[str, Split] = {key: _split(places[key], options) for key in ordered}
    if len(ordered) >= len(SPLITS):
        _fill_empty(splits, ordered)
    return {document_id: splits[key] for document_id, key in clusters.items()}


def about_issue(document: Document) -> str:
    """The key of the issue that a record is about: its own, or the first one that its title names; or ""."""
    if document.kind == "issue":
        return document.key
    keys = document.fields.get("issues", "").split(", ")
    return next((found.group() for found in _KEY.finditer(document.title) if found.group() in keys), "")


def _root(parents: dict[str, str], key: str) -> str:
    while parents[key] != key:
        parents[key] = parents[parents[key]]
        key = parents[key]
    return key


def _join(parents: dict[str, str], one: str, other: str) -> None:
    small, large = sorted((_root(parents, one), _root(parents, other)))
    parents[large] = small


def _split(place: float, options: SynthesisOptions) -> Split:
    if place < options.holdout_share:
        return "holdout"
    return "eval" if place < options.holdout_share + options.eval_share else "train"


def _fill_empty(splits: dict[str, Split], ordered: list[str]) -> None:
    """Gives each empty split of a tiny corpus one cluster out of the largest split."""
    for missing in ("holdout", "eval", "train"):
        members = {split: [key for key in ordered if splits[key] == split] for split in SPLITS}
        if not members[missing]:
            largest = max(SPLITS, key=lambda split: len(members[split]))
            splits[members[largest][-1 if missing == "train" else 0]] = missing
