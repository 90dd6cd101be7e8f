"""`entities.xml` of a Confluence backup: current pages with their bodies and comments.

The file is a dump of all objects in no useful order, so it is read twice: first what is small (spaces, users,
titles, comments), then the bodies, one page in memory at a time. Every page object becomes a draft or a row,
and its comments go with it; old versions, drafts and deleted pages are rows with the reason `not_current`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lxml import etree

from alchemy.records import Draft, Part, RawObject, Rejected
from alchemy.sources.drafts import draft, iso, people
from alchemy.sources.page_content import page_metrics, storage_body, wiki_body, without_title
from alchemy.sources.reasons import Unreadable, reject, rejected_by
from alchemy.sources.safe_xml import FoundElement, find_elements, whole_text
from alchemy.text.html import HtmlText, heading_part

_OBJECT_DEPTH = 2  # hibernate-generic > object
_OBJECT = frozenset(["object"])
_PAGES = frozenset(("Page", "BlogPost"))
_WIKI_BODY = "0"  # the others are storage format
_COMMENT_CHARACTERS = 64 << 20  # of all comments together, held in memory
_ANCESTORS = 20


@dataclass(slots=True)
class _Page:
    id: str
    title: str
    space: str
    parent: str
    status: str
    original: str  # set on an old version: the page that it is a version of
    version: str
    creator: str
    modifier: str
    created: str
    updated: str
    locator: str
    done: bool = False


@dataclass(slots=True)
class _Index:
    pages: dict[str, _Page] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # pages that have their row
    spaces: dict[str, tuple[str, str]] = field(default_factory=dict)  # id to key and name
    users: dict[str, str] = field(default_factory=dict)
    commented: dict[str, tuple[str, str]] = field(default_factory=dict)  # comment to page and author
    comments: dict[str, str] = field(default_factory=dict)  # comment to text
    by_page: dict[str, list[str]] = field(default_factory=dict)
    held: int = 0


def read_backup(raw: RawObject, path: Path, limit: int) -> Iterator[Draft | Rejected]:
    index = _Index()
    for found in find_elements(raw, path, _OBJECT_DEPTH, limit, _OBJECT):
        if isinstance(found, Rejected):
            yield found  # and the second reading stops at the same place in silence
        elif rejected := _remember(raw, index, found):
            yield rejected
    for comment, (page_id, _) in index.commented.items():
        index.by_page.setdefault(page_id, []).append(comment)
    for found in find_elements(raw, path, _OBJECT_DEPTH, limit, _OBJECT):
        if isinstance(found, FoundElement) and (row := _body_row(raw, index, found)):
            yield row
    for page in index.pages.values():
        if not page.done:
            detail = "The backup holds no body for this page."
            yield reject(raw, "missing_field", detail, locator=page.locator, sample=page.title)


def _remember(raw: RawObject, index: _Index, found: FoundElement) -> Rejected | None:
    """Keeps what the second reading needs; returns a row for a page that is not to be read."""
    entity, kind = found.element, found.element.get("class", "")
    identity = _id(entity)
    if kind == "Space":
        index.spaces[identity] = (_property(entity, "key"), _property(entity, "name"))
    elif kind in ("ConfluenceUserImpl", "InternalUser"):
        index.users[identity] = _property(entity, "name")
    elif kind == "Comment":
        page_id = _reference(entity, "containerContent") or _reference(entity, "owner")
        index.commented[identity] = (
            page_id,
            _reference(entity, "creator") or _property(entity, "creatorName"),
        )
    elif kind == "BodyContent" and _class(entity, "content") == "Comment":
        text = _body(entity)
        index.held += len(text)
        if index.held > _COMMENT_CHARACTERS:
            return reject(raw, "too_large", "The backup's comments are too large.", locator=found.locator)
        index.comments[_reference(entity, "content")] = text
    elif kind in _PAGES:
        page = _Page(
            id=identity,
            title=_property(entity, "title"),
            space=_reference(entity, "space"),
            parent=_reference(entity, "parent"),
            status=_property(entity, "contentStatus") or "current",
            original=_reference(entity, "originalVersion") or _property(entity, "originalVersionId"),
            version=_property(entity, "version"),
            creator=_reference(entity, "creator") or _property(entity, "creatorName"),
            modifier=_reference(entity, "lastModifier") or _property(entity, "lastModifierName"),
            created=iso(_property(entity, "creationDate")),
            updated=iso(_property(entity, "lastModificationDate")),
            locator=f"{found.locator} {kind} {identity}",
        )
        row = _refused(raw, index, page)
        if row:
            index.refused.add(identity)
        return row
    return None


def _refused(raw: RawObject, index: _Index, page: _Page) -> Rejected | None:
    if not page.id or not page.title:
        missing = "title" if page.id else "id"
        return reject(raw, "missing_field", f"The page has no {missing}.", locator=page.locator)
    if page.original or page.status != "current":
        what = "an old version of another page" if page.original else f"{page.status[:40]!r}"
        return reject(
            raw,
            "not_current",
            f"The page is {what}.",
            locator=page.locator,
            sample=page.title,
            outcome="filtered",
        )
    if page.id in index.pages:
        return reject(raw, "wrong_shape", "The backup holds this page twice.", locator=page.locator)
    index.pages[page.id] = page
    return None


def _body_row(raw: RawObject, index: _Index, found: FoundElement) -> Draft | Rejected | None:
    entity = found.element
    if entity.get("class") != "BodyContent":
        return None
    owner = _reference(entity, "content")
    page = index.pages.get(owner)
    if page is None and _class(entity, "content") in _PAGES and owner not in index.refused:
        detail = "The body belongs to no page of the backup."
        return reject(raw, "missing_field", detail, locator=found.locator, sample=_body(entity)[:400])
    if page is None or page.done:
        return None  # the body of something else, or of a version that has its row
    page.done = True
    text = _body(entity)
    try:
        content = wiki_body(text) if _property(entity, "bodyType") == _WIKI_BODY else storage_body(text)
        return _draft(index, page, content)
    except Exception as error:
        return rejected_by(error, raw, locator=page.locator, sample=text[:400])


def _draft(index: _Index, page: _Page, content: HtmlText) -> Draft:
    key, name = index.spaces.get(page.space, (page.space, ""))
    parts = without_title(content.parts, page.title)
    metrics = page_metrics(parts, content)
    users = [_user(index, page.creator), _user(index, page.modifier)]
    for comment in index.by_page.get(page.id, ()):
        said = _comment(index.comments.get(comment, ""))
        if said:
            author = _user(index, index.commented[comment][1])
            users.append(author)
            parts = [*parts, heading_part(f"Comment by {author}" if author else "Comment", 2), *said]
            metrics["comments"] = metrics.get("comments", 0) + 1
    return draft(
        "page",
        f"{key}/{page.id}" if key else page.id,
        page.title,
        parts,
        page.locator,
        project=name or key,
        fields={
            "space": key,
            "path": " > ".join(_ancestors(index, page)),
            "author": users[0],
            "created": page.created,
        },
        metrics={**metrics, "versions": float(page.version) if page.version.isdecimal() else None},
        people=people(*users),
        updated=page.updated or page.created,
    )


def _comment(text: str) -> list[Part]:
    try:
        return [part for part in storage_body(text).parts if part.text.strip()]
    except Unreadable:
        return [Part(text)]


def _ancestors(index: _Index, page: _Page) -> list[str]:
    titles: list[str] = []
    seen = {page.id}
    parent = index.pages.get(page.parent)
    while parent and parent.id not in seen and len(titles) < _ANCESTORS:
        seen.add(parent.id)
        titles.insert(0, parent.title)
        parent = index.pages.get(parent.parent)
    return titles


def _user(index: _Index, key: str) -> str:
    return index.users.get(key, "") or ("" if len(key) == 32 else key)  # a key without its user says nothing


def _id(entity: etree._Element) -> str:
    found = entity.find("id")
    return "" if found is None else whole_text(found).strip()


def _find(entity: etree._Element, name: str) -> etree._Element | None:
    return next((child for child in entity.findall("property") if child.get("name") == name), None)


def _property(entity: etree._Element, name: str) -> str:
    found = _find(entity, name)
    return "" if found is None else whole_text(found).strip()


def _reference(entity: etree._Element, name: str) -> str:
    """The id of the object that a property points at."""
    found = _find(entity, name)
    return "" if found is None or found.find("id") is None else _id(found)


def _class(entity: etree._Element, name: str) -> str:
    found = _find(entity, name)
    return "" if found is None else found.get("class", "")


def _body(entity: etree._Element) -> str:
    """A body; the backup writes the end of a CDATA section inside a CDATA section as "]] >"."""
    return _property(entity, "body").replace("]] >", "]]>")
