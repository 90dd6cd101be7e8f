"""Decides which of several equal or outdated documents are published, exactly (see `near_duplicates`).

One id may come several times (the same issue on two export pages, an older export beside a newer one), so a
record is named by its id *and* its place, the order key. The plan depends on the rows alone, never on their
order: both engines and every rerun drop the same records.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from alchemy.records import Document

OrderKey: TypeAlias = tuple[str, int]  # raw key, position in the object
Row: TypeAlias = tuple[str, str, str, str, OrderKey]  # id, version, content hash, updated, order key
Reason = Literal["superseded", "exact_duplicate", "near_duplicate"]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a record is not published, and the published record that stands for it."""

    reason: Reason
    kept_id: str
    kept_order_key: OrderKey


def content_hash(document: Document) -> str:
    """Hash of title and text without case and whitespace; equal for copies under other ids."""
    words = " ".join(f"{document.title}\n{document.text}".casefold().split())
    return hashlib.sha256(words.encode()).hexdigest()[:32]


def plan_dedup(rows: Iterable[Row]) -> dict[tuple[str, OrderKey], Dropped]:
    """Which records to drop, by (id, order key).

    Of records with one id the newest `updated` stays (ties: the lowest order key); the others are
    `superseded`, or `exact_duplicate` where their version is the same. Of the records that then have the same
    content the one with the lowest order key stays, the others are `exact_duplicate`.
    """
    by_id: dict[str, list[Row]] = {}
    for row in rows:
        by_id.setdefault(row[0], []).append(row)

    dropped: dict[tuple[str, OrderKey], Dropped] = {}
    by_content: dict[str, list[Row]] = {}
    for copies in by_id.values():
        copies.sort(key=lambda row: row[4])
        keeper = max(copies, key=lambda row: moment(row[3]))  # the first of equals
        by_content.setdefault(keeper[2], []).append(keeper)
        for row in copies:
            if row is not keeper:
                reason: Reason = "exact_duplicate" if row[1] == keeper[1] else "superseded"
                dropped[row[0], row[4]] = Dropped(reason, keeper[0], keeper[4])

    for copies in by_content.values():
        keeper, *others = sorted(copies, key=lambda row: (row[4], row[0]))
        for row in others:
            dropped[row[0], row[4]] = Dropped("exact_duplicate", keeper[0], keeper[4])
    return settle(dropped)


def settle(dropped: dict[tuple[str, OrderKey], Dropped]) -> dict[tuple[str, OrderKey], Dropped]:
    """The same plan in order, every record answered by one that is published.

    A keeper may itself be dropped, for a copy of its content or for its near duplicate, but never twice in
    the same stage; so the way ends.
    """
    return {unit: _final(drop, dropped) for unit, drop in sorted(dropped.items())}


def _final(drop: Dropped, dropped: dict[tuple[str, OrderKey], Dropped]) -> Dropped:
    """Names the record that is published, where the keeper was itself dropped for a copy of its content."""
    last = drop
    while behind := dropped.get((last.kept_id, last.kept_order_key)):
        last = behind
    return Dropped(drop.reason, last.kept_id, last.kept_order_key)


def moment(updated: str) -> tuple[datetime, str]:
    """Dates of several offsets on one scale; what is no full date is older and compared as text."""
    try:
        moment = datetime.fromisoformat(updated)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)), ""
    except (ValueError, OverflowError):
        return datetime.min.replace(tzinfo=UTC), updated
