"""What secrets and personal data look like: a pattern, and a proof where the number has one.

Boundaries, digits and letters are ASCII unless said otherwise: Chinese or Thai text stands right beside a number
without a space, and is no part of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
    "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
    "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 "
    "SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
IBAN_LENGTHS = {code[:2]: int(code[2:]) for code in _IBANS.split()}
"""ISO 13616: characters of an IBAN, by country."""


NOBODYS = tuple(
    ipaddress.ip_network(network)
    for network in ("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3")
)


def _if_all(is_one: Callable[[str], bool]) -> Callable[[str], int]:
    """A proof that takes a match whole or not at all."""
    return lambda match: len(match) if is_one(match) else 0


@dataclass(frozen=True)
class Pattern:
    """What one kind of thing looks like.

    Attributes:
        anchors: lower-case pieces, one of which every match has; none where `digits` says enough.
        digits: the fewest digits in a match.
        within: the most characters from the first to the last of so many digits, both included.
        proof: how many of a match's first characters are one (by a checksum, or a part that must be there); 0: none.
    """

    kind: str
    pattern: re.Pattern[str]
    anchors: tuple[str, ...] = ()
    digits: int = 0
    within: int = 1
    proof: Callable[[str], int] = len


# proofs


def _digits(match: str) -> list[int]:
    return [int(character) for character in match if character in "0123456789"]


def _has_digit_and_letter(match: str) -> bool:
    return any(map(str.isdigit, match)) and any(map(str.isalpha, match))


def _is_token(match: str) -> bool:
    """Random characters hold digits; words joined by dashes or dots do not."""
    return len(_digits(match)) >= 2


def _is_written_secret(match: str) -> bool:
    return _has_digit_and_letter(re.split(r"[=:]", match, maxsplit=1)[1])


def _passes_luhn(digits: Sequence[int]) -> bool:
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_card(match: str) -> bool:
    """Luhn's check, and an issuer's first digits with their length."""
    digits = _digits(match)
    number = "".join(map(str, digits))
    issuer = re.fullmatch(
        r"4(\d{15}|\d{18})|(5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[0689]\d{12}|35\d{14}|6(011|4[4-9]\d|5\d\d)\d{12}"
        r"|62\d{14,17}|(50|5[6-8])\d{14}",
        number,
    )
    return bool(issuer) and len(set(digits)) > 1 and _passes_luhn(digits)


def _length_of_card(match: str) -> int:
    """Digits may follow (a date, a code), so every end of a group is tried, the last one first."""
    ends = [len(match), *(place for place in range(len(match) - 1, 0, -1) if match[place] in " -")]
    return next((end for end in ends if _is_card(match[:end])), 0)


def _length_of_iban(match: str) -> int:
    """ISO 13616 and ISO 7064 (modulo 97). Words may follow, so the country's length decides where it ends."""
    places = [place for place, character in enumerate(match) if not character.isspace()]
    length = IBAN_LENGTHS.get(match[:2], 0)
    if not length or len(places) < length:
        return 0
    characters = [match[place] for place in places]
    number = "".join(str(int(character, 36)) for character in characters[4:length] + characters[:4])
    return places[length - 1] + 1 if int(number) % 97 == 1 else 0


def _is_address(match: str) -> bool:
    """An IP address that may be somebody's: not a section or version such as 1.2.3.4, not a time, not one that every
    house has (192.168.0.1) or that means a whole network."""
    try:
        address = ipaddress.ip_address(match)
    except ValueError:
        return False
    if address.version == 6:
        return match.count(":") >= 4
    return len(_digits(match)) >= 7 and not any(address in network for network in NOBODYS)


def _is_cpf(match: str) -> bool:
    """Brazil: two check digits modulo 11."""
    digits = _digits(match)

    def check(number: int) -> int:
        rest = sum(digit * weight for digit, weight in zip(digits, range(number + 1, 1, -1), strict=False)) * 10 % 11
        return rest % 10

    return check(9) == digits[9] and check(10) == digits[10] and len(set(digits)) > 1


