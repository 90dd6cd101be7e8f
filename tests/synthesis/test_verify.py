from dataclasses import replace

import pytest

from alchemy.records import SftPair, read_lines
from alchemy.settings import SynthesisOptions
from alchemy.synthesis.generate import TemplateProvider
from alchemy.synthesis.pairs import write_pairs
from alchemy.synthesis.verify import Verification, verify_pairs
from tests.synthesis.corpus import CHUNKS, DOCUMENTS, INSIGHTS, many

CORPUS = tuple(one + other for one, other in zip((DOCUMENTS, CHUNKS, INSIGHTS), many(60), strict=True))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> list[SftPair]:
    folder = tmp_path_factory.mktemp("pairs")
    documents, chunks, insights = CORPUS
    write_pairs(folder, lambda: documents, chunks, insights, TemplateProvider(), SynthesisOptions())
    return [
        pair
        for split in ("train", "eval", "holdout")
        for pair in read_lines(SftPair, folder / f"sft_{split}.jsonl")
    ]


def verify(pairs: list[SftPair]) -> Verification:
    documents, chunks, insights = CORPUS
    return verify_pairs(pairs, iter(chunks), iter(documents), iter(insights))


def test_every_published_pair_is_proven_again(published: list[SftPair]) -> None:
    assert len(published) > 100
    assert verify(published) == Verification(len(published), {})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"evidence_quote": "Nobody wrote this."}, "quote_not_in_chunk"),
        ({"response": "It sends 2,301 readings."}, "ungrounded_number"),
        ({"response": "See the class SocketCloser."}, "ungrounded_identifier"),
        ({"document_id": DOCUMENTS[1].id}, "another_document"),
        ({"chunk_id": "0" * 20}, "chunk_is_gone"),
    ],
)
def test_one_spoiled_pair_is_found_among_all(
    published: list[SftPair], changes: dict[str, str], reason: str
) -> None:
    at = next(number for number, pair in enumerate(published) if pair.document_id == DOCUMENTS[0].id)
    spoiled = [*published[:at], replace(published[at], **changes), *published[at + 1 :]]
    assert verify(spoiled).wrong == {reason: [published[at].id]}


def test_numbers_out_of_an_insight_are_proven_by_it_alone(published: list[SftPair]) -> None:
    numeric = [pair for pair in published if pair.kind == "numeric"]
    documents, chunks, _ = CORPUS
    found = verify_pairs(numeric, chunks, documents, [])
    assert len(numeric) == sum(map(len, found.wrong.values())) > 0


def test_nothing_published_is_nothing_wrong() -> None:
    assert verify([]) == Verification(0, {})
