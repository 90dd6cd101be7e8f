from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.quoting import checked, cite, extract, without_strangers
from alchemy.text.language import is_chinese
from tests.serving.conftest import make_chunk, make_passage

RETRY = "The gateway was rebuilt in 2024. It retries a failed call three times. Then it raises GW-503."
OTHER = "Invoices are sent on Monday. The finance team keeps them for ten years."


def test_the_sentence_that_covers_the_question_is_quoted_whole_and_exactly() -> None:
    draft = extract("How many times does the gateway retry a failed call?", [make_passage(RETRY)])
    quote = "It retries a failed call three times. Then it raises GW-503."
    assert draft.text == f"The knowledge base says:\n“{quote}” [1]"
    (citation,) = draft.citations
    assert citation.quote == quote
    assert (citation.start, citation.end) == (100 + RETRY.index("It"), 100 + len(RETRY))


def test_a_quote_is_the_documents_text_between_its_positions() -> None:
    document = "Preamble that is not in the chunk.\n" + RETRY
    passage = make_passage(RETRY, start=document.index(RETRY))
    for citation in extract("When does it raise GW-503 after it retries?", [passage]).citations:
        assert document[citation.start : citation.end] == citation.quote


def test_a_quote_from_a_neighboring_chunk_names_that_chunk_and_its_exact_place() -> None:
    document = f"{OTHER}\n\n{RETRY}"
    after = make_chunk(RETRY, start=document.index(RETRY), chunk_index=1, gap="\n\n")
    passage = replace(make_passage(OTHER, start=0), neighbors=(after,))
    assert passage.text == document
    (citation,) = extract("How many times does the gateway retry a failed call?", [passage]).citations
    assert citation.quote == "It retries a failed call three times. Then it raises GW-503."
    assert document[citation.start : citation.end] == citation.quote
    assert citation.chunk_id == after.id
    (cited,) = cite("Invoices go out on Monday [1].", [passage])
    assert cited.quote == document[cited.start : cited.end] == "Invoices are sent on Monday."
    assert cited.chunk_id == passage.chunk.id


def test_the_best_passage_wins_over_one_that_only_came_along() -> None:
    draft = extract("How often is a failed call retried?", [make_passage(OTHER), make_passage(RETRY)])
    assert [citation.number for citation in draft.citations] == [2]
    assert draft.text.endswith("[2]")


def test_two_passages_that_both_answer_are_both_quoted_in_order() -> None:
    second = make_passage(
        "A failed call is retried by the gateway after two seconds.", document="jira:HAUL-2"
    )
    draft = extract("How does the gateway retry a failed call?", [make_passage(RETRY), second])
    assert [citation.number for citation in draft.citations] == [1, 2]
    assert draft.text.index("[1]") < draft.text.index("[2]")


def test_neighboring_sentences_of_one_passage_become_one_quote() -> None:
    text = "The pump stops at 90 degrees. The pump starts again at 70 degrees."
    (citation,) = extract(
        "At which degrees does the pump stop and start again?", [make_passage(text)]
    ).citations
    assert citation.quote == text


def test_at_most_three_sentences_are_quoted() -> None:
    passages = [
        make_passage(f"The gateway retries call number {n} in zone {n}.", document=f"jira:HAUL-{n}")
        for n in range(9)
    ]
    assert len(extract("Which call does the gateway retry?", passages).citations) == 3


def test_the_same_sentence_in_two_documents_is_quoted_once() -> None:
    passages = [make_passage(RETRY), make_passage(RETRY, document="jira:HAUL-2")]
    assert len(extract("How many times is a failed call retried?", passages).citations) == 1


def test_chinese_questions_are_answered_with_whole_chinese_sentences() -> None:
    text = "网关于2024年重建。失败的调用会重试三次。之后报错GW-503。"
    draft = extract("网关失败的调用会重试几次？", [make_passage(text)])
    assert draft.text == "知识库中的相关内容：\n“失败的调用会重试三次。之后报错GW-503。”[1]"
    assert draft.citations[0].quote == "失败的调用会重试三次。之后报错GW-503。"


def test_a_heading_is_not_quoted_before_a_statement() -> None:
    text = "Gateway retries\n\nThe gateway retries a call three times before it gives up."
    draft = extract("How often does the gateway retry?", [make_passage(text)])
    assert draft.citations[0].quote == "The gateway retries a call three times before it gives up."


def test_no_passage_gives_no_text() -> None:
    assert extract("Anything?", []).text == ""
    assert extract("Anything?", [make_passage("   ")]).text == ""


