from dataclasses import replace

from alchemy.synthesis.grounding import check, length_in_words
from alchemy.synthesis.phrases import QUESTIONS
from alchemy.synthesis.templates import template_pairs
from alchemy.text.sentences import cjk_share
from tests.synthesis.corpus import (
    CHINESE,
    CHUNKS,
    COMMIT,
    DOCUMENTS,
    INSIGHTS,
    ISSUE,
    PAGE,
    PULL_REQUEST,
    ROW,
    chunk,
    document,
    many,
)


def answers(of, insight=None) -> dict[str, str]:
    return {pair.instruction: pair.response for pair in template_pairs(of, chunk(of), insight)}


def test_every_template_pair_of_every_kind_is_grounded_and_short() -> None:
    documents, chunks, insights = many(60)
    known = {insight.document_id: insight for insight in INSIGHTS + insights}
    pairs = 0
    for of, piece in zip(DOCUMENTS + documents, CHUNKS + chunks, strict=True):
        for pair in template_pairs(of, piece, known.get(of.id)):
            assert check(pair, piece, known.get(of.id), of.fields) in (None, "masked_value"), pair
            assert pair.evidence_quote in piece.text
            assert length_in_words(pair.response) <= 80
            pairs += 1
    assert pairs > 120


def test_an_issue_tells_its_problem_and_its_status() -> None:
    said = " ".join(answers(ISSUE).values())
    assert "A gateway that was offline sends one batch of 2,300 readings." in said
    assert "The status of HAUL-104 is Resolved, and its resolution is Fixed." in said
    assert "The components of HAUL-104 are tollgate, edge." in said


def test_a_commit_tells_what_changed_in_which_files_and_for_which_issue() -> None:
    said = answers(COMMIT)
    assert "It belongs to HAUL-104." in said.values()
    assert "tollgate/src/publish.rs, docs/errors.md." in said.values()
    question = next(question for question, answer in said.items() if answer == "It belongs to HAUL-104.")
    assert "HAUL-104" not in question  # it would answer itself
    assert any("was written on 2025-12-02." in answer for answer in said.values())
    assert not any("PERSON" in text for pair in said.items() for text in pair)


def test_a_pull_request_tells_its_change_and_whether_it_was_merged() -> None:
    said = " ".join(answers(PULL_REQUEST).values())
    assert "Payloads above the limit are acknowledged" in said
    assert "is merged" in said


def test_a_page_answers_from_its_conditions_and_its_table() -> None:
    said = answers(PAGE)
    assert any(q.endswith("if a batch is too large?") and "2 KiB" in a for q, a in said.items())
    assert any("HM-1042" in q and a == "HM-1042: Payload too large; no retry" for q, a in said.items())


def test_a_section_is_asked_by_its_heading() -> None:
    pair = template_pairs(PAGE, chunk(PAGE, section="Error codes > Stability"))[0]
    assert "Stability" in pair.instruction
    assert "Error codes" in pair.instruction


def test_a_row_tells_its_facts() -> None:
    said = answers(ROW)
    assert "The category of Pip 3C (items) is tag." in said.values()
    assert "Category: tag. In stock: 412." in said.values()


def test_chinese_records_are_asked_in_chinese() -> None:
    pair = template_pairs(CHINESE, chunk(CHINESE))[0]
    assert "温度标签校准规程" in pair.instruction
    assert "What" not in pair.instruction
    assert pair.response.startswith("每个标签每年校准一次。")
    kept = [one for one in template_pairs(CHINESE, chunk(CHINESE)) if check(one, chunk(CHINESE)) is None]
    assert {one.kind for one in kept} == {"fact", "unanswerable"}
    assert all(cjk_share(one.instruction + one.response) > 0.5 for one in kept)


def test_numbers_out_of_an_insight_make_a_numeric_pair() -> None:
    pairs = [pair for pair in template_pairs(ISSUE, chunk(ISSUE), INSIGHTS[0]) if pair.kind == "numeric"]
    assert [pair.response for pair in pairs] == [
        "HAUL-104 has more comments than 94 % of jira issues (23) "
        "and fewer votes than 61 % of jira issues (0)."
    ]


def test_two_neighboring_rows_of_a_table_are_compared_and_its_first_row_is_not() -> None:
    of = document(
        "page", "7", "Limits", "Name | Value | Over it\nTopics | 12 | refused\nPayload | 16 KiB | dropped."
    )
    pairs = [pair for pair in template_pairs(of, chunk(of)) if pair.kind == "comparison"]
    assert [pair.response for pair in pairs] == ["Topics: 12; refused. Payload: 16 KiB; dropped."]
    assert all(word in pairs[0].instruction for word in ("Topics", "Payload", "Limits"))
    assert pairs[0].evidence_quote == "Topics | 12 | refused\nPayload | 16 KiB | dropped."
    assert check(pairs[0], chunk(of)) is None


def test_a_reason_is_a_how_question() -> None:
    of = document("issue", "HAUL-9", "Halve batches", "Large batches closed the socket on every gateway.")
    assert template_pairs(of, chunk(of, section="Root cause"))[0].kind == "how"


def test_a_whole_record_is_asked_for_what_it_does_not_have_and_declines() -> None:
    documents, chunks, _ = many(100)
    chunks.append(replace(chunks[0], total_chunks=2))  # who knows what the other chunk holds?
    documents.append(documents[0])
    pairs = [
        (of, pair)
        for of, piece in zip(documents, chunks, strict=True)
        for pair in template_pairs(of, piece)
        if pair.kind == "unanswerable"
    ]
    assert len(pairs) == 100
    for of, pair in pairs:
        asked = next(
            name
            for name in ("budget", "number", "score", "reviewer", "order", "policy", "region")
            if name in pair.instruction
        )
        assert asked not in of.text
        assert "no" in pair.response.lower()


def test_questions_vary_and_repeat_exactly() -> None:
    documents, chunks, _ = many(200)
    firsts = [template_pairs(of, piece)[:1] for of, piece in zip(documents, chunks, strict=True)]
    assert firsts == [template_pairs(of, piece)[:1] for of, piece in zip(documents, chunks, strict=True)]
    openings = {pair.instruction.split('"')[0] for pairs in firsts for pair in pairs}
    assert len(openings) >= len(QUESTIONS["commit"])


def test_a_chunk_that_says_nothing_gives_no_pair() -> None:
    empty = document("page", "1", "", "| 1 | 2 |\n{};")
    assert template_pairs(empty, chunk(empty)) == []
