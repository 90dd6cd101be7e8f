"""The words by which two texts are compared: lower case, without endings and stop words.

Not for the index, which has its own analyzer (`alchemy.retrieval.lexical`).
"""

import re

from alchemy.text.language import is_chinese

_WORD = re.compile(r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*|[\u3400-\u9fff\uf900-\ufaff]+")
_STOP = frozenset(
    """a about an and are as at be by can could did do does for from had has have how i if in into is it its
    me my of on or our should so that the their them there they this to was we were what when where which who
    whom why will with would you your""".split()  # noqa: SIM905
)


def terms(text: str) -> set[str]:
    """Words without endings and stop words; Chinese as pairs of characters."""
    found = set()
    for match in _WORD.finditer(text):
        word = match.group().lower()
        if is_chinese(word):
            found |= {word[i : i + 2] for i in range(max(len(word) - 1, 1))}
        elif word not in _STOP:
            found.add(_stem(word))
    return found


def _stem(word: str) -> str:
    if word.isalpha():
        for ending in ("ing", "ies", "ed", "es", "s"):
            if word.endswith(ending) and len(word) - len(ending) >= 4:
                return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 4 else word
