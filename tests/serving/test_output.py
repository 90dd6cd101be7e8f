import asyncio
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from alchemy.text.sanitize import Sanitizer
from serving.output import OutputFilter
from tests.serving.conftest import make_passage

PASSAGE = make_passage("Ask at https://wiki.example/haul for access. The gateway retries three times.")
SANITIZER = Sanitizer(b"test")
SECRET = "AKIA" + "Q3EGRPZ7VN5XTL2M"  # in two pieces, or scanners of secrets find it here
MAIL = "anna.weber@haulage-partners.com"


def filtered(text: str, size: int = 3) -> tuple[str, list[str]]:
    """The text, streamed in pieces of `size` characters, and what was removed."""

    async def pieces() -> AsyncIterator[str]:
        for start in range(0, len(text), size):
            yield text[start : start + size]

    async def collect() -> tuple[str, list[str]]:
        one = OutputFilter(SANITIZER, (PASSAGE,))
        return "".join([piece async for piece in one.stream(pieces())]), one.removed

    return asyncio.run(collect())


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "gone", "kind"),
    [
        (f"The key is {SECRET} and nobody knows.", SECRET, "secret"),
        (f"Write to {MAIL}, she knows about the gateway.", MAIL, "secret"),
        ("See ![a nice picture](https://wiki.example/haul) of the gateway.", "![", "picture"),
        ("See ![a very long and nice picture of it][1] there.", "![", "picture"),
        ("Look [here for all of the details](https://evil.example/?q=x) please.", "evil", "link"),
        ("Look [here](javascript:alert(1)) please.", "javascript", "link"),
        ("Look at https://evil.example/?q=three for more of it.", "evil", "link"),
        ('Well <img src="https://evil.example/x.png"> it is so.', "<img", "html"),
        ("Well <script src=//evil.example/x.js></script> it is.", "evil", "html"),
    ],
)
def test_nothing_leaks_loads_or_leads_away(text: str, gone: str, kind: str, size: int) -> None:
    found, removed = filtered(text, size)
    assert gone not in found
    assert removed == [kind]
    assert found.startswith(text.split(maxsplit=1)[0]) and found.endswith(text.rsplit(maxsplit=1)[-1])


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    "link",
    [
        "![x](https://evil.example/p.png?q=secret)",
        "![x\ny](//evil.example/a)",
        "![x [y] z](//evil.example/a)",
        "[click](https&#58;//evil.example/a)",
        "[click](https\\://evil.example/a)",
        "[click](<//evil.example/a>)",
        "[click](\\//evil.example/a)",
        "[click](/\\/evil.example/a)",
        "[click](/&#47;evil.example/a)",
        "[click](java&Tab;script&colon;evil)",
        "[a `b` c](//evil.example/a)",
        "![seen] so far.\n\n[seen]: //evil.example/?q=gw503",
        "[seen]\n\n[seen]:\n   <//evil.example/?q=gw503>",
        "[x](//a)(//evil.example/a)",
        "!![x](//a)(//evil.example/p.png)",
        "> [x](\n> //evil.example/x)",
        "![1]\n\n> [1]:\n> //evil.example/p.png",
        "[x](<https://wiki.example/haul @evil.example/a>)",
        "[x](https://wiki.example/haul'@evil.example/a)",
        "<http:evil.example/a>",
        "访问https://evil.example/a",
        "_https://evil.example/a_",
        "1https://evil.example/a",
        "请看www.evil.example/a",
        "<<<img src=x>img src=x>img src='//evil.example/p'>",
        "<img/src='//evil.example/p'>",
        "<img alt='>' src='//evil.example/p'>",
        "<a href='//evil.example/a'>here</a>",
        "<div style='background:url(//evil.example/p)'>",
    ],
)
def test_no_way_of_writing_a_link_leads_away(link: str, size: int) -> None:
    found, _ = filtered(f"It retries three times {link} as far as I know.", size)
    assert led_to(found) == []


