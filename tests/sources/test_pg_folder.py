"""Dumps of PostgreSQL in several files: one archive is one dump, and a single file says what is missing."""

import gzip
from dataclasses import replace

import pytest
import zstandard

from tests.sources.conftest import Outcome, Read
from tests.sources.pg_dumps import (
    ALBUMS,
    ARTISTS,
    END,
    ENTRIES,
    INSERTED,
    VERSIONS,
    Version,
    contents,
    folder,
    tar_files,
)
from tests.sources.test_archives import CSV, tarred, zipped

ROWS = ["album#1", "album#2", "artist#1", "artist#2"]
PLAIN = (
    "\n".join(entry.defn for entry in ENTRIES if "TABLE" in entry.kind or "CONSTRAINT" in entry.kind).encode()
    + ENTRIES[4].copy.encode() + ALBUMS + END + ENTRIES[5].copy.encode() + ARTISTS + END
)  # fmt: skip


def rows(outcome: Outcome) -> list[tuple[str, str]]:
    return [(row.key.rpartition("/")[2], "".join(part.text for part in row.parts)) for row in outcome.drafts]


def faults(outcome: Outcome) -> list[tuple[str, str]]:
    return [(row.reason, row.locator) for row in outcome.rejected]


def under(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}/{file}": data for file, data in files.items()}


def test_a_tar_of_pg_dump_reads_like_its_plain_dump(read: Read) -> None:
    outcome = read("database", "shop.tar", tarred(tar_files()))
    assert outcome.reasons == []
    assert outcome.keys == [f"shop.tar/{row}" for row in ROWS]
    assert outcome.drafts[0].locator == "table public.album row 1"
    assert outcome.drafts[0].fields["Artist"] == "AC/DC"
    assert rows(outcome) == rows(read("database", "shop.sql", PLAIN))


@pytest.mark.parametrize("pack", [tarred, zipped, lambda files: gzip.compress(tarred(files))])
def test_a_packed_dump_folder_is_one_dump(read: Read, pack: object) -> None:
    assert callable(pack)
    outcome = read("database", "backup", pack(under("./shop.d", folder())))
    assert outcome.reasons == []
    assert outcome.keys == [f"backup/shop.d/{row}" for row in ROWS]
    assert outcome.drafts[0].locator == "shop.d: table public.album row 1"


def test_the_files_may_stand_in_any_order_and_beside_others(read: Read) -> None:
    files = {"ships.csv": CSV, **dict(reversed(under("a", folder()).items())), **under("b", tar_files())}
    outcome = read("database", "x.zip", zipped(files))
    assert outcome.reasons == []
    assert outcome.keys == [
        "x.zip/ships.csv#1",
        "x.zip/ships.csv#2",
        *(f"x.zip/{name}/{row}" for name in "ab" for row in ROWS),
    ]


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
def test_the_contents_of_every_version_of_pg_dump_are_read(read: Read, version: Version) -> None:
    outcome = read("database", "x.tar", tarred({**folder(), "toc.dat": contents(version=version)}))
    assert (outcome.keys, outcome.reasons) == ([f"x.tar/{row}" for row in ROWS], [])


def test_data_that_are_packed_otherwise_or_not_at_all_are_read(read: Read) -> None:
    files = {
        "toc.dat": contents(version=VERSIONS["16"]),
        "3357.dat": ALBUMS + END,
        "3356.dat.zst": zstandard.ZstdCompressor().compress(ARTISTS + END),
    }
    assert read("database", "x.tar", tarred(files)).keys == [f"x.tar/{row}" for row in ROWS]


def test_data_as_insert_statements_are_read(read: Read) -> None:
    entries = tuple(replace(entry, copy="") for entry in ENTRIES)
    files = {"toc.dat": contents(entries), "3357.dat": b"\n\n", "3356.dat": INSERTED}
    assert read("database", "x.tar", tarred(files)).keys == ["x.tar/artist#1", "x.tar/artist#2"]


