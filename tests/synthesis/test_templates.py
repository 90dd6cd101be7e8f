from alchemy.synthesis.grounding import check, length_in_words
from alchemy.synthesis.phrases import QUESTIONS
from alchemy.synthesis.templates import template_pairs
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
    return {pair.instruction: pair.response for pair in template_pairs(of, chunk(of), insight, 20)}


def test_every_template_pair_of_every_kind_is_grounded_and_short() -> None:
    documents, chunks, insights = many(60)
    known = {insight.document_id: insight for insight in INSIGHTS + insights}
    pairs = 0
    for of, piece in zip(DOCUMENTS + documents, CHUNKS + chunks, strict=True):
        for pair in template_pairs(of, piece, known.get(of.id), 20):
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
    pairs = template_pairs(PAGE, chunk(PAGE, section="Error codes > Stability"), None, 1)
    assert "Stability" in pairs[0].instruction
    assert "Error codes" in pairs[0].instruction


def test_a_row_tells_its_facts() -> None:
    said = answers(ROW)
    assert "The category of Pip 3C (items) is tag." in said.values()
    assert "Category: tag. In stock: 412." in said.values()


def test_chinese_records_are_asked_in_chinese() -> None:
    pair = template_pairs(CHINESE, chunk(CHINESE), None, 1)[0]
    assert "温度标签校准规程" in pair.instruction
    assert "What" not in pair.instruction
    assert pair.response.startswith("每个标签每年校准一次。")


def test_numbers_out_of_an_insight_make_a_numeric_pair() -> None:
    pairs = [pair for pair in template_pairs(ISSUE, chunk(ISSUE), INSIGHTS[0], 20) if pair.kind == "numeric"]
    assert [pair.response for pair in pairs] == [
        "HAUL-104 has more comments than 94 % of jira issues (23) "
        "and fewer votes than 61 % of jira issues (0)."
    ]


def test_some_questions_ask_for_what_no_record_has_and_are_declined() -> None:
    documents, chunks, _ = many(100)
    pairs = [
        (of, pair)
        for of, piece in zip(documents, chunks, strict=True)
        for pair in template_pairs(of, piece, None, 20)
        if pair.kind == "unanswerable"
    ]
    assert 5 < len(pairs) < 40
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
    firsts = [template_pairs(of, piece, None, 1) for of, piece in zip(documents, chunks, strict=True)]
    assert firsts == [template_pairs(of, piece, None, 1) for of, piece in zip(documents, chunks, strict=True)]
    openings = {pair.instruction.split('"')[0] for pairs in firsts for pair in pairs}
    assert len(openings) >= len(QUESTIONS["commit"])


def test_a_chunk_that_says_nothing_gives_no_pair() -> None:
    empty = document("page", "1", "", "| 1 | 2 |\n{};")
    assert template_pairs(empty, chunk(empty), None, 5) == []
