"""What an English question asks, as clauses that are equal where the questions are: see `equivalence`.

Not a parser of English. It knows the few forms that questions have (what does X cost, how do I X, is X
done, where can X be done), and brings those that ask the same into one; in any other form every word counts
in its order. So what it does not know costs a hit, never a wrong answer. The one decision: a word moves or
disappears only where its grammar is certain, that is next to an auxiliary, a pronoun or a question word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from serving.caching import rewording
from serving.caching.clause import Clause, complement, in_order, joined, nouns, swapped
from serving.caching.english_words import (
    ASKS,
    AUXILIARIES,
    BE,
    BREAK,
    DETERMINERS,
    DO,
    GENITIVE,
    HAVE,
    IMPERSONAL,
    LINKS,
    MODALS,
    PAST,
    PREPOSITIONS,
    base,
    is_gerund,
    is_participle,
    same,
    words_of,
)

_LETTERS = re.compile(r"[^\W\d_]+")
_OTHER_SCRIPT = re.compile(r"[^\x00-\u024f]")
_HOW_TO = frozenset(("how", "where", "who", "which"))  # asks for instructions, whoever follows them
_SAME_LINK = {"when": "if", "whenever": "if"}
_BOUNDS = frozenset(("maximum", "minimum"))
_ADVERBS = frozenset("still already always also usually often never ever automatically".split())  # noqa: SIM905


def clauses(text: str) -> tuple[Clause, ...]:
    """The clauses of an English question in NFKC, sorted; () where nothing is asked about."""
    tokens = words_of(text)
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


def reads(text: str) -> bool:
    """Whether the text may be English: Latin letters, and no word of another language's grammar."""
    foreign = rewording.english().foreign
    words = _LETTERS.findall(text)
    return not any(word.lower() in foreign or _OTHER_SCRIPT.search(word) for word in words)


def wording(text: str) -> str:
    """The question without politeness, contractions and phrases of the tables, in its own order."""
    return " ".join(words_of(text))


