"""Exports that were cut, spliced or hit by stray bytes: every reader ends in rows that it can explain."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alchemy import sources
from alchemy.records import Draft, RawObject
from alchemy.settings import CleanOptions
from tests.sources import (
    test_confluence_backup,
    test_confluence_rest,
    test_confluence_storage,
    test_forge,
    test_git_log,
    test_jira_export,
)

BACKUP = test_confluence_backup.backup(
    test_confluence_backup.SPACE,
    test_confluence_backup.page("1", "First"),
    test_confluence_backup.body("1", test_confluence_backup.CODE),
)
STORAGE = "<h1>A</h1>" + test_confluence_storage.macro(
    "code", test_confluence_storage.plain("x < 1"), language="sql"
)
EXPORTS = {
    "rss": ("jira", test_jira_export.rss(test_jira_export.ITEM)),
    "csv": ("jira", test_jira_export.HEADER + test_jira_export.ROW * 2),
    "log": ("git", test_git_log.HEADER + test_git_log.NUMSTAT + test_git_log.LAST),
    "mbox": ("git", test_git_log.MAIL * 2),
    "graphql": ("git", json.dumps(test_forge.answer({"nodes": [test_forge.NODE]}), indent=1)),
    "merge requests": ("git", json.dumps([test_forge.MERGE_REQUEST] * 2, indent=1)),
    "rest": ("confluence", json.dumps({"results": [test_confluence_rest.PAGE, test_confluence_rest.V2]})),
    "backup": ("confluence", BACKUP),
    "storage": ("confluence", STORAGE),
}
STRAY = st.sampled_from(
    [b"", b"\0", b"\xff\xfe", b"<", b"]]>", b"&a;", b'"', b"\n", b"{", b"[", b"\xe9", b"=?", b";"]
)
PLACES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), STRAY), min_size=1, max_size=4)


@pytest.mark.parametrize("name", EXPORTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=PLACES)
def test_damage_never_reaches_the_last_net(
    tmp_path: Path, name: str, places: list[tuple[float, int, bytes]]
) -> None:
    source, text = EXPORTS[name]
    data = text.encode()
    for share, length, stray in places:
        start = int(share * len(data))
        data = data[:start] + stray + data[start + length :]
    path = tmp_path / "object"
    path.write_bytes(data)
    raw = RawObject(source, f"raw/{source}/a", len(data), "0" * 64)
    rows = list(sources.read(raw, path, CleanOptions()))
    assert rows
    for row in rows:
        assert isinstance(row, Draft) or row.reason != "unreadable_record", row
