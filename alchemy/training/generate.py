"""Text from the base model through adapters: many sequences at once, each with its own adapter and sampling.

The base is loaded once; adapters come, change and go around it, always between two rounds. A sequence keeps
the adapter version that it began with, even when another replaces it half-way, so that no answer ever mixes
two. A round prefills at most one chunk of waiting prompts, then makes one token of every running sequence:
sequences join and leave between rounds, nobody waits for another's end, and a long prompt holds the others
up by one chunk a token at most.

Whoever needs a piece of text plays the rounds: `stream` by itself, or an engine for all
(`serving.generation.batch`).
"""

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alchemy.errors import BadInput, Conflict, NotFound
from alchemy.training.base import MODELS, load_base
from alchemy.training.dataset import encode_prompt
from alchemy.training.evaluate import check_adapter
from alchemy.training.sampling import Choice, Sampling, Text

Message = dict[str, str]  # role, content
Finish = Literal["stop", "length", "deadline", "canceled", "failed"]

GREEDY = Sampling()
ANY = "*"  # as in HTTP's If-Match: whatever is there


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one model may take.

    Attributes:
        rows: Sequences in one step.
        bytes: Memory for the keys and values of running sequences. A row of SmolLM2-135M takes 23 kB a token
            in bfloat16, so 16 rows of 512 tokens take 190 MB.
    """

    rows: int = 16
    bytes: int = 1 << 30


@dataclass(eq=False, slots=True)
class _Version:
    """One loaded version of an adapter."""

    slot: int
    label: str
    users: int = 0  # sequences that still generate with it
    retired: bool = False


@dataclass(eq=False, slots=True)
class Generation:
    """One text in the making. Only its model changes it; `pieces` are taken away by who listens."""

    prompt: list[int]
    sampling: Sampling
    until: float | None  # time.monotonic()
    _version: _Version | None
    _choice: Choice
    _text: Text
    pieces: deque[str] = field(default_factory=deque)
    tokens: int = 0  # that were generated
    finish: Finish | None = None
    error: Exception | None = None  # why it failed
    canceled: bool = False  # set it to end the text after the current round
    _row: Any = None
    _cache: Any = None  # while the prompt is prefilled
    _prefilled: int = 0
    _next: int = 0  # the token that the next step puts in

    @property
    def room(self) -> int:
        """Most tokens that it may take up."""
        return len(self.prompt) + self.sampling.max_new_tokens


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did, for the metrics."""

    prefilled: int  # tokens of prompts
    rows: int  # in the decode step
    kept: int  # tokens that became part of a text: also a prefill's first one, and not one that ends a text
    prefill_s: float
    decode_s: float


