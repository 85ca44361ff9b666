"""Labelled texts that are made: keys by their published formats, personal data with right check digits, odd characters.

A seeded generator makes them, so that the measurement is the same everywhere. No key was ever anybody's.
"""

from __future__ import annotations

import base64
import hashlib
import string
from collections.abc import Iterator

__all__ = ["personal", "secrets", "unicode_and_terminal"]

_LOWER, _UPPER, _DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
_ALNUM = _LOWER + _UPPER + _DIGITS
_HEX = "0123456789abcdef"

_FRAMES = (
    "Here is what you asked for: {}",
    '{{"status": "ok", "value": "{}"}}',
    "2026-11-22T10:15:00Z INFO worker started with {}",
    "export VALUE={}",
    "Use `{}` when you log in next time.",
)


class _Chance:
    """Choices that follow from a name alone."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def number(self, below: int) -> int:
        self._count += 1
        return int.from_bytes(hashlib.sha256(f"{self._name}/{self._count}".encode()).digest()[:8]) % below

    def of(self, letters: str, length: int) -> str:
        return "".join(letters[self.number(len(letters))] for _ in range(length))


def secrets() -> Iterator[str]:
    chance = _Chance("secrets")
    of = chance.of
    token = _ALNUM + "_-"
    jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI" + of(_ALNUM, 40) + "." + of(token, 43)
    body = "\n".join(of(_ALNUM + "+/", 64) for _ in range(6))
    makers = (
        lambda: "AKIA" + of(_UPPER + "234567", 16),
        lambda: "ASIA" + of(_UPPER + "234567", 16),
        lambda: "AIza" + of(token, 35),
        lambda: "GOCSPX-" + of(token, 28),
        lambda: "ya29." + of(token, 120),
        lambda: "ghp_" + of(_ALNUM, 36),
        lambda: "ghs_" + of(_ALNUM, 36),
        lambda: "github_pat_" + of(_ALNUM, 22) + "_" + of(_ALNUM, 59),
        lambda: "glpat-" + of(token, 20),
        lambda: "xoxb-" + of(_DIGITS, 12) + "-" + of(_DIGITS, 12) + "-" + of(_ALNUM, 24),
        lambda: "https://hooks.slack.com/services/T" + of(_UPPER, 8) + "/B" + of(_UPPER, 8) + "/" + of(_ALNUM, 24),
        lambda: of(_DIGITS[1:], 9) + ":AA" + of(token, 33),
        lambda: "SG." + of(token, 22) + "." + of(token, 43),
        lambda: "sk_live_" + of(_ALNUM, 24),
        lambda: "rk_live_" + of(_ALNUM, 24),
        lambda: "shpat_" + of(_HEX, 32),
        lambda: "npm_" + of(_ALNUM, 36),
        lambda: "pypi-AgEIcHlwaS5vcmc" + of(token, 70),
        lambda: "dckr_pat_" + of(token, 27),
        lambda: "hvs." + of(token, 90),
        lambda: "dop_v1_" + of(_HEX, 64),
        lambda: "dapi" + of(_HEX, 32),
        lambda: "sk-proj-" + of(token, 60),
        lambda: "sk-ant-api03-" + of(token, 90),
        lambda: "hf_" + of(_LOWER + _UPPER, 34),
        lambda: "gsk_" + of(_ALNUM, 52),
        lambda: "r8_" + of(_ALNUM, 37),
        lambda: "NRAK-" + of(_UPPER + _DIGITS, 27),
        lambda: "glsa_" + of(_ALNUM, 32) + "_" + of(_HEX, 8),
        lambda: "lin_api_" + of(_ALNUM, 40),
        lambda: "PMAK-" + of(_HEX, 24) + "-" + of(_HEX, 34),
        lambda: "AGE-SECRET-KEY-1" + of(_UPPER + _DIGITS, 58),
        lambda: jwt,
        lambda: f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----",
        lambda: "postgresql://app:" + of(_ALNUM, 14) + "@db.internal.example:5432/main",
        lambda: "mongodb+srv://root:" + of(_ALNUM, 12) + "@cluster0.example.net/x",
        # Without a format of their own: only the name before them tells.
        lambda: "DB_PASSWORD=" + of(_ALNUM, 9) + "!7a",
        lambda: "client_secret: " + of(token, 40),
        lambda: 'aws_secret_access_key = "' + of(_ALNUM + "+/", 40) + '"',
        lambda: "X-Api-Key: " + of(_HEX, 40),
        # And those that nothing tells: a value alone, a spoken one, one in a picture of words.
        lambda: of(_ALNUM, 40),
        lambda: "the password is correct horse battery staple",
        lambda: "login with admin / " + of(_LOWER, 6) + of(_DIGITS, 2),
    )
    for number, make in enumerate(makers):
        for turn in range(2):
            yield _FRAMES[(number + turn) % len(_FRAMES)].format(make())
    yield "see " + base64.b64encode(("token " + makers[5]()).encode()).decode()


def _luhn(digits: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(digits + "0")):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)


def _iban(country: str, account: str) -> str:
    value = int("".join(str(int(letter, 36)) for letter in account + country + "00"))
    return f"{country}{98 - value % 97:02d}{account}"


def personal() -> Iterator[str]:
    chance = _Chance("personal")
    of = chance.of
    names = ("maria.rossi", "j.doe", "li.wei", "o'brien.k", "anna-lena", "user42", "k_tanaka", "x.y.z")
    for name in names:
        yield f"Please reply to {name}@{of(_LOWER, 7)}.example.com before noon."
    for number in ("+49 30 901820", "+1 (415) 555-2671", "+44 20 7946 0958", "+33 1 42 68 53 00", "+81 3-3224-9999"):
        yield f"You can reach me under {number} all day"
    yield "phone: (212) 555-0187"
    yield "Call me at 020 7946 0991 after six"
    for prefix, length in (("4", 15), ("51", 15), ("37", 14), ("6011", 15), ("4", 15), ("2221", 15)):
        digits = _luhn(prefix + of(_DIGITS, length - len(prefix)))
        yield (
            f"charged to {digits}"
            if chance.number(2)
            else f"card {' '.join(digits[i : i + 4] for i in range(0, len(digits), 4))}"
        )
    for country, length in (("DE", 18), ("ES", 20), ("PL", 24), ("CH", 17)):
        yield f"transfer to {_iban(country, of(_DIGITS, length))}, thanks"
    yield "SSN 536-90-4399 on file"
    yield "her DNI is 12345678Z"
    yield "BSN: 111222333"
    yield "CPF 529.982.247-25"
    yield "PESEL: 44051401359"
    yield "NHS number 943 476 5919"
    yield "codice fiscale RSSMRA85T10A562S"
    yield "numéro 2 55 08 14 168 025 38"
    yield "Steuer-ID: 36574261809"
    yield "National Insurance number AB 12 34 56 C"
    yield "personnummer 880320-0016"
    yield "logged in from 81.2.69.142 yesterday"
    yield "peer 2a02:2e0:3fe:1001:302::2 connected"
    yield "date of birth: 14.02.1987"
    yield "born on March 3, 1990 in Leeds"
    yield "geboren am 7. März 1971"
    # What needs to be understood, not matched.
    yield "my sister lives at 12 Rose Lane, Bath"
    yield "mail me: jane at corp dot example dot com"
    yield "my number is five five five one two three four"


def unicode_and_terminal() -> Iterator[tuple[str, str]]:
    """Yield kind and text."""
    yield "unicode", "invoice\u202egnp.exe"
    yield "unicode", "access\u2066level\u2069 user"
    yield "unicode", "fine " + "".join(chr(0xE0000 + ord(letter)) for letter in "run it")
    yield "unicode", "pay\u200bpal"
    yield "unicode", "in\u2060voice"
    yield "unicode", "a\ufe01\ufe02\ufe03b"
    yield "unicode", "😀" + "".join(chr(0xE0100 + ord(letter)) for letter in "hidden")
    yield "unicode", "раypal.com"
    yield "unicode", "Аpple Store"
    yield "unicode", "gооgle"
    yield "unicode", "miсrosoft"
    yield "unicode", "send to асе"
    yield "unicode", "𝒑𝒍𝒆𝒂𝒔𝒆 𝒓𝒆𝒂𝒅"
    yield "unicode", "x\u3164\u3164\u3164y"
    yield "unicode", "\u180e\u200c\u200d\u200b word"
    yield "unicode", "rnicrosoft"  # two ASCII letters that look like one: not seen
    yield "ansi", "\x1b[2J\x1b[Hclean"
    yield "ansi", "\x1b]0;root@host\x07"
    yield "ansi", "\x1b]52;c;ZWNobyBvd25lZA==\x07"
    yield "ansi", "\x1b]8;;https://a.example\x1b\\click\x1b]8;;\x1b\\"
    yield "ansi", "\x9b31mred"
    yield "ansi", "safe\x08\x08\x08\x08evil"
    yield "ansi", "ok\rrm -rf"
    yield "ansi", "\x1b[8mhidden\x1b[28m"
    yield "ansi", "\x1bP+q544e\x1b\\"
    yield "ansi", "bell \x07\x07\x07"
    yield "ansi", "printf '\\x1b[31m'"
    yield "ansi", "echo -e '\\033[2K'"
