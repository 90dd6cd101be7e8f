"""Decides what a regex of `secret_rules.toml` cannot: checksums, and what stands around a value.

Each function of `CHECKS` sees one `Candidate` and says how many of its leading characters are a finding. It
knows nothing of masking, and keeps no state.
"""

import ipaddress
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import re2

RULES = Path(__file__).with_name("secret_rules.toml")
CONTEXT = 48  # bytes before and after a candidate that a check may look at
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a regex matched, for a check to judge. `groups` are the other named groups of the regex."""

    value: str
    before: str
    after: str
    groups: dict[str, str]


Check = Callable[[Candidate], int]  # how many leading characters of the value are a finding; 0: none


@cache
def words(name: str) -> frozenset[str]:
    """A word list of the rule file."""
    words_of: dict[str, str] = tomllib.loads(RULES.read_text(encoding="utf-8"))["words"]
    return frozenset(words_of[name].split())


def entropy(value: str) -> float:
    """Shannon entropy in bits per character."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def _has_digit(candidate: Candidate) -> int:
    return len(candidate.value) * any(map(str.isdigit, candidate.value))


_KEY_WORDS = re.compile(r"(?i)passw|pwd|secret|token|credential|key|auth|user|login|config|param|name|value")
_CODE = re2.compile(  # RE2, because a value can be as long as the text
    r"(?s)[A-Za-z_$][\w$]*(?:(?:\.|->|::)[A-Za-z_$][\w$]*)+[;,)]*"  # an attribute: request.token
    r"|[\w.$]*[(\[{].*|.*[)}\]]"  # a call, an index
    r"|(?:\.{0,2}/|[A-Za-z]:\\|~/|https?:|file:).*"  # a path
    r"|v?\d+(?:\.\d+)+\S*"  # a version
    r"|[A-Z][A-Z0-9]+-\d+"  # an issue
)
_SYMBOL = re.compile(r"[!@#$%^&*?+~|]")


def _assignment(candidate: Candidate) -> int:
    """Tells `password=hunter2` from `password = getPassword()`, `token: String` and prose.

    In quotes, a password may be any word. Without quotes or for keys that also mean other things ("token",
    "secret"), only what no word and no identifier looks like: letters with digits or symbols.
    """
    value, key = candidate.value, candidate.groups["key"].lower()
    size = len(value)
    quoted = bool(candidate.groups["quote"] and candidate.groups["close"])
    is_password = key.startswith("pass") or (key == "pwd" and "/" not in value)
    if _CODE.fullmatch(value) or (not quoted and candidate.after[:1] in ("(", "[")):
        return 0
    if is_password and quoted:
        return size
    if value.isdigit():
        return size * (is_password and size >= 6)
    mixed = any(map(str.isalpha, value)) and bool(any(map(str.isdigit, value)) or _SYMBOL.search(value))
    # A line of a properties file or a query string; code would have spaces, a comma or a parenthesis.
    alone = candidate.groups["sep"] == "=" and candidate.after[:1] in ("", "\n", "\r", "&")
    if not mixed and is_password and alone:
        return size * (size >= 6 and not _KEY_WORDS.search(value))
    if not mixed:
        return size * (
            quoted and size >= 16 and entropy(value) >= 3.5 and not re.search(r"[a-z][-._ ][a-z]", value)
        )
    if is_password:
        return size * (size >= 6 and not (_KEY_WORDS.search(value) and value.isidentifier() and not quoted))
    return size * (
        size >= 10 and entropy(value) >= 3.0 and not (_KEY_WORDS.search(value) and entropy(value) < 4)
    )


def _password_word(candidate: Candidate) -> int:
    """A single word in a place where only a password stands."""
    value = candidate.value
    return len(value) * (not _CODE.fullmatch(value) and not value.isupper())


def _email(candidate: Candidate) -> int:
    value = candidate.value
    local, _, domain = value.replace("%40", "@").rpartition("@")
    if (
        local == "git"
        or local.endswith("_HOST")
        or domain.rpartition(".")[2].lower() in words("file_endings")
    ):
        return 0
    return len(value)


