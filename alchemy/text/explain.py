"""Tells what masking would replace in a text, line by line, without showing it: for `alchemy sanitize`."""

from dataclasses import dataclass

from alchemy.text.document import normalize
from alchemy.text.sanitize import Finding, Sanitizer

_AROUND = 30  # characters of the masked line beside the pseudonym


@dataclass(frozen=True, slots=True)
class Masked:
    """One value that would be replaced."""

    line: int  # of the text, from 1
    kind: str
    rule: str
    encoded: bool  # whether it was hidden in base64 or %XX
    sample: str  # its surroundings as they would be published, the pseudonym in its place


def explain(text: str, sanitizer: Sanitizer) -> list[Masked]:
    """Every value that `sanitizer.mask` replaces in `text`, in order of its line.

    Rounds are repeated as `mask` does, because a pseudonym can uncover what stood beside it.
    """
    text = normalize(text)
    lines = list(range(1, text.count("\n") + 2))  # the original number of every line that is left
    found: list[Masked] = []
    final = sanitizer.mask(text)
    while findings := sanitizer.find(text):
        numbers = [text.count("\n", 0, one.start) for one in findings]
        masked = sanitizer.replace(text, findings)
        found += [
            Masked(lines[number], one.kind, one.rule, bool(one.hidden), _sample(text, one, final, sanitizer))
            for number, one in zip(numbers, findings, strict=True)
        ]
        for number, one in reversed(list(zip(numbers, findings, strict=True))):
            del lines[number + 1 : number + 1 + text.count("\n", one.start, one.end)]
        text = masked
    return sorted(found, key=lambda one: one.line)


def _sample(text: str, finding: Finding, final: str, sanitizer: Sanitizer) -> str:
    """The pseudonym and what is published beside it.

    It is cut out of the completely masked text: in the half masked one another value may stand beside it.
    """
    token = sanitizer.replace(text[finding.start : finding.end], [_whole(finding)])
    place = final.find(token)
    if place < 0:  # swallowed by a later, larger finding
        return token
    start = final.rfind("\n", 0, place) + 1
    end = final.find("\n", place)
    line_end = len(final) if end < 0 else end
    before = final[max(start, place - _AROUND) : place]
    after = final[place + len(token) : min(line_end, place + len(token) + _AROUND)]
    before = before.partition(">")[2] if ">" in before and "<" not in before.partition(">")[0] else before
    after = after.rpartition("<")[0] if "<" in after and ">" not in after.rpartition("<")[2] else after
    return f"{before}{token}{after}"


def _whole(finding: Finding) -> Finding:
    return Finding(0, finding.end - finding.start, finding.kind, finding.rule, finding.hidden)
