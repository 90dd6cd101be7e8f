import bz2
import errno
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import zstandard

from alchemy import sources
from alchemy.errors import Unavailable
from alchemy.records import RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.archives import ArchiveLimits, archive_kind, read_archive
from tests.sources.conftest import Read

CSV = b"name,city\nAurora,Bonn\nBoreas,Rome\n"
NOTE = b"Call the carrier\n\nRoaming starts at six."
COMMIT = orjson.dumps({"sha": "a" * 40, "subject": "Fix the gate", "author": "Lucie Marchand"})


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(members: dict[str, bytes], extra: Callable[[tarfile.TarFile], None] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if extra:
            extra(archive)
    return out.getvalue()


PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


def test_a_zip_reads_as_its_members_would(read: Read) -> None:
    outcome = read("database", "backup.zip", zipped({"shop/ships.csv": CSV, "shop/crew.csv": CSV}))
    assert outcome.keys == [
        "backup.zip/shop/ships.csv#1",
        "backup.zip/shop/ships.csv#2",
        "backup.zip/shop/crew.csv#1",
        "backup.zip/shop/crew.csv#2",
    ]
    assert outcome.drafts[0].locator == "shop/ships.csv: row 1"


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_files_and_packed_tars_of_every_source_are_read(read: Read, suffix: str) -> None:
    pack = PACKERS[suffix]
    single = read("git", f"log.jsonl.{suffix}", pack(COMMIT))
    assert (single.draft.key, single.draft.locator) == ("a" * 40, "log.jsonl: line 1")
    many = read(
        "documents", f"docs.tar.{suffix}", pack(tarred({"a/note.txt": NOTE, "b.md": b"# Title\n\nText."}))
    )
    assert many.keys == [f"docs.tar.{suffix}/a/note.txt", f"docs.tar.{suffix}/b.md"]
    assert [draft.locator for draft in many.drafts] == ["a/note.txt", "b.md"]


@pytest.mark.parametrize("suffix", ["bz2", "gz", "zst", "xz"])
def test_streams_one_after_another_are_one_file(read: Read, suffix: str) -> None:
    half = len(CSV) // 2
    data = PACKERS[suffix](CSV[:half]) + PACKERS[suffix](CSV[half:])
    assert len(read("database", f"a.csv.{suffix}", data).drafts) == 2


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_that_stops_gives_its_beginning_and_a_row(read: Read, suffix: str) -> None:
    lines = b"".join(b"%d,word %x\n" % (n, n * 2654435761 % (1 << 32)) for n in range(200_000))
    data = PACKERS[suffix](b"id,text\n" + lines)
    outcome = read("database", f"a.csv.{suffix}", data[: len(data) * 3 // 4])
    assert 1000 < len(outcome.drafts) < 200_000
    assert outcome.reasons[-1] == "truncated"
    assert outcome.rejected[-1].locator == "a.csv"


def test_archives_inside_archives_read_three_deep(read: Read) -> None:
    inner = zipped({"note.txt": NOTE})
    middle = tarred({"inner.zip": inner, "beside.txt": NOTE})
    outcome = read("documents", "outer.zip", zipped({"middle.tar": middle}))
    assert outcome.keys == [
        "outer.zip/middle.tar/inner.zip/note.txt",
        "outer.zip/middle.tar/beside.txt",
    ]
    deeper = read("documents", "outer.zip", zipped({"1.zip": zipped({"2.zip": zipped({"3.zip": inner})})}))
    assert [(row.reason, row.locator) for row in deeper.rejected] == [("too_deep", "1.zip/2.zip/3.zip")]


def test_members_that_lead_out_link_or_are_devices_are_refused_and_the_others_read(read: Read) -> None:
    def extra(archive: tarfile.TarFile) -> None:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("dev", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)

    outcome = read("documents", "a.tar", tarred({"../out": NOTE, "/abs": NOTE, "ok.txt": NOTE}, extra))
    assert outcome.keys == ["a.tar/ok.txt"]
    assert [(row.locator, row.reason) for row in outcome.rejected] == [
        (name, "unsafe_member") for name in ("../out", "/abs", "link", "hard", "dev")
    ]


def test_windows_paths_and_symbolic_links_of_a_zip_are_refused(read: Read) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("..\\out.txt", NOTE)
        archive.writestr("C:\\out.txt", NOTE)
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("sub\\in.txt", NOTE)
        archive.writestr("__MACOSX/._in.txt", b"x")
    outcome = read("documents", "a.zip", out.getvalue())
    assert outcome.keys == ["a.zip/sub/in.txt"]
    assert outcome.reasons == ["unsafe_member", "unsafe_member", "unsafe_member", "system_file"]


def test_an_encrypted_member_is_a_row_with_its_name(read: Read) -> None:
    data = bytearray(zipped({"locked.txt": NOTE, "open.txt": NOTE}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    outcome = read("documents", "a.zip", bytes(data))
    assert (outcome.keys, outcome.reasons) == (["a.zip/open.txt"], ["encrypted"])
    assert outcome.rejected[0].locator == "locked.txt"
    assert outcome.rejected[0].raw_key == "raw/documents/a.zip"


def test_a_damaged_member_costs_only_itself(read: Read) -> None:
    data = zipped({"bad.txt": NOTE * 3, "good.txt": NOTE})
    at = data.index(b"bad.txt") + len("bad.txt") + 4
    outcome = read("documents", "a.zip", data[:at] + b"\xff\xff\xff" + data[at + 3 :])
    assert (outcome.keys, outcome.reasons) == (["a.zip/good.txt"], ["broken"])


def test_a_bomb_is_stopped_by_what_it_unpacks_to_and_its_neighbors_are_read(read: Read) -> None:
    outcome = read("documents", "a.zip", zipped({"zeros.txt": b"\0" * (80 << 20), "note.txt": NOTE}))
    assert (outcome.keys, outcome.reasons) == (["a.zip/note.txt"], ["bomb"])


def test_cut_archives_say_so_and_keep_what_is_whole(read: Read) -> None:
    data = tarred({"a.txt": NOTE, "b.txt": NOTE * 100})
    outcome = read("documents", "a.tar", data[: 512 * 4])
    assert outcome.keys[0] == "a.tar/a.txt"
    assert "truncated" in outcome.reasons
    cut = read("documents", "a.zip", zipped({"a.txt": NOTE})[:50])
    assert [(row.reason, row.locator) for row in cut.rejected] == [("truncated", "a.txt"), ("truncated", "")]


def test_a_bad_header_inside_a_tar_is_not_taken_for_its_end(read: Read) -> None:
    data = bytearray(tarred({"a.txt": NOTE, "b.txt": NOTE}))
    data[1024 : 1024 + 100] = b"\xff" * 100
    outcome = read("documents", "a.tar", bytes(data))
    assert (outcome.keys, outcome.reasons) == (["a.tar/a.txt"], ["broken"])


def test_archives_and_members_without_content_are_empty(read: Read) -> None:
    assert read("documents", "a.zip", zipped({})).reasons == ["empty"]
    assert read("documents", "a.zip", zipped({"folder/": b""})).reasons == ["empty"]
    assert read("documents", "a.zip", zipped({"blank.txt": b" \n"})).reasons == ["empty"]
    assert read("documents", "a.txt.gz", gzip.compress(b"")).reasons == ["empty"]


def limited(path: Path, data: bytes, limits: ArchiveLimits) -> list[object]:
    path.write_bytes(data)
    raw = RawObject("documents", "raw/documents/a.zip", len(data), "0" * 64)
    kind = archive_kind(path, raw.key)
    rows = read_archive(raw, path, kind, CleanOptions(), sources._read_file, limits)
    return [row.reason if isinstance(row, Rejected) else row.key for row in rows]


def test_members_beyond_the_limit_are_one_row(tmp_path: Path) -> None:
    data = zipped({f"{n}.txt": NOTE for n in range(5)})
    assert limited(tmp_path / "a", data, ArchiveLimits(members=2)) == [
        "a.zip/0.txt",
        "a.zip/1.txt",
        "too_many_members",
    ]
    nested = zipped({"in.zip": data, "after.txt": NOTE})
    assert limited(tmp_path / "a", nested, ArchiveLimits(members=3))[-1] == "too_many_members"
    huge = ArchiveLimits(directory_bytes=10)
    assert limited(tmp_path / "a", data, huge) == ["too_many_members"]


def test_the_total_size_is_limited_over_all_members(tmp_path: Path) -> None:
    data = zipped({f"{n}.txt": NOTE * 10 for n in range(5)})
    found = limited(tmp_path / "a", data, ArchiveLimits(total_bytes=1000))
    assert found == ["a.zip/0.txt", "a.zip/1.txt", "bomb"]


def test_an_extended_header_that_claims_to_be_huge_is_refused(tmp_path: Path, read: Read) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    outcome = read("documents", "a.tar", info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert outcome.drafts == []
    assert len(outcome.rejected) == 1


def test_office_documents_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(zipped({"[Content_Types].xml": b"<a/>", "word/document.xml": b"<a/>"}))
    assert archive_kind(path, "x.bin") == ""
    path.write_bytes(b"PK\x03\x04 cut")
    assert (archive_kind(path, "a.docx"), archive_kind(path, "a.zip")) == ("", "zip")


def test_a_zip64_directory_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(
        b"PK\x03\x04"
        + struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
        + struct.pack("<4sLQL", b"PK\x06\x07", 0, 4, 1)
        + struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )
    raw = RawObject("documents", "raw/documents/a.zip", path.stat().st_size, "0" * 64)
    (row,) = sources.read(raw, path, CleanOptions())
    assert isinstance(row, Rejected)
    assert row.reason == "truncated"


def test_a_full_disk_is_no_fault_of_the_archive_and_is_told_to_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "object"
    path.write_bytes(zipped({"a.txt": NOTE}))
    raw = RawObject("documents", "raw/documents/a.zip", 1, "0" * 64)
    monkeypatch.setattr("alchemy.sources.archives.tempfile.NamedTemporaryFile", full)
    with pytest.raises(Unavailable, match="TMPDIR"):
        list(sources.read(raw, path, CleanOptions()))
