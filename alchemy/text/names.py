"""The people of an export: whoever is an author of one of its records is masked in all of them.

Not for finding names that no author field holds (that takes a language model and errs), nor for deciding
where exactly a name stands in a text (see `sanitize`).
"""

from collections.abc import Iterable
from functools import cached_property

from ahocorasick_rs import AhoCorasick

from alchemy.text.sanitize import is_name
from alchemy.text.secret_checks import CJK

_SHORTEST_CJK = 3  # two characters are often part of an ordinary word


class People:
    """Full names; a login or a single word ("Mark") is masked in the records of its owner only."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_word: dict[str, list[str]] = {}  # the longest word of a name -> names
        for name in sorted({" ".join(name.split()) for name in names}):
            if _is_full_name(name):
                self._by_word.setdefault(max(name.split(), key=len), []).append(name)
        self._words = list(self._by_word)

    def perhaps_in(self, text: str) -> tuple[str, ...]:
        """Names of which one word stands in the text, sorted: few, mostly none. Linear in the text."""
        if not self._words:
            return ()
        found = {number for number, _, _ in self._automaton.find_matches_as_indexes(text, overlapping=True)}
        return tuple(sorted(name for number in found for name in self._by_word[self._words[number]]))

    @cached_property
    def _automaton(self) -> AhoCorasick:
        return AhoCorasick(self._words)


NOBODY = People(())


def _is_full_name(name: str) -> bool:
    if not is_name(name):
        return False
    if CJK.search(name):
        return len(name) >= _SHORTEST_CJK
    words = [word.replace("-", "").replace("'", "").rstrip(".") for word in name.split()]
    return len(words) > 1 and all(word.isalpha() for word in words)
