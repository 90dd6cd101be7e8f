"""Sentence boundaries of English, Chinese, mixed and hostile text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.text.sentences import LONGEST, cjk_share, cut_position, split_sentences


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    "sentence",
    [
        "See https://example.org/a.b?c=d!e and http://x.y/z.html for more!",
        "Upgrade from 3.51.1.0 to v4.0.0-rc.1 now.",
        "Pi is 3.14159 and the share 0.5 of all.",
        "Mr. Doe and Dr. Roe use e.g. the broker, i.e. Kafka.",
        "It is shown in fig. 3 and no. 5 of vol. 2.",
        "Node.js calls java.util.List.of() here.",
        "Clients vs. servers.",
    ],
)
def test_urls_versions_decimals_and_abbreviations_do_not_end_a_sentence(sentence):
    assert sentences(sentence + " Next one.") == [sentence, "Next one."]


def test_english_sentences_end_at_their_terminators():
    assert sentences("The broker failed. Why? Nobody knows!  It is back.") == [
        "The broker failed.",
        "Why?",
        "Nobody knows!",
        "It is back.",
    ]


def test_chinese_sentences_end_at_chinese_terminators_with_their_closing_quotes():
    text = "消费者组会重新平衡分区。为什么？“不知道。”他说！版本是 3.5。Kafka 很快；也很稳定。"
    assert sentences(text) == [
        "消费者组会重新平衡分区。",
        "为什么？",
        "“不知道。”",
        "他说！",
        "版本是 3.5。",
        "Kafka 很快；也很稳定。",
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "见https://example.org/a.b/c?d=e!f说明。",
        "请升级到版本3.51.1.0或v4.0.0-rc.1！",
        "占比从0.5升到0.75了吗？",
        "类java.util.List.of()返回“空。”以外的值。",
    ],
)
def test_addresses_versions_and_decimals_do_not_end_a_chinese_sentence(sentence):
    found = sentences(sentence + "下一句。")
    assert found[-1] == "下一句。"
    assert "".join(found) == sentence + "下一句。"
    assert all(piece[-1] in "。！？”" for piece in found)


def test_chinese_text_inside_english_splits_too():
    assert sentences("The page says 请重启服务。然后重试。Done.") == [
        "The page says 请重启服务。",
        "然后重试。",
        "Done.",
    ]


def test_blank_lines_and_list_items_begin_new_sentences():
    text = "Steps\n\n- stop the broker\n- start it\n1. wait\n2. look\n\nThe end"
    assert sentences(text) == ["Steps", "- stop the broker", "- start it", "1. wait", "2. look", "The end"]


def test_a_wrapped_line_does_not_end_a_sentence():
    assert sentences("This sentence goes on\nin the next line. Then ends.") == [
        "This sentence goes on\nin the next line.",
        "Then ends.",
    ]


def test_empty_and_blank_texts_have_no_sentences():
    assert split_sentences("") == split_sentences(" \n\t\u3000") == []


@pytest.mark.parametrize("text", ["“Mr. X\u3000. ", "Mr. X \u3000. Y", "Dr. Z\u2003.a", "e.g.\u00a0. b"])
def test_wide_blanks_after_abbreviations_do_not_crash_the_segmenter(text):
    assert_spans_are_exact(text, split_sentences(text))


def test_a_panic_of_the_segmenter_leaves_a_text_in_one_piece(monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(language, text):
        raise PanicException("index is not a char boundary")

    monkeypatch.setattr("sentencex.segment", panic)
    assert sentences("One. Two。三") == ["One. Two。", "三"]


def test_a_sentence_without_end_is_cut_at_line_ends_then_spaces_then_anywhere():
    lines = sentences("some words without an end\n" * 400)
    assert all(line.startswith("some") and line.endswith("end") for line in lines)
    words = sentences("word " * 2000)
    assert all(piece.startswith("word") and piece.endswith("word") for piece in words)
    assert [len(piece) for piece in sentences("x" * (2 * LONGEST + 5))] == [LONGEST, LONGEST, 5]


@pytest.mark.parametrize("unit", ["a", "'\"", "。", "A. ", "(((", "!?", "e.g.", "\n- ", "\n \n", "1. ", "“"])
def test_a_megabyte_of_anything_is_split_completely(unit):
    text = unit * (1_000_000 // len(unit))
    spans = split_sentences(text)
    assert_spans_are_exact(text, spans)


def test_the_cut_prefers_line_ends_over_spaces():
    assert cut_position("a b\nc d e", 7) == 4
    assert cut_position("a b c d e", 7) == 6
    assert cut_position("abcdefghi", 7) == 7
    assert cut_position("abc", 7) == 3


def test_the_share_of_chinese_is_of_letters_only():
    assert cjk_share("中文 ab, --") == 0.5
    assert cjk_share("--") == 0.0


texts = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(
            [
                ". ",
                "! ",
                "。",
                "？”",
                "\n\n",
                "\n- ",
                "e.g. ",
                "Mr. X",
                "v1.2.3",
                "https://a.b/c?d. ",
                "你好",
                "\u3000",
                "…",
                "\r\n",
            ]
        ),
    ),
    max_size=40,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(texts)
def test_sentences_hold_every_visible_character_once_and_in_order(text):
    assert_spans_are_exact(text, split_sentences(text))


def assert_spans_are_exact(text, spans):
    position = 0
    for start, end in spans:
        assert position <= start < end <= start + LONGEST
        assert not text[position:start].strip()
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        position = end
    assert not text[position:].strip()
