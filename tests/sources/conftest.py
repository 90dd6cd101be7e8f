"""Reading a file of given bytes as an object of a source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alchemy import sources
from alchemy.records import Draft, RawObject, Rejected
from alchemy.settings import CleanOptions


@dataclass
class Outcome:
    """All rows of one object, in order and by type."""

    rows: list[Draft | Rejected]

    @property
    def drafts(self) -> list[Draft]:
        return [row for row in self.rows if isinstance(row, Draft)]

    @property
    def rejected(self) -> list[Rejected]:
        return [row for row in self.rows if isinstance(row, Rejected)]

    @property
    def keys(self) -> list[str]:
        return [draft.key for draft in self.drafts]

    @property
    def reasons(self) -> list[str]:
        return [row.reason for row in self.rejected]

    @property
    def draft(self) -> Draft:
        assert not self.rejected, self.rejected
        assert len(self.drafts) == 1
        return self.drafts[0]

    @property
    def text(self) -> str:
        return "\n".join(part.text for draft in self.drafts for part in draft.parts)


Read = Callable[..., Outcome]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read(source, name, data, **options)`: writes `data` to a file and reads it."""

    def run(source: str, name: str, data: bytes | str | Path, **options: Any) -> Outcome:
        if isinstance(data, Path):
            path = data
        else:
            path = tmp_path / "object"  # without the name: readers must not look at the local one
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        raw = RawObject(source, f"raw/{source}/{name}", path.stat().st_size, "0" * 64)
        return Outcome(list(sources.read(raw, path, CleanOptions(**options))))

    return run
