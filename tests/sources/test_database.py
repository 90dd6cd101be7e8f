import io
import sqlite3
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pgdumplib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.conftest import Read

DUMP = """-- PostgreSQL database dump
SET client_encoding = 'UTF8';

CREATE TABLE public."Album" (
    "AlbumId" integer NOT NULL,
    "Title" character varying(160) DEFAULT 'a, (b)' NOT NULL,
    "ArtistId" integer NOT NULL,
    "UnitPrice" numeric(10,2),
    "Remark" text
);

CREATE TABLE public.playlist_track (
    playlist_id integer NOT NULL,
    track_id integer NOT NULL
);

COPY public."Album" ("AlbumId", "Title", "ArtistId", "UnitPrice", "Remark") FROM stdin;
1	Restless and Wild	2	9.90	\\N
2	Tab\\there\\\\and\\nthere	3	\\N	Second
\\.

COPY public.playlist_track (playlist_id, track_id) FROM stdin;
1	3402
1	3389
\\.

ALTER TABLE ONLY public."Album"
    ADD CONSTRAINT "PK_Album" PRIMARY KEY ("AlbumId");
ALTER TABLE ONLY public.playlist_track
    ADD CONSTRAINT pk PRIMARY KEY (playlist_id, track_id);
"""


def test_rows_of_a_postgres_dump_read_as_sentences(read: Read) -> None:
    outcome = read("database", "chinook.sql", DUMP)
    first, second = outcome.drafts
    assert (first.kind, first.key, first.title, first.project) == (
        "row",
        "chinook.sql/Album#1",
        "Album: Restless and Wild",
        "Album",
    )
    assert first.parts[0].text == "Album id: 1. Title: Restless and Wild. Artist id: 2. Unit price: 9.90."
    assert first.fields == {
        "AlbumId": "1",
        "Title": "Restless and Wild",
        "ArtistId": "2",
        "UnitPrice": "9.90",
    }
    assert first.metrics == {"Album.UnitPrice": 9.9}
    assert first.locator == "table public.Album row 1"
    assert "Tab\there\\and\nthere" in second.parts[0].text


def test_rows_of_keys_and_numbers_are_filtered_one_by_one(read: Read) -> None:
    rejected = read("database", "chinook.sql", DUMP).rejected
    assert [(row.outcome, row.reason, row.locator) for row in rejected] == [
        ("filtered", "no_text", "table public.playlist_track row 1"),
        ("filtered", "no_text", "table public.playlist_track row 2"),
    ]


def test_copy_data_without_its_end_mark_keeps_its_rows_and_the_next_table(read: Read) -> None:
    outcome = read("database", "a.sql", DUMP.replace("\\.\n", "", 1).replace("1\t3402", "1\tx y"))
    assert outcome.keys == ["a.sql/Album#1", "a.sql/Album#2", "a.sql/playlist_track#1,x y"]
    assert outcome.reasons == ["truncated", "no_text"]


def test_a_dump_that_ends_inside_copy_data_is_truncated(read: Read) -> None:
    outcome = read("database", "a.sql", DUMP[: DUMP.index("2\tTab")])
    assert (len(outcome.drafts), outcome.reasons) == (1, ["truncated"])


def test_a_row_with_another_number_of_columns_is_ragged(read: Read) -> None:
    outcome = read("database", "a.sql", DUMP.replace("1\tRestless and Wild\t2", "1\tRestless and Wild"))
    assert (len(outcome.drafts), outcome.reasons[0]) == (1, "ragged_row")


def test_inserts_of_mysql_are_read(read: Read) -> None:
    dump = """CREATE TABLE `plans` (
  `code` varchar(16) NOT NULL,
  `price` decimal(6,2) DEFAULT NULL,
  `support` text,
  PRIMARY KEY (`code`),
  KEY `x` (`price`)
) ENGINE=InnoDB;
INSERT INTO `plans` VALUES ('bronze',2.40,'It\\'s by mail; (slow), really'),
  ('silver',NULL,'line one\\nline ''two''');
INSERT INTO plans (support, code) VALUES
  ('Phone from 06:00', 'gold'),
  (_binary 'Any
hour', N'platinum');
"""
    outcome = read("database", "plans.sql", dump)
    assert outcome.reasons == []
    assert outcome.keys == [f"plans.sql/plans#{code}" for code in ("bronze", "silver", "gold", "platinum")]
    assert (
        outcome.drafts[0].parts[0].text == "Code: bronze. Price: 2.40. Support: It's by mail; (slow), really."
    )
    assert outcome.drafts[0].metrics == {"plans.price": 2.4}
    assert outcome.drafts[1].parts[0].text == "Code: silver.\n\nSupport: line one\nline 'two'"
    assert "Any\nhour" in outcome.drafts[3].parts[0].text


