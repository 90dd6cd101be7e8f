import json
from typing import Any

import pytest

from alchemy.sources.wiki import wiki_parts
from tests.sources.conftest import Read

ISSUE: dict[str, Any] = {
    "key": "KAFKA-10010",
    "self": "https://jira.example/rest/api/2/issue/1",
    "fields": {
        "summary": "Fails on startup",
        "description": "It *fails* in {{start()}}:\r\n{code:java}\nboom();\n{code}\nAsk [~otait].",
        "status": {"name": "Resolved"},
        "resolution": {"name": "Fixed"},
        "priority": {"name": "Blocker"},
        "issuetype": {"name": "Bug"},
        "reporter": {"name": "praman", "displayName": "Priya Raman", "emailAddress": "priya.raman@x.example"},
        "assignee": None,
        "labels": ["edge", "mqtt"],
        "components": [{"name": "core"}],
        "fixVersions": [{"name": "2026.1"}],
        "parent": {"key": "KAFKA-1"},
        "project": {"key": "KAFKA"},
        "created": "2026-01-01T00:00:00.000+0000",
        "updated": "2026-03-01T00:00:00.000+0000",
        "resolutiondate": "2026-01-11T12:00:00.000+0000",
        "votes": {"votes": 3},
        "watches": {"watchCount": 4},
        "attachment": [{"filename": "a.png"}],
        "issuelinks": [{"type": {"outward": "duplicates"}, "outwardIssue": {"key": "KAFKA-2"}}],
        "comment": {
            "comments": [{"author": {"displayName": "Owen Tait"}, "body": "Fixed in 2026.1."}],
            "total": 1,
        },
    },
}


def with_fields(**fields: Any) -> str:
    return json.dumps({"issues": [{**ISSUE, "fields": {**ISSUE["fields"], **fields}}]})


def test_an_issue_becomes_a_draft(read: Read) -> None:
    draft = read("jira", "p.json", json.dumps({"startAt": 0, "issues": [ISSUE]})).draft
    assert (draft.kind, draft.key, draft.title, draft.project) == (
        "issue",
        "KAFKA-10010",
        "Fails on startup",
        "KAFKA",
    )
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("prose", "It fails in start():"),
        ("code", "boom();"),
        ("prose", "Ask @otait."),
        ("heading", "## Comment by Owen Tait"),
        ("prose", "Fixed in 2026.1."),
    ]
    assert draft.fields == {
        "status": "Resolved",
        "resolution": "Fixed",
        "priority": "Blocker",
        "type": "Bug",
        "reporter": "Priya Raman",
        "labels": "edge, mqtt",
        "components": "core",
        "fix_versions": "2026.1",
        "parent": "KAFKA-1",
        "links": "duplicates KAFKA-2",
        "created": "2026-01-01T00:00:00+00:00",
        "resolved": "2026-01-11T12:00:00+00:00",
    }
    assert draft.metrics == {
        "comments": 1,
        "votes": 3,
        "watches": 4,
        "priority_rank": 5,
        "age_days": 10.5,
        "resolution_days": 10.5,
        "links": 1,
        "attachments": 1,
        "subtasks": 0,
        "description_length": len(ISSUE["fields"]["description"]),
    }
    assert draft.people == ("Priya Raman", "praman", "priya.raman", "Owen Tait", "otait")
    assert draft.url == "https://jira.example/browse/KAFKA-10010"
    assert draft.updated == "2026-03-01T00:00:00+00:00"


def test_an_open_issue_ages_until_its_last_update_and_has_no_resolution_days(read: Read) -> None:
    draft = read("jira", "p.json", with_fields(resolutiondate=None, resolution=None)).draft
    assert draft.metrics["age_days"] == 59
    assert "resolution_days" not in draft.metrics
    assert "resolution" not in draft.fields


