"""Bytes of PostgreSQL dumps in several files, as `pg_dump -Fd` and `-Ft` write them.

Made by the rules of PostgreSQL's pg_backup_archiver.c (WriteHead, WriteToc) and pg_backup_directory.c
(WriteExtraToc), and compared once with what `pg_dump` 15.18 wrote.
"""

import gzip
from dataclasses import dataclass

Version = tuple[int, int, int]
VERSIONS: dict[str, Version] = {
    "10.2": (1, 12, 0), "11": (1, 13, 0), "15": (1, 14, 0), "16": (1, 15, 0), "17": (1, 16, 0),
}  # fmt: skip
ALBUMS = b"1\tBack in Black\t1\n2\tTab\\there\\nand line \\\\ back\t2\n"
ARTISTS = b"1\tAC/DC\n2\tMutt Lange\n"
END = b"\\.\n\n\n"
INSERTED = (
    b"INSERT INTO public.artist VALUES (1, 'AC/DC');\nINSERT INTO public.artist VALUES (2, 'Mutt Lange');\n"
)


@dataclass(frozen=True)
class Entry:
    number: int
    kind: str
    tag: str
    defn: str = ""
    copy: str = ""
    file: str = ""
    section: int = 2  # 2 before the data, 3 the data, 4 after them


ENTRIES = (
    Entry(3364, "ENCODING", "ENCODING", "SET client_encoding = 'UTF8';\n"),
    Entry(
        215, "TABLE", "album",
        "CREATE TABLE public.album (\n    id integer NOT NULL,\n    title text,\n    artist_id integer\n);\n",
    ),
    Entry(
        214, "TABLE", "artist",
        "CREATE TABLE public.artist (\n    id integer NOT NULL,\n    name text\n);\n",
    ),
    Entry(3360, "BLOB", "16415", "SELECT pg_catalog.lo_create('16415');\n"),
    Entry(
        3357, "TABLE DATA", "album", copy="COPY public.album (id, title, artist_id) FROM stdin;\n",
        file="3357.dat", section=3,
    ),
    Entry(
        3356, "TABLE DATA", "artist", copy="COPY public.artist (id, name) FROM stdin;\n", file="3356.dat",
        section=3,
    ),
    Entry(3361, "BLOBS", "BLOBS", file="blobs.toc", section=3),
    Entry(
        3209, "CONSTRAINT", "artist artist_pkey",
        "ALTER TABLE ONLY public.artist\n    ADD CONSTRAINT artist_pkey PRIMARY KEY (id);\n", section=4,
    ),
    Entry(
        3212, "FK CONSTRAINT", "album album_artist_id_fkey",
        "ALTER TABLE ONLY public.album\n    ADD CONSTRAINT album_artist_id_fkey FOREIGN KEY (artist_id)"
        " REFERENCES public.artist(id);\n", section=4,
    ),
)  # fmt: skip


def contents(entries: tuple[Entry, ...] = ENTRIES, version: Version = VERSIONS["15"]) -> bytes:
    """A `toc.dat`; its format is 3, that of `-Ft`, for `-Fd` too."""
    head = b"PGDMP" + bytes((*version, 4, 8, 3))
    head += b"\x01" if version >= (1, 15, 0) else number(-1)  # gzip
    head += b"".join(map(number, (10, 43, 14, 21, 10, 126, 0)))  # when: second to year, summer time
    head += text("shop") + text("15.18") + text("15.18") + number(len(entries))
    return head + b"".join(one(entry, version) for entry in entries)


def one(entry: Entry, version: Version) -> bytes:
    data = number(entry.number) + number(entry.section == 3) + text("0") + text("0")
    data += text(entry.tag) + text(entry.kind) + number(entry.section)
    data += text(entry.defn) + text("") + text(entry.copy) + text("public") + text("")
    data += text("heap") if version >= (1, 14, 0) else b""
    data += number(ord("r")) if version >= (1, 16, 0) else b""
    return data + text("postgres") + text("false") + text("215") + number(-1) + text(entry.file)


def number(value: int) -> bytes:
    return bytes([value < 0]) + abs(value).to_bytes(4, "little")


def text(value: str) -> bytes:
    return number(len(value)) + value.encode()


def folder() -> dict[str, bytes]:
    """The files of `pg_dump -Fd`."""
    return {
        "toc.dat": contents(),
        "3357.dat.gz": gzip.compress(ALBUMS + END),
        "3356.dat.gz": gzip.compress(ARTISTS + END),
        "blob_16415.dat.gz": gzip.compress(b"large object one"),
        "blobs.toc": b"16415 blob_16415.dat\n",
    }


def tar_files() -> dict[str, bytes]:
    """The members of `pg_dump -Ft`."""
    return {
        "toc.dat": contents(),
        "3357.dat": ALBUMS + END,
        "3356.dat": ARTISTS + END,
        "blob_16415.dat": b"large object one",
        "blobs.toc": b"16415 blob_16415.dat\n",
        "restore.sql": b"--\n-- NOTE:\n--\n-- File paths need to be edited. Search for $$PATH$$ and\n--\n"
        b"CREATE TABLE public.artist (\n    id integer NOT NULL,\n    name text\n);\n"
        b"COPY public.artist (id, name) FROM stdin;\n\\.\nCOPY public.artist (id, name) FROM"
        b" '$$PATH$$/3356.dat';\n",
    }
