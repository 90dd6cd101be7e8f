"""One door to every language model that is reached over HTTP: litellm, made safe to run for hours.

- Answers are kept in SQLite under a key of everything that shapes them, written before they are returned:
  a run that was killed and started again repeats no paid call.
- The cost of a call is reserved before it is made, so threads together cannot pass the budget.
- Transient failures are retried with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015) and
  never before a Retry-After; a breaker stops everybody after too many failures in a row.

Streaming is not here: it belongs to serving. Keys and prompts are never logged.
"""

import logging
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from alchemy.catalog import RemoteModel
from alchemy.errors import AlchemyError, BadConfig, BadInput, Unavailable
from alchemy.providers import litellm
from alchemy.records import fingerprint

log = logging.getLogger(__name__)

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": ...}


class BudgetSpent(AlchemyError):
    """The next call could pass the spending cap, so it was not made."""


class BreakerOpen(Unavailable):
    """So many calls failed in a row that none is made for a while."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer; one out of the cache cost nothing."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    cached: bool
    finish_reason: str = ""  # "length": the answer was cut off


@dataclass(frozen=True, slots=True)
class Usage:
    """What a client did since it was made."""

    calls: int  # answered by the model
    cached: int  # answered by the cache
    failures: int  # attempts that failed, retried or not
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    priced: bool  # False: litellm knows no price of this model, and cost_usd is 0 for want of one
    budget_spent: bool  # a call was not made for want of money


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and when to stop trying at all."""

    attempts: int = 5
    base_s: float = 0.5
    most_s: float = 60.0  # of one wait, whatever Retry-After says
    breaker_failures: int = 8  # in a row; throttling (429) does not count
    breaker_reset_s: float = 30.0  # then one call is let through to try


