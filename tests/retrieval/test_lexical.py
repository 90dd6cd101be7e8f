import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from alchemy.errors import ContractBroken
from alchemy.retrieval.lexical import K1, B, Lexical, best, stem, tokenize, units


class LuceneBM25(BM25Okapi):
    """rank_bm25 with Lucene's idf. Its term part is Lucene's times k1 + 1, which no order depends on."""

    def _calc_idf(self, nd: dict[str, int]) -> None:
        size = self.corpus_size
        self.idf = {word: float(np.log1p((size - df + 0.5) / (df + 0.5))) for word, df in nd.items()}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("TIKA-4833", {"tika-4833", "tika", "4833"}),
        ("NullPointerException", {"nullpointerexception", "null", "pointer", "exception"}),
        ("HTTPServer", {"httpserver", "http", "server"}),
        ("foo_bar", {"foo_bar", "foo", "bar"}),
        ("a.b.C", {"a.b.c", "a", "b", "c"}),
        ("2.7.11", {"2.7.11", "2.7"}),
        ("v3.1", {"v3.1", "3.1"}),
        ("ＴＩＫＡ－４８３３", {"tika-4833", "tika", "4833"}),
        ("on 14 July 2026", {"2026-07-14"}),
        ("May 3rd, 2026", {"2026-05-03"}),
        ("2026年2月11日", {"2026-02-11"}),
        ("a Lantern 1 gateway", {"lantern 1", "lantern", "1"}),
        ("C++ and C#", {"c++", "c#"}),
        ("three APIs", {"api"}),
        ("org.mockito.ArgumentMatchers.any", {"argumentmatchers", "argument", "matcher"}),
        ("3.3.12/3.4.5", {"3.3.12", "3.4.5", "3.3"}),
        ("src/main/FooBars.java", {"src/main/foobars.java", "foobars.java", "foobars", "foo", "bar"}),
    ],
)
def test_identifiers_are_found_whole_and_in_parts(text: str, tokens: set[str]) -> None:
    assert tokens <= set(tokenize(text))


def test_chinese_becomes_character_pairs_and_single_characters() -> None:
    assert tokenize("网关离线") == ["网关", "关离", "离线", "网", "关", "离", "线"]


def test_question_words_carry_no_content_in_either_language() -> None:
    assert [u.whole for u in units("How many weeks does it take?") if u.content] == ["week", "take"]
    assert [u.whole for u in units("温度是多少") if u.content] == ["温度"]


