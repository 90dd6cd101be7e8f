"""How much of a text a model's tokenizer can read: what decides how much the model's opinion is worth.

An English model answers a Chinese question with numbers that mean nothing. The search therefore weighs
dense and reranker evidence by `Reading.share` of the query and lets keyword evidence carry the rest. A
multilingual model reads everything, so the weight is 1 and nothing changes: no language is special-cased.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Any

# Blocks of the scripts whose characters are words or syllables by themselves; a vocabulary may know some.
_SYLLABIC = {"CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana", "HANGUL": "hangul"}
_SAMPLE_STEP = 5  # every fifth of the characters is enough to know whether a script is in the vocabulary
_SPELLED = 1.5  # a word with fewer characters per token than this was spelled, not read


class Reading:
    """The vocabulary of one tokenizer (a `tokenizers.Tokenizer`)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._unknown = {tokenizer.token_to_id(token) for token in ("[UNK]", "<unk>")} - {None}
        self._knows = lru_cache(maxsize=None)(self._measure_script)

    def share(self, text: str) -> float:
        """Share of the text's letters that the model can read, in [0, 1]; 1 for a text without letters.

        A Han, kana or Hangul character counts by the share of its script that the vocabulary knows (one
        known character among unknown ones says nothing). A word of an alphabet counts 0 when it is unknown
        or spelled letter by letter, else 1; a word that mixes digits in is an identifier and counts 1.
        """
        read = total = 0.0
        for word in text.split():
            for script, group in groupby(word, _script):
                letters = "".join(group)
                if not script:
                    continue
                total += len(letters)
                if script == "letters":
                    read += len(letters) * self._reads_word(letters)
                else:
                    read += len(letters) * self._knows(script)
        return read / total if total else 1.0

    def _reads_word(self, word: str) -> bool:
        if word.isascii():
            return True  # every vocabulary in use knows the Latin letters; names are spelled in all of them
        ids = self._ids(word)
        return not self._unknown.intersection(ids) and len(word) >= _SPELLED * len(ids)

    def _measure_script(self, script: str) -> float:
        sample = _characters(script)[::_SAMPLE_STEP]
        return sum(not self._unknown.intersection(self._ids(c)) for c in sample) / len(sample)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    if character.isascii():
        return "letters"
    return _SYLLABIC.get(re.split("[ -]", unicodedata.name(character, ""))[0], "letters")


def _characters(script: str) -> list[str]:
    if script == "han":  # GB 2312 level 1: the 3,755 most used
        codes = [(high, low) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF)]
        return [bytes(code).decode("gb2312") for code in codes if code <= (0xD7, 0xF9)]
    if script == "kana":
        return [chr(code) for code in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FB))]
    return [chr(code) for code in range(0xAC00, 0xD7A4, 7)]