def test_what_the_title_says_need_not_be_repeated_by_the_sentence() -> None:
    text = "The lag of the night rollup grew. Dashboards of 41 customers were stale for three hours."
    passage = make_passage(text, title="Incident: rollup lag")
    draft = extract("How many customers did the rollup lag hit?", [passage])
    assert draft.citations[0].quote.startswith("Dashboards of 41 customers")


def test_a_row_of_a_table_is_quoted_for_itself() -> None:
    table = "Code | Meaning\nHM-2031 | no tenant owns this device\nHM-2040 | an invoice is unpaid"
    draft = extract("What does HM-2040 mean?", [make_passage(table)])
    assert [citation.quote for citation in draft.citations] == ["HM-2040 | an invoice is unpaid"]


def test_the_heading_above_a_sentence_is_no_part_of_it() -> None:
    text = "8. Warranty\nThe warranty is 36 months for Lantern 2."
    passage = make_passage(text, section="Handbook > 8. Warranty")
    draft = extract("How long is the warranty of Lantern 2?", [passage])
    assert draft.citations[0].quote == "The warranty is 36 months for Lantern 2."


def test_the_best_sentence_brings_along_the_one_after_it() -> None:
    text = "Drop the index readings_by_gateway.\nIt took 212 GB. Nobody used it."
    (citation,) = extract("Why was readings_by_gateway dropped?", [make_passage(text)]).citations
    assert citation.quote == "Drop the index readings_by_gateway.\nIt took 212 GB."


@given(
    st.lists(st.text(alphabet="abc gateway.!?\n 网关。重试", max_size=80), max_size=4),
    st.text(alphabet="abc gateway 网关?", max_size=30),
)
def test_every_quote_is_exact_and_stands_in_the_text_with_its_number(texts: list[str], question: str) -> None:
    passages = [make_passage(text, document=f"d{n}") for n, text in enumerate(texts)]
    draft = extract(question, passages)
    for citation in draft.citations:
        chunk = passages[citation.number - 1].chunk
        assert chunk.text[citation.start - chunk.start : citation.end - chunk.start] == citation.quote
        assert citation.quote.strip() == citation.quote != ""
        assert citation.quote in draft.text
        assert f"[{citation.number}]" in draft.text
    assert bool(draft.text) == bool(draft.citations)


def test_a_mark_becomes_the_sentence_that_supports_the_claim() -> None:
    (citation,) = cite("Calls are retried three times [1].", [make_passage(RETRY)])
    assert citation.quote == "It retries a failed call three times."


def test_a_mark_without_a_passage_or_without_support_is_no_citation() -> None:
    assert cite("Calls are retried [7].", [make_passage(RETRY)]) == ()
    assert cite("Bananas ripen quickly [1].", [make_passage(RETRY)]) == ()


@pytest.mark.parametrize("marks", ["[1][2]", "[1] [2]", "[1, 2]", "[1，2]"])
def test_several_marks_behind_one_claim_all_count(marks: str) -> None:
    passages = [make_passage(RETRY), make_passage("Retried calls are logged three times.")]
    assert [c.number for c in cite(f"Calls are retried three times {marks}.", passages)] == [1, 2]


def test_only_the_claim_beside_the_mark_counts() -> None:
    text = "Bananas ripen. The gateway retries three times [1]. Invoices are sent on Monday [2]."
    passages = [make_passage(RETRY), make_passage(OTHER)]
    assert [c.quote for c in cite(text, passages)] == [
        "It retries a failed call three times.",
        "Invoices are sent on Monday.",
    ]


def test_chinese_claims_are_supported_by_chinese_sentences() -> None:
    passage = make_passage("网关于2024年重建。失败的调用会重试三次。")
    assert cite("调用失败时重试三次[1]。", [passage])[0].quote == "失败的调用会重试三次。"


async def _stream(pieces: Sequence[str]) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece


def _joined(pieces: Sequence[str], passages: int) -> str:
    import asyncio

    async def run() -> str:
        return "".join([piece async for piece in checked(_stream(pieces), passages)])

    return asyncio.run(run())


def test_marks_of_unknown_passages_are_removed_even_when_they_come_in_pieces() -> None:
    assert _joined(["It retries [", "9", "] thrice [", "1]", "."], 2) == "It retries thrice [1]."
    assert _joined(["a [1", ", 9]", " b [", "x] c ["], 2) == "a [1] b [x] c ["


@given(st.text(alphabet="ab [],12390", max_size=40), st.lists(st.integers(1, 5), max_size=20))
def test_how_a_text_is_cut_into_tokens_changes_nothing(text: str, sizes: list[int]) -> None:
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert _joined([*pieces, rest], 2) == without_strangers(text, 2)


def test_language_is_that_of_the_question() -> None:
    assert is_chinese("GW-503 是什么?") and not is_chinese("What is GW-503?")
