"""From draft to document: exact blocks, sections, and nothing secret in anything that can be seen."""

import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.records import Document, Draft, Part, RawObject, Rejected, to_line
from alchemy.settings import CleanOptions
from alchemy.text.document import SEPARATOR, mask_rejected, normalize, to_document
from alchemy.text.sanitize import Sanitizer

SANITIZER = Sanitizer(b"salt of the tests")
RAW = RawObject("jira", "raw/jira/export.json", 100, "00" * 32)
ANY_LENGTH = CleanOptions(min_characters=0)


def draft(*parts: Part, title: str = "Broker fails", **changes) -> Draft:
    return Draft(
        **{"kind": "issue", "key": "K-1", "title": title, "parts": parts, "locator": "issues[0]", **changes}
    )


def document(*parts: Part, **changes) -> Document:
    made = to_document(draft(*parts, **changes), RAW, SANITIZER, ANY_LENGTH)
    assert isinstance(made, Document)
    return made


def blocks(made: Document) -> list[tuple[str, str, str]]:
    return [(block.kind, block.section, made.text[block.start : block.end]) for block in made.blocks]


def test_parts_become_blocks_with_exact_spans_under_their_sections():
    made = document(
        Part("Intro."),
        Part("# Install", "heading"),
        Part("Do this:"),
        Part("  make\n\tmake install\n", "code"),
        Part("## Linux", "heading"),
        Part("apt"),
        Part("# Use", "heading"),
        Part("a | b", "table"),
    )
    assert blocks(made) == [
        ("heading", "", "Broker fails"),
        ("prose", "", "Intro."),
        ("heading", "", "Install"),
        ("prose", "Install", "Do this:"),
        ("code", "Install", "  make\n\tmake install"),
        ("heading", "Install", "Linux"),
        ("prose", "Install > Linux", "apt"),
        ("heading", "", "Use"),
        ("table", "Use", "a | b"),
    ]


def test_a_heading_without_marks_begins_a_section_of_its_own():
    made = document(
        Part("Comment by A", "heading"),
        Part("one"),
        Part("Comment by B", "heading"),
        Part("two"),
        Part("#7", "heading"),
    )
    assert [section for kind, section, _ in blocks(made) if kind == "prose"] == [
        "Comment by A",
        "Comment by B",
    ]
    assert blocks(made)[-1] == ("heading", "", "#7")


def test_the_title_is_the_first_block_unless_the_text_begins_with_it():
    assert document(title="Fix the parser").text == "Fix the parser"
    assert document(Part("It was broken."), title="Fix it").text == "Fix it\n\nIt was broken."
    assert document(Part("Fix it\n\nIt was broken."), title="Fix it").text == "Fix it\n\nIt was broken."
    assert document(Part("Fixed."), title="Fix").text == "Fix\n\nFixed."
    page = document(Part("# Guide", "heading"), Part("## Use", "heading"), Part("so"), title="Guide")
    assert blocks(page) == [("heading", "", "Guide"), ("heading", "", "Use"), ("prose", "Use", "so")]


def test_a_commit_without_body_is_a_document_and_a_document_without_text_is_too_short():
    options = CleanOptions(min_characters=10)
    assert isinstance(to_document(draft(title="Fix the parser"), RAW, SANITIZER, options), Document)
    rejected = to_document(draft(Part("--- ..."), title="Fix it"), RAW, SANITIZER, options)
    assert isinstance(rejected, Rejected)
    assert (rejected.outcome, rejected.stage, rejected.reason) == ("filtered", "filter", "too_short")
    assert (rejected.source, rejected.raw_key, rejected.locator) == ("jira", RAW.key, "issues[0]")
    assert "5 letters" in rejected.detail


def test_white_space_control_and_invisible_characters_are_normalized():
    assert normalize("a\u200db\u202ec\U000e0041 e\u0301\u3000x\u00a0y\r\nz\x00") == "abc é x y\nz"
    made = document(Part(" two   words \t\n\n\n\n  next\u200b line "), title="  A \n title ")
    assert made.title == "A title"
    assert made.text == "A title\n\ntwo words\n\nnext line"


def test_code_and_tables_keep_their_indentation():
    assert blocks(document(Part("\n  if x:\n      y   z  \n\n", "code")))[1][2] == "  if x:\n      y   z"


def test_no_secret_survives_anywhere_in_the_document():
    secret = "ghp_" + "aB3dE5gH7jK9" * 3
    made = document(
        Part(f"Jane Doe put {secret} here", "code"),
        Part("Host"),
        Part("8.8.4.4"),  # an address only because of the part before it
        Part("# By Jane Doe", "heading"),
        Part("me\u200b@example.com, tokens: " + secret[:10] + "\u200c" + secret[10:]),
        title=f"Jane Doe lost {secret}",
        key="docs/jane@example.com.pdf",
        project="Jane Doe's",
        locator="inner/jane@example.com.eml",
        fields={
            "author": "Jane Doe",
            "cc": "Jane Doe <jane@example.com>",
            "note": f"token={secret}",
            "empty": " ",
        },
        people=("Jane Doe",),
        url="https://jane:hunter2@example.com/?user=jane%40example.com",
    )
    line = to_line(made).decode()
    assert not re.search(r"Jane|Doe|jane|hunter2|8\.8\.4\.4|me@", line)
    assert "aB3dE5" not in line
    assert SANITIZER.leaks(made.text) == []
    assert made.fields["author"] == SANITIZER.person("Jane Doe")
    assert "empty" not in made.fields
    assert f"By {SANITIZER.person('Jane Doe')}" in {block.section for block in made.blocks}


