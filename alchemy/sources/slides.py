"""The text of a PPTX file, slide by slide; runs inside the extractor's child process only."""

from collections.abc import Iterable, Iterator
from typing import Any

from alchemy.sources.refused import Refused

_MAX_DEPTH = 20


def extract_pptx(path: str, limit: int) -> dict[str, Any]:
    """`parts` (kind, text, level): a heading per slide, its texts in reading order, tables and notes.

    Raises:
        Refused: `broken`, `empty` or `too_large`.
    """
    import pptx

    try:
        presentation = pptx.Presentation(path)
        parts: list[tuple[str, str, int]] = []
        images = size = 0
        for number, slide in enumerate(presentation.slides, 1):
            title = slide.shapes.title
            heading = _line(title.text_frame.text) if title is not None and title.has_text_frame else ""
            found = []
            for shape in _shapes(slide.shapes, 0):
                images += shape.shape_type == 13  # PICTURE
                if title is None or shape.shape_id != title.shape_id:
                    found += _texts(shape)
            if slide.has_notes_slide:
                notes = slide.notes_slide.notes_text_frame
                text = notes.text.strip() if notes is not None else ""
                if text:
                    found.append(("prose", f"Notes: {text}", 0))
            if heading or found:
                parts += [("heading", heading or f"Slide {number}", 1), *found]
            size += sum(len(text) for _, text, _ in found)
            if size > limit:
                raise Refused("too_large", f"The presentation's text is longer than {limit} characters.")
        core = presentation.core_properties
        created = core.modified or core.created
    except (Refused, MemoryError):
        raise
    except Exception as error:  # python-pptx raises whatever a missing part leads to
        raise Refused("broken", f"The PPTX file is damaged ({type(error).__name__}).") from error
    if not parts:
        raise Refused("empty", "The presentation holds no text.")
    return {
        "parts": parts,
        "title": core.title or "",
        "author": core.author or "",
        "created": created.isoformat() if created else "",
        "images": images,
    }


def _shapes(shapes: Iterable[Any], depth: int) -> Iterator[Any]:
    """Shapes from top to bottom and left to right, groups opened."""
    for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
        if shape.shape_type == 6 and depth < _MAX_DEPTH:  # GROUP
            yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _texts(shape: Any) -> list[tuple[str, str, int]]:
    if getattr(shape, "has_table", False) and shape.has_table:
        rows = [" | ".join(_line(cell.text) for cell in row.cells) for row in shape.table.rows]
        return [("table", "\n".join(row for row in rows if row.strip(" |")), 0)]
    if not shape.has_text_frame:
        return []
    paragraphs = [_line(paragraph.text) for paragraph in shape.text_frame.paragraphs]
    paragraphs = [text for text in paragraphs if text]
    kind = "item" if len(paragraphs) > 1 else "prose"
    return [(kind, text, 0) for text in paragraphs]


def _line(text: str) -> str:
    return " ".join(text.split())
