"""All sources together: the reasons are documented, the samples of this project and the real corpus read."""

import re
from collections import Counter
from pathlib import Path

import pytest

from alchemy import sources
from alchemy.records import SOURCES, Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.reasons import REASONS, REMEDIES, documentation

EXAMPLES = Path(__file__).parents[2] / "examples" / "raw"
BROKEN = {
    "onyx__empty.pdf": "empty",
    "onyx__encrypted.pdf": "encrypted",
    "pypdf__imagemagick-lzw.pdf": "no_text_layer",
    "pypdf__r4-user-password.pdf": "encrypted",
    "tika__file1.pdf": "broken",
    "tika__testWORD_truncated.docx": "broken",
}


def read_folder(root: Path, source: str) -> list[tuple[str, Draft | Rejected]]:
    """Every row of every file of a source, with the file's name."""
    folder = root / source
    rows: list[tuple[str, Draft | Rejected]] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        raw = RawObject(source, f"raw/{source}/{name}", path.stat().st_size, "0" * 64)
        rows += [(name, row) for row in sources.read(raw, path, CleanOptions())]
    return rows


def count(rows: list[tuple[str, Draft | Rejected]]) -> dict[str, int]:
    return dict(Counter(row.kind if isinstance(row, Draft) else row.reason for _, row in rows))


def test_every_reason_is_snake_case_and_explained_in_a_sentence() -> None:
    for code, explanation in [*REASONS.items(), *REMEDIES.items()]:
        assert re.fullmatch(r"[a-z_]+", code)
        assert explanation.endswith(".")


def test_every_reason_has_a_remedy_and_stands_in_the_documentation() -> None:
    assert set(REMEDIES) == set(REASONS)
    committed = (EXAMPLES.parents[1] / "docs" / "quarantine.md").read_text()
    assert committed == documentation(), "run: python -m alchemy.sources.reasons > docs/quarantine.md"


def test_every_reason_is_given_somewhere_and_every_reason_given_is_known() -> None:
    folder = Path(__file__).parents[2] / "alchemy"
    files = [path for name in ("sources", "text") for path in (folder / name).glob("*.py")]
    code = "".join(path.read_text() for path in [*files, folder / "corpus.py"] if path.name != "reasons.py")
    assert [reason for reason in REASONS if f'"{reason}"' not in code] == []
    given = re.findall(r'(?:Unreadable|Refused|reject)\(\s*(?:(?:self\.)?raw,\s*)?"([a-z_]+)"', code)
    assert set(given) <= set(REASONS)


def test_an_unknown_source_is_a_caller_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        list(sources.read(RawObject("mail", "raw/mail/a", 1, "0"), tmp_path, CleanOptions()))


@pytest.mark.parametrize("source", SOURCES)
def test_the_samples_of_this_project_read(source: str) -> None:
    if not (EXAMPLES / source).is_dir():
        pytest.skip(f"examples/raw/{source} is not there")
    rows = read_folder(EXAMPLES, source)
    drafts = [row for _, row in rows if isinstance(row, Draft)]
    assert drafts
    assert all(draft.title and draft.parts for draft in drafts)
    rejected = {(name, row.reason) for name, row in rows if isinstance(row, Rejected)}
    assert rejected <= {
        ("export-truncated.json", "truncated"),
        ("broken-scan.pdf", "broken"),
        ("corrupt.sqlite", "truncated"),
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("git", {"commit": 10_752}),
        ("jira", {"issue": 311}),
        ("confluence", {"page": 300}),
        ("documents", {"file": 70, "encrypted": 2, "broken": 2, "empty": 1, "no_text_layer": 1}),
        ("database", {"row": 4650 + 1310, "no_text": 10_957}),
    ],
)
def test_the_real_corpus_is_read_in_full(corpus_raw: Path, source: str, expected: dict[str, int]) -> None:
    rows = read_folder(corpus_raw, source)
    assert count(rows) == expected
    drafts = [row for _, row in rows if isinstance(row, Draft)]
    assert len({draft.key for draft in drafts}) == len(drafts)
    if source == "documents":
        assert {name: row.reason for name, row in rows if isinstance(row, Rejected)} == BROKEN


def test_no_boilerplate_of_the_real_wiki_gets_in(corpus_raw: Path) -> None:
    boilerplate = (
        "(add comment)",
        "(edit page)",
        "Google Analytics",
        "_gat._getTracker",
        "trademarks of The Apache",
    )
    for name, row in read_folder(corpus_raw, "confluence"):
        assert isinstance(row, Draft)
        text = "\n".join(part.text for part in row.parts)
        assert not [phrase for phrase in boilerplate if phrase in text and "policy" not in name], name


def test_no_markup_of_the_real_issues_is_left_outside_code(corpus_raw: Path) -> None:
    for _, row in read_folder(corpus_raw, "jira"):
        assert isinstance(row, Draft)
        text = "\n".join(part.text for part in row.parts if part.kind != "code")
        found = re.findall(r"\{code|\{noformat|\{quote|\{color|\[~\w|^h[1-6]\. |\|http", text, re.M)
        assert not found, (row.key, found)
