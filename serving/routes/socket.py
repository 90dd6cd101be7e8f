"""`WS /ws/chat`: several questions over one connection, their events as they come.

A client sends JSON texts, the server answers with the events of `POST /api/chat`, each with its number:

    {"type": "question", "question": "...", "ref": "a", ...}    as the body of POST /api/chat
    {"type": "stop", "id": "ans-..."}
    {"type": "resume", "id": "ans-...", "after": 7}             the events after that number
    -> {"id": 1, "answer": "ans-...", "event": "started", ..., "ref": "a"}
    -> {"event": "error", "code": "...", "message": "...", "ref": "a"}     a message that was refused

`id` is the event's number, `answer` the answer's id, in `done` the whole answer, and `ref` what the client
called its message.

Leaving does not stop an answer at once: for `resume_s` another connection may go on with it. The server
pings, and a peer that does not answer is cut off. It closes with

    1000  nothing was asked for `socket_idle_s`
    1003  a message is no text
    1009  a message is over `socket_message_bytes`
    4401  the login has ended, by a logout or because the person was changed; or the key was revoked
    4408  the client does not read what it is sent
    4429  more than `socket_messages_per_minute` messages

A page of another site is refused with 403 before that, and nobody's credentials with 401.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Depends, WebSocket
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect

from alchemy.errors import AlchemyError, BadInput, NotFound, Unavailable
from serving.answer import Done, Event
from serving.people.access import Asker, Principal
from serving.people.credentials import Unrecognized
from serving.routes.chat import ChatRequest, asked
from serving.services import Services, services

log = logging.getLogger(__name__)

router = APIRouter()

_UNREAD_S = 60.0  # a client that reads nothing for so long is cut off
_MINUTE_S = 60.0

_REF_CHARACTERS = 100
_CODES = {BadInput: "invalid_value", NotFound: "not_found", Unavailable: "unavailable"}

_Ref = Annotated[str | None, Field(max_length=_REF_CHARACTERS)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    ref: _Ref = None


class Ask(ChatRequest):
    type: Literal["question"]
    ref: _Ref = None


class Stop(_Message):
    type: Literal["stop"]
    id: str = Field(max_length=100)


class Resume(_Message):
    type: Literal["resume"]
    id: str = Field(max_length=100)
    after: int = Field(0, ge=0)


_MESSAGE: TypeAdapter[Ask | Stop | Resume] = TypeAdapter(
    Annotated[Ask | Stop | Resume, Field(discriminator="type")]
)


class _Close(Exception):
    """The connection ends, and why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@router.websocket("/ws/chat")
async def chat_socket(
    websocket: WebSocket, asker: Asker, found: Annotated[Services, Depends(services)]
) -> None:
    """Takes questions until the client leaves or has to."""
    if not _same_origin(websocket):
        await websocket.close(4403, "another site's page may not ask here")
        return
    await websocket.accept()
    try:
        await _Conversation(websocket, asker, found).run()
    except _Close as end:
        with suppress(WebSocketDisconnect, RuntimeError):  # it may have gone meanwhile
            await websocket.close(end.code, end.reason)
    except WebSocketDisconnect:
        pass


