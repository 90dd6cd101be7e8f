"""Chunks are exact spans, cover the text, stay in their section and fit the model."""

from itertools import pairwise

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from alchemy.errors import NotFound
from alchemy.records import Document, Draft, Part, RawObject, fingerprint
from alchemy.settings import ChunkOptions, CleanOptions
from alchemy.text.chunking import CHUNKER_VERSION, Tokenizer, chunk_document, chunk_documents, header
from alchemy.text.document import to_document
from alchemy.text.sanitize import Sanitizer

SANITIZER = Sanitizer(b"salt of the tests")
RAW = RawObject("jira", "raw/jira/export.json", 100, "00" * 32)
SMALL = ChunkOptions(target_tokens=32, overlap_tokens=8)


def write_tokenizer(path, pre_tokenizer) -> Tokenizer:
    made = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizer
    made.enable_truncation(16)  # as in the files of embedders; counting must not stop there
    made.save(str(path))
    return Tokenizer(path)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Tokenizer:
    """Counts words and punctuation marks; an endless word is one token, as in WordPiece."""
    return write_tokenizer(
        tmp_path_factory.mktemp("words") / "tokenizer.json", pre_tokenizers.BertPreTokenizer()
    )


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Tokenizer:
    """Counts every character but white space, so long words are many tokens."""
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(tokenizers.Regex(r"\S"), "isolated")]
    )
    return write_tokenizer(tmp_path_factory.mktemp("letters") / "tokenizer.json", split)


def document(*parts: Part, title: str = "", **changes) -> Document:
    same = {"kind": "issue", "key": "K-1", "locator": "", "updated": "2024-03-01T08:00:00Z"}
    draft = Draft(**{**same, "title": title, "parts": parts, **changes})
    made = to_document(draft, RAW, SANITIZER, CleanOptions(min_characters=0))
    assert isinstance(made, Document)
    return made


def numbered(count: int, start: int = 0) -> str:
    return " ".join(f"Sentence number {n} has seven words." for n in range(start, start + count))


def assert_chunks_are_sound(made, chunks, tokenizer, options):
    """What must hold for every document."""
    text = made.text
    covered = set()
    for number, chunk in enumerate(chunks):
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.text.strip()
        assert (chunk.chunk_index, chunk.total_chunks) == (number, len(chunks))
        assert chunk.tokens == tokenizer.count_tokens([chunk.text])[0]
        assert chunk.tokens <= options.target_tokens
        assert chunk.updated == made.updated
        assert chunk.id == fingerprint(made.id, made.version, chunk.start, chunk.end, CHUNKER_VERSION)
        inside = [block for block in made.blocks if block.start < chunk.end and block.end > chunk.start]
        kinds = [block.kind == "heading" for block in inside]
        assert kinds == sorted(kinds, reverse=True), "a heading is not at the start of its chunk"
        assert len({block.section for block in inside if block.kind != "heading"}) <= 1
        covered.update(range(chunk.start, chunk.end))
    assert all(position in covered for position, character in enumerate(text) if not character.isspace())
    assert [chunk.start for chunk in chunks] == sorted({chunk.start for chunk in chunks})


def test_windows_hold_whole_sentences_and_repeat_the_last_ones(words):
    made = document(Part(numbered(12)))
    chunks = chunk_document(made, words.count_tokens, ChunkOptions(target_tokens=32, overlap_tokens=8))
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert all(chunk.text.startswith("Sentence") and chunk.text.endswith("words.") for chunk in chunks)
    assert chunks[0].tokens == 28
    assert chunks[1].start < chunks[0].end
    assert chunks[0].text[chunks[1].start :] == "Sentence number 3 has seven words."


def test_no_sentence_is_repeated_without_overlap(words):
    made = document(Part(numbered(12)))
    chunks = chunk_document(made, words.count_tokens, ChunkOptions(target_tokens=32, overlap_tokens=0))
    assert all(left.end < right.start for left, right in pairwise(chunks))


def test_a_title_and_the_headings_under_it_begin_the_first_chunk(words):
    made = document(
        Part("# Use", "heading"), Part("Do so."), Part("# End", "heading"), Part("Bye."), title="Guide"
    )
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert [chunk.text for chunk in chunks] == ["Guide\n\nUse\n\nDo so.", "End\n\nBye."]
    assert [chunk.section for chunk in chunks] == ["Use", "End"]


def test_a_document_with_nothing_but_a_title_is_one_chunk_that_can_be_quoted(words):
    (chunk,) = chunk_document(document(title="Fix the parser of dates"), words.count_tokens, SMALL)
    assert chunk.text == "Fix the parser of dates"


def test_a_document_without_text_has_no_chunk(words):
    assert chunk_document(document(), words.count_tokens, SMALL) == []


