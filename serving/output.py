"""What a language model writes, before anybody reads it: nothing that leaks, loads or leads astray.

Secrets and personal data are masked as at ingestion, pictures and active HTML are taken out, and so is every
address that no passage holds: a model that was talked into it would send what it knows along with one, and a
model that was not invents them. Whoever shows the text may render it as Markdown, so a link is judged by
where a browser would go, however it is written. The text streams on while it is filtered: plain words pass at
once, what may be the beginning of something to filter is held until it is known.
"""

import html
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from alchemy.errors import Unavailable
from alchemy.retrieval.search import Passage
from alchemy.text.instructions import ACTIVE
from alchemy.text.sanitize import Sanitizer

_HELD_MOST = 4096  # characters; a private key is shorter
_APART = 3  # plain words after something odd, from which on nothing belongs to it any more
_PAUSE = "。！？，；、"  # ends a word as white space does, which Chinese has none of
_WORD = re.compile(rf"[^\s{_PAUSE}]*[\s{_PAUSE}]+|[^\s{_PAUSE}]+")
# Possessive: what is plain is read once, where backtracking would double the time with every letter.
_PLAIN = re.compile(
    rf"[^\W\d_]++[-,.;!?’'\"”“{_PAUSE}]*+(?:[^\W\d_]++[,.;!?’'\"”{_PAUSE}]*+)*+(?:\s+|(?<=[{_PAUSE}]))"
)
_KEYWORD = re.compile(r"(?i)passw|secret|token|key|bearer|credential|密码|口令|密钥|令牌")
_OPEN = re.compile(r"!?[\[<(`][^\]>)`]*\Z|-----BEGIN(?:(?!-----END)[\s\S])*\Z")
_PICTURE = re.compile(r"!(?=\[(?!\d[\d, ]*\](?![(\[:])))")  # not "at last![1]"
_LINK = re.compile(r"(?<=\])\(([^)]*)\)|(?<=\]:)\s*(\S+)")  # where [text](it) and [name]: it lead
_AWAY = re.compile(r"<?(?:[a-z][a-z0-9+.-]*:|[/\\]{2})", re.IGNORECASE)  # to another place than the page's
_ESCAPE = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
_IGNORED = re.compile(r"[\x00-\x20\u200b\ufeff]")  # by who reads an address
_ADDRESS = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]*://|\bwww\.|\bjavascript:|\bdata:)[^\s<>\"'`)\]，。；]+", re.IGNORECASE
)
_TAG = re.compile(r"<[^<>]*>")


@dataclass
class OutputFilter:
    """Filters one answer; `removed` names what was taken out of it so far."""

    sanitizer: Sanitizer
    passages: Sequence[Passage]
    removed: list[str] = field(default_factory=list)

    async def stream(self, tokens: AsyncIterator[str]) -> AsyncIterator[str]:
        """The text as it comes, filtered. Raises Unavailable like `tokens`, after what came before."""
        pending, broken = "", None
        try:
            async for token in tokens:
                pending += token
                cut = _settled(pending)
                if cut:
                    yield self.clean(pending[:cut])
                    pending = pending[cut:]
        except Unavailable as error:  # what was held has been written all the same
            broken = error
        if pending:
            yield self.clean(pending)
        if broken:
            raise broken

    def clean(self, text: str) -> str:
        """The whole text filtered; what is clean stays as it is."""
        text = self._without("html", _TAG, text, lambda found: "" if ACTIVE.search(found[0]) else found[0])
        text = self._without("picture", _PICTURE, text, lambda _: "")
        text = self._without("link", _LINK, text, self._led)
        text = self._without("link", _ADDRESS, text, lambda found: found[0] if self._held(found[0]) else "…")
        text = self._without("html", _TAG, text, lambda found: "" if ACTIVE.search(found[0]) else found[0])
        masked = self.sanitizer.mask(text)
        return self._noted("secret", text, masked)

    def _without(
        self, kind: str, pattern: re.Pattern[str], text: str, instead: Callable[[re.Match[str]], str]
    ) -> str:
        return self._noted(kind, text, pattern.sub(instead, text))

    def _noted(self, kind: str, before: str, after: str) -> str:
        if after != before and kind not in self.removed:
            self.removed.append(kind)
        return after

    def _led(self, found: re.Match[str]) -> str:
        """Where a link leads, if it stays here or a passage holds that address."""
        written = found[1] or found[2] or ""
        read = _IGNORED.sub("", _ESCAPE.sub("", html.unescape(written)))
        if not _AWAY.match(read) or self._held(written.split(maxsplit=1)[0].strip("<>")):
            return found[0]
        return "" if found[2] is None else " …"

    def _held(self, address: str) -> bool:
        """Whether the address stands in a passage as it is, or is one's own."""
        address = address.rstrip(".,;:!?")
        stands = re.compile(re.escape(address) + r"(?![\w-]|\.\w)")  # not the beginning of another one
        return any(address == p.chunk.url or stands.search(p.text) for p in self.passages)


def _settled(text: str) -> int:
    """How much of the text's beginning can be judged whatever comes next."""
    if len(text) > _HELD_MOST:
        return len(text)
    cut = odd = 0
    plain = _APART
    for word in _WORD.finditer(text):
        if _PLAIN.fullmatch(word[0]) and not _KEYWORD.search(word[0]):
            plain += 1
        else:
            odd = word.start() if plain >= _APART else odd
            plain = 0
        cut = word.end() if plain >= _APART else odd
    open_at = _OPEN.search(text[:cut])  # brackets that close later, or never
    return open_at.start() if open_at else cut
