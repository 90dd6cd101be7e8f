"""What an English question asks, as clauses that are equal where the questions are: see `equivalence`.

Not a parser of English. It knows the few forms that questions have (what does X cost, how do I X, is X
done, where can X be done), and brings those that ask the same into one; in any other form every word counts
in its order. So what it does not know costs a hit, never a wrong answer. The one decision: a word moves or
disappears only where its grammar is certain, that is next to an auxiliary, a pronoun or a question word.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise, takewhile
from typing import Any

from alchemy.retrieval.lexical import MONTHS, stem

Words = tuple[str, ...]

_BE = frozenset("is are was were be been being am".split())  # noqa: SIM905
_DO = frozenset("do does did".split())  # noqa: SIM905
_HAVE = frozenset("have has had".split())  # noqa: SIM905
_MODALS = {
    "can": "can", "could": "can", "may": "can", "might": "might", "must": "must", "should": "should",
    "shall": "should", "will": "will", "would": "would",
}  # fmt: skip
_AUXILIARIES = _BE | _DO | _HAVE | _MODALS.keys()
_PAST = frozenset("was were did had".split())  # noqa: SIM905
_ASKS = frozenset("who whose when where why how what which consequence".split())  # noqa: SIM905
_IMPERSONAL = frozenset("i we you one".split())  # noqa: SIM905
_GENITIVE = frozenset(("of", "for"))
_PREPOSITIONS = frozenset(
    """in on at about from to into onto by than before after since until till during over under above below
    with without via through against between among across per as instead behind beyond outside inside except
    despite toward towards around near within upon off""".split()  # noqa: SIM905
)
_LINKS = frozenset(
    """if when whenever while because although though but unless whether that which who whose where why how
    what once""".split()  # noqa: SIM905
)
_SAME_LINK = {"when": "if", "whenever": "if"}
_BOUNDS = frozenset(("maximum", "minimum"))
_ADVERBS = frozenset("still already always also usually often never ever automatically".split())  # noqa: SIM905
_DETERMINERS = frozenset("a an the my our your its this these those no all any each every some".split())  # noqa: SIM905
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
_SUBJECTS_OF_IS = _ASKS | {"that", "there", "it", "he", "she", "this"}

_MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
_DATES = (
    re.compile(rf"\b(?P<d>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<m>{_MONTH})\.?,? (?P<y>\d{{4}})\b", re.I),
    re.compile(rf"\b(?P<m>{_MONTH})\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<y>\d{{4}})\b", re.I),
)
_TOKEN = re.compile(r'"[^"]*"|`[^`]*`|\S+')
_END = re.compile(r"[,;:.?!)\]]+\Z")
_AMOUNT = re.compile(r"(?P<coin>[$€£¥]?)(?P<number>[-+]?\d[\d.,]*)(?P<unit>%|[A-Za-z°]{1,4})?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_KEY = re.compile(r"[A-Za-z]+-\d+")
_ACRONYMS = re.compile(r"([A-Z]{2,})s")
_BREAK = ","


@dataclass(frozen=True, order=True)
class Clause:
    """One statement of a question; equal where it says the same."""

    link: str = ""  # what ties it to the rest: if, that, because
    asks: str = ""  # which, who, how many, whether...; "" in a statement
    marks: Words = ()  # tense, mood, negation and adverbs of the verb, sorted
    acts: Words = ()  # verbs whose object is what is spoken of: "do we store X" is "is X stored"
    words: Words = ()  # what is spoken of, in order
    phrases: tuple[Words, ...] = ()  # led by a preposition, sorted: they may stand in front or at the end


def clauses(text: str) -> tuple[Clause, ...]:
    """The clauses of an English question in NFKC, sorted; () where nothing is asked about."""
    tokens = _rewritten(_without_frames(_tokens(text)))
    found = [clause for part in _parts(tokens) if (clause := _clause(*part)) != Clause()]
    # "After a restart, how long does it take?": the phrase belongs to the question that it precedes.
    loose = [c for c in found if c == Clause(phrases=c.phrases)]
    main = next((c for c in found if c.asks), None)
    if main:  # "The app shows P-17, what now?" says what "if the app shows P-17" says
        found = [replace(c, link="if") if not c.asks and not c.link and c.words[2:] else c for c in found]
    if main and loose:
        phrases = main.phrases + tuple(phrase for clause in loose for phrase in clause.phrases)
        found = [c for c in found if c not in loose and c is not main]
        found.append(replace(main, phrases=tuple(sorted(phrases))))
    return tuple(sorted(found))


# ---------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Tables:
    """`rewording.toml`, as it is looked up."""

    frames: frozenset[Words]
    asides: frozenset[Words]
    phrases: Mapping[Words, Words]
    words: Mapping[str, str]
    predicates: Mapping[str, str]
    attributes: Mapping[str, str]
    past: Mapping[str, str]  # irregular past forms and participles, to their verb
    dropped: frozenset[str]
    longest: int = field(default=0)


@cache
def rewordings() -> dict[str, Any]:
    """The reviewed tables of `rewording.toml`."""
    import tomllib

    return tomllib.loads(files("serving").joinpath("rewording.toml").read_text("utf-8"))


@cache
def _tables() -> _Tables:
    rows = rewordings()["english"]
    phrases = {tuple(left.split()): tuple(right.split()) for left, right in rows["phrases"].items()}
    frames = frozenset(tuple(frame.split()) for frame in rows["frames"])
    return _Tables(
        frames,
        frozenset(tuple(aside.split()) for aside in rows["asides"]),
        phrases,
        {stem(word): stem(to) for to, words in rows["words"].items() for word in words},
        rows["predicates"],
        rows["attributes"],
        {form: verb for verb, forms in rows["irregular"].items() for form in forms.split()},
        frozenset(rows["dropped"]),
        max(map(len, (*phrases, *frames))),
    )


# ---------------------------------------------------------------------------------------------- tokens


def _tokens(text: str) -> list[str]:
    """Words, numbers, names and breaks; what could be a name keeps its capitals."""
    text = text.replace("’", "'").replace("“", '"').replace("”", '"')
    for pattern in _DATES:
        text = pattern.sub(lambda m: f"{m['y']}-{MONTHS[m['m'].lower()]:02d}-{int(m['d']):02d}", text)
    shouted = text.isupper()
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        chunk = match[0]
        if chunk[0] in '"`':
            found.append(chunk)
            continue
        core = _END.sub("", chunk).lstrip("([{")
        if core.strip("-–—"):
            first = not found or found[-1] == _BREAK
            counted = bool(found) and found[-1][-1].isdigit() and len(core) < 3  # 5 MB is not 5 Mb
            found += [core] if counted else _word(core.lower() if shouted else core, first=first)
        if core != chunk.lstrip("([{") or not core.strip("-–—"):
            found.append(_BREAK)
    return found


def _word(word: str, *, first: bool) -> list[str]:
    lowered = word.lower()
    if lowered in _SHORT_NOT:
        return [_SHORT_NOT[lowered], "not"]
    for ending, full in _CONTRACTED.items():
        if lowered.endswith(ending) and len(lowered) > len(ending):
            return [lowered.removesuffix(ending), full]
    if lowered.endswith("'s"):
        owner = word[:-2]
        return [owner.lower(), "is"] if owner.lower() in _SUBJECTS_OF_IS else _word(owner, first=first)
    word = word.rstrip("'")
    lowered = word.lower()
    if amount := _AMOUNT.fullmatch(word):
        number = amount["number"].rstrip(".,")
        number = number.replace(",", "") if _THOUSANDS.fullmatch(number.lstrip("+-")) else number
        unit = amount["unit"] or amount["coin"]
        return [number, _UNITS.get(unit, unit)] if unit else [number]
    if acronyms := _ACRONYMS.fullmatch(word):
        return [acronyms[1].lower()]
    grammar = lowered in _AUXILIARIES | _IMPERSONAL | _LINKS | _PREPOSITIONS | _DETERMINERS | {
        "it",
        "us",
        "of",
    }
    if grammar and word not in {"A", "I"} and (word.isupper() if first else word != lowered):
        return [f"^{lowered}"]  # the department IT, the month May
    if re.search(r"[\d_/\\@]|[a-z][A-Z]|[A-Z]{2}[a-z]", word) and not _KEY.fullmatch(word):
        return [word]
    return [_NUMBERS.get(lowered, lowered)]


def _without_frames(tokens: list[str]) -> list[str]:
    """Without politeness at the start and the end, and without asides."""
    tables = _tables()
    kept = [*_replaced(tokens, dict.fromkeys(tables.asides, ()))]
    while True:
        while kept and kept[0] == _BREAK:
            kept = kept[1:]
        while kept and kept[-1] == _BREAK:
            kept = kept[:-1]
        for size in range(min(tables.longest, len(kept) - 1), 0, -1):
            if tuple(kept[:size]) in tables.frames:
                kept = kept[size:]
                break
            if tuple(kept[-size:]) in tables.frames and kept[-size - 1] == _BREAK:
                kept = kept[:-size]
                break
        else:
            return kept


def _rewritten(tokens: list[str]) -> list[str]:
    found = [*_replaced(tokens, _tables().phrases)]
    for i, token in enumerate(found):
        if token in {"eur", "usd", "euro", "euros"} and i + 1 < len(found) and found[i + 1][0].isdigit():
            found[i], found[i + 1] = found[i + 1], token
        if token in {"min"} and i and found[i - 1][0].isdigit():
            found[i] = "minute"
        after = found[i + 1] if i + 1 < len(found) else ""
        if token in {"get", "gets", "got"} and _participle(after) and _base(after) != after:
            found[i] = "be"
    return found


def _replaced(tokens: Sequence[str], phrases: Mapping[Words, Words]) -> Iterator[str]:
    """The tokens with the longest phrase at each place replaced."""
    i, longest = 0, max(map(len, phrases))
    while i < len(tokens):
        for size in range(min(longest, len(tokens) - i), 0, -1):
            if (to := phrases.get(tuple(tokens[i : i + size]))) is not None:
                yield from to
                i += size
                break
        else:
            yield tokens[i]
            i += 1


def _parts(tokens: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The clauses' tokens, each with the word that links it to the rest."""
    link, part, several = "", list[str](), _BREAK in tokens
    for i, token in enumerate(tokens):
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        leads = all(word in _PREPOSITIONS | _GENITIVE for word in part)
        if token == _BREAK:
            yield link, part
            link, part = "", []
        elif token in _LINKS and (
            not leads or token not in _ASKS or (token in _SAME_LINK and several and after not in _AUXILIARIES)
        ):
            if part or link:
                yield link, part
            link, part = _SAME_LINK.get(token, token), []
        else:
            part.append(token)
    yield link, part


