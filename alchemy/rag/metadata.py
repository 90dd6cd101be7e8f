"""What a caller may hang on a document of the RAG API: JSON, bounded, and masked like text."""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from alchemy.errors import BadInput
from alchemy.rag.vector_store import RESERVED
from alchemy.text.document import normalize
from alchemy.text.sanitize import Sanitizer

_DEEPEST = 4  # levels of lists and mappings inside one another
_LARGEST = 2**63 - 1  # the integers that Qdrant keeps


def cleaned(metadata: Mapping[str, Any], sanitizer: Sanitizer, most_bytes: int) -> dict[str, Any]:
    """The metadata without secrets and personal data.

    A value is judged beside its key, because "password" says what the word after it is.

    Raises:
        BadInput: A name is the payload's own or is a secret itself, a number is none of JSON's, or all of it
            is too deep or too large.
    """
    if taken := sorted(set(RESERVED) & set(metadata)):
        raise BadInput(f"metadata: {', '.join(taken)} cannot be set; the service does")
    _check_size(metadata, most_bytes)  # before the work
    masked = {key: _cleaned(key, value, sanitizer, _DEEPEST) for key, value in metadata.items()}
    _check_size(masked, most_bytes)  # a pseudonym may be longer than what it stands for
    return masked


def _check_size(metadata: Mapping[str, Any], most_bytes: int) -> None:
    try:
        size = len(orjson.dumps(metadata))
    except TypeError:  # beyond 64 bits, or half of a surrogate pair
        raise BadInput("metadata: a number or a character that JSON cannot keep") from None
    if size > most_bytes:
        raise BadInput(f"metadata: {size} bytes are over {most_bytes}")


def _cleaned(key: str, value: Any, sanitizer: Sanitizer, levels: int) -> Any:
    if not levels:
        raise BadInput(f"metadata: over {_DEEPEST} levels deep")
    if sanitizer.find(key):
        raise BadInput("metadata: a name looks like a secret or like personal data")
    if isinstance(value, Mapping):
        return {
            normalize(inner): _cleaned(normalize(inner), item, sanitizer, levels - 1)
            for inner, item in value.items()
        }
    if isinstance(value, list):
        return [_cleaned(key, item, sanitizer, levels - 1) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str) and not _is_kept(value):
        raise BadInput(f"metadata: {key}: a number that JSON or Qdrant cannot keep")
    text = normalize(str(value))
    lead = f"{key}: "
    masked = sanitizer.mask(sanitizer.mask(lead + text).removeprefix(lead))
    return value if masked == text and not isinstance(value, str) else masked


def _is_kept(number: int | float) -> bool:
    return abs(number) <= _LARGEST if isinstance(number, int) else math.isfinite(number)
