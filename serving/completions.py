"""One call of a language model: messages in, pieces of text out as they are written.

A model that speaks OpenAI's protocol at an address of its own (`openai/NAME` with a `base_url`) is called
directly; litellm, which knows every other provider, costs ten milliseconds of CPU a call, which a server of
many pays in everybody's waiting time (benchmarks/serving.py). Deadlines and what to do when a call fails are
the caller's (`finalist`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

from alchemy.catalog import RemoteModel
from alchemy.errors import Unavailable
from alchemy.providers import litellm
from serving.watching.tracing import outgoing

_DIRECT = "openai/"
_FAREWELL_S = 0.1  # for what follows the last word


class Completions:
    """Calls of one model. For one event loop."""

    def __init__(self, entry: RemoteModel, *, tokens: int) -> None:
        self._entry = entry
        self._tokens = tokens
        self._http: Any = None  # made by the first call, inside the event loop
        self._pooled = False  # whether litellm was called, and so keeps connections

    @property
    def is_direct(self) -> bool:
        """Whether the model is called without litellm."""
        return bool(self._entry.base_url) and self._entry.model_id.startswith(_DIRECT)

    @asynccontextmanager
    async def open(self, messages: list[dict[str, str]]) -> AsyncGenerator[AsyncIterator[str], None]:
        """The text as it is written; leaving the context hangs up. Raises whatever the call fails with."""
        async with (self._direct if self.is_direct else self._by_litellm)(messages) as pieces:
            yield pieces

    async def close(self) -> None:
        """Closes the connections, litellm's pooled ones too, which would outlive the event loop."""
        if self._http:
            await self._http.aclose()
        if self._pooled:
            from litellm.llms.custom_httpx.async_client_cleanup import close_litellm_async_clients

            await close_litellm_async_clients()

    @property
    def _key(self) -> str:
        return self._entry.api_key.get_secret_value() if self._entry.api_key else "none"

    @asynccontextmanager
    async def _direct(self, messages: list[dict[str, str]]) -> AsyncGenerator[AsyncIterator[str], None]:
        import httpx

        if self._http is None:
            limits = httpx.Limits(max_connections=None)  # the coordinator bounds the answers in work
            self._http = httpx.AsyncClient(timeout=self._entry.timeout_s, limits=limits)
        body = {
            "model": self._entry.model_id.removeprefix(_DIRECT),
            "messages": messages,
            "temperature": self._entry.temperature,
            "max_tokens": self._tokens,
            "stream": True,
        }
        url = f"{str(self._entry.base_url).rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {self._key}", **outgoing()}
        async with self._http.stream("POST", url, json=body, headers=headers) as response:
            response.raise_for_status()
            lines = response.aiter_lines()
            yield _direct_pieces(lines)
            # A response that is left before its end costs the next question a new connection. The text is
            # whole by now: that a model hangs up instead of ending properly is no failure.
            with suppress(TimeoutError, httpx.HTTPError):
                async with asyncio.timeout(_FAREWELL_S):
                    async for _ in lines:
                        pass

    @asynccontextmanager
    async def _by_litellm(self, messages: list[dict[str, str]]) -> AsyncGenerator[AsyncIterator[str], None]:
        self._pooled = True
        chunks = await (await asyncio.to_thread(litellm)).acompletion(
            model=self._entry.model_id,
            api_base=self._entry.base_url,
            api_key=self._key,
            messages=messages,
            temperature=self._entry.temperature,
            max_tokens=self._tokens,
            timeout=self._entry.timeout_s,
            num_retries=0,
            max_retries=0,
            stream=True,
            extra_headers=outgoing(),
        )
        try:
            yield _litellm_pieces(chunks)
        finally:
            await _hang_up(chunks)


async def _direct_pieces(lines: AsyncIterator[str]) -> AsyncIterator[str]:
    async for line in lines:
        name, _, data = line.partition(":")
        if name != "data":
            continue
        if data.strip() == "[DONE]":
            return
        row = orjson.loads(data)
        if "error" in row:  # after the status line there is no other place for it
            raise Unavailable("the model reported an error in its stream")
        for choice in row.get("choices") or ():
            if text := (choice.get("delta") or {}).get("content"):
                yield text


async def _litellm_pieces(chunks: Any) -> AsyncIterator[str]:
    async for chunk in chunks:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            yield text


async def _hang_up(chunks: Any) -> None:
    """Closes the HTTP response behind litellm's wrapper, so that the model stops writing."""
    inner = getattr(chunks, "completion_stream", None)
    for stream in (inner, getattr(inner, "response", None)):
        close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
        if close is not None:
            result = close()
            if asyncio.iscoroutine(result):
                await result
            return
