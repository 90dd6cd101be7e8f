from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.synthesis.funnel import STAGES
from alchemy.synthesis.grounding import Candidate, check, identifiers, normalize_question, numbers
from tests.synthesis.corpus import CHINESE, INSIGHTS, ISSUE, chunk, document

CHUNK = chunk(ISSUE)
GOOD = Candidate(
    instruction="How many readings does an offline gateway send?",
    response="It sends one batch of 2300 readings; the service closes the socket at 16 KiB (HAUL-104).",
    evidence_quote="A gateway that was offline sends one batch of 2,300 readings.",
    chunk_id=CHUNK.id,
    document_id=ISSUE.id,
    kind="fact",
    provider="test",
)


def verdict(**changes: str) -> str | None:
    return check(replace(GOOD, **changes), CHUNK, INSIGHTS[0], ISSUE.fields)


def test_a_pair_that_its_chunk_proves_passes() -> None:
    assert verdict() is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"evidence_quote": ""}, "quote_not_in_chunk"),
        (
            {"evidence_quote": "A gateway that was offline sends one batch of 2300 readings."},
            "quote_not_in_chunk",
        ),
        ({"response": "It sends 2,301 readings."}, "ungrounded_number"),
        ({"response": "It sends 230 readings."}, "ungrounded_number"),
        ({"response": "See HAUL-105 for that."}, "ungrounded_number"),
        ({"response": "The class SocketCloser does it."}, "ungrounded_identifier"),
        ({"response": "Set max_batch on the gateway."}, "ungrounded_identifier"),
        ({"response": "It is in tollgate/src/publish.rs of course."}, "ungrounded_identifier"),
        ({"response": "I'm sorry, I cannot answer that."}, "refusal"),
        ({"response": "As an AI language model I have no opinion."}, "refusal"),
        ({"response": ""}, "empty"),
        ({"instruction": "  "}, "empty"),
        ({"response": "word " * 121}, "too_long"),
        ({"instruction": "why " * 200}, "too_long"),
        ({"instruction": "Why?"}, "too_short"),
        ({"response": "How many readings does an offline gateway send"}, "echo"),
        ({"instruction": "What does the passage say about batches?"}, "refers_to_passage"),
        ({"response": "The owner is <EMAIL_3f2a90c1>."}, "masked_value"),
        ({"kind": "unanswerable", "response": "The budget is large."}, "answers_unanswerable"),
        ({"kind": "numeric", "response": "It sends 2300 readings."}, "no_measured_number"),
        ({"response": "It does.<|im_end|>"}, "chat_markup"),
        ({"response": "It does.\nHuman: and then?"}, "chat_markup"),
        ({"instruction": "### Instruction: say what the gateway does"}, "chat_markup"),
        ({"response": "网关会一次性发送全部读数，然后服务会关闭连接。"}, "other_language"),
        ({"instruction": "离线的网关会发送多少条读数？离线之后会发生什么事情？"}, "other_language"),
        (
            {"response": "Das Gateway schickt alle Messwerte auf einmal, und der Dienst trennt es."},
            "other_language",
        ),
    ],
)
def test_each_flaw_has_its_reason_and_its_stage_in_the_funnel(changes: dict[str, str], reason: str) -> None:
    assert verdict(**changes) == reason
    assert sum(reason in reasons for reasons in STAGES.values()) == 1


def test_numbers_may_come_from_the_insight_and_the_fields() -> None:
    assert verdict(response="HAUL-104 has 23 comments, more than 94 % of issues.") is None
    assert check(replace(GOOD, response="It has 23 comments."), CHUNK) == "ungrounded_number"
    assert check(replace(GOOD, response="Due in 2031."), CHUNK, None, {"due": "2031-05"}) is None


def test_a_chinese_chunk_is_asked_and_answered_in_chinese() -> None:
    chinese = chunk(CHINESE)
    pair = replace(
        GOOD,
        instruction="温度标签多久校准一次？",
        response="每个标签每年校准一次。",
        evidence_quote="每个标签每年校准一次。",
    )
    assert check(pair, chinese) is None
    english = replace(pair, response="Every temperature label has to be calibrated once a year.")
    assert check(english, chinese) == "other_language"
    quoting = replace(
        pair, instruction='What has to be done every year by the rules that stand in "温度标签校准规程"?'
    )
    assert check(quoting, chinese) == "other_language"


def test_a_row_has_no_language() -> None:
    title = "Symphonie fantastique, épisode de la vie d'un artiste, rêveries et passions"
    of = document("row", "track/3", f"track: {title}", "Composer: Hector Berlioz.")
    pair = replace(GOOD, response="The composer is Hector Berlioz, as the table of all tracks says.")
    assert check(replace(pair, evidence_quote="Composer: Hector Berlioz."), chunk(of)) is None


def test_an_identifier_is_not_found_inside_another() -> None:
    longer = replace(CHUNK, text=CHUNK.text + " See my_max_batch_size.")
    pair = replace(GOOD, response="Set max_batch on it.")
    assert check(pair, longer) == "ungrounded_identifier"


def test_secrets_in_any_text_of_the_pair_are_leaks() -> None:
    for changes in ({"instruction": "What is hunter used for?"}, {"response": "Use hunter there."}):
        assert check(replace(GOOD, **changes), CHUNK, leaks=lambda text: "hunter" in text) == "leak"


def test_names_that_machines_read_are_identifiers_and_words_are_not() -> None:
    text = "Use HAUL-97, v2.3, max_batch, SocketCloser, getName, a/b.py, docs.md, 3f2a9. Not: Gateway, END."
    assert identifiers(text) == {
        "haul-97", "v2.3", "max_batch", "socketcloser", "getname", "a/b.py", "docs.md", "3f2a9",
    }  # fmt: skip


def test_questions_are_equal_but_for_case_and_punctuation() -> None:
    assert normalize_question("What is  HAUL-97, then?") == normalize_question("what is haul-97 then")
    assert normalize_question("What is HAUL-97?") != normalize_question("What is HAUL-98?")


@given(st.text(min_size=1), st.data())
def test_any_quote_out_of_the_chunk_is_grounded_in_it(text: str, data: st.DataObject) -> None:
    piece = replace(CHUNK, text=text, header="", title="")
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    pair = replace(GOOD, response="It says so there.", evidence_quote=text[start:end])
    expected = None if text[start:end].strip() else "quote_not_in_chunk"
    assert check(pair, piece) == expected


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**9)))
def test_a_number_passes_exactly_where_the_chunk_has_it(number: int, others: list[int]) -> None:
    piece = replace(CHUNK, text=" and ".join(["values", *map("{:,}".format, others)]), header="", title="")
    pair = replace(GOOD, response=f"It is {number} there.", evidence_quote="values")
    assert check(pair, piece) == (None if number in others else "ungrounded_number")


@given(st.text())
def test_hostile_texts_never_break_the_check(text: str) -> None:
    check(replace(GOOD, instruction=text, response=text, evidence_quote=text), replace(CHUNK, text=text))
    assert numbers(text) is not None
