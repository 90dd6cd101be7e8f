"""The guard of the semantic cache, on its own. With embedder and server: test_cache_quality."""

import random
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.caching.equivalence import meaning, normalized, plain_wording, same_question
from serving.caching.today import depends_on_today
from tests.serving.question_pairs import DIFFERENT, SAME, Pair

QUESTIONS = sorted({question for pair in (*DIFFERENT, *SAME) for question in (pair.a, pair.b)})
questions = st.sampled_from(QUESTIONS)
numbered = st.sampled_from([question for question in QUESTIONS if re.search(r"\d", question)])
texts = st.text(max_size=200) | questions

# Words whose exchange says nothing where a grammar allows it at all: "is X stored" is "is stored X".
_FUNCTION = """
a an the our is are was were be do does did has can may must should i we of and or please
"""
_FUNCTION_WORDS = frozenset(_FUNCTION.split())


@pytest.mark.parametrize("pair", [p for p in DIFFERENT if p.a != p.b], ids=lambda pair: pair.b)
def test_different_questions_are_kept_apart(pair: Pair) -> None:
    assert not same_question(pair.a, pair.b)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I rotate a tenant's API key?", "How can the API key of a tenant be rotated?"),
        ("Hi, could you please tell me how to delete a tenant?", "How can I delete a tenant?"),
        ("What does a Lantern 2 cost?", "How much is a Lantern 2?"),
        ("After a restart, how long does ingest need?", "How long does ingest need after a restart?"),
        ("Is roaming in Morocco covered by the plan?", "Does the plan cover roaming in Morocco?"),
        ("What changed on 3 April 2026?", "What changed on April 3, 2026?"),
        ("Are twelve tags enough?", "Are 12 tags enough?"),
        ("Is EUR 1,150 the limit?", "Is 1150 euros the limit?"),
        ("能不能删除旧数据？", "可以删除旧数据吗？"),
        ("计费服务由谁负责？", "请问谁负责计费服务？"),
        ("二十一天以后会丢失吗？", "21天后会不会丢失？"),
    ],
)
def test_the_same_question_is_known_in_other_words(one: str, other: str) -> None:
    assert same_question(one, other)


@pytest.mark.parametrize("text", ["", "   ", "?", "???", "how", "Why is it?!"[:3], "please", "。", "吗"])
def test_what_asks_about_nothing_is_the_same_as_nothing(text: str) -> None:
    assert meaning(text) is None
    assert not same_question(text, text)


@pytest.mark.parametrize(
    "question",
    ["¿Cuándo pagas?", "Wie oft wiederholt das Gateway?", "Qui a payé ?", "Кто платит?", "누가 냅니까?"],
)
def test_a_language_without_rules_is_left_to_the_letters(question: str) -> None:
    assert meaning(question) is None
    assert normalized(question)


@pytest.mark.parametrize(
    "piece", ["hi ", "a of ", "in ", "who ", "please, ", "?", '"', "not ", "is ", "万", "请问", "1,", "最近"]
)
def test_the_longest_questions_are_read_to_their_end(piece: str) -> None:
    for longest in (490, 4000):
        question = f"What is {piece * longest}"[:longest]
        assert same_question(question, question) == (meaning(question) is not None)
        assert not same_question(question + " x", question + " y")
        assert plain_wording(question) or piece == "?"


@settings(deadline=None)
@given(texts, texts)
def test_sameness_is_symmetric_and_never_fails(one: str, other: str) -> None:
    assert same_question(one, other) == same_question(other, one)
    assert same_question(one, one) == (meaning(one) is not None)
    assert isinstance(plain_wording(one), str)
    assert normalized(normalized(one)) == normalized(one)


@settings(deadline=None)
@given(
    st.sampled_from([q for q in QUESTIONS if re.search(r"\d", q)]),
    st.integers(0, 99_999),
    st.randoms(use_true_random=False),
)
def test_another_number_is_another_question(question: str, number: int, chance: random.Random) -> None:
    digits = list(re.finditer(r"\d+", question))
    found = chance.choice(digits)
    assume(int(found[0]) != number)
    assert not same_question(question, question[: found.start()] + str(number) + question[found.end() :])


@settings(deadline=None)
@given(questions, st.data())
def test_a_word_more_or_less_is_another_question(question: str, data: st.DataObject) -> None:
    words = question.split()
    at = data.draw(st.integers(0, len(words)))
    word = data.draw(st.sampled_from(["not", "never", "only", "except", "HAUL-99", "plover", "Nordfisk"]))
    assert not same_question(question, " ".join([*words[:at], word, *words[at:]]))


