"""Whether two questions are the same question: the guard of the semantic cache.

Embeddings hardly see what turns a question into another one: numbers, names, negation, order, tense. So each
question is reduced to a `Meaning`, a frozen record that keeps all of that, and two questions are the same
where their meanings are equal: reflexive, symmetric and transitive, and usable as a key. Nothing is scored.
Whatever the tables (`rewording.toml`) and forms (`english`, `chinese`) do not know stays as it was written,
and keeps questions apart: a miss costs time, a false hit a wrong answer.

Not for how alike questions are; that is the embedder's to say.
"""

import hashlib
import itertools
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from alchemy.text.language import is_chinese
from serving.caching import chinese, english
from serving.caching.clause import Clause

_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"\w")
_FACTORIAL = re.compile(r"\d[!！][ ?.。？！!]*\Z")
_LONGEST = 500  # characters; who writes more is not asking what another one asked in other words
_ENDING = " ?!.。？！"
_BEFORE = {"<super>": "^", "<sub>": "_", "<fraction>": " ", "<circle>": " ", "<compat>": " "}


@dataclass(frozen=True)
class Meaning:
    """What a question asks, without how it is put."""

    clauses: tuple[Clause, ...]

    @property
    def key(self) -> str:
        """A digest, equal where the meanings are."""
        return hashlib.sha256(repr(self.clauses).encode()).hexdigest()[:32]


@lru_cache(maxsize=10_000)  # those that repeat are what a cache is for
def meaning(question: str) -> Meaning | None:
    """The question's meaning; None where it is too long, in another language, or has no words to compare."""
    if len(question) > _LONGEST:
        return None
    text = flattened(question)
    if is_chinese(text):
        found = chinese.sequence(text)
    elif english.reads(text):
        found = english.clauses(text)
    else:
        return None
    said = "".join(word for c in found for word in (*c.words, *itertools.chain(*c.phrases)))
    return Meaning(found) if _WORD.search(said) else None


def plain_wording(question: str) -> str:
    """The question as it is embedded: without "could you please tell me" and with what is short written out.

    It keeps its own words and their order. Politeness alone takes two equal questions of 9 words to a
    cosine of 0.89 (all-MiniLM-L6-v2).
    """
    text = flattened(question)
    return (chinese if is_chinese(text) else english).wording(text)


def flattened(question: str) -> str:
    """NFKC, but what stands above, below or in a sign of its own does not run into its neighbors.

    NFKC alone makes 106 of 10⁶, and 21/2 of 2½.
    """
    if question.isascii():
        return question
    runs = (_BEFORE.get(tag, "") + "".join(run) for tag, run in itertools.groupby(question, key=_sign))
    return unicodedata.normalize("NFKC", "".join(runs))


def _sign(character: str) -> str:
    """How the character is said to be made of others, where it is a number or stands above or below."""
    tag = unicodedata.decomposition(character).partition(" ")[0]
    is_number = unicodedata.numeric(character, None) is not None
    return tag if tag in {"<super>", "<sub>"} or (tag in _BEFORE and is_number) else ""


def same_question(one: str, other: str) -> bool:
    """Whether an answer to one question is an answer to the other."""
    first = meaning(one)
    return first is not None and first == meaning(other)


def normalized(question: str) -> str:
    """The form in which questions are compared letter by letter: the exact tier's key.

    `flattened`, single blanks, no closing punctuation, and a small first letter where the next is small too,
    as sentences begin with a capital whatever they are about. All other capitals stay: IT is not it, and
    names of files, variables and branches differ by case alone.
    """
    text = _SPACE.sub(" ", flattened(question)).strip()
    text = text.rstrip(_ENDING) + ("!" if _FACTORIAL.search(text) else "")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
