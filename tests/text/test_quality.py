"""Pages and files without a word of their own are filtered, with the counts that say why."""

import pytest

from alchemy.records import Document, Part, Rejected
from alchemy.settings import CleanOptions
from alchemy.text.document import to_document
from tests.text.test_document import RAW, SANITIZER, draft

APACHE = """Licensed to the Apache Software Foundation (ASF) under one
or more contributor license agreements.  See the NOTICE file
distributed with this work for additional information."""
MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, INCLUDING THOSE OF MERCHANTABILITY."""
CONTENT = (
    "The scheduler of the batch tier waits for its own lock; restart it with the command in the runbook."
)


def judged(*texts: str, kind: str = "page", **options) -> Document | Rejected:
    return to_document(
        draft(*(Part(text) for text in texts), kind=kind, title="A title of a page"),
        RAW,
        SANITIZER,
        CleanOptions(min_characters=0, **options),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (APACHE, "license"),
        (MIT, "license"),
        ("Home | Documentation | Download\nNext » Previous\nCopyright © 2024 Example Inc.", "navigation"),
        ("首页 | 下载 | 联系我们", "navigation"),
        ("This is an automatically generated e-mail. Please ignore it.", "automatic"),
        ("Page was moved to the other guide, please follow the link.", "automatic"),
    ],
)
def test_a_page_of_boilerplate_is_filtered_with_its_counts(text, reason):
    row = judged(text)
    assert isinstance(row, Rejected)
    assert (row.outcome, row.stage, row.reason) == ("filtered", "filter", "boilerplate")
    assert f"({reason} " in row.detail
    assert row.sample


@pytest.mark.parametrize("text", [APACHE, "Home | Download"])
def test_a_page_with_content_beside_it_stays(text):
    assert isinstance(judged(text, CONTENT), Document)


@pytest.mark.parametrize("kind", ["issue", "commit", "row", "pull_request", "feedback"])
def test_records_are_facts_and_stay_whatever_their_text(kind):
    assert isinstance(judged(APACHE, kind=kind), Document)


def test_code_counts_as_content_and_a_share_of_zero_turns_the_filter_off():
    assert isinstance(judged("Download\nContents", boilerplate_share=0), Document)
    made = to_document(
        draft(Part("Home"), Part("license copyright warranty", "code"), kind="file"),
        RAW, SANITIZER, CleanOptions(),
    )  # fmt: skip
    assert isinstance(made, Document)


def test_the_language_is_a_field_of_the_document():
    made = judged(CONTENT)
    assert isinstance(made, Document)
    assert made.fields["language"] == "en"
