"""One clause of an English question: what it asks, of what, and how. Several of them: `english`.

The forms that questions have, each brought into one: with an auxiliary, with a form of "be", with a verb in
front, and without any of them, where every word counts in its order.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import takewhile

from serving.caching import rewording
from serving.caching.clause import Clause, in_order, joined, nouns, owned
from serving.caching.english_words import (
    ASKS,
    AUXILIARIES,
    BE,
    BREAK,
    DETERMINERS,
    DO,
    HAVE,
    MODALS,
    PAST,
    PREPOSITIONS,
    PRONOUNS,
    QUANTIFIERS,
    base,
    is_gerund,
    is_participle,
    is_plural,
    same,
)

_UNBOUND = frozenset("why when where how whether".split())  # noqa: SIM905
_ADJUNCTS = frozenset(("how", "where", "why", "when", "how long", "how often"))
_SPANS = frozenset("period interval timeout duration lifetime".split())  # noqa: SIM905
_BOUNDS = frozenset(("maximum", "minimum"))
_ADVERBS = frozenset("still already always also usually often never ever automatically".split())  # noqa: SIM905
_AFTER_VERB = frozenset("double twice once again too".split())  # noqa: SIM905
_CONTACTS = frozenset("contact call ask talk".split())  # noqa: SIM905
_PATIENTS = {"i": "@me", "we": "@us", "you": "you"}


def clause_of(link: str, tokens: list[str], mine: int) -> Clause:
    """One clause; see the module's docstring for what may move. `mine` counts words of the first person."""
    lead = list(takewhile(lambda word: word in PREPOSITIONS or word == "of", tokens))
    if tokens[len(lead) : len(lead) + 1] == [] or tokens[len(lead)] not in ASKS:
        lead = []
    asks, rest = _asked(tokens[len(lead) :])
    at = next((i for i in range(len(rest)) if _is_auxiliary(rest, i)), None)
    if asks and rest[:1] in (["to"], ["by"]):
        clause = _act(rest[1:], gerund=rest[0] == "by")
        if asks == "how" and clause.acts:
            clause = replace(clause, marks=("@i",))
    elif at is None and asks == "how many" and (bound := _BOUNDS.intersection((*rest[:1], *rest[-1:]))):
        clause = nouns(
            [word for word in rest if word not in bound], {"be", *bound}
        )  # how many X per Y at most
    elif at is None:
        start = next((i for i, word in enumerate(rest) if i and word in {"a", "an", "the"}), 0)
        # which port the broker listens on: which port does it
        clause = _plain(joined(rest[:start], rest[start:]) if asks == "which" and start else rest)
    else:
        if not asks and not link and at == 0:
            asks = "whether"
        clause, asks = _auxiliary(asks, rest[:at], rest[at], rest[at + 1 :], mine)
    marks = set(clause.marks)
    if marks & _BOUNDS:
        marks.discard("can")  # how many can I at most
    phrases = clause.phrases + tuple((word,) for word in lead)
    return replace(clause, link=link, asks=asks, marks=tuple(sorted(marks)), phrases=phrases)


def _is_auxiliary(tokens: Sequence[str], at: int) -> bool:
    """Whether the word helps another verb; "have" is most often a verb itself."""
    if tokens[at] not in HAVE or at == 0:
        return tokens[at] in AUXILIARIES
    after = tokens[at + 1] if at + 1 < len(tokens) else ""
    return is_participle(after) or after in PRONOUNS | _ADVERBS | {"been", "not"}


def _asked(tokens: list[str]) -> tuple[str, list[str]]:
    """The question word, with the adjective of "how old", and what follows it."""
    if tokens[:2] == ["number", "of"] and tokens[2:3] and tokens[2].endswith("s"):
        return "how many", tokens[2:]
    if not tokens or tokens[0] not in ASKS | {"whether"}:
        return "", tokens
    first, rest = tokens[0], tokens[1:]
    grammar = AUXILIARIES | PRONOUNS | DETERMINERS - {"many", "few"} | {"to", "by", BREAK}
    if first == "how" and rest and rest[0] not in grammar:
        return f"how {rest[0]}", rest[1:]
    if first == "which" and rest and rest[0] in BE:
        return "which one", rest
    return ("which" if first == "what" else first), rest