def _valid_phone(value: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(value, region))
    except phonenumbers.NumberParseException:
        return False


def _possible_phone(value: str) -> bool:
    """Right country code and length; numbering plans change faster than the library's tables."""
    import phonenumbers

    try:
        reason = phonenumbers.is_possible_number_with_reason(phonenumbers.parse(value, None))
    except phonenumbers.NumberParseException:
        return False
    return reason == phonenumbers.ValidationResult.IS_POSSIBLE


def _stands_alone(candidate: Candidate, glue: str = "") -> bool:
    """Whether the value is not part of a longer word or number; `glue` are further joining characters."""
    before, after = candidate.before[-1:], candidate.after[:1]
    if before and ((before.isascii() and before.isalnum()) or before in "_" + glue):
        return False
    if after and ((after.isascii() and after.isalnum()) or after == "_"):
        return False
    joined = candidate.after[1:2]
    return not (after and after in "-." + glue and joined.isascii() and joined.isalnum())


def _international_phone(candidate: Candidate) -> int:
    if not _stands_alone(candidate, "+=/"):
        return 0
    value = candidate.value
    if re.match(r"\+\d{1,3}[ .(-]", value) and _possible_phone(value):
        return len(value)
    while len(value) > 7:  # "+1 415 555 0132 2024": the last group may be something else
        if _valid_phone(value, None):
            return len(value)
        value = re.sub(r"[ .()/-]*\d+$", "", value)
    return 0


def _named_phone(candidate: Candidate) -> int:
    value = candidate.value
    if not _stands_alone(candidate) or re.match(r"(?:19|20)\d\d[-/.]", value):
        return 0
    if re.fullmatch(r"\d{8,10}", value) and not re.search(r"(?i)phone|mobile|电话|手机", candidate.before):
        return 0
    return len(value) * any(_valid_phone(value, region) for region in ("US", "CN", "GB", "DE", "FR", "IN"))


def _us_phone(candidate: Candidate) -> int:
    return len(candidate.value) * (_stands_alone(candidate, "-./=+#") and _valid_phone(candidate.value, "US"))


def _chinese_mobile(candidate: Candidate) -> int:
    """Eleven digits in a row are also an id: they need separators or Chinese text beside them."""
    beside = candidate.before[-3:] + candidate.after[:2]
    plausible = not candidate.value.isdigit() or bool(CJK.search(beside))
    return len(candidate.value) * (plausible and _stands_alone(candidate, "-./=+#"))


_VERSION_BEFORE = re.compile(
    r"(?i)(?:\bv|\b(?:version|versions|ver|rev|revision|release|released|releases|build|builds|upgrade|upgraded|"
    r"upgrading|bump|bumps|bumped|driver|firmware|jdk|jre|java|maven|section|chapter|figure|appendix|fix|"
    r"snapshot|since|oid|patch|fixpack(?: \d+)?)[\s:=\"'(<>~]{0,4}(?:[a-z]+\s)?(?:from |to |in )?"
    r"(?:\d+(?:\.\d+)+(?:,| to| and| or|->|\s)+\s*)*"
    r"|版本[号为：:\s]{0,3})$"
)
_ADDRESS_BEFORE = re.compile(
    r"(?i)(?:\b(?:ip|ips|ipv4|host|hosts|hostname|address|addr|server|node|ping|ssh|telnet|listen|bind|dns|gateway"
    r"|subnet|client|remote|peer|inet|endpoint)\b|://$|@$|地址|服务器|主机)"
)
_ADDRESS_AFTER = re.compile(r":\d{2,5}\b|/\d{1,2}\b|:?\d{2,5}/")


