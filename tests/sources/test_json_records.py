"""The outer forms of JSON, tried with commits (lines) and Jira issues (pages)."""

import json
from typing import Any

import pytest

from tests.sources.conftest import Read


def commit(number: int, **fields: Any) -> dict[str, Any]:
    return {"sha": f"{number:040x}", "subject": f"Change number {number}", **fields}


def issue(number: int) -> dict[str, Any]:
    return {"key": f"HAUL-{number}", "fields": {"summary": f"Issue {number}", "description": "It fails."}}


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def test_json_lines_give_a_draft_each_and_say_their_line(read: Read) -> None:
    outcome = read("git", "c.jsonl", lines(commit(1), commit(2)))
    assert [draft.locator for draft in outcome.drafts] == ["line 1", "line 2"]


def test_one_bad_line_among_good_ones_costs_only_itself(read: Read) -> None:
    data = (
        lines(*(commit(n) for n in range(500))) + "{broken\n" + lines(*(commit(n) for n in range(500, 1000)))
    )
    outcome = read("git", "c.jsonl", data)
    assert len(outcome.drafts) == 1000
    assert [(row.reason, row.locator, row.sample) for row in outcome.rejected] == [
        ("not_json", "line 501", "{broken\n")
    ]


def test_a_bad_first_line_does_not_hide_the_form(read: Read) -> None:
    outcome = read("git", "c.jsonl", "{broken\n" + lines(commit(1), commit(2)))
    assert (len(outcome.drafts), outcome.reasons) == (2, ["not_json"])


def test_a_last_line_that_stops_is_truncated(read: Read) -> None:
    outcome = read("git", "c.jsonl", lines(commit(1), commit(2))[:-20])
    assert (len(outcome.drafts), outcome.reasons) == (1, ["truncated"])


def test_a_truncated_array_keeps_its_complete_records_and_quarantines_the_rest(read: Read) -> None:
    whole = json.dumps([issue(n) for n in range(5)])
    outcome = read("jira", "a.json", whole[: whole.index("HAUL-4") + 3])
    assert outcome.keys == ["HAUL-0", "HAUL-1", "HAUL-2", "HAUL-3"]
    assert outcome.reasons == ["truncated"]
    assert outcome.rejected[0].locator.startswith("[4] at byte ")


@pytest.mark.parametrize("indent", [None, 1])
def test_a_truncated_page_keeps_its_complete_issues(read: Read, indent: int | None) -> None:
    whole = json.dumps({"startAt": 0, "names": ["x"], "issues": [issue(n) for n in range(3)]}, indent=indent)
    outcome = read("jira", "p.json", whole[: whole.index("Issue 2")])
    assert (outcome.keys, outcome.reasons) == (["HAUL-0", "HAUL-1"], ["truncated"])
    assert [draft.locator for draft in outcome.drafts] == ["issues[0]", "issues[1]"]


def test_a_broken_record_inside_an_array_leaves_the_others(read: Read) -> None:
    data = f"[{json.dumps(issue(1))}, {{bad}}, {json.dumps(issue(2))}]"
    outcome = read("jira", "a.json", data)
    assert (outcome.keys, outcome.reasons) == (["HAUL-1", "HAUL-2"], ["not_json"])


def test_pages_one_after_another_are_all_read(read: Read) -> None:
    data = "".join(json.dumps({"issues": [issue(n)]}, indent=1) for n in (1, 2))
    outcome = read("jira", "a.json", data)
    assert [(draft.key, draft.locator) for draft in outcome.drafts] == [
        ("HAUL-1", "issues[0]"),
        ("HAUL-2", "page 2 issues[0]"),
    ]


def test_arrays_one_after_another_are_all_read(read: Read) -> None:
    data = json.dumps([issue(1), issue(2)]) + json.dumps([issue(3)])
    assert read("jira", "a.json", data).keys == ["HAUL-1", "HAUL-2", "HAUL-3"]


