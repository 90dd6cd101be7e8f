"""Near duplicates: copies go, templates stay, and neither order nor chains change the plan."""

import dataclasses
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.records import Document
from alchemy.text.near_duplicates import (
    Sketch,
    _identifiers,
    jaccard,
    plan_near_duplicates,
    shingle_hashes,
    sketch,
)
from tests.text.test_dedup import document

LINE = "broker queue leader replica lag commit offset retry lock thread pool timeout header parser schema"
WORDS = (LINE + " table cluster topic consumer producer batch index segment flush disk memory cache").split()


def page(key: str, text: str, updated: str = "", kind: str = "page") -> Document:
    return dataclasses.replace(
        document("A page of the handbook", text, key=key), id=f"confluence:{key}", kind=kind, updated=updated
    )


def prose(seed: int, length: int = 150) -> list[str]:
    return random.Random(seed).choices(WORDS, k=length)  # noqa: S311 - texts, not secrets


def plan(documents: list[Document], threshold: float = 0.9) -> dict[str, str]:
    """Which keys are dropped for which."""
    by_key = {("raw", number): one for number, one in enumerate(documents)}
    sketches = [Sketch(one.id, key, one.updated, len(one.text), sketch(one)) for key, one in by_key.items()]
    dropped = plan_near_duplicates(
        sketches,
        lambda keys: {key: shingle_hashes(by_key[key].title, by_key[key].text) for key in keys},
        threshold,
    )
    return {
        by_key[key].key: by_key[drop.kept_order_key].key
        for (_, key), drop in dropped.items()
        if drop.reason == "near_duplicate"
    }


def test_a_copy_with_one_word_more_is_dropped_for_the_longer_one():
    words = prose(1)
    assert plan([page("short", " ".join(words)), page("long", " ".join([*words, "postscript"]))]) == {
        "short": "long"
    }


def test_of_equally_long_ones_the_newest_stays_then_the_first():
    words = prose(2)
    other = [*words[:-1], "leader" if words[-1] != "leader" else "thread"]
    size = max(len(" ".join(words)), len(" ".join(other)))
    one, two = (" ".join(text).ljust(size, ".") for text in (words, other))
    assert plan([page("old", one, "2020-01-01"), page("new", two, "2024-01-01")]) == {"old": "new"}
    assert plan([page("first", one), page("second", two)]) == {"second": "first"}


def test_chinese_copies_are_found_by_characters():
    signs = "数据平台的调度器等待它自己的锁因此任务失败请重新启动服务"
    text = "".join(random.Random(3).choices(signs, k=200))  # noqa: S311 - texts, not secrets
    assert plan([page("a", text), page("b", text + "。谢谢")]) == {"a": "b"}


def test_nothing_is_dropped_at_zero_and_short_texts_are_left_to_the_exact_stage():
    words = prose(4)
    pair = [page("a", " ".join(words)), page("b", " ".join([*words, "more"]))]
    assert plan(pair, 0.0) == {}
    short = [page("a", "one two three four five six"), page("b", "one two three four five six seven")]
    assert plan(short, 0.1) == {}
    assert sketch(short[0]) == ""


def test_half_equal_texts_stay():
    words = prose(5)
    assert plan([page("a", " ".join(words)), page("b", " ".join(words[:75] + prose(6, 75)))], 0.6) == {}


RELEASE_NOTES = """The team is proud to announce the {version} release. This release delivers the latest
set of patches and fixes for the framework. Before installing, make sure the following
products are installed on your system, with the specified versions. Building the samples
included in the binary distribution is easy. Change to the samples directory and follow
the build instructions in the file that is included with each sample. If you have any
problems or want to send feedback of any kind, please write to the list of the
developers. {issues}"""


