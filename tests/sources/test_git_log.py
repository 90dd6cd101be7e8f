"""What git prints: logs in several forms, and mailboxes of patches."""

import pytest

from alchemy.sources import git_log
from tests.sources.conftest import Read

FIRST = "5d62cb2b129feac9e74e62349aefb5f9099f48c1"
SECOND = "40801a0c2f2f5b151faccfec4494cf40d65f90ef"
HEADER = f"""commit {SECOND} (HEAD -> main, tag: v2, origin/main)
Author: Mara Lindqvist <mara@brinewell.example>
Date:   Fri Nov 20 20:12:42 2026 +0100

    HAUL-188 Merge
    percentiles

    The hourly one was averaged.
    commit {FIRST} had said so.

    Signed-off-by: Owen Tait <owen@brinewell.example>
"""
LAST = f"""commit {FIRST}
Merge: 4af9b2b 11aa22b
Author: Owen Tait <owen@brinewell.example>
Date:   Thu Nov 19 08:00:00 2026 +0000

    First
"""
NUMSTAT = "\n12\t3\tsiltstore/rollup.sql\n-\t-\tdocs/curve.png\n4\t0\tsrc/{old => new}/a.py\n\n"
FILES = "Files changed: siltstore/rollup.sql, docs/curve.png, src/new/a.py."
MAIL = f"""From {FIRST} Mon Sep 17 00:00:00 2001
From: =?UTF-8?q?Mara=20Lindqv=C3=AFst?= <mara@brinewell.example>
Date: Fri, 20 Nov 2026 20:12:42 +0100
Subject: [PATCH v2 1/2] HAUL-104 Answer oversized payloads instead of
 closing the connection
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit

It said nothing.

From now on it answers.
---
 src/uplink.py | 4 +++-
 1 file changed, 3 insertions(+), 1 deletion(-)

diff --git a/src/uplink.py b/src/uplink.py
index 7898192..6178079 100644
--- a/src/uplink.py
+++ b/src/uplink.py
@@ -1,2 +1,4 @@
 def send():
-    close()
+    answer(413)
+    # From {SECOND}
+    close()
-- 
2.39.5

"""


def test_a_plain_log_becomes_commits_in_order(read: Read) -> None:
    outcome = read("git", "log.txt", HEADER + "\n" + LAST)
    assert (outcome.keys, outcome.reasons) == ([SECOND, FIRST], [])
    second, first = outcome.drafts
    assert (second.kind, second.title, second.locator) == ("commit", "HAUL-188 Merge percentiles", "line 1")
    assert second.parts[0].text == f"The hourly one was averaged.\ncommit {FIRST} had said so."
    assert second.fields == {
        "author": "Mara Lindqvist",
        "date": "2026-11-20T20:12:42+01:00",
        "issues": "HAUL-188",
    }
    assert second.updated == "2026-11-20T20:12:42+01:00"
    assert second.people == ("Mara Lindqvist", "mara", "Owen Tait", "owen")
    assert first.fields["parents"] == "4af9b2b, 11aa22b"
    assert first.metrics["parents"] == 2


def test_numbers_of_lines_are_added_up_and_binary_files_count_as_none(read: Read) -> None:
    draft = read("git", "log.txt", HEADER + NUMSTAT + LAST).drafts[0]
    assert draft.parts[-1].text.endswith(FILES)
    assert (draft.metrics["files_changed"], draft.metrics["additions"], draft.metrics["deletions"]) == (
        3,
        16,
        3,
    )


def test_a_log_separated_by_nuls_reads_like_the_other(read: Read) -> None:
    fields = [
        "\n12\t3\tsiltstore/rollup.sql",
        "-\t-\tdocs/curve.png",
        "4\t0\t",
        "src/old/a.py",
        "src/new/a.py",
    ]
    nuls = "\0".join([*fields, "", ""])
    for data in (HEADER + nuls + LAST, f"{HEADER}\0{LAST}"):
        outcome = read("git", "log.txt", data)
        assert (outcome.keys, outcome.reasons) == ([SECOND, FIRST], [])
    draft = read("git", "log.txt", HEADER + nuls + LAST).drafts[0]
    assert draft.parts[-1].text.endswith(FILES)
    assert draft.metrics["additions"] == 16


@pytest.mark.parametrize(
    ("changes", "files", "additions"),
    [
        ("\n siltstore/rollup.sql | 15 +++---\n 1 file changed, 12 insertions(+), 3 deletions(-)\n", 1, 12),
        ("\nM\tsiltstore/rollup.sql\nR100\tsrc/old.py\tsrc/new.py\n", 2, None),
        ("\n:100644 100644 7898192 6178079 M\tsiltstore/rollup.sql\n", 1, None),
        ("\nsiltstore/rollup.sql\nsrc/new.py\n", 2, None),
        (
            "\ndiff --git a/siltstore/rollup.sql b/siltstore/rollup.sql\nindex 1..2 100644\n"
            "--- a/siltstore/rollup.sql\n+++ b/siltstore/rollup.sql\n@@ -1 +1,2 @@\n-a\n+b\n+c\n\n",
            1,
            2,
        ),
    ],
)
def test_every_way_to_list_changes_is_understood(
    read: Read, changes: str, files: int, additions: int | None
) -> None:
    draft = read("git", "log.txt", HEADER + changes + "\n" + LAST).drafts[0]
    assert draft.metrics["files_changed"] == files
    assert draft.metrics.get("additions") == additions
    assert "Files changed: siltstore/rollup.sql" in draft.parts[-1].text


