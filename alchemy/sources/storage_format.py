"""Confluence's storage format (XHTML with `ac:` and `ri:` elements) to the content of a page.

An HTML parser destroys its CDATA code blocks, so it is read as XML, its macros are rewritten to plain HTML,
and the one HTML walker of this project (`alchemy.text.html`) makes the parts.

| element | becomes |
|---|---|
| code, noformat and similar macros | `pre`, the CDATA untouched |
| info, note, tip, warning, panel | "Warning:" or the title, then the content |
| expand and any other macro with a body | its title, then the content |
| status, jira, anchor, toc and other bodiless macros | the status text, the issue key, nothing |
| ac:link, ri:page, ri:user, ri:attachment | the link's text, else the page's title or file's name |
| ac:image | its alternative text and caption |
| ac:task-list | list items "[x] " and "[ ] " |
| ac:adf-extension | its `ac:adf-fallback`, or its content |

The text is wrapped in a root of ours, so a document type of its own is never in force; the DTD above it
declares the entities of HTML and nothing else.
"""

import re
from functools import cache
from html.entities import name2codepoint

from lxml import etree

from alchemy.sources.reasons import Unreadable
from alchemy.text.html import HtmlText, parse_html, read_html

_AC, _RI = "{ac}", "{ri}"  # the prefixes have no fixed address; the root declares these
_PROLOG = re.compile(
    r"\A\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!DOCTYPE(?:[^\[\]>]|\[[^\]]{0,20000}\]){0,2000}>\s*)?", re.I
)
_KNOWN = "|".join((*name2codepoint, "apos"))
_LOOSE = re.compile(
    rf"<!\[CDATA\[.*?(?:\]\]>|\Z)|&(?!(?:{_KNOWN}|#\d{{1,7}}|#x[0-9a-f]{{1,6}});)", re.I | re.DOTALL
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_WIKI = frozenset(("markdown", "unmigrated-wiki-markup", "unmigrated-inline-wiki-markup"))
_LABELED = frozenset(("info", "note", "tip", "warning"))
_MARKS = re.compile(r"<(?:ac|ri):[a-z]")
_TITLED = ("title", "panelTitle")


def is_storage_format(text: str) -> bool:
    """Whether a text has elements that only this format has."""
    return bool(_MARKS.search(text))


def storage_content(text: str) -> HtmlText:
    """The content of a page body.

    Raises:
        Unreadable: `too_deep` or `broken`.
    """
    root = _parse(text)
    for element in list(root.iter(f"{_AC}placeholder")):
        _remove(element)
    _rewrite(root)
    markup = etree.tostring(root, encoding="unicode", method="html")
    return read_html(parse_html(f"<body>{markup}</body>"))


def _parse(text: str) -> etree._Element:
    text = _CONTROLS.sub("", _PROLOG.sub("", text, count=1))
    # One entity that is not declared would cost the text around it.
    text = _LOOSE.sub(lambda found: "&amp;" if found.group() == "&" else found.group(), text)
    parser = etree.XMLParser(
        resolve_entities="internal",
        no_network=True,
        load_dtd=False,
        recover=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        strip_cdata=True,
    )
    data = f'{_doctype()}<div xmlns:ac="ac" xmlns:ri="ri" xmlns:at="at">{text}</div>'
    root = etree.fromstring(data.encode(), parser)
    messages = " ".join(entry.message for entry in parser.error_log)
    if "xcessive depth" in messages:
        raise Unreadable("too_deep", "The page nests deeper than the XML parser goes.")
    if root is None or "huge" in messages.lower() or "amplification" in messages:
        raise Unreadable("broken", "The page's storage format cannot be parsed.")
    return root


@cache
def _doctype() -> str:
    kept = {"lt", "gt", "amp", "quot", "apos"}  # XML has these itself
    entities = "".join(
        f'<!ENTITY {name} "&#{code};">' for name, code in name2codepoint.items() if name not in kept
    )
    return f"<!DOCTYPE div [{entities}]>"


def _rewrite(root: etree._Element) -> None:
    """Turns every `ac:` and `ri:` element into HTML, innermost first."""
    for element in reversed(list(root.iter(etree.Element))):
        tag = element.tag
        if not isinstance(tag, str) or element is root:
            continue
        if tag.startswith(_AC):
            _macro(element, tag.removeprefix(_AC))
        elif not tag.startswith("{"):
            for name in [name for name in element.attrib if name.startswith("{")]:
                del element.attrib[name]


def _macro(element: etree._Element, kind: str) -> None:
    if kind in ("structured-macro", "macro"):
        _structured(element, element.get(f"{_AC}name", ""))
    elif kind == "link":
        body = element.find("span[@data-body]")
        label = _text(body) if body is not None else _text(element)
        target = label.strip() or _resource(element) or element.get(f"{_AC}anchor", "")
        _become(element, "a" if target else "span", target, href="#")
    elif kind in ("link-body", "plain-text-link-body"):
        _retag(element, "span")
        element.set("data-body", "1")
    elif kind == "image":
        caption = element.find("p[@data-caption]")
        alt = element.get(f"{_AC}alt", "")
        text = " ".join(word for word in (f"[{alt}]" if alt else "", _text(caption)) if word)
        _become(element, "span", text)
        etree.SubElement(element, "img")
    elif kind == "caption":
        _retag(element, "p")
        element.set("data-caption", "1")
    elif kind == "task-list":
        _retag(element, "ul")
    elif kind == "task":
        done = _text(element.find("span[@data-status]")).strip() == "complete"
        _drop_children(element, "data-status", "data-id")
        _retag(element, "li")
        element.text = "[x] " if done else "[ ] "
    elif kind == "task-status":
        _retag(element, "span")
        element.set("data-status", "1")
    elif kind in ("task-id", "task-uuid"):
        _retag(element, "span")
        element.set("data-id", "1")
    elif kind == "emoticon":
        _become(element, "span", element.get(f"{_AC}emoji-fallback", ""))
    elif kind in ("rich-text-body", "layout", "layout-section", "layout-cell", "adf-fallback", "adf-content"):
        _retag(element, "div")
        if kind == "adf-fallback":
            element.set("data-fallback", "1")
    elif kind == "plain-text-body":
        _retag(element, "pre")
    elif kind == "adf-extension":
        fallback = element.find("div[@data-fallback]")
        for child in list(element):
            if fallback is not None and child is not fallback:
                element.remove(child)
        _retag(element, "div")
    elif kind in ("adf-attribute", "adf-node", "adf-mark", "adf-leaf"):
        if kind == "adf-node":
            _retag(element, "span")
        else:
            _become(element, "span", "")
    elif kind == "parameter":
        return  # read by its macro, which removes it
    else:
        _retag(element, "span")


def _structured(element: etree._Element, name: str) -> None:
    """A macro: its parameters go, its body stays."""
    parameters = {}
    for parameter in element.findall(f"{_AC}parameter"):
        parameters[parameter.get(f"{_AC}name", "")] = _text(parameter).strip() or _resource(parameter)
        _remove(parameter)
    body = element.find("div")
    code = element.find("pre")
    if code is None and body is None:
        shown = parameters.get({"status": "title", "jira": "key"}.get(name, ""), "")
        _become(element, "span", shown)
        return
    element.text = None
    if code is not None and name in _WIKI:
        _retag(code, "div")
    label = next((parameters[key] for key in _TITLED if parameters.get(key)), "")
    if not label and name in _LABELED:
        label = f"{name.capitalize()}:"
    _retag(element, "div")
    if label:
        title = etree.Element("p")
        title.text = label
        element.insert(0, title)


def _resource(element: etree._Element) -> str:
    """What a link without a text points at."""
    for child in element.iter():
        if isinstance(child.tag, str) and child.tag.startswith(_RI):
            for name in ("content-title", "filename", "value", "space-key"):
                if found := child.get(f"{_RI}{name}"):
                    return found
    return ""


def _text(element: etree._Element | None) -> str:
    return "" if element is None else "".join(element.itertext())


def _retag(element: etree._Element, tag: str) -> None:
    element.tag = tag
    element.attrib.clear()


def _become(element: etree._Element, tag: str, text: str, **attributes: str) -> None:
    """Replaces an element's content, not what follows it."""
    element.clear(keep_tail=True)
    element.tag = tag
    element.text = text
    element.attrib.update(attributes)


def _drop_children(element: etree._Element, *marks: str) -> None:
    for child in list(element):
        if any(mark in child.attrib for mark in marks):
            _remove(child)


def _remove(element: etree._Element) -> None:
    """Removes an element and keeps the text after it."""
    parent = element.getparent()
    if parent is None:
        return
    if element.tail:
        before = element.getprevious()
        if before is None:
            parent.text = (parent.text or "") + element.tail
        else:
            before.tail = (before.tail or "") + element.tail
    parent.remove(element)