def test_an_insert_that_stops_keeps_its_rows_and_the_next_statement(read: Read) -> None:
    dump = (
        "CREATE TABLE t (id int primary key, name text);\nINSERT INTO t VALUES (1,'one'),\n(2,'tw\n"
        "INSERT INTO t VALUES (3,'three');\n"
    )
    outcome = read("database", "a.sql", dump)
    assert (outcome.keys, outcome.reasons) == (["a.sql/t#1", "a.sql/t#3"], ["truncated"])


def test_a_large_insert_takes_linear_time(read: Read) -> None:
    rows = ",".join(f"({n},'name of {n}')" for n in range(20_000))
    many_lines = "x'y\n".replace("'", "''") * 20_000
    table = "CREATE TABLE t (id int primary key, name text);\n"
    dump = f"{table}INSERT INTO t VALUES {rows};\nINSERT INTO t VALUES (-1,'{many_lines}');\n"  # noqa: S608 - a dump, never executed
    assert len(read("database", "a.sql", dump).drafts) == 20_001


def test_csv_rows_read_as_sentences_and_numbers_become_metrics(read: Read) -> None:
    data = (
        'passengerid,name,fare,ticket,since\n1,"Braund, Mr. Owen",7.25,A/5,2024-01-02\n2,Cumings,,113803,\n'
    )
    first, second = read("database", "titanic.csv", data).drafts
    assert (first.key, first.title, first.project) == (
        "titanic.csv#1",
        "titanic: Braund, Mr. Owen",
        "titanic",
    )
    assert (
        first.parts[0].text
        == "Passengerid: 1. Name: Braund, Mr. Owen. Fare: 7.25. Ticket: A/5. Since: 2024-01-02."
    )
    assert first.metrics == {"titanic.fare": 7.25}
    assert second.metrics == {}
    assert second.fields == {"passengerid": "2", "name": "Cumings", "ticket": "113803"}


def test_ragged_csv_rows_are_quarantined_and_the_others_kept(read: Read) -> None:
    outcome = read("database", "a.csv", "a;b\nx;1\nonly\ny;2;3\n\nz;4\n")
    assert (outcome.keys, outcome.reasons) == (["a.csv#1", "a.csv#4"], ["ragged_row", "ragged_row"])
    assert [row.locator for row in outcome.rejected] == ["row 2", "row 3"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_csv_of_other_encodings_is_read(read: Read, encoding: str) -> None:
    data = "name,city\nGrün & Söhne,Köln\nPlain,Bonn\n".encode(encoding)
    assert read("database", "a.csv", data).drafts[0].fields == {"name": "Grün & Söhne", "city": "Köln"}


def test_nuls_quotes_and_a_cell_over_the_limit_cost_only_their_row(read: Read) -> None:
    data = 'name,text\na,"x\0y"\nb,' + "z" * (17 << 20) + '\nc,"line\nbreak"\n'
    outcome = read("database", "a.csv", data)
    assert [draft.title for draft in outcome.drafts] == ["a: a", "a: c"]
    assert outcome.reasons == ["unreadable_record"]


def test_repeated_headers_are_no_rows(read: Read) -> None:
    assert read("database", "a.csv", "name,n\nred,1\nname,n\nblue,2\n").keys == ["a.csv#1", "a.csv#3"]


def test_text_without_columns_and_binary_files_are_unsupported(read: Read) -> None:
    for data in (b"just a line of words\nand another", bytes(range(1, 32)) * 20):
        assert read("database", "a.dat", data).reasons == ["unsupported"]
    assert read("database", "a.sqlite", b"not a database").reasons == ["broken"]
    assert read("database", "a.dump", b"PGDMP\x01\x0e").reasons == ["broken"]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, stock INTEGER,
                supplier INTEGER REFERENCES s(id));
            CREATE TABLE pairs (a TEXT, b TEXT, note TEXT, PRIMARY KEY (a, b));
            CREATE TABLE loose (text, status INTEGER);
            CREATE VIEW v AS SELECT * FROM items;
        """)
        connection.execute("INSERT INTO items VALUES (7, 'Antenna', 95, 3)")
        connection.execute("INSERT INTO pairs VALUES ('x', 'y', 'Both')")
        connection.execute("INSERT INTO loose VALUES (CAST(x'48656c6c6fff' AS TEXT), 42)")
        connection.execute("INSERT INTO loose VALUES (x'576f726c64', NULL)")
        connection.commit()
    return path


def test_sqlite_rows_are_keyed_by_primary_key_or_number(read: Read, database: Path) -> None:
    outcome = read("database", "a.sqlite", database)
    assert outcome.keys == [
        "a.sqlite/items#7",
        "a.sqlite/pairs#x,y",
        "a.sqlite/loose#1",
        "a.sqlite/loose#2",
    ]
    assert outcome.drafts[0].metrics == {"items.stock": 95}
    assert [draft.parts[0].text for draft in outcome.drafts[2:]] == [
        "Text: Hello\ufffd. Status: 42.",
        "Text: World.",
    ]
    assert outcome.drafts[2].locator == "table loose row 1"


def test_a_truncated_sqlite_file_says_so(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"word {n} " * 40) for n in range(500)])
        connection.commit()
    data = path.read_bytes()
    outcome = read("database", "b.sqlite", data[: len(data) // 2])
    assert 0 < len(outcome.drafts) < 500
    assert outcome.reasons == ["truncated"]
    assert read("database", "b.sqlite", data[:50]).reasons == ["truncated"]


def test_an_overwritten_sqlite_file_is_broken(read: Read, database: Path) -> None:
    data = bytearray(database.read_bytes())
    data[100:4000] = b"\xff" * 3900
    assert read("database", "a.sqlite", bytes(data)).reasons == ["broken"]


MUSIC = """CREATE TABLE `Artist` (`ArtistId` int NOT NULL, `Name` varchar(120), PRIMARY KEY (`ArtistId`));
CREATE TABLE `Album` (`AlbumId` int NOT NULL, `Title` varchar(160), `ArtistId` int,
  `Producer` int REFERENCES Artist, PRIMARY KEY (`AlbumId`),
  CONSTRAINT `fk` FOREIGN KEY (`ArtistId`) REFERENCES `Artist` (`ArtistId`) ON DELETE CASCADE);