def test_fuller_and_raw_logs_keep_the_date_of_the_author(read: Read) -> None:
    fuller = f"""commit {FIRST}
Author:     Mara Lindqvist <mara@brinewell.example>
AuthorDate: Fri Nov 20 20:12:42 2026 +0100
Commit:     Noor Haddad <noor@brinewell.example>
CommitDate: Sat Nov 21 20:12:42 2026 +0100

    One
"""
    unformatted = f"""commit {SECOND}
tree {FIRST}
parent {FIRST}
author Mara Lindqvist <mara@brinewell.example> 1795201962 +0100
committer Noor Haddad <noor@brinewell.example> 1795288362 +0100

    Two
"""
    for data in (fuller, unformatted):
        draft = read("git", "log.txt", data).draft
        assert draft.updated == "2026-11-20T20:12:42+01:00"
        assert draft.people == ("Mara Lindqvist", "mara", "Noor Haddad")


def test_logs_of_other_encodings_are_read_commit_by_commit(read: Read) -> None:
    french = HEADER.replace("averaged", "lissée").encode("cp1252")
    outcome = read("git", "log.txt", french + b"\n" + LAST.replace("First", "Première").encode())
    assert "lissée" in outcome.text
    assert outcome.drafts[1].title == "Première"
    for encoding in ("utf-16", "utf-8-sig"):
        outcome = read("git", "log.txt", f"{HEADER}\r\n{LAST}".encode(encoding))
        assert outcome.keys == [SECOND, FIRST]


def test_a_commit_without_a_message_and_one_over_the_limit_cost_only_themselves(read: Read) -> None:
    silent = LAST.replace("    First\n", "").replace(FIRST, "a" * 40)
    huge = HEADER.replace(SECOND, "b" * 40) + "\n" + "    word\n" * 40_000
    outcome = read("git", "log.txt", silent + "\n" + huge + "\n" + LAST, max_document_bytes=100_000)
    assert outcome.keys == [FIRST]
    assert [(row.reason, row.locator) for row in outcome.rejected] == [
        ("missing_field", "line 1"),
        ("too_large", "line 7"),
    ]


def test_a_log_that_stops_in_the_middle_keeps_what_it_says(read: Read) -> None:
    whole = HEADER + NUMSTAT + LAST
    for cut in range(len(whole) - 200, len(whole), 7):
        outcome = read("git", "log.txt", whole[:cut])
        assert outcome.keys[0] == SECOND
        assert len(outcome.rows) in (1, 2)


def test_one_endless_line_is_too_large(read: Read) -> None:
    outcome = read("git", "log.txt", HEADER + "    " + "x" * 300_000, max_document_bytes=100_000)
    assert outcome.reasons == ["too_large"]


def test_a_mailbox_of_patches_becomes_commits(read: Read) -> None:
    outcome = read(
        "git", "series.mbox", MAIL + MAIL.replace(FIRST, SECOND).replace("---\n src", "\n---\n src")
    )
    assert (outcome.keys, outcome.reasons) == ([FIRST, SECOND], [])
    draft = outcome.drafts[0]
    assert draft.title == "HAUL-104 Answer oversized payloads instead of closing the connection"
    assert draft.parts[0].text == (
        "It said nothing.\n\nFrom now on it answers.\n\nFiles changed: src/uplink.py."
    )
    assert draft.people == ("Mara Lindqvïst", "mara")
    assert draft.updated == "2026-11-20T20:12:42+01:00"
    assert (draft.metrics["additions"], draft.metrics["deletions"]) == (3, 1)


def test_a_patch_that_someone_else_sent_belongs_to_its_author(read: Read) -> None:
    mail = MAIL.replace("\nIt said", "\nFrom: Owen Tait <owen@brinewell.example>\n\nIt said")
    draft = read("git", "one.patch", mail).draft
    assert draft.fields["author"] == "Owen Tait"
    assert draft.parts[0].text.startswith("It said nothing.")


def test_patches_with_broken_headers_never_raise(read: Read) -> None:
    for line in (
        "Content-Transfer-Encoding: base64",
        "Content-Type: text/plain; charset=nonsense",
        "Date: soon",
    ):
        outcome = read("git", "one.patch", MAIL.replace("MIME-Version: 1.0", line))
        assert len(outcome.rows) == 1


@pytest.mark.parametrize(
    "text", ["{" * 50_000, " => " * 20_000, "a | " * 20_000, "\t" * 50_000, "| " * 30_000]
)
def test_hostile_lines_take_linear_time(text: str) -> None:
    record: dict[str, object] = {}
    git_log._changes(record, [f" {text}", text, f"1\t2\t{text}", f"diff --git a/{text}"])
