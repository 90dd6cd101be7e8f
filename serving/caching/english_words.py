"""The words of an English question: tokens, what the tables make of them, and which words say the same.

Nothing is thrown away here but politeness: numbers, units, names and paths stay as they are, and what might
be a name keeps its capitals. Which words may move is said by `english`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from alchemy.retrieval.lexical import MONTHS, stem
from serving.caching import rewording
from serving.caching.rewording import Words

BE = frozenset("is are was were be been being am".split())  # noqa: SIM905
DO = frozenset("do does did".split())  # noqa: SIM905
HAVE = frozenset("have has had".split())  # noqa: SIM905
MODALS = {
    "can": "can", "could": "could", "may": "can", "might": "might", "must": "must", "should": "should",
    "shall": "should", "will": "will", "would": "would",
}  # fmt: skip
AUXILIARIES = BE | DO | HAVE | MODALS.keys()
PAST = frozenset("was were did had".split())  # noqa: SIM905
ASKS = frozenset("who whose when where why how what which consequence".split())  # noqa: SIM905
PRONOUNS = frozenset("i we you".split())  # noqa: SIM905
PREPOSITIONS = frozenset(
    """for in on at about from to into onto by than before after since until till during over under above
    below with without via through against between among across per as instead behind beyond outside inside
    except despite toward towards around near within upon off""".split()  # noqa: SIM905
)
LINKS = frozenset(
    """if when whenever while because although though but unless whether that which who whose where why how
    what once""".split()  # noqa: SIM905
)
QUANTIFIERS = frozenset(
    """all any each every both some most many few several no none nobody everybody anybody everyone anyone
    everything anything nothing only half""".split()  # noqa: SIM905
)
DETERMINERS = QUANTIFIERS | frozenset("a an the my our your its this these those".split())  # noqa: SIM905
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
        sixteen seventeen eighteen nineteen twenty""".split()  # noqa: SIM905
    )
} | {"thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80",
     "ninety": "90", "hundred": "100", "thousand": "1000"}  # fmt: skip
_UNITS = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "d": "day", "%": "percent"}
_CONTRACTED = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would", "'m": "am"}
_SHORT_NOT = {"can't": "can", "won't": "will", "shan't": "shall", "cannot": "can"}
_SUBJECTS_OF_IS = ASKS | {"that", "there", "it", "he", "she", "this"}