# --------------------------------------------------------------------------------------------- clauses


def _clause(link: str, tokens: list[str]) -> Clause:
    """One clause; see the module's docstring for what may move."""
    lead = list(takewhile((_PREPOSITIONS | _GENITIVE).__contains__, tokens))
    if tokens[len(lead) : len(lead) + 1] == [] or tokens[len(lead)] not in _ASKS:
        lead = []
    asks, rest = _asked(tokens[len(lead) :])
    lead_phrases = tuple((word,) for word in lead)
    at = next((i for i, token in enumerate(rest) if token in _AUXILIARIES), None)
    if asks and rest[:1] in (["to"], ["by"]):
        clause = _act(rest[1:], gerund=rest[0] == "by")
    elif at is None:
        clause = _plain(rest)
    else:
        if not asks and not link and at == 0:
            asks = "whether"
        clause, asks = _auxiliary(asks, rest[:at], rest[at], rest[at + 1 :])
    marks = set(clause.marks)
    if asks in {"how", "where"} or marks & _BOUNDS:
        marks.discard("can")  # how can I, how do I, how to; how many can I at most
    phrases = tuple(sorted((*clause.phrases, *lead_phrases)))
    return replace(clause, link=link, asks=asks, marks=tuple(sorted(marks)), phrases=phrases)


