"""Why a reader turns something away: the reason codes, and the two ways to say so.

A parser raises `Unreadable`; the code that knows the raw object turns it into a `Rejected` row. Both name a
code of `REASONS`. `docs/quarantine.md` is printed from here: `python -m alchemy.sources.reasons`.
"""

import errno

from alchemy.errors import Unavailable
from alchemy.records import Outcome, RawObject, Rejected
from alchemy.text.decode import excerpt

REASONS = {
    "empty": "The file, or every page of the document, holds nothing.",
    "undecodable": "The bytes are not text in any encoding that is known here.",
    "not_json": "The text is not JSON.",
    "truncated": "The data stops in the middle of a record; the records before it were read.",
    "too_deep": "The record nests deeper than the reader's limit.",
    "wrong_shape": "The record or one of its fields is not of the type that the format has.",
    "missing_field": "The record lacks a field that it cannot do without.",
    "encrypted": "The document can be opened only with a password.",
    "broken": "The file is damaged, or is not of the format that its name says.",
    "no_text_layer": "The document shows only pictures; it holds no text to read.",
    "extractor_crashed": "The process that extracts text from the document died on it.",
    "timeout": "Extracting text from the document took longer than the limit.",
    "memory_limit": "Extracting text from the document took more memory than the limit.",
    "too_large": "The file or record is larger than the limit.",
    "bomb": "The archive unpacks to far more data than a document would.",
    "unsupported": "The format is not one that this source reads.",
    "ragged_row": "The row has another number of columns than its table.",
    "unreadable_record": "The record could not be read for a reason that the reader does not know.",
    "unreadable_file": "The file could not be opened or read.",
    "no_text": "The row holds only keys, numbers and dates, and nothing to read.",
    "incomplete_dump": "The file belongs to a dump of several files, and they did not come together.",
    "unsafe_member": "The member of an archive is a link or a device, or its path leads out of the archive.",
    "too_many_members": "The archive has more members than the limit; the first ones were read.",
    "system_file": "An operating system put the file into the archive; it is no content.",
    "unsafe_xml": "The XML declares entities of its own, which are never expanded.",
    "not_current": "The page is a draft, a deleted one or an old version; only current ones are read.",
    "too_short": "Title and text together have fewer letters and digits than the option asks for.",
    "boilerplate": "The page or file is almost only licence, navigation or automatic text.",
    "superseded": "A newer version of the same record is published.",
    "exact_duplicate": "A record with the same content is published.",
    "near_duplicate": "A document with almost the same words and the same identifiers is published.",
    "disappeared": "The object was removed between listing and reading.",
    "changed_while_read": "The object has other bytes than were listed; the next run reads it again.",
}

# What a person can do about each; a code without an entry fails a test.
REMEDIES = {
    "empty": "Nothing, unless the file should hold something: then upload it again.",
    "undecodable": "Save the file as UTF-8 and upload it again.",
    "not_json": "Compare the sample with the export's format; export again.",
    "truncated": "Export or upload again; the transfer or the export was cut off.",
    "too_deep": "Unpack the inner archives, or flatten the record, and upload the result.",
    "wrong_shape": "Look at `detail` for the field; mend the export, or report the format.",
    "missing_field": "Export again with the field that `detail` names.",
    "encrypted": "Remove the password and upload it again.",
    "broken": "Open the file with the program that made it, save it anew, and upload it again.",
    "no_text_layer": "Run the scan through OCR and upload the result.",
    "extractor_crashed": "Save the document anew, or as PDF. The other files were not affected.",
    "timeout": "Split the document, or raise `extract_seconds`.",
    "memory_limit": "Split the document, or raise `extract_memory_mb`.",
    "too_large": "Split the file or record, or raise `max_document_bytes`.",
    "bomb": "Make sure that the archive is meant to be there; then unpack it and upload its files.",
    "unsupported": "Convert the file to a format that is read, or remove it.",
    "ragged_row": "Mend the row: most often a delimiter or a quote inside a cell is not escaped.",
    "unreadable_record": "Report it with the locator: the reader has a gap here.",
    "unreadable_file": "Check the permissions of the file and the health of the disk.",
    "no_text": "Nothing; numbers and keys are used by the feature stages, not by the search.",
    "incomplete_dump": "Upload the dump's whole folder as one tar or zip file, or use `pg_dump -Fc`.",
    "unsafe_member": "Pack the archive again with plain files and relative paths.",
    "too_many_members": "Split the archive.",
    "system_file": "Nothing.",
    "unsafe_xml": "Export again with a tool that writes no entity declarations.",
    "not_current": "Nothing.",
    "too_short": "Nothing, or lower `min_characters`.",
    "boilerplate": "Nothing.",
    "near_duplicate": "Nothing.",
    "exact_duplicate": "Nothing.",
    "superseded": "Nothing.",
    "disappeared": "Nothing, if it was removed on purpose.",
    "changed_while_read": "Nothing; the next run reads it again. Upload under a temporary name and rename.",
}


class Unreadable(Exception):
    """A record or file that cannot become a draft. Caught inside `alchemy.sources`; never leaves it."""

    def __init__(self, reason: str, detail: str, outcome: Outcome = "quarantined") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.outcome = outcome


def reject(
    raw: RawObject,
    reason: str,
    detail: str,
    *,
    locator: str = "",
    sample: bytes | str = b"",
    outcome: Outcome = "quarantined",
) -> Rejected:
    """A row about one record (or the file, with locator "") of `raw`."""
    assert reason in REASONS, reason
    return Rejected(
        raw.source, raw.key, raw.sha256, locator, outcome, "read", reason, detail, excerpt(sample)
    )


def rejected_by(
    error: Exception, raw: RawObject, *, locator: str = "", sample: bytes | str = b""
) -> Rejected:
    """The row for an exception raised while one record was read; the unexpected keep only their type.

    Raises:
        Unavailable: The exception says that the disk is full.
    """
    stop_if_disk_full(error)
    if isinstance(error, Unreadable):
        return reject(raw, error.reason, error.detail, locator=locator, sample=sample, outcome=error.outcome)
    detail = f"Reading the record failed with {type(error).__name__}."
    return reject(raw, "unreadable_record", detail, locator=locator, sample=sample)


def stop_if_disk_full(error: Exception) -> None:
    """A full disk is no fault of the data: a row would stay for ever, while the next run may succeed.

    Raises:
        Unavailable: There is no space for temporary files.
    """
    if isinstance(error, Unavailable):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise Unavailable("There is no space for temporary files; free some or set TMPDIR.") from error


def documentation() -> str:
    """The text of `docs/quarantine.md`."""
    lines = [
        "# Why a record was rejected",
        "",
        "Every record that does not become a document is a row in the quarantine, with the raw object, the",
        "place inside it (`locator`), the stage, one of these codes, a sentence (`detail`), and a masked",
        "sample.",
        "For every source, `records_in = kept + duplicate + filtered + quarantined`.",
        "",
        "<!-- Written by `python -m alchemy.sources.reasons > docs/quarantine.md`; a test compares them. -->",
        "",
        "| code | what it means | what to do |",
        "|---|---|---|",
        *(f"| `{code}` | {meaning} | {REMEDIES[code]} |" for code, meaning in REASONS.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(documentation(), end="")