INSERT INTO `Album` VALUES (1,'Back in Black',1,2),(2,'Untold',9,NULL);
INSERT INTO `Artist` VALUES (1,'AC/DC'),(2,'Mutt Lange');
"""


def test_foreign_keys_of_a_dump_read_as_the_names_they_point_to(read: Read) -> None:
    first, second, *_ = read("database", "m.sql", MUSIC).drafts
    assert first.parts[0].text == (
        "Album id: 1. Title: Back in Black. Artist id: 1. Producer: 2."
        " Artist: AC/DC. Producer name: Mutt Lange."
    )
    assert first.fields["Artist"] == "AC/DC"
    assert second.parts[0].text == "Album id: 2. Title: Untold. Artist id: 9."


def test_foreign_keys_that_a_dump_of_postgres_adds_at_its_end_are_names_too(read: Read) -> None:
    dump = """CREATE TABLE public.crew (id integer, full_name text);
CREATE TABLE public.trips (id integer, goal text, captain_id integer);
COPY public.trips (id, goal, captain_id) FROM stdin;
1	The north cape	7
\\.
COPY public.crew (id, full_name) FROM stdin;
7	Lucie Marchand
\\.
ALTER TABLE ONLY public.trips
    ADD CONSTRAINT f FOREIGN KEY (captain_id) REFERENCES public.crew(id);