def _asked(tokens: list[str]) -> tuple[str, list[str]]:
    """The question word, with the adjective of "how old", and what follows it."""
    if tokens[:2] == ["number", "of"] and tokens[2:3] and tokens[2].endswith("s"):
        return "how many", tokens[2:]
    if not tokens or tokens[0] not in _ASKS:
        return "", tokens
    first, rest = tokens[0], tokens[1:]
    grammar = _AUXILIARIES | _IMPERSONAL | _DETERMINERS | {"to", "by", _BREAK}
    if first == "how" and rest and rest[0] not in grammar:
        return f"how {rest[0]}", rest[1:]
    return ("which" if first == "what" else first), rest


def _auxiliary(asks: str, before: list[str], auxiliary: str, rest: list[str]) -> tuple[Clause, str]:
    """A clause with an auxiliary: what stands before it, the auxiliary, what stands after it."""
    marks = set[str]()
    for edge, words in ((0, before), (-1, rest)):
        if asks.startswith("how ") and words and words[edge] in _BOUNDS:
            marks.add(words.pop(edge))
    before = _swapped(before)

    def take(word: str) -> None:
        if word in _PAST:
            marks.add("past")
        if word in _MODALS:
            marks.add(_MODALS[word])

    take(auxiliary)
    rest, negated = (rest[1:], True) if rest[:1] == ["not"] else (rest, False)
    pronoun = rest[0] if rest and rest[0] in _IMPERSONAL else ""
    if pronoun:
        rest = rest[1:]
    while rest and (rest[0] == "not" or rest[0] in _ADVERBS or (pronoun and rest[0] in _MODALS)):
        if rest[0] in _MODALS:
            take(rest[0])
        else:
            marks.add(rest[0])
        rest = rest[1:]
    if negated:
        marks.add("not")
    be = auxiliary in _BE
    inner = next((i for i, word in enumerate(rest) if word in {"be", "been"}), None)
    if not be and inner is not None and (inner == 0 or not pronoun):
        if auxiliary in _HAVE:
            marks.add("perfect")
        rest, be = rest[:inner] + rest[inner + 1 :], True
    # A second auxiliary is another statement within this one: nothing may move.
    if _AUXILIARIES.intersection(rest[1:] if pronoun else rest[:-1]) or (
        asks and _AUXILIARIES.intersection(before)
    ):
        return _strict([*before, auxiliary, *([pronoun] if pronoun else []), *rest], marks), asks
    if be:
        patient = ["@me"] if pronoun in {"i", "we"} else [pronoun] if pronoun else []
        return _been(asks, before, patient + rest, marks)
    if pronoun and rest:
        if auxiliary in _HAVE:
            marks.add("perfect")
        if rest[0] in {"have", "get"}:  # do we have X, is there X
            return _noun([*before, "there", *rest[1:]], marks | {"be"}), asks
        acted = _act([*rest[:1], *before, *rest[1:]])
        if pronoun in {"i", "you"} and asks in {"how", "where", "who", "which"}:
            marks.discard("should")  # what I should do is what I do
        return replace(acted, marks=(*marks, *acted.marks)), asks
    if rest and (attribute := _attribute(asks, before, rest[-1])) is not None:
        asks = asks if asks == "how many" else "which"
        owned = [*rest[:-1], *before, *filter(None, [attribute])]
        return _noun(owned, marks | {"be"}), asks
    if asks == "how long" and rest and rest[-1] == "take" and _gerund(rest[0]):
        acted = _act(rest[:-1], gerund=True)
        return replace(acted, marks=(*marks, *acted.marks)), asks
    if auxiliary in _HAVE:
        marks.add("perfect")
    return _strict([*before, *rest], marks), asks


