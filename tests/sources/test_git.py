import json
from typing import Any

from tests.sources.conftest import Read

COMMIT = {
    "sha": "a17f62ba7b2a527f286190689bd7714f1e5e478c",
    "author": "Mara Lindqvist",
    "email": "mara.lindqvist@brinewell.example",
    "date": "2026-07-13T11:11:00+02:00",
    "parents": ["4af9b2b6efe1c0"],
    "subject": "HAUL-188 Merge percentiles",
    "body": "Fixes HAUL-12 for UTF-8 names.\n\nSigned-off-by: Owen Tait <owen@brinewell.example>\n",
    "files": ["siltstore/rollup.sql", "siltstore/tdigest.sql"],
    "n_files": 2,
    "additions": 221,
    "deletions": 87,
}
PULL = {
    "number": 311,
    "title": "HAUL-104 Answer oversized payloads",
    "body": "## Why\nSee [the capture](https://x.example/1).\n\n```sh\nreplay  --all\n```\n\n"
    "| n | ms |\n|--|--|\n| 1 | 3 |\n",
    "state": "closed",
    "user": {"login": "tokafor"},
    "created_at": "2025-12-02T09:12:00Z",
    "updated_at": "2025-12-04T13:31:44Z",
    "merged_at": "2025-12-04T13:31:44Z",
    "html_url": "https://github.example/brinewell/haulmark/pull/311",
    "additions": 141,
    "deletions": 28,
    "changed_files": 3,
    "comments": 2,
    "review_comments": 5,
    "commits": 4,
    "labels": [{"name": "tollgate"}, {"name": "bug"}],
    "base": {"ref": "main", "repo": {"full_name": "brinewell/haulmark"}},
}


def test_a_commit_becomes_a_draft(read: Read) -> None:
    draft = read("git", "c.jsonl", json.dumps(COMMIT) + "\n").draft
    assert (draft.kind, draft.key, draft.title) == ("commit", COMMIT["sha"], COMMIT["subject"])
    assert [part.text for part in draft.parts] == [
        "Fixes HAUL-12 for UTF-8 names.\n\nFiles changed: siltstore/rollup.sql, siltstore/tdigest.sql."
    ]
    assert draft.fields["author"] == "Mara Lindqvist"
    assert draft.fields["issues"] == "HAUL-188, HAUL-12"
    assert draft.updated == draft.fields["date"] == "2026-07-13T11:11:00+02:00"
    assert draft.metrics == {
        "files_changed": 2,
        "additions": 221,
        "deletions": 87,
        "message_length": len(str(COMMIT["subject"])) + len(str(COMMIT["body"])),
        "parents": 1,
    }
    assert draft.people == ("Mara Lindqvist", "mara.lindqvist", "Owen Tait", "owen")


def test_a_commit_of_a_thousand_files_names_the_first_and_counts_the_rest(read: Read) -> None:
    files = [f"src/main/java/org/example/Class{n}.java" for n in range(40)]
    text = read(
        "git", "c.jsonl", json.dumps({**COMMIT, "body": "", "files": files, "n_files": 3169}) + "\n"
    ).text
    assert text.startswith("Files changed: src/main/java/org/example/Class0.java, ")
    assert text.endswith(" and 3157 more.")
    assert len(text) < 1100


def test_machine_written_commit_ends_are_left_out(read: Read) -> None:
    body = (
        "Bumps [log4j](https://x.example/log4j) from 2.1 to 2.2.\n- [Commits](https://x.example/c)\n\n---\n"
        "updated-dependencies:\n- dependency-name: log4j\n\ngit-svn-id: https://svn.example@1 13f7\n"
    )
    text = read("git", "c.jsonl", json.dumps({**COMMIT, "body": body, "files": []}) + "\n").text
    assert text == "Bumps log4j from 2.1 to 2.2."


def test_wrapped_lines_of_a_message_become_paragraphs_and_lists_stay(read: Read) -> None:
    body = (
        "The five-minute percentile was averaged into the hourly one, which\n"
        "is not a percentile of anything that anybody had ever asked us for.\n\n- first\n- second"
    )
    text = read("git", "c.jsonl", json.dumps({**COMMIT, "body": body, "files": []}) + "\n").text
    assert text == body.replace("which\nis", "which is")


def test_robots_and_role_names_are_no_people(read: Read) -> None:
    record = {
        **COMMIT,
        "author": "dependabot[bot]",
        "email": "noreply@github.com",
        "body": "",
        "committer": "GitHub",
    }
    assert read("git", "c.jsonl", json.dumps(record) + "\n").draft.people == ()


def test_a_subject_that_is_too_long_for_a_title_is_kept_in_the_text(read: Read) -> None:
    subject = "A long story " * 40
    draft = read("git", "c.jsonl", json.dumps({**COMMIT, "subject": subject}) + "\n").draft
    assert draft.title.endswith("…")
    assert len(draft.title) <= 300
    assert draft.parts[0].text.startswith(subject.strip())


def test_a_pull_request_becomes_a_draft(read: Read) -> None:
    draft = read("git", "pulls.json", json.dumps([PULL])).draft
    assert (draft.kind, draft.key, draft.project) == (
        "pull_request",
        "brinewell/haulmark#311",
        "brinewell/haulmark",
    )
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("heading", "## Why"),
        ("prose", "See the capture."),
        ("code", "replay  --all"),
        ("table", "n | ms\n1 | 3"),
    ]
    assert draft.fields["state"] == "merged"
    assert draft.fields["labels"] == "tollgate, bug"
    assert draft.fields["issues"] == "HAUL-104"
    assert draft.metrics == {
        "additions": 141,
        "deletions": 28,
        "changed_files": 3,
        "comments": 2,
        "review_comments": 5,
        "commits": 4,
    }
    assert draft.url == PULL["html_url"]
    assert draft.people == ("tokafor",)


def test_records_without_what_they_need_are_quarantined_with_the_reason(read: Read) -> None:
    records: list[Any] = [
        {"subject": "no sha"},
        {"sha": "a"},
        {"sha": ["a"], "subject": "s"},
        {"sha": "a", "subject": {"text": "s"}},
        {"sha": "a", "subject": "s", "files": "x"},
        {"number": 1, "title": None},
    ]
    outcome = read("git", "c.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    assert outcome.reasons == [
        "missing_field",
        "missing_field",
        "wrong_shape",
        "wrong_shape",
        "wrong_shape",
        "missing_field",
    ]
    assert all(row.sample and row.detail.endswith(".") for row in outcome.rejected)