_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
_DATES = (
    re.compile(rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<m>{_MONTH})\.?,? (?P<y>\d{{4}})\b", re.I),
    re.compile(rf"\b(?P<m>{_MONTH})\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<y>\d{{4}})\b", re.I),
)
_TOKEN = re.compile(r'"[^"]*"|`[^`]*`|\S+')
_END = ",;:.?!)]}"
_BREAKS = frozenset(",;:.?!")
_AMOUNT = re.compile(r"(?P<coin>[$€£¥]?)(?P<number>[-+]?\d[\d.,]*)(?P<unit>%|[A-Za-z°]{1,4})?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_KEY = re.compile(r"[A-Za-z]+-\d+")
_ACRONYMS = re.compile(r"([A-Z]{2,})s")
_GET = {"get": "be", "gets": "is", "got": "was"}
_COINS = frozenset(("EUR", "USD", "eur", "usd", "euro", "euros"))
BREAK = ","


def words_of(text: str) -> list[str]:
    """Words and breaks of a question in NFKC, without politeness and with the tables' phrases replaced."""
    return _rewritten(_without_frames(_tokens(text)))


def same(word: str) -> str:
    """The word that stands for all that say the same: singular, and the first of its row."""
    if word in {"me", "us", "an"}:
        return {"me": "@me", "us": "@us", "an": "a"}[word]
    if not word.isalpha() or word != word.lower():
        return rewording.english().words.get(word, word)
    if word.endswith("ees"):  # employees: the stemmer leaves them as they are
        word = word[:-1]
    if not word.endswith(("ing", "ed")):
        word = stem(word)
    return rewording.english().words.get(word, word)


def is_plural(word: str) -> bool:
    return word.islower() and word.endswith("s") and same(word) != word


def base(word: str) -> str:
    """The verb of a participle or gerund."""
    verb = rewording.english().past.get(word, word)
    root = stem(verb)
    return rewording.english().words.get(root, root)


def is_participle(word: str) -> bool:
    return word in rewording.english().past or (word.islower() and word.endswith("ed") and stem(word) != word)


def is_gerund(word: str) -> bool:
    return word.isalpha() and word.islower() and word.endswith("ing") and stem(word) != word


def _tokens(text: str) -> list[str]:
    """Words, numbers, names, marks and breaks; what could be a name keeps its capitals."""
    text = text.replace("’", "'").replace("“", '"').replace("”", '"').rstrip(" ?.")
    for pattern in _DATES:
        text = pattern.sub(lambda m: f"{m['y']}-{MONTHS[m['m'].lower()]:02d}-{int(m['d']):02d}", text)
    found: list[str] = []
    first = True
    for match in _TOKEN.finditer(text):
        chunk = match[0]
        if chunk[0] in '"`':
            found.append(chunk)
            first = False
            continue
        opened = chunk.lstrip("([{")
        core = opened.rstrip(_END)
        tail = opened[len(core) :]
        if opened != chunk:
            found.append("(")
        if core:
            counted = bool(found) and found[-1][-1].isdigit() and len(core) < 3  # 5 MB is not 5 Mb
            found += [core] if counted else _word(core, first=first)
            first = False
        if tail:
            # A range, a ratio and a factorial are no pause: 80 ... 90, 1 : 20, 5!
            pause = tail in _BREAKS and not (tail in "!:" and (not core or core[-1].isdigit()))
            found.append(BREAK if pause else tail)
            first = tail[-1] in ".?!:"
    return found


def _word(word: str, *, first: bool) -> list[str]:
    lowered = word.lower()
    if lowered in _SHORT_NOT:
        return [_SHORT_NOT[lowered], "not"]
    for ending, full in _CONTRACTED.items():
        if lowered.endswith(ending) and len(lowered) > len(ending):
            return [lowered.removesuffix(ending), full]
    if lowered.endswith(("'s", "s'")):
        owner = word[:-2] if lowered.endswith("'s") else word[:-1]
        is_it = lowered.endswith("'s") and owner.lower() in _SUBJECTS_OF_IS
        return [owner.lower(), "is"] if is_it else [*_word(owner, first=first), "'s"]
    if amount := _AMOUNT.fullmatch(word):
        number = amount["number"].rstrip(".,")
        number = number.replace(",", "") if _THOUSANDS.fullmatch(number.lstrip("+-")) else number
        unit = amount["unit"] or ""
        return [number, *filter(None, (_UNITS.get(unit, unit), amount["coin"]))]
    if acronyms := _ACRONYMS.fullmatch(word):
        return [acronyms[1]]
    if word in {"i", "I"}:
        return ["i"]
    grammar = lowered in AUXILIARIES | PRONOUNS | LINKS | PREPOSITIONS | DETERMINERS | {"it", "us", "of"}
    if grammar and (word.isupper() and word != "A" if first else word != lowered):
        return [f"^{lowered}"]  # the department IT, the month May, the point A
    if re.search(r"[\d_/\\@]|[a-z][A-Z]|[A-Z]{2}[a-z]", word) and not _KEY.fullmatch(word):
        return [word]
    if not _KEY.fullmatch(word) and word != lowered and not (first and word[1:] == lowered[1:]):
        return [word]  # Teams is not teams
    return [_NUMBERS.get(lowered, lowered)]


def _without_frames(tokens: list[str]) -> list[str]:
    """Without politeness at the start and the end, and without asides."""
    tables = rewording.english()
    kept = [*_replaced(tokens, dict.fromkeys(tables.asides, ()))]
    while True:
        while kept and kept[0] == BREAK:
            kept = kept[1:]
        while kept and kept[-1] == BREAK:
            kept = kept[:-1]
        for size in range(min(tables.longest, len(kept) - 1), 0, -1):
            # One word alone may begin a name: a well pump, a question mark.
            sure = {BREAK, "the"} | ASKS | AUXILIARIES
            led = size > 1 or kept[1] in sure or (kept[1],) in tables.frames
            if led and tuple(kept[:size]) in tables.frames:
                kept = kept[size:]
                break
            if tuple(kept[-size:]) in tables.frames and kept[-size - 1] == BREAK:
                kept = kept[:-size]
                break
        else:
            return kept


def _rewritten(tokens: list[str]) -> list[str]:
    found = [*_replaced(tokens, rewording.english().phrases)]
    for i, token in enumerate(found):
        if token in _COINS and i + 1 < len(found) and found[i + 1][0].isdigit():
            found[i], found[i + 1] = found[i + 1], token.lower()
        if token in _COINS and i and found[i - 1][0].isdigit():
            found[i] = token.lower()
        if token in {"min"} and i and found[i - 1][0].isdigit():
            found[i] = "minute"
        after = found[i + 1] if i + 1 < len(found) else ""
        if token in _GET and is_participle(after) and base(after) != after:
            found[i] = _GET[token]
    return found


def _replaced(tokens: Sequence[str], phrases: Mapping[Words, Words]) -> Iterator[str]:
    """The tokens with the longest phrase at each place replaced."""
    i, longest = 0, max(map(len, phrases))
    while i < len(tokens):
        for size in range(min(longest, len(tokens) - i), 0, -1):
            row = tuple(token.lower() if token.isupper() else token for token in tokens[i : i + size])
            if (to := phrases.get(row)) is not None:
                yield from to
                i += size
                break
        else:
            yield tokens[i]
            i += 1
