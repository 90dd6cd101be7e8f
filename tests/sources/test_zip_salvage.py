"""Zip files that lost their directory: what is whole is read, and one row says that some may be missing."""

import io
import zipfile
from pathlib import Path

import pytest

from alchemy.sources.archives import ArchiveLimits
from tests.sources.conftest import Read
from tests.sources.test_archives import NOTE, limited, zipped

MEMBERS = {"a.txt": NOTE, "sub/b.txt": NOTE * 3, "c.md": b"# Title\n\nText."}
KEYS = ["a.zip/a.txt", "a.zip/sub/b.txt", "a.zip/c.md"]


class Pipe(io.RawIOBase):
    """An output that cannot seek: sizes then stand after the data."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += bytes(data)
        return len(data)


def piped(members: dict[str, bytes], method: int) -> bytes:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return pipe.data


def without_directory(data: bytes) -> bytes:
    return data[: data.index(b"PK\x01\x02")]


def test_members_of_a_zip_without_its_directory_are_read_and_one_row_says_so(read: Read) -> None:
    outcome = read("documents", "a.zip", without_directory(zipped({**MEMBERS, "folder/": b""})))
    assert outcome.keys == KEYS
    assert [(row.reason, row.locator) for row in outcome.rejected] == [("truncated", "")]
    assert "3 of its files" in outcome.rejected[0].detail


@pytest.mark.parametrize("damage", [b"\xff" * 4, b"PK\x01\x02"[::-1]])
def test_a_directory_that_is_damaged_counts_as_missing(read: Read, damage: bytes) -> None:
    outcome = read("documents", "a.zip", zipped(MEMBERS).replace(b"PK\x01\x02", damage))
    assert (outcome.keys, outcome.reasons) == (KEYS, ["truncated"])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_sizes_that_stand_after_the_data_are_found(read: Read, method: int) -> None:
    outcome = read("documents", "a.zip", without_directory(piped(MEMBERS, method)))
    assert (outcome.keys, outcome.reasons) == (KEYS, ["truncated"])
    assert outcome.drafts[0].parts[0].text == NOTE.decode()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("pipe", [True, False])
def test_sizes_of_zip64_are_read(read: Read, method: int, pipe: bool) -> None:
    out = Pipe() if pipe else io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in MEMBERS.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    whole = out.data if isinstance(out, Pipe) else out.getvalue()  # type: ignore[attr-defined]
    outcome = read("documents", "a.zip", without_directory(whole))
    assert (outcome.keys, outcome.reasons) == (KEYS, ["truncated"])


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
@pytest.mark.parametrize("pipe", [True, False])
def test_a_member_that_is_cut_gives_its_beginning_and_a_row_of_its_own(
    read: Read, method: int, pipe: bool
) -> None:
    table = b"id,text\n" + b"".join(b"%d,word %x\n" % (n, n * 2654435761 % (1 << 32)) for n in range(120_000))
    members = {"first.csv": b"name,city\nAurora,Bonn\n", "long.csv": table}
    if pipe:
        data = piped(members, method)
    else:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        data = out.getvalue()
    outcome = read("database", "a.zip", data[: len(data) * 2 // 3])
    assert outcome.keys[0] == "a.zip/first.csv#1"
    assert 1000 < len(outcome.drafts) < 120_000
    assert [(row.reason, row.locator) for row in outcome.rejected[-2:]] == [
        ("truncated", "long.csv"),
        ("truncated", ""),
    ]


def test_a_damaged_header_costs_its_member_and_the_next_ones_are_found(read: Read) -> None:
    data = without_directory(zipped(MEMBERS))
    second = data.index(b"PK\x03\x04", 4)
    outcome = read("documents", "a.zip", data[:second] + b"\0\0\0\0" + data[second + 4 :])
    assert outcome.keys == ["a.zip/a.txt", "a.zip/c.md"]


def test_damaged_data_costs_only_its_member(read: Read) -> None:
    data = without_directory(zipped(MEMBERS))
    at = data.index(b"a.txt") + len("a.txt") + 4
    outcome = read("documents", "a.zip", data[:at] + b"\xff\xff\xff" + data[at + 3 :])
    assert outcome.keys == KEYS[1:]
    assert [(row.reason, row.locator) for row in outcome.rejected] == [("broken", "a.txt"), ("truncated", "")]


def test_a_stored_archive_inside_is_one_member_and_not_its_parts(read: Read) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.zip", zipped({"note.txt": NOTE}))
        archive.writestr("after.txt", NOTE)
    data = out.getvalue()
    directory = data.index(b"PK\x01\x02", data.index(b"after.txt"))
    for end in (directory, directory + 20):
        outcome = read("documents", "a.zip", data[:end])
        assert outcome.keys == ["a.zip/inner.zip/note.txt", "a.zip/after.txt"]
        assert outcome.reasons == ["truncated"]


def test_unsafe_locked_and_system_members_are_refused_as_ever(read: Read) -> None:
    data = bytearray(zipped({"locked.txt": NOTE, "../out": NOTE, "__MACOSX/._a": b"x", "ok.txt": NOTE}))
    data[6] |= 1
    outcome = read("documents", "a.zip", without_directory(bytes(data)))
    assert outcome.keys == ["a.zip/ok.txt"]
    assert outcome.reasons == ["encrypted", "unsafe_member", "system_file", "truncated"]


def test_a_link_is_the_text_that_it_holds_and_nothing_follows_it(read: Read, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("The secret of the carrier")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
        archive.writestr("note.txt", NOTE)
    outcome = read("documents", "a.zip", without_directory(out.getvalue()))
    assert "secret of the carrier" not in outcome.text
    assert outcome.keys[-1] == "a.zip/note.txt"


def test_sizes_that_claim_to_be_endless_end_with_the_file(read: Read) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a.txt", "w", force_zip64=True) as member:
        member.write(NOTE)
    data = bytearray(without_directory(out.getvalue()))
    data[18:26] = b"\xff" * 8
    data[39:55] = b"\xff" * 16  # behind the name and the head of the extra field
    outcome = read("documents", "a.zip", bytes(data))
    assert set(outcome.reasons) == {"truncated"}


def test_the_limits_hold_without_a_directory(tmp_path: Path) -> None:
    data = without_directory(zipped({f"{n}.txt": NOTE * 10 for n in range(5)}))
    found = limited(tmp_path / "a", data, ArchiveLimits(members=2))
    assert found == ["a.zip/0.txt", "a.zip/1.txt", "too_many_members"]
    found = limited(tmp_path / "a", data, ArchiveLimits(total_bytes=1000))
    assert found == ["a.zip/0.txt", "a.zip/1.txt", "bomb"]
    bomb = without_directory(zipped({"zeros.txt": b"\0" * (2 << 20), "note.txt": NOTE}))
    found = limited(tmp_path / "a", bomb, ArchiveLimits(any_ratio_bytes=1 << 20))
    assert found == ["bomb", "a.zip/note.txt", "truncated"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_no_method_unpacks_a_bomb_at_once(read: Read, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("note.txt", NOTE)
        archive.writestr("zeros.txt", b"\0" * (80 << 20))
    whole = read("documents", "a.zip", out.getvalue())
    assert (whole.keys, whole.reasons) == (["a.zip/note.txt"], ["bomb"])


def test_a_cut_office_document_under_another_name_is_not_read_as_its_xml(read: Read) -> None:
    document = zipped({"[Content_Types].xml": b"<a/>", "word/document.xml": b"<a>Text</a>"})
    outcome = read("documents", "manual", without_directory(document))
    assert (outcome.keys, outcome.reasons) == ([], ["truncated"])


def test_every_cut_and_every_flipped_byte_ends_in_rows_and_never_in_an_exception(read: Read) -> None:
    data = zipped({"a.txt": NOTE, "b.txt": NOTE})
    for end in range(4, len(data)):
        assert read("documents", "a.zip", data[:end]).rejected
    for at in range(4, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        assert "unreadable_record" not in read("documents", "a.zip", bytes(damaged)).reasons
