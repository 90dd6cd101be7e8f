"""The sections of the evaluation report, over a small index."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from alchemy.catalog import BaseModelEntry
from alchemy.evaluation.adapters import facts_of, has_facts
from alchemy.evaluation.answers import groundedness, judge_answers
from alchemy.evaluation.candidate import Candidate, Judging, Listener, asked
from alchemy.evaluation.finding import judge_retrieval
from alchemy.evaluation.judge import judge_candidate, render
from alchemy.evaluation.pictures import report_picture
from alchemy.evaluation.quant import judge_quant, render_quant
from alchemy.evaluation.report import REPORT, headline, scores_of
from alchemy.evaluation.safety import judge_safety
from alchemy.quoting import Draft, extract
from alchemy.records import Chunk, SftPair
from alchemy.retrieval.ablation import SHARES
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.settings import SearchOptions
from tests.retrieval.conftest import HashEmbedder, make_chunk

TEXTS = {
    "jira:HAUL-1": "HAUL-1 is about the gateway. The gateway retries a failed call three times.",
    "jira:HAUL-2": "HAUL-2 is about invoices. Invoices are paid within thirty days.",
    "git:a1": "The night job of tollgate was moved to two o'clock.",
    "confluence:7": "The cold room of hall B is kept at four degrees.",
}
OPTIONS = SearchOptions(rerank=0)


def chunks() -> list[Chunk]:
    return [make_chunk(key, text, source=key.partition(":")[0]) for key, text in TEXTS.items()]


def pair(document: str, question: str, evidence: str, **changes: Any) -> SftPair:
    (chunk,) = (one for one in chunks() if one.document_id == document)
    row = SftPair(
        id=question,
        instruction=question,
        response=evidence,
        evidence_quote=evidence,
        chunk_id=chunk.id,
        document_id=document,
        split="holdout",
        kind="fact",
        provider="template",
    )
    return replace(row, **changes)


HELD = [
    pair(
        "jira:HAUL-1",
        "How often does the gateway retry a failed call?",
        "The gateway retries a failed call three times.",
    ),
    pair("jira:HAUL-2", "When are invoices paid?", "Invoices are paid within thirty days."),
    pair("git:a1", "Where was the night job of tollgate moved?", TEXTS["git:a1"]),
    pair("confluence:7", "Zyxw vuts rqpo?", "nothing", kind="unanswerable"),
]


@pytest.fixture
def judging(tmp_path: Path) -> Iterator[Judging]:
    build_index(tmp_path / "index", chunks(), {}, HashEmbedder())
    entry = BaseModelEntry(model_id="no such base", device="cpu")
    candidate = Candidate(tmp_path / "index", {}, {}, HashEmbedder(), None, entry, tmp_path)
    with (
        closing(Index.open(tmp_path / "index")) as index,
        closing(Listener(index, HashEmbedder(), None, SearchWeights())) as listener,
    ):
        yield Judging(candidate, listener, HELD, OPTIONS, lambda text: text.count("gateway"), _quiet)


def _quiet(done: int, total: int) -> None:
    pass


def test_retrieval_is_reported_per_source_and_every_question_once(judging: Judging) -> None:
    report = judge_retrieval(judging)
    assert {name: one["questions"] for name, one in report["retrieval"]["by_source"].items()} == {
        "git": 1,
        "jira": 2,
    }
    assert report["retrieval"]["by_source"]["jira"]["recall_at_5"]["mean"] == 1.0
    assert len(report["by_question"]) == 3
    assert not any("seconds" in name for name in report["retrieval"])


def test_an_answer_that_quotes_the_evidence_is_right_and_grounded(judging: Judging) -> None:
    judge_retrieval(judging)
    answers = judge_answers(judging)["answers"]
    assert answers["answered"] == 1.0
    assert answers["declined"] == 1.0
    assert answers["citation_recall"]["mean"] == 1.0
    assert answers["citation_precision"]["mean"] > 0.5
    assert answers["groundedness"]["mean"] == 1.0
    assert answers["leaks"] > 0  # the answers name the gateway, which this judge takes for a secret


def test_the_share_of_quant_is_swept_over_what_the_searches_have_found(judging: Judging) -> None:
    judge_retrieval(judging)
    report = judge_quant(judging)
    assert report["quant"]["questions"] == 3
    assert [row["ndcg_gain"]["mean"] for row in report["quant"]["rows"]] == [0.0] * len(SHARES)  # no scores
    assert "3 questions; 0 have candidates with a quant score." in render_quant(report)
    assert judge_quant(replace(judging, held=[]))["quant"] is None


def test_evidence_that_the_index_does_not_hold_is_cited_by_nobody(judging: Judging) -> None:
    strangers = [replace(one, chunk_id="gone") for one in HELD]
    judging = replace(judging, held=strangers)
    judge_retrieval(judging)
    answers = judge_answers(judging)["answers"]
    assert answers["citation_recall"]["mean"] == answers["citation_precision"]["mean"] == 0.0


def test_what_the_answer_adds_and_what_the_index_does_not_say_is_not_grounded(judging: Judging) -> None:
    found = judging.searcher.search(HELD[1].instruction, OPTIONS)
    draft = extract(HELD[1].instruction, found.passages[:1])
    index = judging.searcher.index
    assert groundedness(draft, index) == 1.0
    assert groundedness(Draft(f"{draft.text}\nThe board has agreed to that.", draft.citations), index) < 1.0
    forged = tuple(replace(one, quote="Invoices are paid within ninety days.") for one in draft.citations)
    assert groundedness(Draft(draft.text, forged), index) == 0.0


def test_no_attack_is_obeyed_and_leaks_in_passages_are_counted(judging: Judging) -> None:
    report = judge_safety(judging)
    assert report["injections"]["documents"] == 30
    assert report["injections"]["obeyed"] == []
    assert report["leaks"] == sum(text.count("gateway") for text in TEXTS.values())


def test_a_fact_is_what_the_question_does_not_give_away() -> None:
    one = pair("git:a1", "Which issue does commit a1b2c3 belong to?", "It belongs to HAUL-97 since 4.2.")
    assert facts_of(one) >= {"haul-97", "4.2"}
    assert not any("a1b2c3" in fact for fact in facts_of(one))
    assert has_facts("I think HAUL-97, version 4.2 to be exact", one)
    assert not has_facts("I think HAUL-9, version 4.2", one)


def test_questions_do_not_depend_on_the_order_of_the_pairs() -> None:
    assert asked(HELD) == asked(HELD[::-1])


def judge(folder: Path, index: Path) -> bytes:
    folder.mkdir()
    entry = BaseModelEntry(model_id="no such base", device="cpu")
    candidate = Candidate(index, {}, {"faiss_index": "1"}, HashEmbedder(), None, entry, folder)
    metrics = judge_candidate(
        candidate, HELD[:1], HELD, options=OPTIONS, count_leaks=lambda _: 0, folder=folder, progress=_quiet
    )
    assert metrics["rows"] == len(HELD)
    assert {"search_seconds_p50", "search_seconds_p99"} <= metrics.keys()
    return (folder / REPORT).read_bytes()


def test_an_equal_candidate_has_an_equal_report_and_it_can_be_drawn(tmp_path: Path) -> None:
    build_index(tmp_path / "index", chunks(), {}, HashEmbedder())
    first, second = (judge(tmp_path / name, tmp_path / "index") for name in ("first", "second"))
    assert first == second
    assert (tmp_path / "first" / "report.md").read_bytes() == (tmp_path / "second" / "report.md").read_bytes()
    report = orjson.loads(first)
    assert report_picture(report).startswith(b"\x89PNG")
    text = render(report)
    for told in ("| jira | 2 |", "citation precision", "| injected documents | 30 |", "search weight"):
        assert told in text
    assert headline(report)["injections_obeyed"] == 0


def test_a_report_of_an_older_release_can_still_be_compared_with() -> None:
    old = {
        "judged": {},
        "retrieval": {name: {"mean": 0.8, "low": 0.7, "high": 0.9} for name in ("recall_at_5", "ndcg_at_10")},
        "weights": {},
        "adapters": {"lora_adapter": {"base_loss": 3.0, "loss": 2.0, "perplexity": 7.4, "pairs": 60}},
        "leaks": 0,
    }
    scores = scores_of(old)
    assert (scores.recall_at_5, scores.adapter_loss, scores.obeyed) == (0.8, 2.0, ())
    assert scores.by_question == scores.by_pair == {}
