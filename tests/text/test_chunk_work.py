"""The chunker's work grows with the length of the text, whatever the text; counted, not timed."""

import sys
from dataclasses import dataclass
from types import FrameType

import pytest
import sentencex

from alchemy.records import Block, Document
from alchemy.settings import ChunkOptions
from alchemy.text.chunking import chunk_document
from alchemy.text.html import html_parts

HOSTILE = {
    "one line of sentences": "He said so, did he? Yes! ",
    "one word": "x",
    "nested tags": "<b>",
    "quotation marks": "'\"",
    "opening brackets": "(",
    "wide blanks": "\u00a0",
    "line ends": "x\n",
    "blank lines": "x\n \n",
    "list items": "- x\n",
    "terminators": "。",
    "Chinese without an end": "消费者组",
    "clauses without an end": "a, ",
    "cells": "a | ",
    "abbreviations": "e.g. ",
}
SIZE = 10_000
OPTIONS = ChunkOptions(target_tokens=64, overlap_tokens=32)


@dataclass
class Work:
    """What one run did: characters given to the tokenizer and the segmenter, function calls."""

    tokenized: int = 0
    segmented: int = 0
    calls: int = 0


def document(text: str, *blocks: Block) -> Document:
    return Document("d", "1", "git", "commit", "", "", "", text, blocks, {}, {}, "", "", "", "", "")


def work_of(made: Document, monkeypatch: pytest.MonkeyPatch) -> Work:
    work, segment = Work(), sentencex.segment

    def count(texts: list[str]) -> list[int]:
        work.tokenized += sum(map(len, texts))
        return [len(text.split()) for text in texts]

    def counting_segment(language: str, text: str) -> list[str]:
        work.segmented += len(text)
        return segment(language, text)

    def called(_frame: FrameType, event: str, _argument: object) -> None:
        work.calls += event in ("call", "c_call")

    with monkeypatch.context() as patch:
        patch.setattr("sentencex.segment", counting_segment)
        before = sys.getprofile()
        sys.setprofile(called)
        try:
            chunks = chunk_document(made, count, OPTIONS)
        finally:
            sys.setprofile(before)
    assert all(made.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    return work


def assert_linear(small: Work, large: Work) -> None:
    """Twice the text may cost little more than twice the work; quadratic work would be four times as much."""
    assert large.calls < 2.5 * small.calls
    assert large.tokenized < 2.5 * small.tokenized + 1000
    assert large.segmented < 2.5 * small.segmented + 1000


@pytest.mark.parametrize("kind", ["prose", "code", "table", "heading"])
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
def test_twice_the_text_is_twice_the_work(kind, unit, monkeypatch):
    texts = [unit * (size // len(unit)) for size in (SIZE, 2 * SIZE)]
    small, large = (work_of(document(text, Block(0, len(text), kind, "")), monkeypatch) for text in texts)
    assert_linear(small, large)
    assert large.tokenized < 20 * len(texts[1])
    assert large.segmented < 5 * len(texts[1])


@pytest.mark.parametrize("kinds", [["prose"], ["table", "code"], ["heading", "prose"], ["heading"]])
def test_twice_the_blocks_are_twice_the_work(kinds, monkeypatch):
    def blocks(count: int) -> Document:
        made = (Block(7 * n, 7 * n + 5, kinds[n % len(kinds)], f"{n // 3}") for n in range(count))
        return document("A row.\n" * count, *made)

    assert_linear(work_of(blocks(2_000), monkeypatch), work_of(blocks(4_000), monkeypatch))


def test_a_megabyte_of_blanks_that_are_no_spaces_does_not_hang(monkeypatch):
    text = "x = 1" + "\u00a0" * 1_000_000 + "\ny = 2"
    work = work_of(document(text, Block(0, len(text), "code", "")), monkeypatch)
    assert work.tokenized == len("x = 1y = 2")


def test_fifty_thousand_nested_tags_leave_the_text_inside_them():
    html = "<div>" * 50_000 + "The broker failed. It is back." + "</div>" * 50_000
    (part,) = html_parts(html)
    made = document(part.text, Block(0, len(part.text), "prose", ""))
    (chunk,) = chunk_document(made, lambda texts: [len(text.split()) for text in texts], OPTIONS)
    assert chunk.text == "The broker failed. It is back."
