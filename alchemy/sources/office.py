"""Which Office document a zip file is; runs inside the extractor's child process only.

The zip directory is checked before anything is unpacked.
"""

import zipfile
from typing import Any

from alchemy.sources.refused import Refused

_MAX_MEMBERS = 5_000
_MAX_RATIO = 200
_SMALL = 1 << 20  # members this small may compress as well as they like


def extract_office(path: str, limit: int) -> dict[str, Any]:
    """`parts` (kind, text, level), `title`, `author`, `created` and counts of a DOCX, PPTX or XLSX file.

    Raises:
        Refused: `bomb`, `encrypted`, `broken`, `unsupported`, `empty`, `too_large` or `memory_limit`.
    """
    names = _check_zip(path, limit)
    found = _extract(path, limit, names)
    if "docProps/core.xml" not in names:  # else the libraries make up a title and take the time of today
        found |= {"title": "", "author": "", "created": ""}
    return found


def _extract(path: str, limit: int, names: set[str]) -> dict[str, Any]:
    if any(name.startswith("word/") for name in names):
        from alchemy.sources.docx import extract_docx

        return extract_docx(path, limit)
    if any(name.startswith("ppt/") for name in names):
        from alchemy.sources.slides import extract_pptx

        return extract_pptx(path, limit)
    if any(name.startswith("xl/") for name in names):
        from alchemy.sources.sheets import extract_xlsx

        return extract_xlsx(path, limit)
    raise Refused("unsupported", "The Office document is no text, presentation or workbook.")


def _check_zip(path: str, limit: int) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Refused(
            "broken", "The file begins like a zip archive but has no readable directory."
        ) from error
    if any(member.flag_bits & 1 for member in members):
        raise Refused("encrypted", "The archive's members are encrypted.")
    if len(members) > _MAX_MEMBERS:
        raise Refused("bomb", f"The archive has {len(members)} members.")
    total = sum(member.file_size for member in members)
    if total > 4 * limit:
        raise Refused("bomb", f"The archive unpacks to {total} bytes.")
    for member in members:
        if member.file_size > _SMALL and member.file_size > _MAX_RATIO * max(member.compress_size, 1):
            raise Refused(
                "bomb", f"A member unpacks to {member.file_size} bytes from {member.compress_size}."
            )
    names = {member.filename for member in members}
    if "[Content_Types].xml" not in names:
        raise Refused("unsupported", "The zip archive is not an Office document.")
    return names
