"""Pages of Confluence's REST API, versions 1 and 2."""

import json
from typing import Any

import pytest

from tests.sources.conftest import Outcome, Read

STORAGE = "<h1>Limits</h1><p>At&nbsp;most <strong>3</strong> MB.</p>"
PAGE: dict[str, Any] = {
    "id": "65541",
    "type": "page",
    "status": "current",
    "title": "Tollgate limits",
    "space": {"id": 1, "key": "ENG", "name": "Engineering"},
    "ancestors": [{"id": "1", "title": "Home"}, {"id": "2", "title": "Tollgate"}],
    "version": {"number": 4, "when": "2026-02-03T10:00:00.000Z", "by": {"displayName": "Noor Haddad"}},
    "history": {"createdDate": "2025-02-03T10:00:00.000Z", "createdBy": {"displayName": "Priya Raman"}},
    "metadata": {"labels": {"results": [{"prefix": "global", "name": "limits"}]}},
    "body": {"storage": {"value": STORAGE, "representation": "storage"}},
    "_links": {"base": "https://wiki.example", "webui": "/spaces/ENG/pages/65541"},
}
V2 = {
    "id": "65542",
    "status": "current",
    "title": "Glossary",
    "spaceId": "98306",
    "createdAt": "2026-01-01T00:00:00.000Z",
    "version": {"number": 2, "createdAt": "2026-01-02T00:00:00.000Z", "authorId": "x"},
    "body": {
        "atlas_doc_format": {
            "representation": "atlas_doc_format",
            "value": json.dumps(
                {
                    "type": "doc",
                    "content": [{"type": "paragraph", "content": [{"type": "text", "text": "A *term*."}]}],
                }
            ),
        }
    },
}


def reading(read: Read, *pages: Any) -> Outcome:
    return read(
        "confluence", "pages.json", json.dumps({"results": list(pages), "size": len(pages), "_links": {}})
    )


def test_a_page_of_the_first_version_becomes_a_draft(read: Read) -> None:
    draft = reading(read, PAGE).draft
    assert (draft.kind, draft.key, draft.title) == ("page", "ENG/65541", "Tollgate limits")
    assert (draft.project, draft.locator) == ("Engineering", "results[0]")
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("heading", "# Limits"),
        ("prose", "At most 3 MB."),
    ]
    assert draft.fields == {
        "space": "ENG",
        "path": "Home > Tollgate",
        "author": "Priya Raman",
        "labels": "limits",
        "created": "2025-02-03T10:00:00+00:00",
    }
    assert (draft.metrics["versions"], draft.metrics["headings"]) == (4, 1)
    assert draft.people == ("Noor Haddad", "Priya Raman")
    assert draft.url == "https://wiki.example/spaces/ENG/pages/65541"
    assert draft.updated == "2026-02-03T10:00:00+00:00"


def test_a_page_of_the_second_version_may_hold_a_document_tree(read: Read) -> None:
    draft = reading(read, V2).draft
    assert (draft.key, draft.parts[0].text) == ("98306/65542", "A *term*.")
    assert draft.updated == "2026-01-02T00:00:00+00:00"


@pytest.mark.parametrize("form", ["view", "export_view", "styled_view"])
def test_rendered_bodies_are_read_as_html(read: Read, form: str) -> None:
    page = {**PAGE, "body": {form: {"value": "<p>At most</p><pre>x  y</pre>", "representation": form}}}
    assert [part.text for part in reading(read, page).draft.parts] == ["At most", "x  y"]


def test_storage_is_preferred_to_a_rendered_body(read: Read) -> None:
    body = {"view": {"value": "<p>rendered</p>"}, **PAGE["body"]}
    assert "rendered" not in reading(read, {**PAGE, "body": body}).text


def test_expanded_comments_stand_at_the_end_of_their_page(read: Read) -> None:
    comment = {
        "body": {"storage": {"value": "<p>Still true?</p>"}},
        "version": {"by": {"displayName": "Owen Tait"}},
    }
    draft = reading(read, {**PAGE, "children": {"comment": {"results": [comment]}}}).draft
    assert [part.text for part in draft.parts[-2:]] == ["## Comment by Owen Tait", "Still true?"]
    assert draft.metrics["comments"] == 1
    assert "Owen Tait" in draft.people


def test_what_is_not_a_current_page_is_a_row(read: Read) -> None:
    outcome = reading(
        read,
        {**PAGE, "status": "trashed"},
        {**PAGE, "status": "draft"},
        {**PAGE, "type": "attachment"},
        {**PAGE, "title": None},
        {**PAGE, "body": {}},
        {**PAGE, "body": {"storage": {"value": "<div>" * 5000}}},
        {**PAGE, "body": {"atlas_doc_format": {"value": "{"}}},
        PAGE,
    )
    assert outcome.reasons == [
        "not_current",
        "not_current",
        "unsupported",
        "missing_field",
        "missing_field",
        "too_deep",
        "not_json",
    ]
    assert [row.outcome for row in outcome.rejected][:3] == ["filtered", "filtered", "quarantined"]
    assert outcome.keys == ["ENG/65541"]


def test_single_pages_lines_arrays_and_truncated_pages_are_read(read: Read) -> None:
    both = ["ENG/65541", "98306/65542"]
    assert read("confluence", "65541.json", json.dumps(PAGE, indent=1)).keys == both[:1]
    assert read("confluence", "p.jsonl", f"{json.dumps(PAGE)}\n{json.dumps(V2)}\n").keys == both
    assert read("confluence", "p.json", json.dumps([PAGE, V2])).keys == both
    assert (
        read("confluence", "p.json", json.dumps({"results": [PAGE]}) + json.dumps({"results": [V2]})).keys
        == both
    )
    outcome = read("confluence", "p.json", json.dumps({"results": [PAGE, V2]}, indent=1)[:-80])
    assert (outcome.keys, outcome.reasons) == (both[:1], ["truncated"])