"""
    outcome = read("database", "t.sql", dump)
    assert outcome.drafts[0].parts[0].text.endswith("Captain id: 7. Captain: Lucie Marchand.")


def test_foreign_keys_of_sqlite_read_as_names(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(MUSIC.replace("REFERENCES Artist,", "REFERENCES Artist(ArtistId),"))
        connection.commit()
    drafts = read("database", "m.sqlite", path).drafts
    album = next(draft for draft in drafts if draft.project == "Album")
    assert "Artist: AC/DC." in album.parts[0].text


def test_an_insert_of_fifty_megabytes_is_read_row_by_row(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "big.sql"
    with path.open("w") as file:
        file.write("CREATE TABLE `t` (`id` int, `name` text, `hash` varchar(9000));\nINSERT INTO `t` VALUES ")
        filler = "é" * 2_500
        file.write(",".join(f"({n},'name of {n}','{filler}')" for n in range(10_000)))
        file.write(";INSERT INTO t VALUES (10000,'the last','x');\n")
    assert path.stat().st_size > 50_000_000
    from alchemy import sources
    from alchemy.records import Draft, RawObject
    from alchemy.settings import CleanOptions

    raw = RawObject("database", "raw/database/big.sql", 1, "0" * 64)
    tracemalloc.start()
    try:
        rows = sources.read(raw, path, CleanOptions(max_document_bytes=1 << 20))
        texts = [row.parts[0].text[:40] for row in rows if isinstance(row, Draft)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(texts) == 10_001
    assert texts[-1].startswith("Id: 10000. Name: the last")
    assert "\ufffd" not in "".join(texts)
    assert peak < 40_000_000


def test_a_dump_in_utf_16_is_read(read: Read) -> None:
    assert read("database", "a.sql", DUMP.encode("utf-16")).keys[0] == "a.sql/Album#1"


def parquet(table: pa.Table, **options: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


SHIPS = pa.table(
    {
        "id": [1, 2, 3],
        "name": ["Aurora", "Boreas", None],
        "tons": [12.5, None, 3.0],
        "since": [datetime(2026, 9, 1, tzinfo=UTC)] * 3,
        "tags": [["fast", "red"], [], None],
        "raw": [b"\xff\xfe", b"text", None],
    }
)


def test_parquet_rows_read_as_sentences_row_group_by_row_group(read: Read) -> None:
    outcome = read("database", "ships.parquet", parquet(SHIPS, row_group_size=2))
    first, second = outcome.drafts
    assert (first.key, first.title, first.metrics) == (
        "ships.parquet#1",
        "ships: Aurora",
        {"ships.tons": 12.5},
    )
    assert first.parts[0].text == (
        'Id: 1. Name: Aurora. Tons: 12.5. Since: 2026-09-01 00:00:00+00:00. Tags: ["fast", "red"].'
    )
    assert second.parts[0].text.endswith("Raw: text.")
    assert [(row.reason, row.locator) for row in outcome.rejected] == [("no_text", "row 3")]


def test_damaged_and_cut_parquet_files_say_so(read: Read) -> None:
    data = parquet(SHIPS, row_group_size=2)
    assert read("database", "a.parquet", data[:-20]).reasons == ["truncated"]
    assert read("database", "a.parquet", parquet(SHIPS.slice(0, 0))).reasons == ["empty"]
    damaged = bytearray(data)
    damaged[4:60] = b"\xff" * 56
    outcome = read("database", "a.parquet", bytes(damaged))
    assert outcome.reasons[0] == "broken"
    assert outcome.rejected[0].locator.startswith("row group 1")


@pytest.fixture
def pg_archive(tmp_path: Path) -> bytes:
    """What `pg_dump -Fc` writes for two tables with a foreign key."""
    dump = pgdumplib.new("shop", appear_as="12.0")
    tables = {
        "artist": ("CREATE TABLE public.artist (id integer NOT NULL, name text);", ["id", "name"]),
        "album": (
            "CREATE TABLE public.album (id integer, title text, artist_id integer);",
            ["id", "title", "artist_id"],
        ),
    }
    rows = {"artist": [(1, "AC/DC")], "album": [(n, f"Volume {n}", 1) for n in range(2000)]}
    for name, (defn, columns) in tables.items():
        entry = dump.add_entry(
            desc="TABLE", namespace="public", tag=name, owner="x", defn=defn, drop_stmt=f"DROP TABLE {name};"
        )
        with dump.table_data_writer(entry, columns) as writer:
            for row in rows[name]:
                writer.append(*row)
    dump.add_entry(
        desc="FK CONSTRAINT", namespace="public", tag="album f", owner="x",
        defn="ALTER TABLE ONLY public.album"
        " ADD CONSTRAINT f FOREIGN KEY (artist_id) REFERENCES public.artist(id);",
    )  # fmt: skip
    path = tmp_path / "a.dump"
    dump.save(path)
    dump._handle.close()
    dump._temp_dir.cleanup()
    return path.read_bytes()


def test_an_archive_of_pg_dump_reads_like_its_plain_dump(read: Read, pg_archive: bytes) -> None:
    outcome = read("database", "shop.dump", pg_archive)
    assert outcome.reasons == []
    assert len(outcome.drafts) == 2001
    album = next(draft for draft in outcome.drafts if draft.project == "album")
    assert album.parts[0].text == "Id: 0. Title: Volume 0. Artist id: 1. Artist: AC/DC."
    assert album.locator == "table public.album row 1"


def test_a_cut_or_damaged_archive_of_pg_dump_keeps_what_is_whole(read: Read, pg_archive: bytes) -> None:
    cut = read("database", "shop.dump", pg_archive[:-3000])
    assert cut.reasons[-1] == "truncated"
    assert len(cut.drafts) < 2001
    for end in range(5, 300, 7):
        assert read("database", "shop.dump", pg_archive[:end]).rejected
    assert read("database", "shop.dump", pg_archive[:5] + b"\x01\xff" + pg_archive[7:]).reasons == [
        "unsupported"
    ]