def test_an_acronym_is_not_taken_for_a_function_word() -> None:
    assert [u.whole for u in units("is IT here") if u.content] == ["it"]


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [("policies", "policy"), ("disabled", "disabl"), ("disabling", "disabl"), ("stopping", "stop"),
     ("class", "class"), ("status", "status"), ("ring", "ring"), ("caused", "caus"), ("cause", "caus")],
)  # fmt: skip
def test_light_stemming(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_a_digest_is_found_by_its_beginning_and_by_more_of_it(tmp_path: Path) -> None:
    digests = ["3fa217103b", "3fa2171f" + "0" * 32, "12345678"]
    lexical = Lexical.build(tmp_path, [f"commit {digest}" for digest in digests])
    everything = np.arange(3)
    for asked in ("3fa217103", "3fa217103b38f18bb0904729b9068f52bdd6b08a"):
        assert lexical.query(f"who wrote {asked}?").named(everything).tolist() == [1, 0, 0]
        assert lexical.query(f"who wrote {asked}?").exact(everything).tolist() == [1, 0, 0]
        assert lexical.query(asked).identifier_holders(5).tolist() == [0]
    assert lexical.scores("3FA2171", 3)[0].tolist() == [0, 1]  # ambiguous: both
    for unknown in ("fedcba9", "1234567", "123456789", "facaded"):
        assert not lexical.query(unknown).exact(everything).any()


@given(st.text(max_size=200))
def test_any_text_is_cut_into_non_empty_lower_case_tokens(text: str) -> None:
    for token in tokenize(text):
        assert token
        assert token == token.lower()


@given(
    st.from_regex(r"[A-Z]{2,6}-[1-9][0-9]{0,4}", fullmatch=True), st.text(alphabet="网关离线告警", max_size=6)
)
def test_an_issue_key_is_found_whole_next_to_any_chinese_text(key: str, around: str) -> None:
    assert key.lower() in tokenize(f"{around}{key}{around}")


def test_statistics_are_written_without_pickle_and_reopen_equal(tmp_path: Path) -> None:
    texts = ["TIKA-4833 throws", "foo_bar baz baz", "网关离线告警", ""]
    built = Lexical.build(tmp_path / "a", texts)
    Lexical.build(tmp_path / "b", texts)
    opened = Lexical.open(tmp_path / "a")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.suffix in {".npy", ".json"}
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    for query in ("TIKA-4833", "baz", "离线", "nothing here", ""):
        assert [a.tolist() for a in built.scores(query, 3)] == [a.tolist() for a in opened.scores(query, 3)]
    assert opened.scores("tika", 3)[0].tolist() == [0]


WORDS = [
    "alpha",
    "beta",
    "gamma",
    "TIKA-4833",
    "TIKA-77",
    "NullPointerException",
    "foo_bar",
    "网关",
    "2.7.11",
]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@given(st.lists(TEXTS, min_size=1, max_size=12), TEXTS)
@settings(max_examples=50, deadline=None)
def test_scores_are_those_of_rank_bm25_with_lucenes_idf(texts: list[str], question: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Lexical.build(Path(folder), texts)
        ours = Lexical.open(Path(folder)).query(question).scores()
    oracle = LuceneBM25([tokenize(text) for text in texts], k1=K1, b=B)
    assert ours == pytest.approx(oracle.get_scores(set(tokenize(question))) / (K1 + 1), rel=1e-5)


def test_coverage_is_the_share_of_idf_and_does_not_depend_on_the_other_passages(tmp_path: Path) -> None:
    lexical = Lexical.build(tmp_path, ["alpha beta", "alpha", "gamma"])
    covered = lexical.query("alpha beta").coverage(np.arange(3))
    alpha, beta = lexical.idf("alpha"), lexical.idf("beta")
    assert covered == pytest.approx([1.0, alpha / (alpha + beta), 0.0])
    assert lexical.query("what is this").coverage(np.arange(3)).tolist() == [0, 0, 0]


def test_a_numbered_identifier_that_the_index_never_saw_counts_as_missing(tmp_path: Path) -> None:
    lexical = Lexical.build(tmp_path, ["error HM-2040 unpaid", "error codes"])
    assert lexical.query("error HM-2040").named(np.arange(2)).tolist() == [1, 0]
    assert lexical.query("error HM-6120").named(np.arange(2)).tolist() == [0, 0]
    assert lexical.query("error HM-6120").exact(np.arange(2)).tolist() == [0, 0]
    assert lexical.query("error").named(np.arange(2)).tolist() == [1, 1]


def test_no_score_exceeds_the_attainable_one(tmp_path: Path) -> None:
    lexical = Lexical.build(tmp_path, ["alpha " * 500, "alpha beta", "gamma"])
    query = lexical.query("alpha beta")
    assert 0 < query.scores().max() <= query.attainable


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=30), st.integers(1, 10))
def test_best_is_the_sorted_prefix_with_ties_by_id(scores: list[float], k: int) -> None:
    wanted = sorted((i for i, s in enumerate(scores) if s > 0), key=lambda i: (-scores[i], i))[:k]
    assert best(np.array(scores, np.float32), k)[0].tolist() == wanted


def test_a_missing_statistics_file_is_named(tmp_path: Path) -> None:
    Lexical.build(tmp_path, ["alpha"])
    (tmp_path / "data.csc.index.npy").unlink()
    with pytest.raises(ContractBroken, match=r"data\.csc\.index\.npy"):
        Lexical.open(tmp_path)