class _Reader(HTMLParser):
    """What a page of an answer would load or lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.places += [value or "" for name, value in attrs if name not in ("alt", "title")]


def led_to(text: str) -> list[str]:
    """Where the text leads away to when it is rendered, bare addresses as GitHub links them among it."""
    reader = _Reader()
    reader.feed(MarkdownIt("commonmark").render(text))
    places = reader.places + re.findall(r"(?:https?://|(?<![A-Za-z0-9])www\.)\w[^\s<>\"]*", text)
    away = [
        place for place in places if re.match(r"\s*(?:[a-z][a-z0-9+.-]*:.|[/\\\\]{2}|www\.)", place, re.I)
    ]
    return [place for place in away if urlsplit(place).hostname != "wiki.example"]


PIECES = (
    *(
        "[",
        "]",
        "(",
        ")",
        "<",
        ">",
        "!",
        "![",
        "](",
        "]:",
        "[x](",
        "[1]: ",
        "<img src=",
        "<a href=",
        "- ",
        "> ",
    ),
    *(
        "//evil.example",
        "https:",
        "https://wiki.example/haul",
        "&#58;",
        "&Tab;",
        "\\",
        "/",
        ":",
        "1",
        "x",
        "知",
    ),
    *(" ", "\n", "'", '"', "`", "javascript:", "www.", "<!--"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_whatever_it_is_put_together_from_no_text_leads_away(text: str) -> None:
    assert led_to(OutputFilter(SANITIZER, (PASSAGE,)).clean(text)) == []


def test_a_link_that_a_passage_holds_stays_and_a_picture_becomes_one() -> None:
    text = "See ![it](https://wiki.example/haul) and [that](https://wiki.example/haul)."
    found, removed = filtered(text)
    assert found == "See [it](https://wiki.example/haul) and [that](https://wiki.example/haul)."
    assert removed == ["picture"]


def test_an_address_is_held_as_a_whole_or_not_at_all() -> None:
    for address in ("https://wiki.ex", "https://wiki.example/ha", "https://wiki.example/haul.evil.example"):
        assert address not in filtered(f"Ask at {address} for access.")[0]


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "It works at last![1] And it retries![2, 3] See [the limits](#limits) or handlers[name](event).",
        "In short [ERROR]: kafka: lost, see [1] (note: restart); List<String> and x < y: fine.",
        "The gateway retries three times [1]. It then raises GW-503 [1, 2].",
        "Ask at https://wiki.example/haul or [there](https://wiki.example/haul).",
        "Use `retry --times 3` and <EMAIL_3f2a90c1> knows more (see HAUL-12).",
        "x < y, a[0] and 3 > 2: fine\n- one\n- two  \n\n| a | b |\n",
        "网关最多重试三次[1]。然后返回 GW-503。",
    ],
)
def test_what_is_clean_passes_as_it_is(text: str, size: int) -> None:
    assert filtered(text, size) == (text, [])


def test_a_private_key_over_many_lines_is_masked() -> None:
    body = "\n".join("MIIEpAIBAAKCAQEA7bq9mVdBv5h6yq1sR0m3b2Jx9kQwErTyUiOpAsDfGhJkLzXc" for _ in range(8))
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    found, removed = filtered(f"Here it is:\n{key}\nThat was it.", 5)
    assert "MIIE" not in found
    assert removed == ["secret"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["知" * 3000, "donaudampfschiff" * 200, "a-" * 1500 + "\n"])
def test_a_long_run_of_letters_is_read_once(text: str) -> None:
    assert filtered(text, 100) == (text, [])


@pytest.mark.parametrize(
    "words", [("The ", "gateway ", "retries "), ("网关会重试，", "然后报错；", "请查看日志。")]
)
def test_plain_words_are_not_held_back(words: tuple[str, ...]) -> None:
    async def first_pieces() -> list[str]:
        async def pieces() -> AsyncIterator[str]:
            for word in words:
                yield word
            raise AssertionError("asked for more before it gave what it had")

        one, seen = OutputFilter(SANITIZER, ()), []
        async for piece in one.stream(pieces()):
            seen.append(piece)
            if len(seen) == 3:
                break
        return seen

    assert tuple(asyncio.run(first_pieces())) == words


@given(st.text(st.sampled_from("ab1 .[](!<>`@:/\\\n-好。，"), max_size=60), st.integers(1, 9))
@example("![a](b)", 1)
def test_a_stream_is_filtered_like_the_whole_text(text: str, size: int) -> None:
    whole = OutputFilter(SANITIZER, (PASSAGE,)).clean(text)
    found, _ = filtered(text, size)
    assert re.sub(r"\s+", "", found) == re.sub(r"\s+", "", whole)