def _is_dni(match: str) -> bool:
    """Spain: a letter that is the number modulo 23; foreigners' X, Y, Z stand for 0, 1, 2."""
    compact = re.sub(r"\W", "", match)
    number = compact[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == compact[-1]


def _is_nir(match: str) -> bool:
    """France: 97 minus the number modulo 97."""
    digits = "".join(map(str, _digits(match)))
    return int(digits[13:]) == 97 - int(digits[:13]) % 97


def _is_hetu(match: str) -> bool:
    """Finland: a character that is the number modulo 31."""
    digits = "".join(map(str, _digits(match[:6] + match[7:10])))
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] == match[-1]


def _is_personnummer(match: str) -> bool:
    """Sweden: Luhn's check over the last ten digits."""
    return _passes_luhn(_digits(match)[-10:])


def _ascii(pattern: str) -> re.Pattern[str]:
    """With \\w, \\d, \\s and \\b of ASCII."""
    return re.compile(pattern, re.ASCII)


_WRITTEN = (
    r"(?i)(?<![A-Za-z0-9_])(?:password|passwd|passwort|pwd|secret|api[ _-]?key|access[ _-]?key|auth[ _-]?token"
    r"|access[ _-]?token|client[ _-]?secret|private[ _-]?key)(?![A-Za-z0-9_])"
    r"[\"']?\s{0,3}[=:]\s{0,3}[\"']?[^\s\"',;<>]{8,200}"
)

_PRIVATE_KEY = r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?:(?s:.)*?-----END [A-Z ]{0,30}PRIVATE KEY-----|(?s:.)*)"
"""With the key itself: to its end, or to that of the text."""

SECRETS: tuple[Pattern, ...] = (
    Pattern("private key", re.compile(_PRIVATE_KEY), ("private key",)),
    Pattern("cloud access key", _ascii(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), ("akia", "asia"), 1),
    Pattern("cloud access key", _ascii(r"\bAIza[\w-]{35}(?![\w-])"), ("aiza",), 1),
    Pattern("API token", _ascii(r"\bgh[pousr]_[A-Za-z0-9]{30,255}"), ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    Pattern("API token", _ascii(r"\bgithub_pat_\w{20,255}"), ("github_pat_",)),
    Pattern("API token", _ascii(r"(?<![\w-])glpat-[\w-]{20,255}"), ("glpat-",)),
    Pattern("API token", _ascii(r"(?<![\w-])xox[abeprs]-[\w-]{10,255}"), ("xox",), proof=_if_all(_is_token)),
    Pattern("API token", _ascii(r"\b[sr]k_(?:live|test)_\w{16,255}"), ("k_live_", "k_test_")),
    Pattern("API token", _ascii(r"(?<![\w-])sk-[\w-]{20,255}"), ("sk-",), proof=_if_all(_is_token)),
    Pattern("API token", _ascii(r"\bhf_[A-Za-z0-9]{30,255}"), ("hf_",)),
    Pattern("API token", _ascii(r"\b(?:npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,255})"), ("npm_", "pypi-")),
    Pattern("API token", _ascii(r"(?i)\bbearer(?u:\s){1,3}[\w.~+/-]{20,2000}"), ("bearer",), proof=_if_all(_is_token)),
    Pattern("JSON web token", _ascii(r"(?<![\w-])eyJ[\w-]{8,4000}\.eyJ[\w-]{4,4000}\.[\w-]{8,4000}"), ("eyj",)),
    Pattern("password in a URL", re.compile(r"://[^\s/:@]{1,100}:[^\s/]{1,100}@(?=[\w\[])"), ("://",)),
    Pattern(
        "written-out password or key",
        re.compile(_WRITTEN),
        ("passw", "pwd", "secret", "key", "token"),
        1,
        proof=_if_all(_is_written_secret),
    ),
)

_PHONE = (
    r"(?<![\w.+/-])(?:"
    r"(?:\+|00)[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d(?:[ ./-]?\d){6,11}"  # with the country's code
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}"  # North America
    r"|\(?0[1-9]\d{1,3}\)?[ /-]\d{3,4}[ -]?\d{2,4}(?:[ -]?\d{2,4})?"  # with the leading zero of many countries
    r"|0[1-9](?:[ .]\d\d){4}"  # France
    r")(?![\w-]|[.,]\d)"
)
_IPV4 = r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)"
_IPV6 = r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){4,7}(?![\w:])"