def _parts(tokens: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The clauses' tokens, each with the word that links it to the rest."""
    link, part, several = "", list[str](), BREAK in tokens
    for i, token in enumerate(tokens):
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        leads = all(word in PREPOSITIONS | GENITIVE for word in part)
        if token == BREAK:
            yield link, part
            link, part = "", []
        elif token in LINKS and (
            not leads or token not in ASKS or (token in _SAME_LINK and several and after not in AUXILIARIES)
        ):
            if part or link:
                yield link, part
            link, part = _SAME_LINK.get(token, token), []
        else:
            part.append(token)
    yield link, part


def _clause(link: str, tokens: list[str]) -> Clause:
    """One clause; see the module's docstring for what may move."""
    lead = list(takewhile((PREPOSITIONS | GENITIVE).__contains__, tokens))
    if tokens[len(lead) : len(lead) + 1] == [] or tokens[len(lead)] not in ASKS:
        lead = []
    asks, rest = _asked(tokens[len(lead) :])
    lead_phrases = tuple((word,) for word in lead)
    at = next((i for i in range(len(rest)) if _is_auxiliary(rest, i)), None)
    if asks and rest[:1] in (["to"], ["by"]):
        clause = _act(rest[1:], gerund=rest[0] == "by")
    elif at is None:
        clause = _plain(rest)
    else:
        if not asks and not link and at == 0:
            asks = "whether"
        clause, asks = _auxiliary(asks, rest[:at], rest[at], rest[at + 1 :])
    marks = set(clause.marks)
    if (asks == "how" and clause.acts) or marks & _BOUNDS:
        marks.discard("can")  # how can I, how do I, how to; how many can I at most
    phrases = tuple(sorted((*clause.phrases, *lead_phrases)))
    return replace(clause, link=link, asks=asks, marks=tuple(sorted(marks)), phrases=phrases)


def _is_auxiliary(tokens: Sequence[str], at: int) -> bool:
    """Whether the word helps another verb; "have" is most often a verb itself."""
    if tokens[at] not in HAVE or at == 0:
        return tokens[at] in AUXILIARIES
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    return is_participle(after) or after in IMPERSONAL | _ADVERBS | {"been", "not"}


def _asked(tokens: list[str]) -> tuple[str, list[str]]:
    """The question word, with the adjective of "how old", and what follows it."""
    if tokens[:2] == ["number", "of"] and tokens[2:3] and tokens[2].endswith("s"):
        return "how many", tokens[2:]
    if not tokens or tokens[0] not in ASKS:
        return "", tokens
    first, rest = tokens[0], tokens[1:]
    grammar = AUXILIARIES | IMPERSONAL | DETERMINERS | {"to", "by", BREAK}
    if first == "how" and rest and rest[0] not in grammar:
        return f"how {rest[0]}", rest[1:]
    return ("which" if first == "what" else first), rest


def _auxiliary(asks: str, before: list[str], auxiliary: str, rest: list[str]) -> tuple[Clause, str]:
    """A clause with an auxiliary: what stands before it, the auxiliary, what stands after it."""
    marks = set[str]()
    for edge, words in ((0, before), (-1, rest)):
        if asks.startswith("how ") and words and words[edge] in _BOUNDS:
            marks.add(words.pop(edge))
    before = swapped(before)

    def take(word: str) -> None:
        if word in PAST:
            marks.add("past")
        if word in MODALS:
            marks.add(MODALS[word])

    negations = int(rest[:1] == ["not"])
    rest = rest[negations:]
    pronoun = rest[0] if rest and rest[0] in IMPERSONAL else ""
    if pronoun:
        rest = rest[1:]
    # "Could I" is a polite "can I"; what the gateway could do is another matter.
    take("can" if pronoun and auxiliary == "could" else auxiliary)
    while rest and (rest[0] == "not" or rest[0] in _ADVERBS or (pronoun and rest[0] in MODALS)):
        if rest[0] in MODALS:
            take(rest[0])
        elif rest[0] == "not":
            negations += 1
        else:
            marks.add(rest[0])
        rest = rest[1:]
    marks.update(["not", "twice"][:negations])
    be = auxiliary in BE
    inner = next((i for i, word in enumerate(rest) if word in {"be", "been"}), None)
    if not be and inner is not None and (inner == 0 or not pronoun):
        if auxiliary in HAVE:
            marks.add("perfect")
        rest, be = rest[:inner] + rest[inner + 1 :], True
    # A second auxiliary is another statement within this one: nothing may move.
    if AUXILIARIES.intersection(rest[1:] if pronoun else rest[:-1]) or (
        asks and AUXILIARIES.intersection(before)
    ):
        return in_order([*before, auxiliary, *([pronoun] if pronoun else []), *rest], marks), asks
    if be:
        patient = ["@me"] if pronoun in {"i", "we"} else [pronoun] if pronoun else []
        return _been(asks, before, patient + rest, marks)
    if pronoun and rest:
        if auxiliary in HAVE:
            marks.add("perfect")
        mine = ["@i"] if pronoun == "i" else []
        if rest[0] in {"have", "get"}:  # do we have X, is there X; what I have is another matter
            return nouns([*before, *(mine or ["there"]), *rest[1:]], marks | {"be"}), asks
        if auxiliary in DO and asks not in _HOW_TO and rest[0] != "need":
            before = [*mine, *before]  # whether I pay or we do; what anybody needs is needed
        acted = _act([rest[0], *joined(before, rest[1:])])
        if pronoun in {"i", "you"} and asks in _HOW_TO:
            # What I should do is what I do, and where I can is where I do.
            marks -= {"should", "can"} if asks == "where" else {"should"}
        return replace(acted, marks=(*marks, *acted.marks)), asks
    if rest and (attribute := _attribute(asks, before, rest[-1])) is not None:
        asks = asks if asks == "how many" else "which"
        owned = [*rest[:-1], *before, *filter(None, [attribute])]
        return nouns(owned, marks | {"be"}), asks
    if asks == "how long" and rest and rest[-1] == "take" and is_gerund(rest[0]):
        acted = _act(rest[:-1], gerund=True)
        return replace(acted, marks=(*marks, *acted.marks)), asks
    if auxiliary in HAVE:
        marks.add("perfect")
    return in_order(joined(before, rest), marks), asks


def _been(asks: str, before: list[str], rest: list[str], marks: set[str]) -> tuple[Clause, str]:
    """A clause with a form of "be": done, doing, or simply being."""
    end = next((i for i, t in enumerate(rest) if t in PREPOSITIONS - {"in", "on", "at"}), None)
    done = [
        i
        for i, token in enumerate(rest[:end])
        if is_participle(token) and (i == 0 or not _before_noun(rest[i - 1]))
    ]
    if done:
        at = done[-1]
        verb, patient, after = base(rest[at]), rest[:at], rest[at + 1 :]
        while patient and patient[-1] in _ADVERBS | {"not"}:
            word = patient.pop()
            marks.add("twice" if word in marks else word)
        if after == ["by"]:  # which Y is X done by
            return in_order([*before, verb, *patient], marks), asks
        if after[:1] == ["by"]:  # X is done by Y: Y does X
            return in_order([*after[1:], verb, *joined(before, patient)], marks), asks
        patient = joined(before, [*patient, *complement(after)])
        return replace(nouns(patient, marks, verb), acts=(verb,)), asks
    if rest[:1] == ["@me"] and is_gerund(rest[1] if rest[1:] else ""):
        acted = _act([rest[1], *joined(before, rest[2:])], gerund=True)
        return replace(acted, marks=(*marks, *acted.marks)), asks
    if rest and asks and is_gerund(rest[0]):
        return in_order([*before, base(rest[0]), *rest[1:]], marks), asks
    adjective = asks.removeprefix("how ")
    if adjective != asks and not before and (attribute := rewording.english().attributes.get(adjective)):
        return nouns([*rest, attribute], marks | {"be"}), "which"
    return nouns(joined(before, rest), marks | {"be"}), asks


def _act(tokens: list[str], *, gerund: bool = False) -> Clause:
    """A verb at the front that somebody does to what follows."""
    if not tokens or (gerund and not is_gerund(tokens[0])):
        return in_order(tokens, set())
    verb = base(tokens[0]) if gerund else same(tokens[0])
    return replace(nouns(complement(tokens[1:]), set(), verb), acts=(verb,))


def _plain(tokens: list[str]) -> Clause:
    """A clause without an auxiliary: its verb is one of the words, and says the tense."""
    for i, token in enumerate(tokens):
        if is_participle(token) and base(token) != token and (i == 0 or not _before_noun(tokens[i - 1])):
            return in_order([*tokens[:i], base(token), *tokens[i + 1 :]], {"past"})
    return in_order(tokens, set())


def _before_noun(word: str) -> bool:
    return word in DETERMINERS | PREPOSITIONS | GENITIVE | {"and", "or"}


def _attribute(asks: str, before: Sequence[str], verb: str) -> str | None:
    """The noun of "what does X <verb>"; None where that is no way to ask for a noun."""
    if asks not in {"which", "how much", "how long", "how many"} or (verb == "have" and not before):
        return None
    return rewording.english().predicates.get(verb)