def test_a_table_whose_file_is_missing_or_packed_by_lz4_is_a_row(read: Read) -> None:
    files = folder()
    del files["3357.dat.gz"]
    outcome = read("database", "x.tar", tarred(under("d", files)))
    assert (outcome.keys, faults(outcome)) == (
        ["x.tar/d/artist#1", "x.tar/d/artist#2"],
        [("incomplete_dump", "d: 3357.dat")],
    )
    assert "album" in outcome.rejected[0].detail
    outcome = read("database", "x.tar", tarred({**files, "3357.dat.lz4": b"\x04\x22\x4d\x18"}))
    assert faults(outcome) == [("unsupported", "3357.dat.lz4")]


def test_a_damaged_or_cut_file_costs_only_the_rest_of_its_table(read: Read) -> None:
    broken = read("database", "x.tar", tarred({**folder(), "3357.dat.gz": b"\x1f\x8b\x08 nothing"}))
    assert broken.keys == ["x.tar/artist#1", "x.tar/artist#2"]
    assert ("broken", "3357.dat.gz") in faults(broken)
    cut = read("database", "x.tar", tarred({**tar_files(), "3357.dat": ALBUMS[:18]}))
    assert cut.keys == ["x.tar/album#1", "x.tar/artist#1", "x.tar/artist#2"]


def test_a_cut_tar_gives_the_tables_that_came(read: Read) -> None:
    data = tarred(tar_files())
    at = data.rindex(b"3356.dat\0")
    outcome = read("database", "x.tar", data[: at + 512 + 8])
    assert outcome.keys[:2] == ["x.tar/album#1", "x.tar/album#2"]
    assert ("truncated", "3356.dat") in faults(outcome)


def test_damaged_contents_are_one_row_and_never_an_exception(read: Read) -> None:
    whole = contents()
    for end in range(6, len(whole), 13):
        outcome = read("database", "x.tar", tarred({**folder(), "toc.dat": whole[:end]}))
        assert {"broken", "unsupported", "incomplete_dump", "empty"} >= set(outcome.reasons)
        assert outcome.rejected or outcome.keys
    unknown = read("database", "x.tar", tarred({**folder(), "toc.dat": b"PGDMP\x01\xff" + whole[7:]}))
    assert unknown.reasons == ["unsupported"]


def test_a_file_of_a_dump_that_came_alone_says_how_to_upload_it(read: Read) -> None:
    for name, data in {**folder(), **tar_files()}.items():
        outcome = read("database", f"shop.d/{name}", data)
        assert (outcome.keys, outcome.reasons) == ([], ["incomplete_dump"]), name
        assert "one tar" in outcome.rejected[0].detail
    files = folder()
    del files["toc.dat"]
    assert set(read("database", "x.zip", zipped(files)).reasons) == {"incomplete_dump"}
    assert read("database", "shop.d/3356.dat", INSERTED).keys == [
        "shop.d/3356.dat/artist#1",
        "shop.d/3356.dat/artist#2",
    ]


def test_files_that_are_only_named_like_parts_of_a_dump_are_read_as_ever(read: Read) -> None:
    files = {"1.dat": CSV, "restore.sql": PLAIN, "toc.dat": CSV, "1.dat.gz": gzip.compress(CSV)}
    outcome = read("database", "x.zip", zipped(under("d", files)))
    assert outcome.reasons == []
    assert [draft.locator.partition(":")[0] for draft in outcome.drafts] == [
        *["d/1.dat"] * 2, *["d/restore.sql"] * 4, *["d/toc.dat"] * 2, *["d/1.dat.gz/1.dat"] * 2,
    ]  # fmt: skip


def test_a_table_that_unpacks_to_too_much_ends_the_dump(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alchemy.sources.pg_plain._ANY_RATIO", 1 << 20)
    bomb = gzip.compress(b"1\tx\t1\n" * (1 << 20))
    outcome = read("database", "x.tar", tarred({"toc.dat": contents(), "3357.dat.gz": bomb}))
    assert outcome.reasons[-1] == "bomb"
