"""A synthesis that is killed anywhere goes on from the cache, and pays for no stored answer a second time.

What cannot be had: an answer that was on its way, or between the socket and the disk, when the process died
is asked for again. At most that is one call for each thread.
"""

import multiprocessing
import random
import signal
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from alchemy.records import fingerprint
from tests.synthesis.conftest import HANG, LlmServer, Reply, answer, cut_off, part

FILES = ("sft_train.jsonl", "sft_eval.jsonl", "sft_holdout.jsonl", "train.jsonl")
TROUBLES = ("hangs", "throttles", "fails", "breaks off", "answers")
CALLS_OF_AN_ANSWER, CALLS_OF_A_REPLAY = 3000, 300  # of Python functions, about


def pairs_of(request: dict) -> dict:
    """What the model always answers to a request; every tenth answer is cut off by its own length."""
    title, _, body = part(request, "passage").partition("\n\n")
    questions = (f"What happened to {title}?", f"Why is {title} on record?")
    rows = [
        {"kind": "fact", "instruction": one, "response": body, "evidence_quote": body} for one in questions
    ]
    text = orjson.dumps({"of": fingerprint(request), "pairs": rows}).decode()
    cut = number_of(request) % 10 == 3
    return answer(text[: len(text) // 2], "length") if cut else answer(text)


def number_of(request: dict) -> int:
    """Of the document that a request is about: "Record 7 about part 49"."""
    return int(part(request, "passage").split()[1])


class Troubled:
    """Answers slowly; when it is asked first, it often throttles, fails, breaks off or hangs."""

    def __init__(self) -> None:
        self.troubles: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.again: list[str] = []  # asked although the answer had been stored
        self.stored: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, request: dict) -> Reply:
        name = fingerprint(request)
        with self._lock:
            self.asked[name] += 1
            first = self.asked[name] == 1
            if name in self.stored:
                self.again.append(name)
            what = TROUBLES[number_of(request) % len(TROUBLES)] if first else "answers"
            if what == "hangs" and self.troubles["hangs"] == 2:  # each costs a time-out
                what = "answers"
            self.troubles[what] += 1
        return {
            "hangs": HANG,
            "throttles": (429, {"Retry-After": "1"}, {"error": {"message": "slow down"}}),
            "fails": (500, {}, {"error": {"message": "down"}}),
            "breaks off": cut_off(pairs_of(request)),
            "answers": (200, {}, pairs_of(request)),
        }[what]


def stored_answers(cache: Path) -> set[str]:
    """The names of the requests whose answers are on disk."""
    if not cache.exists():
        return set()
    with closing(sqlite3.connect(cache)) as connection:
        rows = connection.execute("SELECT value FROM answers").fetchall()
    return {orjson.loads(value)["text"].split('"')[3] for (value,) in rows}


@pytest.mark.integration
def test_ten_kills_at_random_points_change_no_byte_and_repeat_no_call(llm: LlmServer, tmp_path: Path) -> None:
    """SIGKILL at a random call of a Python function, ten times in the same synthesis."""
    from tests.synthesis.killed import Arguments, write, write_until_killed

    llm.reply = lambda request: (200, {}, pairs_of(request))
    whole = Arguments(llm.url, tmp_path / "whole.sqlite", tmp_path / "whole")
    metrics, usage = write(whole)
    assert metrics["rejected"]["truncated_json"] > 0

    llm.reply, llm.delay_s = (troubled := Troubled()), 0.02
    arguments = Arguments(llm.url, tmp_path / "llm.sqlite", tmp_path / "killed")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.synthesis.killed"])
    chance = random.Random(4)  # noqa: S311 - no secret
    before = 0
    for _ in range(10):
        left = usage.calls - before
        calls = chance.randrange(1, before * CALLS_OF_A_REPLAY + left * CALLS_OF_AN_ANSWER // 3)
        process = context.Process(target=write_until_killed, args=(arguments, calls))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        troubled.stored = stored_answers(arguments.cache)
        before = len(troubled.stored)
    assert 0 < before < usage.calls

    resumed = replace(arguments, folder=tmp_path / "resumed")
    again, rest = write(resumed)
    assert (rest.cached, rest.calls) == (before, usage.calls - before)
    assert troubled.again == []
    assert set(troubled.asked) == stored_answers(arguments.cache)
    assert set(troubled.troubles) == set(TROUBLES)
    assert again == metrics
    for name in FILES:
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
