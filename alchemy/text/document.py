"""Turns what a reader found (`Draft`) into a published `Document`: normalized, masked, with exact blocks.

Everything a reader of the document can see is masked here: title, key, project, fields, parts, URL and
locator. Only `raw_key` stays as it is, because it is the address of the raw object.

The title stands in the text as its first block (kind "heading") unless the text begins with it anyway. So
a commit without a body is still a passage, and an answer can quote a commit's subject or an issue's title.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from alchemy.records import Block, Document, Draft, Part, RawObject, Rejected, fingerprint
from alchemy.settings import CleanOptions
from alchemy.text.decode import tidy
from alchemy.text.language import detect_language
from alchemy.text.names import NOBODY, People
from alchemy.text.quality import JUDGED_KINDS, boilerplate_counts, describe_boilerplate
from alchemy.text.sanitize import Sanitizer, is_role, is_token

SAMPLE_BYTES = 200
SEPARATOR = "\n\n"  # between blocks

# What `tidy` leaves: joiners, direction marks and tag characters. Invisible, they would split a secret in
# two for the rules, or carry a hidden text (Unicode TR 36).
_INVISIBLE = re.compile(
    "[\u034f\u061c\u115f\u1160\u180e\u200c-\u200f\u202a-\u202e\u2061-\u2064\u2066-\u206f\U000e0000-\U000e007f]"
)
_SPACES = re.compile("[\u1680\u2000-\u200a\u202f\u205f\u3000]")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_HALF_TOKEN = re.compile(r"<[A-Z_0-9a-f]*$")
_AUTHORS = re.compile(
    r"(?i)(?:assignee|author|committer|contributor|creator|maintainer|reporter|requester|reviewer|sender"
    r"|submitter)s?|(?:created|updated|merged|assigned)_by"
)


def to_document(
    draft: Draft,
    raw: RawObject,
    sanitizer: Sanitizer,
    options: CleanOptions,
    people_of_export: People = NOBODY,
) -> Document | Rejected:
    """Cleans and masks one draft.

    Args:
        people_of_export: Authors of the records beside this one; its own are masked anyway.

    Returns:
        The document, or a `Rejected` with reason `too_short` where title and text together have fewer than
        `options.min_characters` letters and digits, or `boilerplate` for a page or file without own content.
    """
    others = people_of_export.perhaps_in("\n".join(_texts(draft)))
    people = tuple(dict.fromkeys((*draft.people, *_authors(draft.fields), *others)))

    parts, levels = [], []
    for part in draft.parts:
        text = _tidy_part(part)
        level, text = _level(text) if part.kind == "heading" else (0, text)
        if text:
            parts.append(Part(text, part.kind))
            levels.append(level)
    short = (draft.title, draft.key, draft.project, draft.url, draft.locator)
    texts = [*(" ".join(normalize(text).split()) for text in short), *(part.text for part in parts)]
    title, key, project, url, locator, *masked = sanitizer.mask_all(texts, people)
    parts = [Part(text, part.kind) for text, part in zip(masked, parts, strict=True)]
    if title and not (parts and _begins_with(parts[0].text, title)):
        parts.insert(0, Part(title, "heading"))
        levels.insert(0, 0)
    text, blocks = _assemble(title, list(zip(_settle(parts, sanitizer), levels, strict=True)))
    letters = sum(1 for _ in islice(filter(str.isalnum, text), options.min_characters))
    if letters < options.min_characters:
        reason = "too_short"
        detail = f"Title and text have {letters} letters and digits, fewer than {options.min_characters}."
    elif options.boilerplate_share and draft.kind in JUDGED_KINDS:
        reason = "boilerplate"
        detail = describe_boilerplate(boilerplate_counts(text, blocks), options.boilerplate_share)
    else:
        reason = detail = ""
    if detail:
        return Rejected(
            source=raw.source,
            raw_key=raw.key,
            raw_sha256=raw.sha256,
            locator=locator,
            outcome="filtered",
            stage="filter",
            reason=reason,
            detail=detail,
            sample=_sample(text, sanitizer),
        )
    fields = _mask_fields(draft.fields, people, sanitizer)
    fields.setdefault("language", detect_language(text))
    metrics = {name: value for name, value in draft.metrics.items() if math.isfinite(value)}
    metrics |= _measure(text, blocks)
    return Document(
        id=f"{raw.source}:{key}",
        version=fingerprint(
            raw.source, draft.kind, key, title, project, text, blocks, fields, metrics, url, draft.updated
        ),
        source=raw.source,
        kind=draft.kind,
        key=key,
        title=title,
        project=project,
        text=text,
        blocks=blocks,
        fields=fields,
        metrics=metrics,
        url=url,
        updated=draft.updated,
        raw_key=raw.key,
        raw_sha256=raw.sha256,
        locator=locator,
    )


def mask_rejected(rejected: Rejected, sanitizer: Sanitizer) -> Rejected:
    """The row as it may be published: masked first and cut then, so that no half of a secret is left."""
    return Rejected(
        source=rejected.source,
        raw_key=rejected.raw_key,
        raw_sha256=rejected.raw_sha256,
        locator=sanitizer.mask(normalize(rejected.locator)),
        outcome=rejected.outcome,
        stage=rejected.stage,
        reason=rejected.reason,
        detail=sanitizer.mask(normalize(rejected.detail)),
        sample=_sample(sanitizer.mask(normalize(rejected.sample)), sanitizer),
    )


def normalize(text: str) -> str:
    """NFC, without control and invisible characters; every line end is `\\n`, every blank a space or tab."""
    text = tidy(text)
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _SPACES.sub(" ", _INVISIBLE.sub("", text)))


def _tidy_part(part: Part) -> str:
    text = normalize(part.text)
    if part.kind == "heading":
        return " ".join(text.split())
    if part.kind == "prose":
        text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
        return re.sub(r"\n{3,}", "\n\n", text).strip()
    return "\n".join(line.rstrip(" \t") for line in text.split("\n")).strip("\n")


def _settle(parts: list[Part], sanitizer: Sanitizer) -> list[Part]:
    """Masks what only the parts together give away ("Host" at the end of one, an address in the next)."""
    while True:
        text = SEPARATOR.join(part.text for part in parts)
        findings = sanitizer.find(text)
        if not findings:
            return parts
        settled, start = [], 0
        for part in parts:
            end = start + len(part.text)
            inside = [
                replace(one, start=max(one.start, start) - start, end=min(one.end, end) - start)
                for one in findings
                if one.start < end and one.end > start
            ]
            settled.append(Part(sanitizer.replace(part.text, inside), part.kind))
            start = end + len(SEPARATOR)
        parts = settled


def _assemble(title: str, parts: Sequence[tuple[Part, int]]) -> tuple[str, tuple[Block, ...]]:
    """Joins parts, each with its depth in the outline; 0 is no section of its own: prose, code, the title."""
    blocks: list[Block] = []
    outline: list[tuple[int, str]] = []
    position = 0
    for part, level in parts:
        if level:
            while outline and outline[-1][0] >= level:
                outline.pop()
        section = " > ".join(name for _, name in outline)
        if level and (blocks or part.text != title):
            outline.append((level, part.text))
        blocks.append(Block(position, position + len(part.text), part.kind, section))
        position += len(part.text) + len(SEPARATOR)
    return SEPARATOR.join(part.text for part, _ in parts), tuple(blocks)


def _level(heading: str) -> tuple[int, str]:
    """Depth by leading number signs; without them a heading begins a section of its own."""
    text = heading.lstrip("#")
    marks = len(heading) - len(text)
    if marks and text and not text.startswith(" "):  # "#42" is an issue, not an outline
        return 1, heading
    return marks or 1, text.strip()


def _begins_with(text: str, title: str) -> bool:
    return text.startswith(title) and not text[len(title) : len(title) + 1].isalnum()


def _texts(draft: Draft) -> Iterable[str]:
    yield draft.title
    yield from (part.text for part in draft.parts)
    yield from draft.fields.values()


def _authors(fields: dict[str, str]) -> Iterable[str]:
    """Names in fields that hold authors; the readers' `people` should have them already."""
    for name, value in fields.items():
        if _AUTHORS.fullmatch(name):
            yield from (one.strip() for one in re.split(r"[,;]", normalize(value)) if one.strip())