def _been(asks: str, before: list[str], rest: list[str], marks: set[str]) -> tuple[Clause, str]:
    """A clause with a form of "be": done, doing, or simply being."""
    tokens = [*before, *rest]
    end = next((i for i, t in enumerate(tokens) if t in _PREPOSITIONS and t not in {"in", "on", "at"}), None)
    done = [
        i
        for i, token in enumerate(tokens[:end])
        if i >= len(before) and _participle(token) and (i == 0 or not _before_noun(tokens[i - 1]))
    ]
    if done:
        at = done[-1]
        verb, patient, after = _base(tokens[at]), tokens[:at], tokens[at + 1 :]
        while patient and patient[-1] in _ADVERBS | {"not"}:
            marks.add(patient.pop())
        if after == ["by"]:  # which Y is X done by
            return _strict([*before, verb, *patient[len(before) :]], marks), asks
        if after[:1] == ["by"]:  # X is done by Y: Y does X
            return _strict([*after[1:], verb, *patient], marks), asks
        return replace(_noun([*patient, *after], marks), acts=(verb,)), asks
    if rest[:1] == ["@me"] and _gerund(rest[1] if rest[1:] else ""):
        acted = _act([rest[1], *before, *rest[2:]], gerund=True)
        return replace(acted, marks=(*marks, *acted.marks)), asks
    if rest and asks and _gerund(rest[0]):
        return _strict([*before, _base(rest[0]), *rest[1:]], marks), asks
    adjective = asks.removeprefix("how ")
    if adjective != asks and not before and (attribute := _tables().attributes.get(adjective)):
        return _noun([*tokens, attribute], marks | {"be"}), "which"
    return _noun(tokens, marks | {"be"}), asks


