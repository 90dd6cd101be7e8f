"""How many tokens an answer took, counted by the base model's tokenizer where the release has one at hand."""

from alchemy.text.language import is_chinese
from serving.answer import Usage
from serving.released import Live


def usage(prompt: str, completion: str, live: Live | None) -> Usage:
    """Tokens of what was asked and of what was answered, with the rule that they were counted by."""
    if live and live.count_tokens:
        counted_by, count = live.release.base_model, live.count_tokens
    else:
        counted_by, count = "estimate", estimate_tokens
    return Usage(prompt_tokens=count(prompt), completion_tokens=count(completion), counted_by=counted_by)


def estimate_tokens(text: str) -> int:
    """One per CJK character, one per four other UTF-8 bytes, rounded up."""
    chinese = sum(map(is_chinese, text))
    other = len(text.encode("utf-8", "replace")) - 3 * chinese
    return chinese + -(-max(other, 0) // 4)