def _mask_fields(fields: dict[str, str], people: Sequence[str], sanitizer: Sanitizer) -> dict[str, str]:
    """Masked values by name, sorted; empty ones are left out."""
    values = {name: " ".join(normalize(fields[name]).split()) for name in sorted(fields)}
    plain = [name for name in values if not _AUTHORS.fullmatch(name)]
    # What a value is, its name may say: "ip address", "password".
    labels = [f"{name.replace('_', ' ')}: " for name in plain]
    texts = [label + values[name] for name, label in zip(plain, labels, strict=True)]
    masked = sanitizer.mask_all(texts, people)
    values |= {
        name: text.removeprefix(label) for name, label, text in zip(plain, labels, masked, strict=True)
    }
    for name in values.keys() - set(plain):
        authors = (one for one in re.split(r"[,;] *", values[name]) if one)
        values[name] = ", ".join(_mask_author(one, people, sanitizer) for one in authors)
    return {name: value for name, value in values.items() if value}


def _mask_author(value: str, people: Sequence[str], sanitizer: Sanitizer) -> str:
    """A name that is the whole value is masked even where it is too short to be looked for in text."""
    masked = sanitizer.mask(value, people)
    if masked != value or is_role(value) or is_token(value) or not any(map(str.isalpha, value)):
        return masked
    return sanitizer.person(value)


def _measure(text: str, blocks: Sequence[Block]) -> dict[str, float]:
    code = sum(block.end - block.start for block in blocks if block.kind == "code")
    return {
        "blocks": float(len(blocks)),
        "characters": float(len(text)),
        "code_share": round(code / len(text), 6) if text else 0.0,
        "words": float(len(_WORD.findall(text))),
    }


def _sample(text: str, sanitizer: Sanitizer) -> str:
    """The beginning of a masked text: at most `SAMPLE_BYTES` of UTF-8, no half character or pseudonym."""
    while True:
        data = text.encode()
        if len(data) > SAMPLE_BYTES:
            text = _HALF_TOKEN.sub("", data[:SAMPLE_BYTES].decode("utf-8", "ignore"))
        masked = sanitizer.mask(text)  # a number that was cut can look like another kind of number
        if masked == text:
            return text
        text = masked