def test_code_is_cut_at_line_ends_and_keeps_its_indentation(words):
    code = "def f():\n" + "\n".join(f"    value_{n} = call({n}, 'two words')" for n in range(30))
    made = document(Part(code, "code"))
    chunks = chunk_document(made, words.count_tokens, ChunkOptions(target_tokens=64, overlap_tokens=16))
    assert_chunks_are_sound(made, chunks, words, ChunkOptions(target_tokens=64, overlap_tokens=16))
    lines = code.split("\n")
    assert [line for chunk in chunks for line in chunk.text.split("\n")] == lines  # each once, each whole


def test_only_a_line_that_is_longer_than_a_chunk_is_cut_and_then_between_words(words):
    long = "    run(" + " ".join(f"--option-{n} value" for n in range(40)) + ")"
    lines = ["start = 1", long, "    stop = 2"]
    made = document(Part("\n".join(lines), "code"))
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert {word for chunk in chunks for word in chunk.text.split()} == set(made.text.split())
    assert chunks[0].text == lines[0]
    assert chunks[-1].text.endswith(lines[2])


def test_code_that_fits_a_window_is_not_cut_for_the_prose_before_it(words):
    code = "\n".join(f"x{n} = {n}" for n in range(8))  # 24 tokens
    made = document(Part(numbered(2)), Part(code, "code"), Part("Small note."))
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert any(code in chunk.text for chunk in chunks)


def test_a_short_snippet_shares_a_window_with_its_explanation(words):
    made = document(Part("Run this."), Part("make test", "code"), Part("Then look."))
    (chunk,) = chunk_document(made, words.count_tokens, SMALL)
    assert chunk.text == "Run this.\n\nmake test\n\nThen look."


def test_every_chunk_that_goes_on_with_a_table_repeats_its_first_row_in_the_header(words):
    rows = [f"broker{n} | {n} | running well" for n in range(30)]
    made = document(
        Part(numbered(3) + " All brokers."),
        Part("\n".join(["Name | Id | State", *rows]), "table"),
        Part("End."),
    )
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    found = [line for chunk in chunks for line in chunk.text.split("\n") if "|" in line]
    assert found == ["Name | Id | State", *rows], "each once, each whole"
    first, *others = chunks[1:]
    assert chunks[0].text.endswith("All brokers."), "the first row stays with its rows, though it would fit"
    assert "Name | Id | State\nbroker0" in first.text
    assert first.header == "jira issue K-1"
    assert len(others) > 3
    assert all(chunk.header == "jira issue K-1 | Name | Id | State" for chunk in others)
    assert all("Name" not in chunk.text for chunk in others)


def test_each_table_repeats_its_own_first_row_and_code_repeats_none(words):
    tables = ["\n".join([f"Column {name}", *(f"{name} {n} is here" for n in range(20))]) for name in "AB"]
    made = document(*(Part(table, "table") for table in tables), Part("x = 1\n" * 40, "code"))
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    for chunk in chunks:
        inside = {name for name in "AB" if chunk.text.startswith(f"{name} ")}
        assert chunk.header == "jira issue K-1" + "".join(f" | Column {name}" for name in inside)


def test_a_repeated_row_of_any_length_leaves_the_header_short(words):
    columns = " | ".join(f"Column {n}" for n in range(5000))
    made = document(Part(f"{columns}\none | row\n" + "more | rows\n" * 30, "table"), project="P" * 5000)
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert " | Column 0 | Column 1 | " in chunks[-1].header
    assert "\n" not in chunks[-1].header
    assert max(len(chunk.header) for chunk in chunks) < 600


def test_a_sentence_longer_than_a_chunk_is_cut_at_lines_then_after_clauses(words):
    clause = "these six words make a clause,"
    made = document(Part(" ".join([clause] * 12)))
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert all(chunk.text.endswith("clause,") for chunk in chunks)
    log = document(Part("\n".join(f"[INFO] step {n}, part a, part b" for n in range(20))))
    chunks = chunk_document(log, words.count_tokens, SMALL)
    assert_chunks_are_sound(log, chunks, words, SMALL)
    assert all(chunk.text.startswith("[INFO]") and chunk.text.endswith("part b") for chunk in chunks)


def test_a_sentence_longer_than_a_chunk_is_cut_at_spaces(words):
    made = document(Part("word " * 100))
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert {piece for chunk in chunks for piece in chunk.text.split()} == {"word"}


def test_an_endless_word_is_cut_between_characters(words, letters):
    made = document(Part("Before. " + "x" * 1000 + " after."))
    for tokenizer in (words, letters):
        chunks = chunk_document(made, tokenizer.count_tokens, SMALL)
        assert_chunks_are_sound(made, chunks, tokenizer, SMALL)
        assert max(len(chunk.text) for chunk in chunks) <= 12 * 32 + 12