def _ipv4(candidate: Candidate) -> int:
    """A version number with four parts is told by what stands around it, or by all its parts being small."""
    octets = candidate.value.split(".")
    numbers = [int(octet) for octet in octets]
    if any(number > 255 for number in numbers) or any(
        o != str(n) for o, n in zip(octets, numbers, strict=True)
    ):
        return 0
    if numbers[0] in (0, 127) or numbers[0] >= 224:  # this host, masks and groups: nobody's address
        return 0
    before, after = candidate.before, candidate.after
    if not _stands_alone(candidate, "+") or re.search(r"[A-Za-z]\w*[-.]$|\d\.$", before):
        return 0
    if after.startswith("+") or _VERSION_BEFORE.search(before):
        return 0
    private = (numbers[0] == 10 and max(numbers[1:3]) <= 1) or numbers[:2] == [192, 168]
    if numbers[0] <= 64 and numbers[3] <= 20 and max(numbers) < 100 and not private:
        return len(candidate.value) * bool(_ADDRESS_BEFORE.search(before) or _ADDRESS_AFTER.match(after))
    return len(candidate.value)


def _ipv6(candidate: Candidate) -> int:
    value = candidate.value.rstrip(":") if not candidate.value.endswith("::") else candidate.value
    if not _stands_alone(candidate, ":") or ("::" not in value and value.count(":") != 7):
        return 0
    try:
        ipaddress.IPv6Address(value)
    except ValueError:
        return 0
    return len(value)


# Leading digits and lengths of the card schemes (ISO/IEC 7812); a Luhn sum alone passes every tenth number.
_CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
_CARD_GROUPS = re.compile(r"\d+|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5}")


def _credit_card(candidate: Candidate) -> int:
    digits = re.sub(r"[ -]", "", candidate.value)
    if not (_CARDS.fullmatch(digits) and _CARD_GROUPS.fullmatch(candidate.value)):
        return 0
    if not _stands_alone(candidate, "-.,:/") or len(set(digits)) == 1:
        return 0
    return len(candidate.value) * (_luhn(digits) == 0)


def _luhn(digits: str) -> int:
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(int(digit) for digit in digits[-1::-2])) % 10


# Length by country, SWIFT IBAN registry.
_IBAN_LENGTHS = {
    code: int(length)
    for length, *codes in map(
        str.split,
        (
            "15 NO", "16 BE BI", "18 DK FI FK FO GL NL SD", "19 MK SI", "20 AT BA EE KZ LT LU MN XK",
            "21 CH HR LI LV", "22 BG BH CR DE GB GE IE ME RS VA", "23 AE GI IL IQ OM SO TL",
            "24 AD CZ ES MD PK RO SA SE SK TN VG", "25 LY PT ST", "26 IS TR", "27 BJ BF DJ FR GR IT MC MR SM",
            "28 AL AZ BY CY DO GT HN HU LB NI PL SV", "29 BR EG PS QA UA", "30 JO KW MU YE", "31 MT SC",
            "32 LC", "33 RU",
        ),
    )
    for code in codes
}  # fmt: skip


def _iban(candidate: Candidate) -> int:
    value = candidate.value
    length = _IBAN_LENGTHS.get(value[:2], 0)
    # The regex may have taken a following word along; cut to the country's length.
    taken, end = 0, 0
    while end < len(value) and taken < length:
        taken += value[end] != " "
        end += 1
    compact = value[:end].replace(" ", "")
    if not length or taken < length or value[end : end + 1].isalnum():
        return 0
    number = "".join(str(int(character, 36)) for character in compact[4:] + compact[:4])
    return end * (int(number) % 97 == 1)


def _social_security_number(candidate: Candidate) -> int:
    area, group, serial = candidate.value.split("-")
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return len(candidate.value) * (issued and _stands_alone(candidate, "-./:=+"))


def _chinese_resident_id(candidate: Candidate) -> int:
    """GB 11643-1999: weighted sum modulo 11."""
    total = sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(candidate.value[:17]))
    return len(candidate.value) * ("10X98765432"[total % 11] == candidate.value[-1].upper())


CHECKS: dict[str, Check] = {
    "assignment": _assignment,
    "chinese_mobile": _chinese_mobile,
    "chinese_resident_id": _chinese_resident_id,
    "credit_card": _credit_card,
    "email": _email,
    "has_digit": _has_digit,
    "iban": _iban,
    "international_phone": _international_phone,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "named_phone": _named_phone,
    "password_word": _password_word,
    "social_security_number": _social_security_number,
    "us_phone": _us_phone,
}
