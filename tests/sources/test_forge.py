"""Pull requests, issues and commits as GitHub, its tool and GitLab return them."""

import json
from typing import Any

import pytest

from tests.sources.conftest import Read
from tests.sources.test_git import PULL

REPOSITORY = "brinewell/haulmark"
ISSUE = {
    "number": 12,
    "title": "Gateway drops large frames",
    "body": "Seen on **2.1**.",
    "state": "closed",
    "state_reason": "completed",
    "user": {"login": "praman"},
    "comments": 3,
    "created_at": "2025-11-02T09:12:00Z",
    "closed_at": "2025-11-04T09:12:00Z",
    "updated_at": "2025-11-05T09:12:00Z",
    "html_url": f"https://github.example/{REPOSITORY}/issues/12",
    "labels": [{"name": "bug"}],
    "reactions": {"total_count": 4},
}
GH = {
    "number": 311,
    "title": "HAUL-104 Answer oversized payloads",
    "body": "Why not.",
    "state": "MERGED",
    "author": {"login": "tokafor", "name": "Tunde Okafor"},
    "createdAt": "2025-12-02T09:12:00Z",
    "updatedAt": "2025-12-04T13:31:44Z",
    "mergedAt": "2025-12-04T13:31:44Z",
    "url": f"https://github.example/{REPOSITORY}/pull/311",
    "baseRefName": "main",
    "headRefName": "haul-104",
    "labels": [{"id": "x", "name": "bug"}],
    "additions": 141,
    "deletions": 28,
    "changedFiles": 3,
    "comments": [{"author": {"login": "owen"}, "body": "Merged with `-s`."}],
    "reviews": [{"author": {"login": "noor"}, "body": ""}],
    "commits": [{"oid": "a" * 40, "messageHeadline": "one"}, {"oid": "b" * 40, "messageHeadline": "two"}],
}
NODE = {
    **{name: GH[name] for name in ("title", "body", "state", "author", "createdAt", "mergedAt", "additions")},
    "number": 312,
    "baseRefName": "main",
    "labels": {"nodes": [{"name": "bug"}]},
    "comments": {"totalCount": 40, "nodes": [{"author": {"login": "owen"}, "body": "First."}]},
    "commits": {"totalCount": 2},
}
MERGE_REQUEST = {
    "id": 9001,
    "iid": 7,
    "project_id": 3,
    "title": "Fix the parser",
    "description": "Closes #4",
    "state": "merged",
    "created_at": "2026-01-02T09:12:00.000Z",
    "merged_at": "2026-01-03T09:12:00.000Z",
    "target_branch": "main",
    "source_branch": "fix",
    "author": {"username": "mlind", "name": "Mara Lindqvist"},
    "labels": ["bug", "parser"],
    "sha": "c" * 40,
    "user_notes_count": 5,
    "upvotes": 2,
    "changes_count": "12",
    "references": {"short": "!7", "full": "edge/firmware/gateway!7"},
    "web_url": "https://gitlab.example/edge/firmware/gateway/-/merge_requests/7",
}


def test_an_issue_is_told_from_a_pull_request(read: Read) -> None:
    draft = read("git", "issues.json", json.dumps([ISSUE])).draft
    assert (draft.kind, draft.key, draft.project) == ("issue", f"{REPOSITORY}#12", REPOSITORY)
    assert draft.fields["closed_at"] == "2025-11-04T09:12:00+00:00"
    assert draft.metrics == {"comments": 3, "reactions": 4}
    listed = {**ISSUE, "pull_request": {"merged_at": None}}
    assert read("git", "issues.json", json.dumps([listed])).draft.kind == "pull_request"


def test_the_gh_tool_gives_the_same_draft_as_the_rest_api_and_its_comments(read: Read) -> None:
    rest = read("git", "pulls.json", json.dumps([PULL])).draft
    draft = read("git", "pulls.json", json.dumps([GH])).draft
    assert (draft.kind, draft.key, draft.title) == (rest.kind, rest.key, rest.title)
    assert draft.fields == {**rest.fields, "labels": "bug"}
    assert (draft.url, draft.updated) == (GH["url"], rest.updated)
    assert [part.text for part in draft.parts] == ["Why not.", "## Comment by owen", "Merged with `-s`."]
    assert draft.metrics == {
        "additions": 141,
        "deletions": 28,
        "changed_files": 3,
        "comments": 1,
        "commits": 2,
        "reviews": 1,
    }
    assert draft.people == ("tokafor", "Tunde Okafor", "owen", "noor")


@pytest.mark.parametrize("indent", [None, 1])
def test_one_pull_request_with_its_commits_stays_one_record(read: Read, indent: int | None) -> None:
    assert read("git", "311.json", json.dumps(GH, indent=indent)).keys == [f"{REPOSITORY}#311"]


def answer(connection: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"repository": {"nameWithOwner": REPOSITORY, "pullRequests": connection}}}


@pytest.mark.parametrize("indent", [None, 1])
def test_nodes_and_edges_of_a_graphql_answer_are_records(read: Read, indent: int | None) -> None:
    page = {"pageInfo": {"hasNextPage": False}}
    for connection in ({**page, "nodes": [NODE]}, {**page, "edges": [{"cursor": "x", "node": NODE}]}):
        draft = read("git", "prs.json", json.dumps(answer(connection), indent=indent)).draft
        assert (draft.key, draft.fields["labels"]) == (f"{REPOSITORY}#312", "bug")
        assert draft.fields["comments_truncated"] == "1 of 40"
        assert (draft.metrics["comments"], draft.metrics["comments_missing"]) == (40, 39)
        assert draft.metrics["commits"] == 2