def test_release_notes_that_differ_in_a_version_or_in_one_issue_stay():
    notes = [
        page(f"notes-{minor}", RELEASE_NOTES.format(version=f"3.{minor}", issues="CXF-1200 is fixed."))
        for minor in range(60)
    ]
    notes += [
        page(f"list-{issue}", RELEASE_NOTES.format(version="4.0", issues=f"CXF-{issue} is fixed."))
        for issue in range(1300, 1340)
    ]
    assert plan(notes) == {}
    assert plan(notes, 0.5) == {}


@pytest.mark.parametrize("kind", ["issue", "commit", "row", "pull_request", "feedback"])
def test_records_with_keys_of_their_own_are_never_merged(kind):
    text = " ".join(prose(7))
    assert plan([page("K-1", text, kind=kind), page("K-2", text + " indeed", kind=kind)]) == {}


def test_a_change_and_its_revert_stay():
    text = " ".join(prose(8))
    assert plan([page("a", f"{text} from 1.2 to 1.3"), page("b", f"{text} from 1.3 to 1.2")], 0.5) == {}


def test_likeness_is_not_passed_on_along_a_chain():
    words = prose(9, 200)
    steps = [page(f"step-{n}", " ".join(words[n * 8 : n * 8 + 160])) for n in range(6)]
    dropped = plan(steps, 0.85)
    texts = {one.key: shingle_hashes(one.title, one.text) for one in steps}
    assert dropped
    assert set(dropped.values()).isdisjoint(dropped)
    assert all(jaccard(texts[one], texts[keeper]) >= 0.85 for one, keeper in dropped.items())
    kept = [key for key in texts if key not in dropped]
    assert all(jaccard(texts[a], texts[b]) < 0.85 for a in kept for b in kept if a != b)


def test_planted_copies_among_many_pages_are_found():
    documents, planted = [], {}
    for number in range(200):
        words = prose(100 + number, 200)
        documents.append(page(f"page-{number}", " ".join(words)))
        if number % 2:
            documents.append(page(f"copy-{number}", " ".join([*words, "and", "a", "postscript"])))
            planted[f"page-{number}"] = f"copy-{number}"
    assert plan(documents) == planted


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), max_size=10), st.randoms(use_true_random=False)
)
def test_the_plan_does_not_depend_on_the_order(picks, shuffle):
    documents = [page(str(n), " ".join(prose(seed)[cut:])) for n, (seed, cut) in enumerate(picks)]
    sketches = [Sketch(one.id, (one.key, 0), "", len(one.text), sketch(one)) for one in documents]
    sets = {(one.key, 0): shingle_hashes(one.title, one.text) for one in documents}
    shuffled = list(sketches)
    shuffle.shuffle(shuffled)
    one, other = (plan_near_duplicates(rows, lambda keys: sets, 0.9) for rows in (sketches, shuffled))
    assert one == other


def test_jaccard_counts_what_two_sets_share():
    assert jaccard(np.array([1, 2, 3]), np.array([2, 3, 4])) == 0.5
    assert jaccard(np.array([], int), np.array([], int)) == 0.0


def test_masses_that_share_their_bands_are_compared_with_few_of_them_each():
    bands = sketch(page("x", " ".join(prose(12))))
    rows = [Sketch(str(number), (str(number), 0), "", 100, bands) for number in range(2000)]
    sets = {row.order_key: np.arange(number * 10, number * 10 + 10) for number, row in enumerate(rows)}
    met = []

    class Counted(dict):
        def __getitem__(self, key):
            met.append(key)
            return super().__getitem__(key)

    assert plan_near_duplicates(rows, lambda keys: Counted(sets), 0.9) == {}
    assert len(met) <= 2000 * (64 + 1)


@given(st.text(alphabet="aZ_09.-:/é修か \n", max_size=40))
def test_identifiers_are_all_words_with_a_digit_and_what_is_joined_to_them(text):
    cjk = "\u3040-\u30ff\u3400-\u9fff"
    plain = re.findall(rf"[^\W{cjk}]*\d(?:[^\W{cjk}]|[-.:/](?=\w))*", text.casefold())
    assert _identifiers(page("k", text)) == list(dict.fromkeys(plain))