class LlmClient:
    """Answers of one remote model. Thread-safe; close it, or use it as a context manager."""

    def __init__(
        self,
        model: RemoteModel,
        cache_path: Path,
        *,
        budget_usd: float | None = None,
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self._secret = model.api_key.get_secret_value() if model.api_key else ""
        self._cache = _Cache(cache_path)
        self._retry = retry or RetryPolicy()
        self._sleep = sleep
        self._breaker = _Breaker(self._retry.breaker_failures, self._retry.breaker_reset_s)
        self._price: tuple[float, float] | None = None  # dollars per prompt and completion token
        self._priced = True
        self._budget = budget_usd
        self._lock = threading.Lock()
        self._spent = self._reserved = 0.0
        self._budget_spent = False
        self._totals = {"calls": 0, "cached": 0, "failures": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self._same_key: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __enter__(self) -> "LlmClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the cache."""
        self._cache.close()

    @property
    def usage(self) -> Usage:
        """Counts and cost so far."""
        with self._lock:
            return Usage(
                **self._totals,
                cost_usd=round(self._spent, 8),
                priced=self._priced,
                budget_spent=self._budget_spent,
            )

    def complete(
        self, messages: Sequence[Message], *, as_json: bool = False, max_tokens: int = 1024
    ) -> Completion:
        """Answers a conversation, out of the cache where it was answered before.

        Args:
            messages: The conversation.
            as_json: Asks the model for one JSON object; the prompt has to ask for JSON too.
            max_tokens: Most tokens of the answer; what is reserved of the budget follows from it.

        Raises:
            BudgetSpent: The call could pass the budget.
            Unavailable: No answer after all retries.
            BreakerOpen: An Unavailable without trying, after too many failures in a row.
            BadInput: The provider refuses this conversation.
            BadConfig: The provider refuses the key or does not know the model.
        """
        key = self._key(messages, as_json, max_tokens)
        with self._lock:
            same = self._same_key[key]
        with same:  # equal questions at the same time are asked once
            found = self._cache.get(key)
            if found is not None:
                self._count(cached=1)
                return found
            completion = self._ask(messages, as_json, max_tokens)
            self._cache.put(key, completion)
        with self._lock:
            self._same_key.pop(key, None)
        return completion

    def _key(self, messages: Sequence[Message], as_json: bool, max_tokens: int) -> str:
        model = self.model
        return fingerprint(
            model.model_id, model.base_url, model.temperature, list(messages), as_json, max_tokens, length=64
        )

    def _ask(self, messages: Sequence[Message], as_json: bool, max_tokens: int) -> Completion:
        reserved = self._reserve(messages, max_tokens)
        try:
            return self._settle(self._with_retries(messages, as_json, max_tokens))
        finally:
            with self._lock:
                self._reserved -= reserved

    def _reserve(self, messages: Sequence[Message], max_tokens: int) -> float:
        """Sets the most that the call can cost aside.

        A token is taken for two bytes of the prompt: texts have three to five, so this errs to the safe side.
        """
        prompt_price, completion_price = self._prices()
        size = sum(len(message["content"].encode()) for message in messages)
        most = (size // 2 + 8 * len(messages)) * prompt_price + max_tokens * completion_price
        with self._lock:
            if self._budget is not None and self._spent + self._reserved + most > self._budget and most > 0:
                self._budget_spent = True
                raise BudgetSpent(
                    f"{self.model.model_id}: spent ${self._spent:.4f} of ${self._budget:.4f}, and the next "
                    f"call may cost ${most:.4f}; raise ALCHEMY_SYNTHESIS__BUDGET_USD to go on from here"
                )
            self._reserved += most
        return most

    def _settle(self, response: Any) -> Completion:
        choice = response.choices[0]
        usage = response.usage
        prompt, completion = int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)
        prompt_price, completion_price = self._prices()
        cost = prompt * prompt_price + completion * completion_price
        self._count(calls=1, prompt_tokens=prompt, completion_tokens=completion)
        with self._lock:
            self._spent += cost
        return Completion(
            text=choice.message.content or "",
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_usd=cost,
            cached=False,
            finish_reason=choice.finish_reason or "",
        )

    def _with_retries(self, messages: Sequence[Message], as_json: bool, max_tokens: int) -> Any:
        retry, failure = self._retry, ""
        for attempt in range(retry.attempts):
            self._breaker.check(self.model.model_id)
            try:
                response = self._send(messages, as_json, max_tokens)
            except Exception as error:
                self._count(failures=1)
                failure = self._explain(error)
                status = getattr(error, "status_code", None)
                if not _is_transient(error):
                    self._breaker.record(failed=False)  # it did answer
                    known = BadConfig if status in (401, 403, 404) else BadInput
                    raise known(f"{self.model.model_id}: {failure}") from None
                if status != 429:
                    self._breaker.record(failed=True)
                if attempt + 1 < retry.attempts:
                    wait = random.uniform(0, min(retry.most_s, retry.base_s * 2**attempt))  # noqa: S311
                    self._sleep(min(retry.most_s, wait + _retry_after(error)))
                continue
            self._breaker.record(failed=False)
            return response
        raise Unavailable(f"{self.model.model_id}: no answer in {retry.attempts} attempts; last: {failure}")

    def _send(self, messages: Sequence[Message], as_json: bool, max_tokens: int) -> Any:
        return litellm().completion(
            model=self.model.model_id,
            messages=[dict(message) for message in messages],
            api_base=self.model.base_url,
            # An endpoint without a key still wants a header; without this litellm looks in the environment.
            api_key=self._secret or ("none" if self.model.base_url else None),
            temperature=self.model.temperature,
            timeout=self.model.timeout_s,
            max_tokens=max_tokens,
            response_format={"type": "json_object"} if as_json else None,
            drop_params=True,
            num_retries=0,
            max_retries=0,
        )

    def _prices(self) -> tuple[float, float]:
        if self._price is None:
            try:
                prompt, completion = litellm().cost_per_token(
                    model=self.model.model_id, prompt_tokens=1_000_000, completion_tokens=1_000_000
                )
                self._price = (prompt / 1e6, completion / 1e6)
            except Exception:  # litellm raises several kinds for a model that it has no price of
                self._priced = False
                self._price = (0.0, 0.0)
                log.warning("%s: no known price; its cost counts as 0", self.model.model_id)
        return self._price

    def _count(self, **numbers: int) -> None:
        with self._lock:
            for name, number in numbers.items():
                self._totals[name] += number

    def _explain(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {str(error)[:400]}"
        return text.replace(self._secret, "<key>") if self._secret else text


class _Cache:
    """Answers by key in SQLite; each is on disk before `put` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # in WAL mode, safe against kill -9
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
        )

    def get(self, key: str) -> Completion | None:
        with self._lock, closing(self._connection.cursor()) as cursor:
            row = cursor.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        return Completion(**{**orjson.loads(row[0]), "cached": True, "cost_usd": 0.0})

    def put(self, key: str, completion: Completion) -> None:
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, orjson.dumps(completion))
            )

    def close(self) -> None:
        with self._lock:
            self._connection.close()


class _Breaker:
    """Closed; open after `limit` failures in a row; after `reset_s` one caller may try."""

    def __init__(self, limit: int, reset_s: float) -> None:
        self._limit = limit
        self._reset_s = reset_s
        self._lock = threading.Lock()
        self._failures = 0
        self._closed_again = 0.0

    def check(self, name: str) -> None:
        """Raises BreakerOpen while open."""
        with self._lock:
            if self._failures < self._limit:
                return
            now = time.monotonic()
            if now < self._closed_again:
                raise BreakerOpen(
                    f"{name}: {self._failures} failures in a row; the next try is in "
                    f"{self._closed_again - now:.0f} s"
                )
            self._closed_again = now + self._reset_s

    def record(self, *, failed: bool) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failed else 0
            if failed:
                self._closed_again = time.monotonic() + self._reset_s


def _is_transient(error: Exception) -> bool:
    status = getattr(error, "status_code", None)
    if status is not None:
        return status in (408, 409, 425, 429) or status >= 500
    return isinstance(error, OSError)


def _retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait: a number or a date (RFC 9110, 10.2.3)."""
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    value = headers.get("retry-after") or ""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
