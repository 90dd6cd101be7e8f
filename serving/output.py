"""What a language model writes, before anybody reads it: nothing that leaks, loads or leads astray.

Secrets and personal data are masked as at ingestion, pictures and active HTML are taken out, and so is every
address that no passage holds: a model that was talked into it would send what it knows along with one, and a
model that was not invents them. Whoever shows the text may render it as Markdown, so a link is judged by
where a browser would go, however it is written. The text streams on while it is filtered: plain words pass at
once, what may be the beginning of something to filter is held until it is known.
"""

import html
import re
from collections.abc import AsyncIterator, Sequence
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
_OPEN = re.compile(r"!?[\[(`][^\]>)`]*\Z|</?[a-z][^>]*\Z|-----BEGIN(?:(?!-----END)[\s\S])*\Z", re.IGNORECASE)
_PICTURE = re.compile(r"!+(?=\[(?!\d[\d, ]*\](?!\()))")  # not "at last![1]": no definition is left for it
_LINK = re.compile(r"\]\((?:((?:(?!\]\()[^)])*)\))?")
_DEFINITION = re.compile(r"\]:([\s>]*)(\S+)")
_AWAY = re.compile(r"<?(?:[a-z][a-z0-9+.-]*:|[/\\]{2}|www\.)", re.IGNORECASE)  # from the page's own
_LABEL = re.compile(r"\w+:")
_ESCAPE = re.compile(r"\\(?=[!-/:-@\[-`{-~])")
_IGNORED = re.compile(r"[\x00-\x20\u200b\ufeff]")  # by who reads an address
_ADDRESS = re.compile(
    r"(?:[a-z][a-z0-9+.-]*:[/\\]{2}|(?<![a-z0-9])(?:www\.|javascript:|data:))[^\s<>\"'`)\]，。；]+",
    re.IGNORECASE,
)
_OTHERS = re.compile(r"[^\s<>]*@")  # what stands before it was a user's name at another host
_TAG = re.compile(r"<[^<>]*>")
# The beginning of a tag that has attributes, or does something by itself; and of <scheme:...>.
_MARKUP = re.compile(
    r"<(?=/?[a-z][^<>]*(?:[=:]|\Z)|/?(?:script|style|iframe|frame|object|embed|form|base|link|meta|svg|math|input"
    r"|button|video|audio|template|textarea|title|xmp|plaintext)\b)",
    re.IGNORECASE,
)


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
        """The whole text filtered; what is clean stays as it is.

        Something stands where a place or a tag was taken out: what is left must not join to a new link. Of a
        picture all its marks go, which leaves a link, and that is judged next.
        """
        text = _TAG.sub(lambda tag: self._gone("html", "…") if ACTIVE.search(tag[0]) else tag[0], text)
        text = _PICTURE.sub(lambda _: self._gone("picture", ""), text)
        text = _LINK.sub(self._linked, text)
        text = _DEFINITION.sub(self._defined, text)
        text = _ADDRESS.sub(self._addressed, text)
        text = _MARKUP.sub("‹", text)
        masked = self.sanitizer.mask(text)
        return self._gone("secret", masked) if masked != text else text

    def _gone(self, kind: str, instead: str) -> str:
        if kind not in self.removed:
            self.removed.append(kind)
        return instead

    def _linked(self, link: re.Match[str]) -> str:
        """`](place)` as it is where it stays here or a passage holds it; else it is no link any more."""
        place = link[1]
        if place is None:
            return "] ("
        if not _leads_away(place):
            return link[0] if _is_plain(place) else f"] ({place})"
        return link[0] if _is_plain(place) and self._holds(place) else self._gone("link", "] …")

    def _defined(self, definition: re.Match[str]) -> str:
        """`]: place` in such a way that it defines no link, nor a picture, of that name."""
        between, place = definition.groups()
        if _LABEL.fullmatch(place) or not _leads_away(place):  # "[ERROR]: kafka: lost" leads nowhere
            return definition[0]
        held = _is_plain(place) and self._holds(place)
        return f"] :{between}{place if held else self._gone('link', '…')}"

    def _addressed(self, found: re.Match[str]) -> str:
        others = _OTHERS.match(found.string, found.end())
        return found[0] if self._holds(found[0]) and not others else self._gone("link", "…")

    def _holds(self, address: str) -> bool:
        """Whether it is a whole address, and stands in a passage as it is or is one's own."""
        if not _ADDRESS.fullmatch(address):
            return False
        address = address.rstrip(".,;:!?")
        stands = re.compile(re.escape(address) + r"(?![\w-]|\.\w)")  # not the beginning of another one
        return any(address == p.chunk.url or stands.search(p.text) for p in self.passages)


def _leads_away(place: str) -> bool:
    """Whether a browser would leave the page's own host for it, however it is written."""
    first = (place.split(maxsplit=1) or [""])[0]  # the rest is a title, or makes it no link
    return bool(_AWAY.match(_IGNORED.sub("", _ESCAPE.sub("", html.unescape(first)))))


def _is_plain(place: str) -> bool:
    """Whether it is read as it is written."""
    return not re.search(r"[\s()<>\\]", place) and html.unescape(place) == place


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
