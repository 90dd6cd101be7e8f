"""Generation at an OpenAI-compatible endpoint: vLLM, SGLang, TGI or `transformers serve`.

The model's name picks the adapter, as these servers do it for LoRA. vLLM loads adapters while it runs
(`/v1/load_lora_adapter`, with VLLM_ALLOW_RUNTIME_LORA_UPDATING on); then a release's own version is what
answers. Others serve what they were started with, under the adapter's name, and whether that is the release's
version is up to who started them.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import orjson

from alchemy.catalog import EngineOptions
from alchemy.errors import BadInput, NotFound, Unavailable
from alchemy.training.generate import GREEDY, Message
from alchemy.training.sampling import Sampling
from serving.generation.engines import Finish, Piece

_ENDS: dict[str, Finish] = {"stop": "stop", "length": "length"}
_MOST_LINE = 1 << 20  # characters of one event; more is no answer of a model


class ExternalEngine:
    """An `Engine` elsewhere.

    Args:
        model_id: The base's name at the endpoint.
        options: Where it is, and what it can.
    """

    def __init__(self, model_id: str, options: EngineOptions) -> None:
        self._model_id = options.model or model_id
        self._options = options
        self._base_url = (options.base_url or "").rstrip("/")
        key = options.api_key.get_secret_value() if options.api_key else ""
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}
        self._closed = False

    @property
    def problems(self) -> tuple[str, ...]:
        """See `Engine.problems`."""
        return ()

    def load(self, name: str, folder: Path) -> str:
        """See `Engine.load`."""
        if self._options.load_adapters:
            # The name is new each time: the endpoint may outlive this process and keep what it had.
            handle = f"{name}-{secrets.token_hex(6)}"
            self._ask("POST", "/load_lora_adapter", {"lora_name": handle, "lora_path": str(folder.resolve())})
            return handle
        served = [row.get("id") for row in self._ask("GET", "/models").get("data", [])]
        if name not in served:
            raise Unavailable(
                f"the endpoint serves no model {name}; start it with that adapter, or set "
                f"model_c.engine.load_adapters where it is a vLLM"
            )
        return name

    def unload(self, handle: str) -> None:
        """See `Engine.unload`."""
        if self._options.load_adapters:
            self._ask("POST", "/unload_lora_adapter", {"lora_name": handle})

    async def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling = GREEDY,
        *,
        adapter: str | None = None,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """See `Engine.stream`. Tokens are counted where the endpoint does."""
        if self._closed:
            raise Unavailable("the engine is closing")
        body = {
            "model": adapter or self._model_id,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **_parameters(sampling),
        }
        until = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        try:
            async with aclosing(self._events(body)) as events:
                while piece := await _before(until, events):
                    yield piece
        except TimeoutError:
            yield Piece("", "deadline")
        except httpx.HTTPError as error:
            raise Unavailable(f"the generation endpoint failed ({type(error).__name__})") from error

    def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        for loop, client in self._clients.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)
        self._clients.clear()

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        finish: Finish | None = None
        usage: dict[str, Any] = {}
        async with self._client().stream("POST", f"{self._base_url}/chat/completions", json=body) as response:
            if response.status_code != 200:
                await response.aread()
                raise _refusal(response)
            async for line in response.aiter_lines():
                if not line.startswith("data:") or line == "data: [DONE]":
                    continue
                event = _event(line)
                usage = event.get("usage") or usage
                for choice in event.get("choices") or []:
                    finish = _ENDS.get(choice.get("finish_reason"), finish)
                    text = (choice.get("delta") or {}).get("content")
                    if text:
                        yield Piece(text)
        if finish is None:
            raise Unavailable("the generation endpoint broke off")
        yield Piece("", finish, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = httpx.AsyncClient(headers=self._headers, timeout=self._options.timeout_s)
        return self._clients[loop]

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        """A short call, outside the event loop."""
        url = f"{self._base_url}{path}"
        try:
            response = httpx.request(
                method, url, json=body, headers=self._headers, timeout=self._options.timeout_s
            )
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the generation endpoint cannot be reached ({type(error).__name__}); check "
                f"model_c.engine.base_url"
            ) from error
        if response.status_code != 200:
            raise _refusal(response)
        # vLLM answers its adapter calls in plain text.
        found = orjson.loads(response.content) if "json" in response.headers.get("content-type", "") else {}
        return found if isinstance(found, dict) else {}


async def _before(until: float | None, events: AsyncGenerator[Piece, None]) -> Piece | None:
    """The next piece. Not around a `yield`: the deadline would cancel whatever its reader does meanwhile."""
    async with asyncio.timeout_at(until):
        return await anext(events, None)


def _parameters(sampling: Sampling) -> dict[str, Any]:
    """OpenAI's parameters, and those of vLLM, SGLang and TGI only where they are asked for."""
    extra = {
        "top_k": sampling.top_k or None,
        "repetition_penalty": sampling.repetition_penalty if sampling.repetition_penalty != 1 else None,
        "stop": list(sampling.stop) or None,
    }
    return {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        **{name: value for name, value in extra.items() if value is not None},
    }


def _event(line: str) -> dict[str, Any]:
    try:
        event = orjson.loads(line[len("data:") :]) if len(line) <= _MOST_LINE else None
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict) or "error" in event:
        raise Unavailable("the generation endpoint sent something that is no answer")
    return event


def _refusal(response: httpx.Response) -> Exception:
    """What an error status means to our callers. Its text may quote the prompt, so it is not passed on."""
    status = response.status_code
    if status == 404:
        return NotFound("the generation endpoint knows no such model")
    if status in (400, 413, 422):
        return BadInput(f"the generation endpoint refused the request ({status})")
    wait = response.headers.get("retry-after", "")
    return Unavailable(
        f"the generation endpoint answered {status}", retry_after_s=float(wait) if wait.isdigit() else None
    )