class AdapterModel:
    """A base model with any number of adapters; safe to use from several threads.

    Raises like `load_base`, `Decoder` and `put`.

    Args:
        base: A packaged model, a folder, or a hub name.
        adapters: name -> folder.
        device: auto, cpu, cuda, cuda:N or mps.
        models: The folder of packaged weights.
        bounds: Rows and memory.
        compiled: Run torch.compile over the steps.
    """

    def __init__(
        self,
        base: str,
        adapters: Mapping[str, Path] | None = None,
        *,
        device: str = "auto",
        models: Path = MODELS,
        bounds: Bounds = Bounds(),
        compiled: bool = False,
    ) -> None:
        from alchemy.training.decoding import Decoder

        self.base = load_base(base, device, models)
        self.bounds = bounds
        self._decoder = Decoder(self.base, most_rows=bounds.rows, most_bytes=bounds.bytes, compiled=compiled)
        self._ends = _ends(self.base)
        self._versions: dict[str, _Version] = {}
        self._labels = itertools.count(1)
        self._lock = threading.Lock()  # of the names, and of who uses which version
        self._turn = _Turn()  # of the decoder
        self._waiting: deque[Generation] = deque()
        self._prefilling: Generation | None = None
        self._running: dict[Any, Generation] = {}  # by row
        self._kept = 0  # tokens of all texts so far
        for name, folder in (adapters or {}).items():
            self.put(name, folder)

    @property
    def adapters(self) -> dict[str, str]:
        """The labels of the adapters that are loaded, by name."""
        with self._lock:
            return {name: self._versions[name].label for name in sorted(self._versions)}

    @property
    def waiting(self) -> int:
        """Generations that have not begun to run."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Generations that have a row, or are being prefilled."""
        return len(self._running) + (self._prefilling is not None)

    @property
    def kv_bytes(self) -> int:
        """Memory that the rows take now."""
        return self._decoder.slots.bytes

    @property
    def recompiles(self) -> int:
        """Graphs that torch.compile made after the warm-up."""
        return self._decoder.recompiles

    def put(self, name: str, folder: Path, *, expected: str | None = ANY) -> str:
        """Loads an adapter, or replaces the one of that name, between two rounds.

        Args:
            name: Any name.
            folder: What `train_lora` made.
            expected: The label of what is to be replaced; None where the name must be free.

        Returns:
            The label of what is loaded now.

        Raises:
            BadInput: The adapter is unsafe, broken, or was trained on another base.
            Conflict: Something else is loaded under that name.
        """
        config = check_adapter(folder, self.base.model_id)
        with self._turn:
            self._check(name, expected)
            version = _Version(self._decoder.put(folder, config), str(next(self._labels)))
            with self._lock:
                old = self._versions.get(name)
                self._versions[name] = version
            self._retire(old)
        return version.label

    def remove(self, name: str, *, expected: str | None = ANY) -> None:
        """Drops an adapter; sequences that use it end first. Raises NotFound, or Conflict like `put`."""
        with self._turn:
            self._check(name, expected)
            with self._lock:
                old = self._versions.pop(self._known(name))
            self._retire(old)

    def submit(
        self,
        messages: Sequence[Message],
        sampling: Sampling = GREEDY,
        *,
        adapter: str | None = None,
        deadline_s: float | None = None,
    ) -> Generation:
        """Queues a text; the rounds of `play` make it.

        Args:
            messages: The conversation, ending with the user's turn.
            sampling: How tokens are picked, and where the text ends.
            adapter: A name of `adapters`; None is the base alone.
            deadline_s: Seconds from now until the text ends, wherever it is.

        Raises:
            BadInput: The prompt leaves no room for `max_new_tokens`.
            NotFound: There is no adapter of that name.
        """
        until = None if deadline_s is None else time.monotonic() + deadline_s
        prompt = encode_prompt(self.base.tokenizer, messages)
        tokens = len(prompt) + sampling.max_new_tokens
        longest = getattr(self.base.model.config, "max_position_embeddings", None)
        if (longest is not None and tokens > longest) or not self._decoder.slots.fits(tokens):
            raise BadInput(
                f"a prompt of {len(prompt)} tokens and {sampling.max_new_tokens} new ones do not fit into "
                f"{longest if longest is not None and tokens > longest else 'the memory for them'}"
            )
        choice, text = Choice(sampling, prompt), Text(self.base.tokenizer, sampling.stop)
        with self._lock:
            version = None if adapter is None else self._versions[self._known(adapter)]
            if version is not None:
                version.users += 1
        generation = Generation(prompt, sampling, until, version, choice, text)
        self._waiting.append(generation)
        return generation

    def play(self, wanted: Callable[[], bool] = lambda: True) -> Round:
        """One round. In its turn it asks whether the round is still wanted."""
        with self._turn:
            if not wanted():
                return Round(0, 0, 0, 0.0, 0.0)
            began, before = time.perf_counter(), self._kept
            self._drop_ended()
            prefilled = self._prefill()
            between = time.perf_counter()
            rows = self._step()
            return Round(prefilled, rows, self._kept - before, between - began, time.perf_counter() - between)

    def generate(
        self, messages: Sequence[Message], sampling: Sampling = GREEDY, *, adapter: str | None = None
    ) -> str:
        """The whole text of `stream`."""
        return "".join(self.stream(messages, sampling, adapter=adapter))

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling = GREEDY,
        *,
        adapter: str | None = None,
        deadline_s: float | None = None,
    ) -> Iterator[str]:
        """Pieces of text as they come. Close it to end it.

        Arguments and errors are those of `submit`; it also raises what the text fails with.
        """
        return self._stream(self.submit(messages, sampling, adapter=adapter, deadline_s=deadline_s))

    def _stream(self, generation: Generation) -> Iterator[str]:
        try:
            while True:
                while generation.pieces:
                    yield generation.pieces.popleft()
                if generation.error is not None:
                    raise generation.error
                if generation.finish is not None:
                    return
                # Another thread's round may have brought a piece while this one waited for its turn.
                self.play(lambda: not generation.pieces and generation.finish is None)
        finally:
            if generation.finish is None:
                generation.canceled = True
                with self._turn:
                    self._drop_ended()

    def abandon(self) -> None:
        """Ends all generations as canceled; the adapters stay.

        Raises what the device raises where it can free no memory any more; they are ended nevertheless.
        """
        with self._turn, contextlib.ExitStack() as stack:  # which goes on behind one that raises
            for generation in self._every():
                stack.callback(self._finish, generation, "canceled")

    def _every(self) -> list[Generation]:
        prefilling = [self._prefilling] if self._prefilling else []
        return [*self._waiting, *prefilling, *self._running.values()]

    def _drop_ended(self) -> None:
        """Ends what was canceled, and what is past its deadline."""
        now = time.monotonic()
        for generation in self._every():
            if generation.canceled:
                self._finish(generation, "canceled")
            elif generation.until is not None and now >= generation.until:
                self._finish(generation, "deadline")

    def _prefill(self) -> int:
        """Prefills at most one chunk's tokens, of one prompt or of several short ones; how many it did."""
        from alchemy.training.decoding import CHUNK

        done = 0
        while generation := self._prefilling or self._admit():
            # The borders lie at multiples of the chunk, whoever else there is: they change the last bits.
            chunk = generation.prompt[generation._prefilled : generation._prefilled + CHUNK]
            if done and done + len(chunk) > CHUNK:
                break
            version = generation._version
            logits = self._decoder.prefill(chunk, generation._cache, version.slot if version else None)
            generation._prefilled += len(chunk)
            done += len(chunk)
            if generation._prefilled == len(generation.prompt):
                self._decoder.slots.fill(generation._row, generation._cache)
                generation._cache = None
                self._running[generation._row] = generation
                self._prefilling = None  # not before: where `fill` fails, `abandon` still finds it
                self._take(generation, logits)
        return done

    def _admit(self) -> Generation | None:
        """Begins with the first that waits, where there is a row for it; the others wait behind it."""
        from transformers import DynamicCache

        if not self._waiting or len(self._running) >= self._decoder.most_rows:
            return None
        generation = self._waiting[0]
        row = self._decoder.slots.reserve(generation.room)
        if row is None:
            return None
        self._waiting.popleft()
        generation._row, generation._cache = row, DynamicCache()
        self._prefilling = generation
        return generation

    def _step(self) -> int:
        """One token for every running sequence; how many there are."""
        generations = [self._running[row] for row in self._decoder.slots.rows]
        if not generations:
            return 0
        versions = [generation._version for generation in generations]
        logits = self._decoder.step(
            [generation._next for generation in generations],
            [version.slot if version else None for version in versions],
        )
        likeliest = logits.argmax(dim=-1).tolist()
        for generation, row, token in zip(generations, logits, likeliest, strict=True):
            self._take(generation, row, token)
        return len(generations)

    def _take(self, generation: Generation, logits: Any, likeliest: int | None = None) -> None:
        """Picks the next token and adds it to the text; what fails in that ends this text alone."""
        choice = generation._choice
        try:
            token = choice.pick(logits) if likeliest is None or not choice.greedy else likeliest
            finish = self._add(generation, token)
        except Exception as error:  # of its sampling or its text, which the others have no part in
            generation.error, finish = error, "failed"
        if finish:
            self._finish(generation, finish)

    def _add(self, generation: Generation, token: int) -> Finish | None:
        """Adds a token to the text; why the text ends with it, if it does."""
        if token in self._ends:
            return "stop"
        piece, stopped = generation._text.add(token)
        generation._next = token
        generation.tokens += 1
        self._kept += 1
        if piece:
            generation.pieces.append(piece)
        if stopped:
            return "stop"
        return "length" if generation.tokens == generation.sampling.max_new_tokens else None

    def _finish(self, generation: Generation, finish: Finish) -> None:
        """Gives back what it held; only then others see that it is through."""
        row, generation._row, generation._cache = generation._row, None, None
        if generation is self._prefilling:
            self._prefilling = None
        if row is None:
            with contextlib.suppress(ValueError):
                self._waiting.remove(generation)
        else:
            self._running.pop(row, None)
        if rest := generation._text.rest():
            generation.pieces.append(rest)
        version = generation._version
        if version is not None:
            with self._lock:
                version.users -= 1
            self._collect(version)
        try:
            if row is not None:
                self._decoder.slots.release(row)
        finally:  # who reads it must not wait for a device that fails
            generation.finish = finish

    def _check(self, name: str, expected: str | None) -> None:
        found = self._versions.get(name)
        label = found.label if found else None
        if expected not in (ANY, label):
            raise Conflict(f"adapter {name} is at {label}, not at {expected}")

    def _known(self, name: str) -> str:
        if name not in self._versions:
            raise NotFound(f"no adapter {name}; loaded are: {', '.join(sorted(self._versions)) or 'none'}")
        return name

    def _retire(self, version: _Version | None) -> None:
        if version is not None:
            version.retired = True
            self._collect(version)

    def _collect(self, version: _Version) -> None:
        """Frees a replaced adapter once nobody generates with it."""
        if version.retired and not version.users:
            self._decoder.adapters.free(version.slot)


def _ends(base: Any) -> set[int]:
    """Tokens that end a text: the tokenizer's, and those that the model's own settings name."""
    named = getattr(base.model.generation_config, "eos_token_id", None)
    return {base.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])} - {None}


class _Turn:
    """A lock whose holder cannot take it again before one that waits: torch's threads never yield."""

    def __init__(self) -> None:
        self._next = threading.Lock()
        self._held = threading.Lock()

    def __enter__(self) -> None:
        with self._next:
            self._held.acquire()

    def __exit__(self, *_: object) -> None:
        self._held.release()