def _act(tokens: list[str], *, gerund: bool = False) -> Clause:
    """A verb at the front that somebody does to what follows."""
    if not tokens or (gerund and not _gerund(tokens[0])):
        return _strict(tokens, set())
    clause = _noun(tokens[1:], set())
    return replace(clause, acts=(_base(tokens[0]) if gerund else _same(tokens[0]),))


def _plain(tokens: list[str]) -> Clause:
    """A clause without an auxiliary: its verb is one of the words, and says the tense."""
    for i, token in enumerate(tokens):
        if _participle(token) and _base(token) != token and (i == 0 or not _before_noun(tokens[i - 1])):
            return _strict([*tokens[:i], _base(token), *tokens[i + 1 :]], {"past"})
    return _strict(tokens, set())


def _noun(tokens: Sequence[str], marks: set[str]) -> Clause:
    """Nouns and their phrases without a verb between them, where "X of Y" is "Y X"."""
    parts: list[tuple[list[str], list[list[str]]]] = [([], [[]])]
    for token, after in pairwise([*tokens, "in"]):
        # A preposition without its noun asks for that: whom do we pay, and whom do we pay for?
        if token in _PREPOSITIONS or (token in _GENITIVE and after in _PREPOSITIONS):
            parts.append(([token], [[]]))
        elif token in _GENITIVE:
            parts[-1][1].append([])
        else:
            parts[-1][1][-1].append(token)
    return _built(
        ((lead, [word for group in reversed(groups) for word in group]) for lead, groups in parts), marks
    )


def _swapped(tokens: list[str]) -> list[str]:
    """A noun phrase in front of an auxiliary: "version of Kafka" is "Kafka version"."""
    if "of" not in tokens or _PREPOSITIONS.intersection(tokens):
        return tokens
    at = tokens.index("of")
    return [*_swapped(tokens[at + 1 :]), *tokens[:at]]


def _strict(tokens: Sequence[str], marks: set[str]) -> Clause:
    """Words among which a verb hides: every word in its order."""
    parts: list[tuple[list[str], list[str]]] = [([], [])]
    for token in tokens:
        if token in _PREPOSITIONS:
            parts.append(([token], []))
        else:
            parts[-1][1].append(token)
    return _built(iter(parts), marks)


def _built(parts: Iterator[tuple[list[str], list[str]]], marks: set[str]) -> Clause:
    dropped = _tables().dropped
    said = [(*lead, *(_same(word) for word in words if word not in dropped)) for lead, words in parts]
    return Clause(marks=tuple(sorted(marks)), words=said[0], phrases=tuple(sorted(said[1:])))


# ------------------------------------------------------------------------------------------------ words


def _same(word: str) -> str:
    """The word that stands for all that say the same: singular, and the first of its row."""
    if word in {"me", "us"}:
        return "@me"
    if not word.isalpha() or word != word.lower():
        return _tables().words.get(word, word)
    if word.endswith("ees"):  # employees: the stemmer leaves them as they are
        word = word[:-1]
    if not word.endswith(("ing", "ed")):
        word = stem(word)
    return _tables().words.get(word, word)


def _base(word: str) -> str:
    """The verb of a participle or gerund."""
    verb = _tables().past.get(word, word)
    root = stem(verb)
    return _tables().words.get(root, root)


def _participle(word: str) -> bool:
    return word in _tables().past or (word.endswith("ed") and stem(word) != word)


def _gerund(word: str) -> bool:
    return word.isalpha() and word.endswith("ing") and stem(word) != word


def _before_noun(word: str) -> bool:
    return word in _DETERMINERS | _PREPOSITIONS | _GENITIVE | {"and", "or"}


def _attribute(asks: str, before: Sequence[str], verb: str) -> str | None:
    """The noun of "what does X <verb>"; None where that is no way to ask for a noun."""
    if asks not in {"which", "how much", "how long", "how many"} or (verb == "have" and not before):
        return None
    return _tables().predicates.get(verb)
