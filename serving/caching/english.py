"""What an English question asks, as clauses that are equal where the questions are: see `equivalence`.

Not a parser of English. It knows the few forms that questions have (what does X cost, how do I X, is X
done, where can X be done), and brings those that ask the same into one; in any other form every word counts
in its order. So what it does not know costs a hit, never a wrong answer. The one decision: a word moves or
disappears only where its grammar is certain, that is next to an auxiliary, a pronoun or a question word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from serving.caching import rewording
from serving.caching.clause import Clause
from serving.caching.english_clause import clause_of, is_contact
from serving.caching.english_words import (
    ASKS,
    AUXILIARIES,
    BREAK,
    LINKS,
    PREPOSITIONS,
    words_of,
)

_LETTERS = re.compile(r"[^\W\d_]+")
_OTHER_SCRIPT = re.compile(r"[^\x00-\u024f]")
_IN_FRONT = frozenset("if when whenever while because although though unless once".split())  # noqa: SIM905
_FIRST_PERSON = frozenset("i my me mine we us our ours".split())  # noqa: SIM905
_SAYING = frozenset(  # what stands in front may belong to what they say
    """say said know think tell told ask claim promise plan expect believe decide assume report mean hope want
    confirm guarantee ensure see show find learn agree check notice remember warn announce try""".split()  # noqa: SIM905
)


def clauses(text: str) -> tuple[Clause, ...]:
    """The clauses of an English question in NFKC; () where nothing is asked about."""
    tokens = words_of(text)
    mine = sum(token in _FIRST_PERSON for token in tokens)
    found = list(_parts(tokens))
    if len(found) == 1 and found[0][0] in {"if", "whether"}:  # I wonder if X is Y
        return (clause_of("", ["whether", *found[0][1]], mine),)
    if len(found) == 1 and found[0][1][:1] == ["the"]:  # tell me the X
        found = [("", ["what", "is", *found[0][1]])]
    parts = [clause_of(*part, mine) for part in found]
    return _ordered(tuple(clause for clause in parts if clause != Clause()))


def reads(text: str) -> bool:
    """Whether the text may be English: Latin letters, and no word of another language's grammar."""
    foreign = rewording.english().foreign
    words = _LETTERS.findall(text)
    return not any(word.lower() in foreign or _OTHER_SCRIPT.search(word) for word in words)


def wording(text: str) -> str:
    """The question without politeness, contractions and phrases of the tables, in its own order."""
    return " ".join(words_of(text))


def _ordered(found: tuple[Clause, ...]) -> tuple[Clause, ...]:
    """A question and one other clause, which may stand in front or behind; more stay as they are."""
    if len(found) != 2:
        return found
    front, main = found if not _is_question(found[0]) else found[::-1]
    if not _is_question(main):
        return found
    if front == Clause(phrases=front.phrases):  # "After a restart, how long does it take?"
        return (replace(main, phrases=front.phrases),) if _takes_a_phrase(main) else found
    # "The app shows P-17, what now?" says what "if the app shows P-17" says
    stated = front is found[0] and not front.link and len(front.words) > 2
    if _asks_what_to_do(main) and (stated or front.link == "when"):
        return main, replace(front, link="if")
    may_move = front.link in _IN_FRONT and not _SAYING.intersection((*main.acts, *main.words))
    return (main, front) if may_move else found


def _is_question(clause: Clause) -> bool:
    return bool(clause.asks) and not clause.link


def _takes_a_phrase(main: Clause) -> bool:
    """Whether a phrase in front can belong to nothing but the verb: there is no object that could take it."""
    subject_asked = main.asks.split()[0] in {"who", "which"}
    return not (main.acts or main.phrases or main.words[2:] or subject_asked)


def _asks_what_to_do(clause: Clause) -> bool:
    """What happens, what do I do, who do I call: there, when is if. (I know when it failed, not if.)"""
    if "past" in clause.marks or clause.phrases:
        return False
    does = clause.acts == ("do",) and not clause.words
    return clause.asks == "consequence" or does or (clause.asks == "who" and is_contact(clause))


def _parts(tokens: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The clauses' tokens, each with the word that links it to the rest."""
    link, part = "", list[str]()
    for i, token in enumerate(tokens):
        leads = all(word in PREPOSITIONS or word == "of" for word in part)
        if token == BREAK:
            yield link, part
            link, part = "", []
        elif token in LINKS and (not leads or token not in ASKS or _is_condition(tokens, i)):
            if part or link:
                yield link, part
            link, part = token, []
        else:
            part.append(token)
    yield link, part


def _is_condition(tokens: Sequence[str], at: int) -> bool:
    """Whether this "when" begins "When a tag is retired, is it deleted?" and not "When is it deleted?"."""
    if tokens[at] != "when" or at or BREAK not in tokens or tokens[1:2] == [] or tokens[1] in AUXILIARIES:
        return False
    main = [*tokens[tokens.index(BREAK) + 1 :], "", ""]
    return main[0] in AUXILIARIES or (
        main[0] in ASKS and (main[0] == "consequence" or main[1] in AUXILIARIES)
    )