def _auxiliary(
    asks: str, before: list[str], auxiliary: str, rest: list[str], mine: int
) -> tuple[Clause, str]:
    """A clause with an auxiliary: what stands before it, the auxiliary, what stands after it."""
    marks = set[str]()
    for edge, words in ((0, before), (-1, rest)):
        if asks.startswith("how ") and words and words[edge] in _BOUNDS:
            marks.add(words.pop(edge))
    if not PREPOSITIONS.intersection(before):
        before = owned(before)

    all_not = rest[:1] == ["not"] and QUANTIFIERS.intersection(before)
    if asks in _UNBOUND and before and not all_not and not AUXILIARIES.intersection([*before, *rest]):
        before, rest = [], _inverted(before, rest)  # how come X is Y, why is X Y
    if (
        auxiliary in DO
        and rest.count("must") == 1
        and rest[0] not in {*PRONOUNS, "must"}
        and "not" not in rest
    ):
        auxiliary, rest = "must", [word for word in rest if word != "must"]  # does X have to, must X
        marks |= {"past"} if auxiliary == "did" else set()
    start = next((i for i, word in enumerate(before) if i and word in {"a", "an", "the"}), 0)
    if asks == "how many" and start:  # the number of X a Y can do, how many X can a Y do
        before, rest = before[:start], before[start:] + rest

    def take(word: str) -> None:
        if word in PAST:
            marks.add("past")
        if word in MODALS:
            marks.add(MODALS[word])

    outer = rest[:1] == ["not"]
    rest = rest[outer:]
    pronoun = rest[0] if rest and rest[0] in PRONOUNS else ""
    rest = rest[bool(pronoun) :]
    # "Could I" is a polite "can I"; what the gateway could do is another matter.
    take("can" if pronoun and auxiliary == "could" else auxiliary)
    if outer:  # "Can't I leave?" is not "Can I not leave?"
        marks.add("not outside" if asks == "whether" else "all not" if all_not else "not")
    run = list(
        takewhile(lambda word: word == "not" or word in _ADVERBS or (pronoun and word in MODALS), rest)
    )
    rest = rest[len(run) :]
    if "not" in run:  # not always, always not; not must, which is no must not
        marks.add(" ".join(run) if not outer else f"not {' '.join(run)}")
    else:
        for word in run:
            take(word) if word in MODALS else marks.add(word)
    # The gateways are more than one; what holds for gateways holds for any.
    plural = not pronoun and auxiliary in {"are", "were", "do", "have"} and "the" in [*before, *rest]
    if asks == "where":  # "where can I find" has become "where is"
        plural = any(is_plural(word) for word in [*takewhile(lambda t: t not in PREPOSITIONS, rest)][-1:])
    number = {"plural"} if plural else set[str]()
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
        patient = [_PATIENTS[pronoun]] if pronoun else []
        return _been(asks, before, patient + rest, marks, number, mine)
    if auxiliary in HAVE:
        marks.add("perfect")
    if pronoun and rest:
        if rest[0] == "have" and (pronoun != "you" or not mine):
            # do we have X, is there X; what I have is another matter
            there = "@i" if pronoun == "i" else "there"
            return nouns([*before, there, *rest[1:]], marks | {"be"}), asks
        acted = _act([rest[0], *joined(before, rest[1:])])
        marks = _doer(pronoun, asks, acted, marks, mine)
        return replace(acted, marks=tuple(sorted(marks))), asks
    if rest and (attribute := _attribute(asks, before, rest[-1])) is not None:
        asks = asks if asks == "how many" else "which"
        subject = rest[1:-1] if attribute == "meaning" and rest[0] in {"a", "an"} else rest[:-1]
        return nouns([*([attribute, "of"] if attribute else []), *subject, *before], marks | {"be"}), asks
    if asks == "how long" and rest and rest[-1] == "take" and is_gerund(rest[0]):
        acted = _act(rest[:-1], gerund=True)
        return replace(acted, marks=(*sorted(marks), *acted.marks)), asks
    return in_order(joined(before, rest), marks | number), asks


