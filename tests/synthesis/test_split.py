from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from alchemy.settings import SynthesisOptions
from alchemy.synthesis.split import assign_splits
from tests.synthesis.corpus import COMMIT, ISSUE, PULL_REQUEST, document, many

OPTIONS = SynthesisOptions()


def test_shares_are_those_of_the_options() -> None:
    splits = list(assign_splits(many(2000)[0], OPTIONS).values())
    assert 0.07 < splits.count("holdout") / 2000 < 0.13
    assert 0.03 < splits.count("eval") / 2000 < 0.07


def test_equal_texts_share_a_split_whatever_their_ids() -> None:
    documents = many(200)[0]
    copies = [replace(of, id=f"confluence:{of.key}", text=of.text.upper() + " ...") for of in documents]
    splits = assign_splits(documents + copies, OPTIONS)
    assert all(splits[of.id] == splits[copy.id] for of, copy in zip(documents, copies, strict=True))


def test_an_issue_and_the_changes_that_name_it_share_a_split() -> None:
    for number in range(50):
        key = f"HAUL-{number + 1}"
        story = [
            replace(ISSUE, id=f"i{number}", key=key, text=f"issue {number}"),
            replace(COMMIT, id="c", title=f"{key} Answer", fields={"issues": key}, text=f"commit {number}"),
            replace(PULL_REQUEST, id="p", title=f"{key} Pull", fields={"issues": key}, text=f"pull {number}"),
        ]
        splits = assign_splits([*story, *many(20)[0]], OPTIONS)
        assert len({splits[of.id] for of in story}) == 1


def test_other_documents_do_not_move_a_document() -> None:
    documents = many(500)[0]
    whole = assign_splits(documents, OPTIONS)
    half = assign_splits(documents[::2], OPTIONS)
    assert all(whole[name] == split for name, split in half.items())
    assert assign_splits(reversed(documents), OPTIONS) == whole


@given(st.sets(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=3, max_size=12))
def test_three_different_documents_fill_all_splits(texts: set[str]) -> None:
    documents = [document("page", f"{index}", f"{index}", text) for index, text in enumerate(sorted(texts))]
    assert set(assign_splits(documents, OPTIONS).values()) == {"train", "eval", "holdout"}


def test_less_than_three_documents_are_split_without_failing() -> None:
    assert assign_splits([], OPTIONS) == {}
    assert len(assign_splits(many(2)[0], OPTIONS)) == 2