class _Conversation:
    """One connection and the answers that it reads."""

    def __init__(self, websocket: WebSocket, asker: Principal, found: Services) -> None:
        self._websocket = websocket
        self._asker = asker
        self._found = found
        self._options = found.options
        self._reading: set[asyncio.Task[None]] = set()
        self._times: deque[float] = deque(maxlen=found.options.socket_messages_per_minute)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Reads messages until the end. Raises _Close or WebSocketDisconnect."""
        working = [asyncio.create_task(work) for work in (self._listen(), self._keep_looking())]
        try:
            await asyncio.wait({*working, self._ended}, return_when=asyncio.FIRST_COMPLETED)
            for one in (self._ended, *working):
                if one.done():
                    await one
        finally:
            tasks = [*working, *self._reading]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            text = await self._receive()
            if text is None:
                continue
            ref = None
            try:
                row = orjson.loads(text)
                ref = _ref(row)
                await self._take(_MESSAGE.validate_python(row))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False, include_context=False)[0]
                where = ".".join(str(part) for part in first["loc"][1:])
                await self._refuse("invalid_value", f"{where or 'message'}: {first['msg']}", ref)
            except orjson.JSONDecodeError as error:
                await self._refuse("invalid_json", str(error), ref)
            except AlchemyError as error:
                await self._refuse(_CODES.get(type(error), "server_error"), str(error), ref)

    async def _keep_looking(self) -> None:
        """Ends the connection of a login that has ended, also while nothing is asked."""
        while True:
            await asyncio.sleep(self._options.socket_login_s)
            with suppress(Unavailable):  # nothing can be revoked now; questions are refused in time
                await self._recognize()

    async def _recognize(self) -> None:
        """Who asks, as they are now. Raises _Close, or Unavailable."""
        try:
            self._asker = await self._found.people.credentials.still(self._asker)
        except Unrecognized as error:
            raise _Close(4401, str(error)) from None

    async def _receive(self) -> str | None:
        """The next text; None after a silence in which answers were read. Raises _Close."""
        try:
            async with asyncio.timeout(self._options.socket_idle_s):
                message = await self._websocket.receive()
        except TimeoutError:
            if self._reading:
                return None
            raise _Close(1000, "nothing was asked") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        now = time.monotonic()
        if len(self._times) == self._times.maxlen and now - self._times[0] < _MINUTE_S:
            raise _Close(4429, "too many messages")
        self._times.append(now)
        text = message.get("text")
        if text is None:
            raise _Close(1003, "messages are JSON texts")
        if len(text.encode()) > self._options.socket_message_bytes:
            raise _Close(1009, f"a message is over {self._options.socket_message_bytes} bytes")
        return str(text)

    async def _take(self, message: Ask | Stop | Resume) -> None:
        coordinator = self._found.coordinator
        await self._recognize()
        verdict = await self._found.people.limits.take(self._asker)
        if verdict and not verdict.allowed:
            await self._refuse("rate_limit_exceeded", "too many requests", message.ref)
            return
        if isinstance(message, Stop):
            underway = coordinator.find(message.id, self._asker)
            if underway is None:
                raise NotFound(f"no answer {message.id} of yours is under way")
            underway.stop()
            return
        if len(self._reading) >= self._options.socket_questions:
            most = self._options.socket_questions
            await self._refuse("too_many_at_once", f"at most {most} answers at once", message.ref)
        elif isinstance(message, Ask):
            question = await asked(message, self._asker, self._found)
            underway = coordinator.start(question, linger_s=self._options.resume_s)
            self._read(self._tell(underway.running.read(), underway.id, message.ref))
        elif underway := coordinator.find(message.id, self._asker):
            self._read(self._tell(underway.running.read(message.after), underway.id, message.ref))
        else:
            answer = (await self._found.stored(message.id, self._asker)).answer
            await self._send(Done(answer=answer), None, answer.id, message.ref)

    def _read(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(telling)
        self._reading.add(task)
        task.add_done_callback(self._read_out)

    def _read_out(self, task: "asyncio.Task[None]") -> None:
        self._reading.discard(task)
        if task.cancelled() or self._ended.done():
            return
        if error := task.exception():
            self._ended.set_exception(error)

    async def _tell(
        self, events: AsyncGenerator[tuple[int, Event], None], answer_id: str, ref: str | None
    ) -> None:
        async with aclosing(events):
            async for number, event in events:
                await self._send(event, number, answer_id, ref)

    async def _send(self, event: Event, number: int | None, answer_id: str, ref: str | None) -> None:
        row = event.model_dump(mode="json", exclude={"id"})
        await self._write({"id": number, "answer": answer_id} | row | {"ref": ref})

    async def _refuse(self, code: str, message: str, ref: str | None) -> None:
        await self._write({"event": "error", "code": code, "message": message, "ref": ref})

    async def _write(self, row: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(_UNREAD_S):
                await self._websocket.send_text(orjson.dumps(row).decode())
        except TimeoutError:
            raise _Close(4408, "the client does not read") from None


def _ref(row: Any) -> str | None:
    """What the client calls a message, also one that is refused."""
    ref = row.get("ref") if isinstance(row, dict) else None
    return ref if isinstance(ref, str) and len(ref) <= _REF_CHARACTERS else None


def _same_origin(websocket: WebSocket) -> bool:
    """Browsers let any site's page open a WebSocket; programs send no origin."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")