def _inverted(subject: list[str], rest: list[str]) -> list[str]:
    """The order of a question: "not" stays behind the auxiliary."""
    negation = rest[:1] == ["not"]
    return [*rest[:negation], *subject, *rest[negation:]]


def _doer(pronoun: str, asks: str, acted: Clause, marks: Collection[str], mine: int) -> set[str]:
    """The marks of what somebody does, with who does it where that matters.

    It does not where "we" or "you" stand for nobody: in how, where and how often it is done, why and when it
    was, and in what is a policy ("do we encrypt backups"). Which invoices we pay are not those that are paid.
    What I can do can be done; where "my" is in the question, "you" and "I" are two.
    """
    (verb,) = acted.acts
    modal = {*MODALS.values(), "not outside"}.intersection(marks) - {"will"}
    addressed = mine > (pronoun != "you")
    if pronoun == "i":
        if asks in {"how", "where"}:
            return {*marks, "@i"} - {"can", "should"}
        if _is_advice(asks, acted) and modal <= {"should"}:
            return {*marks, "@i"} - {"should"}
        possible = asks == "whether" and modal <= {"can"} and modal
        anybody = not addressed and (possible or verb == "need" or (verb == "do" and modal))
    else:
        tables = rewording.english()
        adjunct = asks in _ADJUNCTS - {"why", "when"} or (asks == "how much" and verb == "pay")
        event = asks in {"why", "when"} and bool({"past", "will"}.intersection(marks))
        anybody = not modal and (adjunct or event or verb in tables.policies)
        anybody = anybody and not (pronoun == "you" and (addressed or verb == "need"))
    return {*marks} if anybody else {*marks, f"@{pronoun}"}


def _is_advice(asks: str, acted: Clause) -> bool:
    """What should I do, whom should I contact: what I do and whom I contact."""
    if asks == "who":
        return is_contact(acted)
    return asks == "which" and acted.acts == ("do",) and not acted.words