def test_two_words_that_change_places_make_another_question_unless_one_is_a_participle() -> None:
    """Every exchange of two words in every question; what is left moves a participle, a date or a sum."""
    moved = set()
    for question in QUESTIONS:
        words, meant = question.rstrip("?.").split(), meaning(question)
        for i in range(len(words)):
            for j in range(i + 1, len(words)):
                alike = words[i].rstrip("s") == words[j].rstrip("s")
                if {words[i].lower(), words[j].lower()} & _FUNCTION_WORDS or alike:
                    continue
                other = [*words]
                other[i], other[j] = other[j], other[i]
                if meaning(" ".join(other)) == meant:
                    moved.add((words[i], words[j]))
    strangers = {pair for pair in moved if not any(_may_move(word) for word in pair)}
    assert strangers <= {("to", "have")}  # "must it have", "does it have to have"


def _may_move(word: str) -> bool:
    """Participles ("are secrets stored", "are stored secrets"), dates, currencies, "not" and "never"."""
    return bool(re.search(r"(?:ed|en|pt|ne|ot|aid|sent|run|reset)$|^n?ever$|\d|n't|^EUR$", word))


def test_letters_are_compared_but_for_width_blanks_and_the_closing_mark() -> None:
    assert normalized("  How  often does\nｇannet retry？ ") == normalized("how often does gannet retry")
    assert normalized("Who is in IT?") != normalized("Who is in it?")
    assert normalized("IT pays what?") != normalized("it pays what?")
    assert normalized("What is in src/Main.py?") != normalized("What is in src/main.py?")


def test_what_stands_above_below_or_in_its_own_sign_does_not_run_into_a_number() -> None:
    for one, other in (
        ("10⁶", "106"),
        ("10⁻⁶", "10-6"),
        ("log₂8", "log28"),
        ("2½", "21⁄2"),
        ("1①", "11"),
        ("5!", "5"),
    ):
        assert normalized(f"Is it {one}?") != normalized(f"Is it {other}?")
        assert not same_question(f"Is it {one}?", f"Is it {other}?")
    assert normalized("Is it 10⁶?") == normalized("Is it 10^6")


@pytest.mark.parametrize(
    "span",
    [
        "24 hours",
        "hour",
        "couple of weeks",
        "three working days",
        "2 or 3 weeks",
        "summer",
        "Christmas",
        "2.5 days",
    ],
)
@pytest.mark.parametrize("lead", ["in the last", "the past", "this", "next", "over the previous"])
def test_a_span_beside_today_is_told(lead: str, span: str) -> None:
    assert depends_on_today(f"What fails {lead} {span}?")


@pytest.mark.parametrize(
    "span",
    ["3 days", "30 days", "a week", "half an hour", "two business days", "a couple of days", "2 to 3 weeks"],
)
@pytest.mark.parametrize("lead", ["in", "within", "within about"])
def test_a_span_from_today_on_is_told(lead: str, span: str) -> None:
    assert depends_on_today(f"What ends {lead} {span}?")


@pytest.mark.parametrize(
    "question",
    [
        "What changed last week?",
        "Who is on call today?",
        "Who is on call now?",
        "Who is currently on call?",
        "What failed over the weekend?",
        "What ran 3 hours ago?",
        "What broke since March?",
        "What broke since Jan?",
        "what broke since jan",
        "Who left in May?",
        "What failed since midnight?",
        "Who is off on the 5th?",
        "What is due by the end of the month?",
        "What was the headcount in Q3?",
        "Is the office open on Friday?",
        "What  failed\nlast\u00a0week?",
    ],
)
def test_a_question_that_counts_from_today_is_told(question: str) -> None:
    assert depends_on_today(question)


@pytest.mark.parametrize(
    "span",
    """昨天 昨晚 今晚 明晚 今日 昨日 本日 当天 刚刚 三天前 3天内 近三天 近一周 前两天 这几天 上半年 这两周
    下个月 年底 周一 最近三个月 过去24小时 一个半小时前
    未来两周 后三天 本季度 目前 现在 国庆 半年前 3月""".split(),  # noqa: SIM905
)
def test_a_chinese_question_that_counts_from_today_is_told(span: str) -> None:
    assert depends_on_today(f"{span}有事故吗？")


@pytest.mark.parametrize(
    "question",
    [
        "How often may I retry?",
        "What broke in 2024-03?",
        "What does Q3 2026 show?",
        "Is a backup kept for two weeks?",
        "Can we deploy before noon?",
        "Is Lantern 1 still supported?",
        "Does the job run every night?",
        "2026年3月呢？",
        "数据保存多少天？",
        "每天备份吗？",
        "三号库的温度是多少？",
    ],
)
def test_a_question_with_a_fixed_date_or_none_is_not(question: str) -> None:
    assert not depends_on_today(question)
