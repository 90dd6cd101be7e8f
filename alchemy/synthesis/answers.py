"""Asking a model about many things at once, and reading the JSON of its answers without trusting it."""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import orjson

from alchemy.errors import AlchemyError
from alchemy.synthesis.client import BudgetSpent, Completion

T = TypeVar("T")
R = TypeVar("R")

_FENCED = re.compile(r"\A\s*```(?:json)?\s*(.*?)\s*```\s*\Z", re.DOTALL)


class UnreadableAnswer(AlchemyError):
    """A model's answer is no JSON; the message is the code of the reason."""


def ask_each(ask: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """The result for every item, in order. An exception of `ask` is raised at the place of its item.

    What has not begun when the reader stops, or an exception is raised, is not begun any more.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="ask") as pool:
        futures = [pool.submit(ask, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def until_spent(results: Iterator[R]) -> list[R]:
    """The results that there are before the budget ends."""
    found: list[R] = []
    with suppress(BudgetSpent):
        for result in results:
            found.append(result)
    return found


def read_json(completion: Completion) -> Any:
    """The JSON value of an answer, fenced or not. Raises UnreadableAnswer: truncated_json or not_json."""
    text = completion.text.strip()
    fenced = _FENCED.match(text)
    try:
        return orjson.loads(fenced.group(1) if fenced else text)
    except orjson.JSONDecodeError:
        cut = completion.finish_reason == "length" or not text.endswith(("}", "]", "`"))
        raise UnreadableAnswer("truncated_json" if cut else "not_json") from None