def _been(
    asks: str, before: list[str], rest: list[str], marks: set[str], number: set[str], mine: int
) -> tuple[Clause, str]:
    """A clause with a form of "be": done, doing, or simply being."""
    end = next((i for i, t in enumerate(rest) if t in PREPOSITIONS - {"in", "on", "at"}), None)
    by = rest.index("by") if rest.count("by") == 1 else 0
    end = by if by and is_participle(rest[by - 1]) else end
    done = [
        i
        for i, token in enumerate(rest[:end])
        if is_participle(token) and (i == 0 or not _before_noun(rest[i - 1]))
    ]
    if done and _is_verb(rest[done[-1] + 1 :]):
        at = done[-1]
        verb, patient, after = base(rest[at]), rest[:at], rest[at + 1 :]
        if "not" not in patient or not QUANTIFIERS.intersection([*before, *patient]):
            tail = list(takewhile(lambda word: word == "not" or word in _ADVERBS, reversed(patient)))[::-1]
            patient = patient[: len(patient) - len(tail)]
            if "not" in tail:
                marks.add(" ".join(tail))
            else:
                marks.update(tail)
        if after == ["by"] and patient:  # which Y is X done by
            return in_order([*before, verb, *patient], marks), asks
        if after.count("by") == 1 and after[-1] != "by":  # X is done in Z by Y: Y does X in Z
            by = after.index("by")
            agent, where = after[by + 1 :], after[:by]
            if before and not patient:  # which X is done by Y: which X does Y do
                return in_order(joined(before, [*agent, verb, *where]), marks), asks
            return in_order([*agent, verb, *joined(before, patient), *where], marks), asks
        if (asks == "how" and "can" in marks) or (asks == "where" and {"can", "should"} & marks):
            marks = marks - {"can", "should"} | {"@i"} if not mine else marks
        marks |= number if asks not in _ADJUNCTS else set()
        said = joined(before, patient) if patient else before
        manner = after[:1] and after[0] not in PREPOSITIONS and not PREPOSITIONS.intersection(said)
        return replace(nouns([*said, *after] if manner else joined(said, after), marks), acts=(verb,)), asks
    if rest[:1] and rest[0] in _PATIENTS.values() and is_gerund(rest[1] if rest[1:] else ""):
        pronoun = next(word for word, patient in _PATIENTS.items() if patient == rest[0])
        acted = _act([rest[1], *joined(before, rest[2:])], gerund=True)
        marks = _doer(pronoun, asks, acted, marks | {"ing"}, mine)
        return replace(acted, marks=tuple(sorted(marks))), asks
    if asks == "how long" and not before and owned(rest)[-1:] and owned(rest)[-1] in _SPANS:
        return nouns(rest, marks | number | {"be"}), "which"  # how long is the period, what is the period
    if rest and asks and is_gerund(rest[0]):
        ing = set() if base(rest[0]) in rewording.english().lasting else {"ing"}
        return in_order([*before, base(rest[0]), *rest[1:]], marks | number | ing), asks
    adjective = asks.removeprefix("how ")
    if adjective != asks and not before and (attribute := rewording.english().attributes.get(adjective)):
        return nouns([attribute, "of", *rest], marks | number | {"be"}), "which"
    said = joined(before, rest)
    bare = said[:1] and (said[0] not in DETERMINERS or said[0] in {"a", "an"})
    if asks == "which" and bare and not {*PREPOSITIONS, "of", "'s", "|"}.intersection(said):
        # What is (a) geofence, what does geofence mean; what is the retention is another matter.
        said = ["meaning", "of", *said[said[0] in {"a", "an"} :]]
    return nouns(said, marks | number | {"be"}), asks


def _is_verb(after: Sequence[str]) -> bool:
    """Whether a participle is the verb, by what follows: "are files deleted", not "are deleted files"."""
    if after and (after[0].endswith("ly") or after[0] in _AFTER_VERB):
        after = after[1:]
    return not after or after[0] in PREPOSITIONS


def _act(tokens: list[str], *, gerund: bool = False) -> Clause:
    """A verb at the front that somebody does to what follows."""
    if not tokens or (gerund and not is_gerund(tokens[0])):
        return in_order(tokens, set())
    verb = base(tokens[0]) if gerund else same(tokens[0])
    return replace(nouns(tokens[1:], set()), acts=(verb,))


def _plain(tokens: list[str]) -> Clause:
    """A clause without an auxiliary: its verb is one of the words, and says the tense."""
    for i, token in enumerate(tokens):
        if is_participle(token) and base(token) != token and (i == 0 or not _before_noun(tokens[i - 1])):
            return in_order([*tokens[:i], base(token), *tokens[i + 1 :]], {"past"})
    return in_order(tokens, set())


def _before_noun(word: str) -> bool:
    return word in DETERMINERS | PREPOSITIONS | {"and", "or", "of", "'s"}


def _attribute(asks: str, before: Sequence[str], verb: str) -> str | None:
    """The noun of "what does X <verb>"; None where that is no way to ask for a noun."""
    if asks not in {"which", "how much", "how long", "how many"}:
        return None
    if (verb == "have" and asks != "how many") or (verb == "mean" and before):
        return None
    return rewording.english().predicates.get(verb)


def is_contact(clause: Clause) -> bool:
    return bool(_CONTACTS.intersection(clause.acts))
