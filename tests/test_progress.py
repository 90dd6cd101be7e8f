"""What the log says about the time that is left."""

from typing import Any

import pytest

from assets import publishing


class Log:
    """A context whose log keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.log = self

    def info(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time now, set by the test."""
    now = [1000.0]
    monkeypatch.setattr(publishing.time, "monotonic", lambda: now[0])
    return now


def reported(clock: list[float], calls: list[tuple[float, int]], total: int) -> list[str]:
    """The log after `done` was reported at these times."""
    log: Any = Log()
    progress = publishing.log_progress(log, "steps")
    begun = clock[0]
    for seconds, done in calls:
        clock[0] = begun + seconds
        progress(done, total)
    return log.lines


def test_the_time_left_follows_from_the_pace(clock: list[float]) -> None:
    lines = reported(clock, [(1, 0), (11, 10), (21, 20)], total=100)
    assert lines == ["steps: 10 of 100 (10 %), 90 s left", "steps: 20 of 100 (20 %), 80 s left"]


def test_what_an_earlier_run_did_does_not_count_for_the_pace(clock: list[float]) -> None:
    assert reported(clock, [(10, 81), (30, 83)], total=103) == ["steps: 83 of 103 (81 %), 200 s left"]


def test_another_round_has_its_own_pace(clock: list[float]) -> None:
    lines = reported(clock, [(0, 1), (10, 100), (20, 1), (120, 11)], total=100)
    assert lines[-1] == "steps: 11 of 100 (11 %), 890 s left"


def test_the_log_is_not_flooded(clock: list[float]) -> None:
    assert len(reported(clock, [(number / 100, number) for number in range(1, 1200)], total=1200)) == 2