def test_author_fields_hold_pseudonyms_even_of_names_too_short_to_look_for():
    fields = {"author": "Bo", "reviewers": "Bo, Jane Doe", "assignee": "jenkins", "status": "Bo"}
    made = document(Part("Bo knows Jane Doe."), fields=fields)
    bo, jane = SANITIZER.person("Bo"), SANITIZER.person("Jane Doe")
    assert made.fields == {
        "author": bo,
        "reviewers": f"{bo}, {jane}",
        "assignee": "jenkins",
        "status": "Bo",
        "language": "und",
    }
    assert made.text.endswith(f"Bo knows {jane}.")


@pytest.mark.parametrize(
    "key", ["KAFKA-19836", "2b70202aaec3db48fd5ff4d996d974444a750a11", "docs/guide v1.2.3.pdf"]
)
def test_keys_without_findings_stay_as_they_are(key):
    assert document(key=key).id == f"jira:{key}"


def test_the_version_changes_with_everything_visible_and_with_nothing_else():
    base = document(Part("Text."), fields={"status": "Open"}, metrics={"votes": 1.0})
    assert document(Part("Text."), fields={"status": "Open"}, metrics={"votes": 1.0}).version == base.version
    changes = [
        document(Part("Other."), fields={"status": "Open"}, metrics={"votes": 1.0}),
        document(Part("Text."), fields={"status": "Done"}, metrics={"votes": 1.0}),
        document(Part("Text."), fields={"status": "Open"}, metrics={"votes": 2.0}),
        document(Part("Text.", "code"), fields={"status": "Open"}, metrics={"votes": 1.0}),
        document(Part("Text."), fields={"status": "Open"}, metrics={"votes": 1.0}, url="https://x.org"),
        document(Part("Text."), fields={"status": "Open"}, metrics={"votes": 1.0}, updated="2024-01-01"),
    ]
    assert len({base.version, *(one.version for one in changes)}) == len(changes) + 1
    moved = document(Part("Text."), fields={"status": "Open"}, metrics={"votes": 1.0}, locator="issues[9]")
    assert moved.version == base.version


def test_sizes_are_measured_and_numbers_that_are_none_left_out():
    made = document(
        Part("x = 1", "code"), Part("四个汉字 two words"), metrics={"votes": 2.0, "bad": float("nan")}
    )
    assert made.metrics["votes"] == 2.0
    assert "bad" not in made.metrics
    assert made.metrics["blocks"] == 3.0
    assert made.metrics["characters"] == float(len(made.text))
    assert made.metrics["words"] == 2 + 2 + 4 + 2
    assert made.metrics["code_share"] == pytest.approx(5 / len(made.text), abs=1e-6)
    assert all(isinstance(value, float) for value in made.metrics.values())


def rejected(sample: str) -> Rejected:
    return Rejected(
        "jira", "raw/a", "0", "line 1", "quarantined", "read", "bad_json", "by jane@example.com", sample
    )


def test_a_rejected_row_is_masked_before_it_is_cut():
    text = "x" * 190 + " jane.doe@example.com"  # cut first, "jane.doe@" would be left
    row = mask_rejected(rejected(text), SANITIZER)
    assert "jane" not in row.sample + row.detail
    assert "<EMAIL" not in row.sample  # half a pseudonym is none
    assert len(row.sample.encode()) <= 200


@given(st.text(max_size=300))
def test_a_sample_is_at_most_200_bytes_of_whole_characters_and_has_no_leak(text):
    row = mask_rejected(rejected(text), SANITIZER)
    assert len(row.sample.encode()) <= 200
    assert SANITIZER.leaks(row.sample) == []


parts = st.builds(
    Part,
    st.one_of(
        st.text(max_size=40),
        st.sampled_from(["jane@example.com", "## Use", "#", "Host", "8.8.4.4", "Jane Doe", " "]),
    ),
    st.sampled_from(["prose", "heading", "code", "table"]),
)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20), st.lists(parts, max_size=8))
def test_blocks_cover_the_text_exactly_and_hold_no_leak(title, parts):
    made = document(*parts, title=title, people=("Jane Doe",))
    assert SEPARATOR.join(made.text[block.start : block.end] for block in made.blocks) == made.text
    assert all(made.text[block.start : block.end].strip() for block in made.blocks)
    assert SANITIZER.leaks(made.text) == []
    assert "Jane Doe" not in made.text
    assert orjson.loads(to_line(made))["text"] == made.text


def test_a_fields_name_tells_what_its_value_is():
    fields = {"ip_address": "10.24.20.5", "password": "Tr0ub4dor&3", "version": "10.24.20.5"}
    made = document(Part("A server of the batch tier."), fields=fields)
    assert made.fields["ip_address"] == SANITIZER.pseudonym("IP", "10.24.20.5")
    assert "Tr0ub4dor" not in made.fields["password"]
    assert made.fields["version"] == "10.24.20.5"
