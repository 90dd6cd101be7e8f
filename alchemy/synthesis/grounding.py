"""Whether a training pair is true to its source: a pure verdict, the same for templates and models.

A pair passes when its quote stands word for word in the chunk and every number and identifier of its response
occurs in the chunk, the fields of its document or its insight. What a model must not learn is refused too:
refusals, talk about "the passage", the markup of chats, another language than the chunk's, unmasked secrets.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alchemy.records import Chunk, Insight
from alchemy.text.language import UNKNOWN, detect_language

MAX_RESPONSE_WORDS = 120
MAX_QUESTION_CHARACTERS = 400

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# Words with a digit and a letter, an underscore, a path separator or a capital inside: machines read them.
_IDENTIFIER = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"[A-Za-z0-9]*(?:\d[A-Za-z]|[A-Za-z][-.]?\d)[A-Za-z0-9]*(?:[-._/][A-Za-z0-9]+)*"  # HAUL-97, v2.3, 3f2a
    r"|[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+"  # snake_case
    r"|[A-Za-z0-9-]+(?:/[A-Za-z0-9._-]+)+"  # a/path
    r"|[a-z]+[A-Z][A-Za-z]*|[A-Z][a-z]+[A-Z][A-Za-z]*"  # camelCase, CamelCase
    r"|[A-Za-z0-9-]+\.[a-z]{2,4}(?![A-Za-z])"  # file.ext, host.tld
    r")"
)
_REFUSAL = re.compile(
    r"\b(as an ai\b|i(?:'m| am) (?:sorry|unable|not able)|i can(?:not|'t) (?:answer|help|provide|assist)|"
    r"i do(?:n't| not) (?:know|have)|language model)|作为(?:一个)?(?:AI|人工智能)|抱歉|对不起|无法回答",
    re.IGNORECASE,
)
_DECLINES = re.compile(r"\b(?:does not|doesn't|do not|no|not)\b|没有|未", re.IGNORECASE)
_DEIXIS = re.compile(
    r"\b(?:the|this|that|given|above|provided) "
    r"(?:passage|text|excerpt|chunk|snippet|context|document above)\b|"
    r"上文|这段(?:文字|话)|本段",
    re.IGNORECASE,
)
# What the templates of chats write around answers, and never an answer itself.
_CHAT = re.compile(
    r"<\|\w+\|>|\[/?INST\]|^\s*(?:#{2,}\s*(?:instruction|response)|human|assistant)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_WORD = re.compile(r"[A-Za-z0-9_]")
_MASKED = re.compile(r"<[A-Z][A-Z_]+_[0-9a-f]{4,}>")  # a pseudonym: nothing worth learning by heart
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|《[^》]*》')
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pair before it is judged and assigned to a split."""

    instruction: str
    response: str
    evidence_quote: str
    chunk_id: str
    document_id: str
    kind: str  # one of `kinds.KINDS`
    provider: str


def check(
    pair: Candidate,
    chunk: Chunk,
    insight: Insight | None = None,
    fields: Mapping[str, str] | None = None,
    leaks: Callable[[str], Any] | None = None,
) -> str | None:
    """Returns the code of the first reason against a pair, or None.

    Args:
        pair: What a provider wrote.
        chunk: What it was written from.
        insight: Measured facts of the chunk's document; their numbers may be used.
        fields: Structured fields of the chunk's document; their values may be used.
        leaks: Something true for a text that holds a secret or personal data, e.g. `Sanitizer.leaks`.
    """
    reason = _form(pair)
    if reason:
        return reason
    if not pair.evidence_quote.strip() or pair.evidence_quote not in chunk.text:
        return "quote_not_in_chunk"
    known = "\n".join(
        [
            chunk.text,
            chunk.header,
            chunk.title,
            *(insight.facts if insight else ()),
            *(part for item in (fields or {}).items() for part in item),
        ]
    )
    if numbers(pair.response) - numbers(known):
        return "ungrounded_number"
    folded = known.casefold()
    if any(not _occurs(name, folded) for name in identifiers(pair.response)):
        return "ungrounded_identifier"
    if pair.kind == "numeric" and not (insight and numbers(pair.response) & numbers(" ".join(insight.facts))):
        return "no_measured_number"
    if _is_in_another_language(pair, chunk):
        return "other_language"
    if leaks is not None and any(
        leaks(text) for text in (pair.instruction, pair.response, pair.evidence_quote)
    ):
        return "leak"
    return None


def numbers(text: str) -> set[str]:
    """The numbers of a text as digits: 2,300 and 2300 are one; 1.10 and 1.1 are not."""
    return {match.replace(",", "") for match in _NUMBER.findall(text)}


def identifiers(text: str) -> set[str]:
    """Words that only mean something when copied exactly: keys, paths, versions, names in code."""
    return {match.group().casefold() for match in _IDENTIFIER.finditer(text)}


def normalize_question(text: str) -> str:
    """Equal for questions that differ at most in case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def length_in_words(text: str) -> int:
    """Words; two characters of Chinese, Japanese or Korean count as one."""
    wide = len(_CJK.findall(text))
    return (wide + 1) // 2 + len(_CJK.sub(" ", text).split())


def _form(pair: Candidate) -> str | None:
    question, answer = pair.instruction.strip(), pair.response.strip()
    if not question or not answer:
        return "empty"
    if len(question) > MAX_QUESTION_CHARACTERS or length_in_words(answer) > MAX_RESPONSE_WORDS:
        return "too_long"
    if length_in_words(question) < 3 or len(answer) < 2:
        return "too_short"
    if normalize_question(question) == normalize_question(answer):
        return "echo"
    if _REFUSAL.search(answer):
        return "refusal"
    if _MASKED.search(answer):
        return "masked_value"
    if _CHAT.search(question) or _CHAT.search(answer):
        return "chat_markup"
    if _DEIXIS.search(question) or (pair.kind != "unanswerable" and _DEIXIS.match(answer)):
        return "refers_to_passage"
    if pair.kind == "unanswerable" and not _DECLINES.search(answer):
        return "answers_unanswerable"
    return None


def _is_in_another_language(pair: Candidate, chunk: Chunk) -> bool:
    """Whether the question or the answer is surely written in another language than the chunk.

    A row of a table has values, but no language. Quotes are left out of a question: they may be titles.
    """
    if chunk.kind == "row":
        return False
    source = detect_language(chunk.text)
    if source == UNKNOWN:
        return False
    question = _QUOTED.sub(" ", pair.instruction)
    return any(detect_language(text) not in (source, UNKNOWN) for text in (question, pair.response))


def _occurs(name: str, folded: str) -> bool:
    start = folded.find(name)
    while start >= 0:
        end = start + len(name)
        if not _WORD.match(folded[max(0, start - 1) : start]) and not _WORD.match(folded[end : end + 1]):
            return True
        start = folded.find(name, start + 1)
    return False
