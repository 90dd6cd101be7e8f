"""Names the language of a document: ISO 639-1, or `und` where the text does not show it.

Chinese, Japanese and Korean are told by their script: a share of characters decides that more surely than a
model. The rest goes to py3langid, reduced to plain words and to the languages that companies write: on whole
texts it takes paths and names of classes for Shona or Central Bikol (18 of 100 English documents measured).
"""

import re
from functools import cache
from itertools import islice
from typing import Any

LANGUAGES = (
    "ar", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hu", "it", "nl", "no", "pl", "pt", "ro",
    "ru", "sk", "sv", "tr", "uk",
)  # fmt: skip
UNKNOWN = "und"  # ISO 639-2: undetermined

_CHARACTERS = 1000  # of the plain words; with 2000 none of 19,000 documents got another answer
_LEAST_LETTERS = 40  # at 16, every fiftieth commit ("Fix import statement") was French
_LEAST_CONFIDENCE = 0.5
# A Chinese character says as much as a short word, and technical texts are half English names.
_CHARACTER_WEIGHT = 3

_KANA, _HAN, _HANGUL = (re.compile(f"[{one}]") for one in ("\u3040-\u30ff", "\u3400-\u9fff", "\uac00-\ud7af"))
# With extension A and the compatibility block.
_IDEOGRAPH = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_PSEUDONYM = re.compile(r"<[A-Z_]+_[0-9a-f]{4,8}>")
# A word between blanks and punctuation: no path, address, identifier or name in camel case.
_PLAIN_WORD = re.compile(r"(?<![\S])[(\"'“‘«¿¡]*([^\W\d_]['’]?[^\W\d_A-Z]*)(?=[\s,.;:!?)\"'”’»…]*(?:\s|$))")


def is_chinese(text: str) -> bool:
    """Whether to answer in Chinese: at least one ideograph stands in the question."""
    return bool(_IDEOGRAPH.search(text))


def detect_language(text: str) -> str:
    """The language that most of `text` is written in."""
    if not text.isascii() and (language := _by_script(text)):
        return language
    words = _PLAIN_WORD.findall(_PSEUDONYM.sub(" ", text[: _CHARACTERS * 10]))
    plain = " ".join(words)[:_CHARACTERS]
    if len(list(islice(filter(str.isalpha, plain), _LEAST_LETTERS))) < _LEAST_LETTERS:
        return UNKNOWN
    language, confidence = _identifier().classify(plain)
    return str(language) if confidence >= _LEAST_CONFIDENCE else UNKNOWN


def _by_script(text: str) -> str:
    """Chinese, Japanese or Korean, or "" for another script."""
    kana, han, hangul = (len(one.findall(text)) for one in (_KANA, _HAN, _HANGUL))
    if (kana + han + hangul) * _CHARACTER_WEIGHT <= sum(map(str.isalpha, text)) / 2:
        return ""
    if hangul > han:
        return "ko"
    return "ja" if kana * 20 > han else "zh"


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LANGUAGES)
    return identifier
