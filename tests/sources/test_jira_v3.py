"""What the v3 API adds: document trees, change logs, and pages that do not hold all comments."""

import json
from typing import Any

from alchemy.sources.adf import adf_parts
from alchemy.sources.drafts import joined
from tests.sources.conftest import Read
from tests.sources.test_jira import ISSUE, with_fields


def text(value: str, *marks: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": value, **({"marks": list(marks)} if marks else {})}


def node(kind: str, *content: Any, **attrs: Any) -> dict[str, Any]:
    return {"type": kind, "attrs": attrs, "content": list(content)}


def paragraph(value: str) -> dict[str, Any]:
    return node("paragraph", text(value))


def shown(*blocks: Any) -> list[tuple[str, str]]:
    parts = adf_parts({"type": "doc", "version": 1, "content": list(blocks)}).parts
    return [(part.kind, part.text) for part in joined(parts)]


def test_lists_nest_and_their_paragraphs_stay_with_them() -> None:
    inner = node("orderedList", node("listItem", paragraph("c")), node("listItem", paragraph("d")), order=3)
    blocks = node("bulletList", node("listItem", paragraph("a"), paragraph("b"), inner))
    assert shown(paragraph("Steps"), blocks, paragraph("End")) == [
        ("prose", "Steps\n\n- a\n  b\n  3. c\n  4. d\n\nEnd")
    ]


def test_task_and_decision_lists_keep_their_state() -> None:
    tasks = node(
        "taskList", node("taskItem", text("done"), state="DONE"), node("taskItem", text("open"), state="TODO")
    )
    decisions = node("decisionList", node("decisionItem", text("Use Kafka"), state="DECIDED"))
    assert shown(tasks, decisions) == [("prose", "- [x] done\n- [ ] open\n\n- Use Kafka")]


def test_panels_expands_and_quotes_keep_their_content() -> None:
    assert shown(
        node("panel", paragraph("Do not restart."), panelType="warning"),
        node("expand", paragraph("Inside."), title="Details"),
        node("blockquote", paragraph("said")),
        node("layoutSection", node("layoutColumn", paragraph("left"))),
    ) == [("prose", "Warning: Do not restart.\n\nDetails\n\nInside.\n\n> said\n\nleft")]


def test_tables_and_code_are_parts_of_their_own() -> None:
    table = node(
        "table",
        node("tableRow", node("tableHeader", paragraph("Code")), node("tableHeader", paragraph("Sense"))),
        node("tableRow", node("tableCell", paragraph("HM-1"), paragraph("HM-2")), node("tableCell")),
    )
    assert shown(table, node("codeBlock", text("a_b = *1*\n  x"), language="python")) == [
        ("table", "Code | Sense\nHM-1 HM-2 |"),
        ("code", "a_b = *1*\n  x"),
    ]


def test_inline_nodes_read_as_text() -> None:
    block = node(
        "paragraph",
        {"type": "mention", "attrs": {"id": "5b10", "text": "@Owen Tait"}},
        text(" wrote "),
        {"type": "status", "attrs": {"text": "DONE"}},
        text(" on "),
        {"type": "date", "attrs": {"timestamp": "1767225600000"}},
        {"type": "hardBreak"},
        text("see "),
        text("here", {"type": "link", "attrs": {"href": "https://x.example/1"}}),
        text(" "),
        {"type": "inlineCard", "attrs": {"url": "https://x.example/2"}},
        {"type": "emoji", "attrs": {"shortName": ":tada:", "text": "🎉"}},
    )
    media = node("mediaSingle", {"type": "media", "attrs": {"type": "file", "alt": "The pump's curve"}})
    assert shown(block, media) == [
        (
            "prose",
            "@Owen Tait wrote DONE on 2026-01-01\nsee here (https://x.example/1) https://x.example/2🎉\n\n"
            "[The pump's curve]",
        )
    ]


def test_a_mention_of_a_document_tree_is_a_person(read: Read) -> None:
    mention = {"type": "mention", "attrs": {"text": "@Mara Lindqvist"}}
    tree = {"type": "doc", "content": [{"type": "paragraph", "content": [mention]}]}
    assert "Mara Lindqvist" in read("jira", "p.json", with_fields(description=tree)).draft.people


def test_trees_of_the_wrong_types_give_what_they_hold() -> None:
    assert (
        shown(7, None, {"type": 3}, node("table", 1, node("tableRow", 2)), node("heading", level="x")) == []
    )
    assert adf_parts({"content": "text"}).parts[0].text == ""


def test_a_page_without_all_comments_keeps_the_issue_and_says_so(read: Read) -> None:
    comment = {"comments": [{"author": {"displayName": "Owen Tait"}, "body": "Fixed."}] * 12, "total": 40}
    draft = read("jira", "p.json", with_fields(comment=comment)).draft
    assert draft.fields["comments_truncated"] == "12 of 40"
    assert (draft.metrics["comments"], draft.metrics["comments_missing"]) == (40, 28)


def test_the_change_log_becomes_the_statuses_in_order(read: Read) -> None:
    def change(created: str, field: str, before: str, after: str) -> dict[str, Any]:
        items = [{"field": field, "fromString": before, "toString": after}]
        return {"created": created, "author": {"displayName": "Noor Haddad"}, "items": items}

    histories = [
        change("2026-01-09T00:00:00.000+0000", "status", "In Progress", "Done"),
        change("2026-01-03T00:00:00.000+0000", "status", "Open", "In Progress"),
        change("2026-01-02T00:00:00.000+0000", "labels", "", "edge"),
    ]
    draft = read("jira", "p.json", json.dumps([{**ISSUE, "changelog": {"histories": histories}}])).draft
    assert draft.fields["status_history"] == "Open > In Progress > Done"
    assert draft.metrics["status_changes"] == 2
    assert "Noor Haddad" in draft.people


def test_one_issue_per_file_lines_arrays_and_pages_after_another_give_the_same_issues(read: Read) -> None:
    other = {**ISSUE, "key": "KAFKA-2"}
    page, second = {"startAt": 0, "issues": [ISSUE]}, {"startAt": 1, "issues": [other]}
    both = ["KAFKA-10010", "KAFKA-2"]
    assert read("jira", "KAFKA-10010.json", json.dumps(ISSUE, indent=1)).keys == both[:1]
    assert read("jira", "i.jsonl", f"{json.dumps(ISSUE)}\n{json.dumps(other)}\n").keys == both
    assert read("jira", "i.json", json.dumps([ISSUE, other], indent=1)).keys == both
    assert read("jira", "i.json", json.dumps(page, indent=1) + json.dumps(second, indent=1)).keys == both
    assert read("jira", "i.json", json.dumps([[ISSUE], [other]])).keys == both
    assert read("jira", "i.json", json.dumps([ISSUE]) + json.dumps([other])).keys == both