def test_a_document_tree_of_the_v3_api_reads_as_text(read: Read) -> None:
    tree = {
        "type": "doc",
        "content": [
            {"type": "heading", "attrs": {"level": 2}, "content": [{"type": "text", "text": "Steps"}]},
            {
                "type": "bulletList",
                "content": [{"type": "listItem", "content": [{"type": "text", "text": "go"}]}],
            },
            {"type": "codeBlock", "content": [{"type": "text", "text": "x = *1*"}]},
        ],
    }
    parts = read("jira", "p.json", with_fields(description=tree, comment=None)).draft.parts
    assert [(part.kind, part.text) for part in parts] == [
        ("heading", "## Steps"),
        ("prose", "- go"),
        ("code", "x = *1*"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": None}, "missing_field"),
        ({"fields": None}, "missing_field"),
        ({"fields": "text"}, "wrong_shape"),
        ({"fields": {"summary": ""}}, "missing_field"),
        ({"fields": {"summary": ["a"]}}, "wrong_shape"),
        ({"fields": {"summary": "s", "description": 7}}, "wrong_shape"),
        ({"fields": {"summary": "s", "comment": {"comments": ["text"]}}}, "wrong_shape"),
    ],
)
def test_an_issue_that_is_not_one_is_quarantined(read: Read, change: dict[str, Any], reason: str) -> None:
    outcome = read("jira", "p.json", json.dumps({"issues": [{**ISSUE, **change}, ISSUE]}))
    assert (outcome.keys, outcome.reasons) == (["KAFKA-10010"], [reason])
    assert outcome.rejected[0].locator == "issues[0]"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("h2. *Context*", "## Context"),
        ("see [the docs|https://x.example/a_b_c]", "see the docs"),
        ("see [here|https://x.example]", "see here (https://x.example)"),
        ("[https://x.example/a]", "https://x.example/a"),
        ("['flaky' | 'noflaky']", "['flaky' | 'noflaky']"),
        ("the *bold* {*}part{*} and _slanted_ snake_case_name", "the bold part and slanted snake_case_name"),
        ("{{spark.sql_conf*x*}} stays", "spark.sql_conf*x* stays"),
        ("{color:red}red{color} {color:#00ff00}green{color}", "red green"),
        ("!shot-1.png|width=300! seen", "seen"),
        ("Wow! That is great!", "Wow! That is great!"),
        ("C:\\\\temp is \\{escaped\\}", "C:\\\\temp is {escaped}"),
        ("* a\n** b\n# one\n# two", "- a\n  - b\n1. one\n2. two"),
        ("{quote}said{quote}\nanswered", "> said\n\nanswered"),
        ("bq. said", "> said"),
        ("run {code}x = 1{code} now", "run x = 1 now"),
        ("call {noformat}a_b_{noformat} twice", "call a_b_ twice"),
        ("[~hgadre] please", "@hgadre please"),
        ("http://x.example/_a_/b", "http://x.example/_a_/b"),
    ],
)
def test_wiki_markup_reads_as_text(markup: str, text: str) -> None:
    from alchemy.sources.drafts import joined

    parts = list(joined(wiki_parts(markup).parts))
    assert "\n".join(part.text.strip() for part in parts) == text


def test_a_wiki_table_becomes_rows() -> None:
    parts = wiki_parts("Before\n||Key||Value||\n|a|[x|https://x.example]|\nAfter").parts
    assert [(part.kind, part.text) for part in parts if part.text] == [
        ("prose", "Before"),
        ("table", "Key | Value\na | x"),
        ("prose", "After"),
    ]


def test_code_is_never_touched_and_an_unclosed_block_runs_to_the_end() -> None:
    parts = wiki_parts("Log:\n{noformat}\n*ERROR* [x|y] {{z}}\n  indented").parts
    assert [(part.kind, part.text.strip("\n")) for part in parts if part.text] == [
        ("prose", "Log:"),
        ("code", "*ERROR* [x|y] {{z}}\n  indented"),
    ]


@pytest.mark.parametrize(
    "text",
    ["*" * 50_000, "[" * 50_000, "{" * 50_000, "_a" * 50_000, "!a" * 50_000, "|" * 50_000, "{{" * 50_000],
)
def test_hostile_markup_takes_linear_time(text: str) -> None:
    wiki_parts(text)
    wiki_parts(f"{text}\n" * 3)