def test_a_line_of_five_megabytes_is_chunked(words):
    line = "".join(f"{n % 97} lorem ipsum, dolor {n}! " for n in range(180_000))
    endless = "ab" * 500_000
    for text in (line, endless):
        made = document(Part(text, "code" if text is endless else "prose"))
        chunks = chunk_document(made, words.count_tokens, ChunkOptions())
        assert all(made.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
        assert all(left.end >= right.start - 1 for left, right in pairwise(chunks))
        assert chunks[0].start == 0
        assert chunks[-1].end == len(made.text)
        assert max(chunk.tokens for chunk in chunks) <= 180
        assert max(len(chunk.text) for chunk in chunks) <= 180 * 12 + 12


def test_code_of_a_hundred_thousand_lines_is_chunked(words):
    made = document(Part("x = 1\n" * 100_000, "code"))
    chunks = chunk_document(made, words.count_tokens, ChunkOptions())
    lines = ChunkOptions().target_tokens // 3
    assert len(chunks) == 100_000 // lines + 1


def test_a_chinese_page_is_cut_between_its_sentences(words):
    made = document(Part("消费者组会重新平衡分区。协调器选出领导者！成员等待吗？" * 10), title="分区")
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert all(chunk.text[-1] in "。！？" for chunk in chunks)


def test_a_chinese_sentence_longer_than_a_chunk_is_cut_after_its_clauses(words):
    made = document(Part("消费者组会重新平衡分区，协调器选出领导者；" * 10 + "成员等待。"))
    chunks = chunk_document(made, words.count_tokens, SMALL)
    assert_chunks_are_sound(made, chunks, words, SMALL)
    assert all(chunk.text[-1] in "，；。" for chunk in chunks)


NAMES = ("https://example.org/a.b/c?d=1&e=2.5", "3.51.1.0", "v4.0.0-rc.1", "0.75", "java.util.List.of()")


@pytest.mark.parametrize(
    "sentence",
    [
        "Use {} now, or else. ",
        "Before {} it was so! ",
        "use {} and ",
        "请访问{}，然后重启。",
        "版本{}已经发布",
        "看{}；再看",
    ],
)
def test_addresses_versions_and_decimals_are_never_cut(words, sentence):
    made = document(Part("".join(sentence.format(NAMES[n % len(NAMES)]) for n in range(60))))
    chunks = chunk_document(made, words.count_tokens, ChunkOptions(target_tokens=48, overlap_tokens=0))
    assert len(chunks) > 10
    assert sum(chunk.text.count(name) for chunk in chunks for name in NAMES) == sum(
        map(made.text.count, NAMES)
    )


def test_a_stream_of_documents_gives_the_same_chunks_as_one_by_one(words):
    documents = [document(Part(numbered(n, n)), title=f"Title {n}", key=f"K-{n}") for n in range(40)]
    streamed = list(chunk_documents(iter(documents), words, SMALL))
    assert streamed == [
        chunk for one in documents for chunk in chunk_document(one, words.count_tokens, SMALL)
    ]
    assert list(chunk_documents([], words, SMALL)) == []


def test_the_header_says_where_a_passage_comes_from_and_stays_short(words):
    made = document(
        Part("# Comment by A", "heading"), Part("Hello there."), title="Broker fails", project="KAFKA"
    )
    chunk = chunk_document(made, words.count_tokens, SMALL)[-1]
    assert chunk.header == "jira KAFKA issue K-1: Broker fails | Comment by A"
    assert chunk.embed_text == chunk.header + "\n" + chunk.text
    commit = document(title="T" * 500, key="2b70202aaec3db48fd5ff4d996d974444a750a11", kind="commit")
    assert header(commit, "S" * 500).startswith("jira commit 2b70202aae: TTT")
    assert len(header(commit, "S" * 500)) < 300


def test_a_missing_tokenizer_file_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        Tokenizer(tmp_path / "tokenizer.json")


parts = st.builds(
    Part,
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(["Word", "two. ", "三个字。", "\n", "x" * 50, " ", "# A", "## B", "\t"]),
            max_size=30,
        ).map("".join),
    ),
    st.sampled_from(["prose", "heading", "code", "table"]),
)
documents = st.builds(
    lambda title, parts: document(*parts, title=title), st.text(max_size=30), st.lists(parts, max_size=8)
)


@settings(max_examples=300, deadline=None)
@given(made=documents, overlap=st.integers(0, 16))
def test_chunks_of_any_document_are_exact_and_complete(words, letters, made, overlap):
    options = ChunkOptions(target_tokens=32, overlap_tokens=overlap)
    for tokenizer in (words, letters):
        chunks = chunk_document(made, tokenizer.count_tokens, options)
        assert_chunks_are_sound(made, chunks, tokenizer, options)