def test_a_graphql_answer_may_be_one_record_or_hold_none(read: Read) -> None:
    one = {"data": {"repository": {"nameWithOwner": REPOSITORY, "pullRequest": NODE}}}
    assert read("git", "pr.json", json.dumps(one)).keys == [f"{REPOSITORY}#312"]
    none = {"data": None, "errors": [{"message": "rate limited"}]}
    assert read("git", "pr.json", json.dumps(none)).reasons == ["missing_field"]
    assert read("git", "pr.json", json.dumps({"data": {"viewer": 1}})).reasons == ["wrong_shape"]
    assert read("git", "pr.json", json.dumps(answer({"nodes": [None, NODE]}))).reasons == ["wrong_shape"]


@pytest.mark.parametrize("indent", [None, 1])
def test_pages_after_one_another_or_slurped_into_an_array_give_all_records(
    read: Read, indent: int | None
) -> None:
    def dump(value: Any) -> str:
        return json.dumps(value, indent=indent)

    both = [f"{REPOSITORY}#311", f"{REPOSITORY}#12"]
    assert read("git", "p.json", dump([GH]) + dump([ISSUE])).keys == both
    assert read("git", "p.json", f"{dump([GH])}\n{dump([ISSUE])}\n").keys == both
    assert read("git", "p.json", dump([[GH], [ISSUE]])).keys == both
    pages = [answer({"nodes": [{**NODE, "number": number}]}) for number in (1, 2)]
    assert read("git", "p.json", "".join(map(dump, pages))).keys == [f"{REPOSITORY}#1", f"{REPOSITORY}#2"]


def test_merge_requests_and_issues_of_gitlab_keep_their_own_numbers(read: Read) -> None:
    draft = read("git", "mrs.json", json.dumps([MERGE_REQUEST])).draft
    assert (draft.kind, draft.key, draft.project) == (
        "pull_request",
        "edge/firmware/gateway!7",
        "edge/firmware/gateway",
    )
    assert draft.fields == {
        "state": "merged",
        "author": "mlind",
        "created_at": "2026-01-02T09:12:00+00:00",
        "merged_at": "2026-01-03T09:12:00+00:00",
        "base": "main",
        "labels": "bug, parser",
    }
    assert draft.metrics == {"comments": 5, "upvotes": 2, "changed_files": 12}
    assert draft.people == ("mlind", "Mara Lindqvist")
    issue = {
        "iid": 7,
        "title": "Parser fails",
        "description": None,
        "state": "opened",
        "web_url": "https://gitlab.example/edge/firmware/gateway/-/issues/7",
    }
    draft = read("git", "issues.json", json.dumps([issue])).draft
    assert (draft.kind, draft.key) == ("issue", "edge/firmware/gateway#7")


def test_commits_of_the_apis_read_like_those_of_the_log(read: Read) -> None:
    person = {"name": "Mara Lindqvist", "email": "mara@x.example", "date": "2026-01-02T09:12:00Z"}
    github = {
        "sha": "a" * 40,
        "commit": {"message": "Fix it\n\nIt was broken.", "author": person, "committer": person},
        "parents": [{"sha": "b" * 40}],
        "stats": {"additions": 3, "deletions": 1},
        "files": [{"filename": "a.py"}],
        "html_url": "https://github.example/a/b/commit/aaa",
    }
    gitlab = {
        "id": "a" * 40,
        "short_id": "aaaa",
        "title": "Fix it",
        "message": "Fix it\n\nIt was broken.",
        "author_name": "Mara Lindqvist",
        "author_email": "mara@x.example",
        "authored_date": "2026-01-02T09:12:00Z",
        "parent_ids": ["b" * 40],
        "stats": {"additions": 3, "deletions": 1},
    }
    graphql = {
        "oid": "a" * 40,
        "messageHeadline": "Fix it",
        "messageBody": "It was broken.",
        "author": person,
        "authoredDate": "2026-01-02T09:12:00Z",
        "additions": 3,
        "deletions": 1,
    }
    for record in (github, gitlab, graphql):
        draft = read("git", "commits.json", json.dumps([record])).draft
        assert (draft.kind, draft.key, draft.title) == ("commit", "a" * 40, "Fix it")
        assert draft.parts[0].text.startswith("It was broken.")
        assert (draft.metrics["additions"], draft.updated) == (3, "2026-01-02T09:12:00+00:00")
        assert draft.people == ("Mara Lindqvist", "mara")


def test_records_of_the_wrong_types_cost_only_themselves(read: Read) -> None:
    records: list[Any] = [
        {"iid": 1},
        {"iid": [1], "title": "x"},
        {**GH, "body": 7},
        {"sha": "a", "commit": {"message": 3}},
        {**GH, "labels": 3, "comments": "x", "author": [], "mergedAt": 4, "url": {}},
    ]
    outcome = read("git", "p.json", json.dumps(records))
    assert outcome.reasons == ["missing_field", "wrong_shape", "wrong_shape", "missing_field"]
    assert outcome.keys == ["#311"]