_SPACED = r"A-Za-z0-9_\u00c0-\u0dff\u10a0-\u10ff\u1200-\u137f\u1e00-\u1fff"
_UNSPACED = (
    r"\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u3400-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Letters of scripts with spaces between words, and of those without (or, as Korean, without one before endings).

An e-mail address may hold both. Where both meet, the text around it ends and it begins, unless the whole name before
its @ is of the second kind: `写信给anna@x.cn吧`, `张三@例子.中国`.
"""

_E_MAIL = (
    rf"(?:(?<![{_SPACED}.+-])[{_SPACED}][{_SPACED}.+-]{{0,63}}|[{_SPACED}.+-]{{0,64}}+[{_UNSPACED}]{{1,64}}+)@"
    rf"(?:[{_SPACED}{_UNSPACED}-]{{1,63}}\.){{1,6}}"
    rf"(?:[A-Za-z]{{2,24}}(?![A-Za-z0-9_@])|(?!\d)[{_SPACED}{_UNSPACED}]{{2,24}}(?![{_SPACED}@]))"
)

PERSONAL: tuple[Pattern, ...] = (
    Pattern(
        "e-mail address",
        _ascii(_E_MAIL),
        ("@",),
    ),
    Pattern("phone number", _ascii(r"(?:(?<!\d )|(?=[+(]))" + _PHONE), digits=8, within=22),
    Pattern("IBAN", _ascii(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}"), digits=8, within=64, proof=_length_of_iban),
    Pattern(
        "payment card number",
        _ascii(r"(?<![\w.,/-])\d(?:[ -]?\d){12,18}(?![\w-])"),
        digits=13,
        within=25,
        proof=_length_of_card,
    ),
    Pattern("IP address", _ascii(_IPV4), digits=7, within=10, proof=_if_all(_is_address)),
    Pattern("IP address", _ascii(_IPV6), (":",), 2, 39, _if_all(_is_address)),
    Pattern(
        "national id",
        _ascii(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"),
        digits=9,
        within=11,
    ),
    Pattern("national id", _ascii(r"\b[A-CEGHJ-PR-TW-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]\b"), digits=6, within=8),
    Pattern(
        "national id",
        _ascii(r"\b(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]\b"),
        digits=7,
        within=7,
        proof=_if_all(_is_dni),
    ),
    Pattern("national id", _ascii(r"\b\d{3}\.\d{3}\.\d{3}-\d\d\b"), digits=11, within=14, proof=_if_all(_is_cpf)),
    Pattern(
        "national id",
        _ascii(r"\b[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?\d\d ?\d{3} ?\d{3} ?\d\d\b"),
        digits=15,
        within=21,
        proof=_if_all(_is_nir),
    ),
    Pattern(
        "national id",
        _ascii(r"\b[0-3]\d[01]\d{3}[+A-]\d{3}[0-9A-Y]\b"),
        digits=9,
        within=10,
        proof=_if_all(_is_hetu),
    ),
    Pattern(
        "national id",
        _ascii(r"(?<![\w-])(?:\d\d)?\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[+-]\d{4}(?![\w-])"),
        digits=10,
        within=11,
        proof=_if_all(_is_personnummer),
    ),
)

AMONG_NUMBERS = Pattern("phone number", _ascii(_PHONE), digits=8, within=22)
"""Behind another number it is rarely a phone number: it is none that we report, but masked to be on the safe side."""

_TOKEN_REST = r"(?:[\w~+/=-]|\.(?=\w))*"
RESTS = {
    **dict.fromkeys(("cloud access key", "API token", "JSON web token"), _ascii(_TOKEN_REST)),
    "written-out password or key": re.compile(_TOKEN_REST),
    "phone number": _ascii(r"(?:[ ./-]?\d)*"),
}
"""What follows a match of a kind without a break and belongs to it: a token may be longer than its pattern takes, a
number may have an extension."""
