"""The content of a wiki page, whichever markup its body came in, and what is measured on it."""

import re
from typing import Any

from alchemy.records import Part
from alchemy.sources.adf import adf_parts
from alchemy.sources.storage_format import storage_content
from alchemy.sources.wiki import WikiText, wiki_parts
from alchemy.text.html import HtmlText, parse_html, read_html

_WORD = re.compile(r"\w+")


def storage_body(text: str) -> HtmlText:
    return storage_content(text)


def html_body(text: str) -> HtmlText:
    return read_html(parse_html(text))


def document_body(tree: dict[str, Any]) -> HtmlText:
    return _counted(adf_parts(tree))


def wiki_body(text: str) -> HtmlText:
    return _counted(wiki_parts(text))


def page_metrics(parts: list[Part], content: HtmlText) -> dict[str, int]:
    return {
        "words": sum(len(_WORD.findall(part.text)) for part in parts),
        "links": content.links,
        "tables": content.tables,
        "images": content.images,
        "headings": content.headings,
        "code_blocks": content.code_blocks,
    }


def without_title(parts: list[Part], title: str) -> list[Part]:
    """The title is no section of its own page."""
    if parts and parts[0].kind == "heading" and _letters(parts[0].text) == _letters(title):
        return parts[1:]
    return parts


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _counted(text: WikiText) -> HtmlText:
    kinds = [part.kind for part in text.parts if part.text]
    return HtmlText(
        text.parts,
        links=text.links,
        tables=kinds.count("table"),
        headings=kinds.count("heading"),
        code_blocks=text.code_blocks,
    )