@pytest.mark.parametrize("data", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
def test_deep_nesting_is_refused_before_it_is_parsed(read: Read, data: str) -> None:
    outcome = read("jira", "a.json", data)
    assert not outcome.drafts
    assert outcome.reasons == ["too_deep"]


def test_a_deep_line_among_good_lines_costs_only_itself(read: Read) -> None:
    outcome = read("git", "c.jsonl", lines(commit(1)) + "[" * 200_000 + "\n" + lines(commit(2)))
    assert (len(outcome.drafts), outcome.reasons) == (2, ["too_deep"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_boms_and_utf16_are_read(read: Read, encoding: str) -> None:
    data = json.dumps([{**commit(1), "subject": "Prüfe Größe"}], ensure_ascii=False).encode(encoding)
    assert read("git", "c.json", data).draft.title == "Prüfe Größe"


@pytest.mark.parametrize(
    ("encoding", "subject"), [("cp1252", "Prüfe die Größe"), ("gb18030", "检查网关的温度阈值")]
)
def test_lines_of_an_old_encoding_are_read(read: Read, encoding: str, subject: str) -> None:
    data = json.dumps(commit(1, body=subject), ensure_ascii=False).encode(encoding) + b"\n"
    assert subject in read("git", "c.jsonl", data + lines(commit(2)).encode()).text


def test_nul_characters_and_lone_surrogates_do_not_reach_the_text(read: Read) -> None:
    outcome = read(
        "git", "c.jsonl", '{"sha":"a","subject":"x\\u0000y \\ud800 z"}\n{"sha":"b","subject":"p\0q"}\n'
    )
    assert [draft.title for draft in outcome.drafts] == ["xy \ufffd z", "pq"]


def test_duplicate_keys_keep_the_last_and_odd_numbers_are_read(read: Read) -> None:
    data = '{"sha":"a","sha":"b","subject":"s","additions":NaN,"n_files":123456789012345678901234567890}\n'
    draft = read("git", "c.jsonl", data).draft
    assert draft.key == "b"
    assert "additions" not in draft.metrics


@pytest.mark.parametrize("data", ["[1, 2]", '"text"\n', "17", '[{"sha":"a","subject":"s"}, 3]'])
def test_a_scalar_instead_of_an_object_is_of_wrong_shape(read: Read, data: str) -> None:
    assert set(read("git", "c.json", data).reasons) == {"wrong_shape"}


@pytest.mark.parametrize("data", [b"", b" \n\t ", b"\xef\xbb\xbf", b"\0\0\0"])
@pytest.mark.parametrize("source", ["git", "jira", "confluence", "documents", "database", "feedback"])
def test_a_file_with_nothing_in_it_is_empty(read: Read, source: str, data: bytes) -> None:
    assert read(source, "x", data).reasons == ["empty"]


def test_text_that_is_no_json_gives_one_row_not_one_for_each_line(read: Read) -> None:
    outcome = read("git", "a.json", "<html>\n<body>\n" + "nothing here\n" * 1000)
    assert (outcome.drafts, outcome.reasons) == ([], ["not_json"])


def test_a_line_over_the_limit_is_skipped_without_its_neighbors(read: Read) -> None:
    data = lines(commit(1), commit(2, body="x" * 5000), commit(3))
    outcome = read("git", "c.jsonl", data, max_document_bytes=1000)
    assert (len(outcome.drafts), outcome.reasons) == (2, ["too_large"])


def test_a_missing_file_is_a_row(read: Read, tmp_path: Any) -> None:
    from alchemy import sources
    from alchemy.records import RawObject, Rejected
    from alchemy.settings import CleanOptions

    raw = RawObject("git", "raw/git/gone", 1, "0")
    (row,) = sources.read(raw, tmp_path / "gone", CleanOptions())
    assert isinstance(row, Rejected)
    assert row.reason == "unreadable_file"
