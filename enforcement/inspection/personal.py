"""Personal data: what names a person or reaches one.

Pure. Candidates are told by shape, then by check digits, then by the words before them. A number with check digits
that few numbers pass (a card's, an IBAN, an identifier in its written form) is enough by itself; one that a tenth of
all numbers pass counts only where a word before it says what it is.

Check digits are those of python-stdnum, telephone numbers those of Google's libphonenumber.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final

import phonenumbers
from stdnum import iban, luhn
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.exceptions import ValidationError
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import ssn

from enforcement.inspection.patterns import linear
from enforcement.inspection.sieve import EVERYWHERE, Sieved

__all__ = ["personal_data"]

Check = Callable[[str], object]

# Shapes that are rare in other text; each alternative ends where no more of it can follow.
_SHAPE: Final = linear(
    rb"(?i)(?P<email>[a-z0-9_+-]@[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*\.[a-z]{2,24}\b)"
    rb"|(?P<iban>\b[a-z]{2}[0-9]{2}(?: ?[a-z0-9]{4}){2,7}(?: ?[a-z0-9]{1,4})?\b)"
    rb"|(?P<phone>\+[1-9][0-9]{0,2}[ .(/-]{0,2}[0-9(](?:[ ().-]{0,2}[0-9]){6,13}\b)"
    rb"|(?P<ip>\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b)"
    rb"|(?P<ip6>\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){3,7}\b)"
    rb"|(?P<ssn>\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b)"
    rb"|(?P<cpf>\b[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b)"
    rb"|(?P<ahv>\b756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}\b)"
    rb"|(?P<rrn>\b[0-9]{6}-[1-8][0-9]{6}\b)"
    rb"|(?P<hetu>\b[0-9]{6}[-+a][0-9]{3}[0-9a-y]\b)"
    rb"|(?P<nir>\b[12] ?[0-9]{2} ?(?:0[1-9]|1[0-2]) ?(?:[0-9]{2}|2[ab]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}\b)"
    rb"|(?P<ric>\b[1-9][0-9]{5}(?:19|20)[0-9]{9}[0-9x]\b)"
    rb"|(?P<fiscal>\b[a-z]{6}[0-9]{2}[a-z][0-9]{2}[a-z][0-9]{3}[a-z]\b)"
    rb"|(?P<bnn>\b[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}\b)"
    rb"|(?P<personnummer>\b(?:19|20)?[0-9]{6}[-+][0-9]{4}\b)"
    rb"|(?P<card>\b[2-6][0-9]{3}(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{1,7}\b|\b3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}\b)"
)
# What a word says before a number.
_NAMED: Final = linear(
    rb"(?i)\b(?P<word>ssn|social security(?: (?:number|no))?|tax (?:id|number)|tax file number|tfn|itin|dni"
    rb"|nie|nif|bsn|burgerservicenummer|cpf"
    rb"|pesel|aadhaar|aadhar|pan(?: (?:card|number|no))?|nhs(?: (?:number|no))?"
    rb"|national insurance(?: (?:number|no))?|nino|ni number|steuer-?(?:id|identifikationsnummer)|idnr"
    rb"|tc kimlik(?: no)?|t\.?c\.? ?no|sin|social insurance(?: (?:number|no))?|codice fiscale|num(?:e"
    rb"|\xc3\xa9)ro de s(?:e|\xc3\xa9)curit(?:e|\xc3\xa9) sociale|rijksregisternummer|personnummer"
    rb"|f(?:o|\xc3\xb8)dselsnummer|cpr(?:-nr)?|passport(?: (?:number|no))?|passeport|reisepass(?:nummer)?"
    rb"|pasaporte|driver'?s? licen[cs]e(?: (?:number|no))?"
    rb"|phone(?: (?:number|no))?|tel(?:ephone)?|mobile(?: (?:number|no))?|cell(?: ?phone)?|call me (?:at|on)"
    rb"|telefon(?:o|e|nummer)?|handy(?:nummer)?|t(?:e|\xc3\xa9)l(?:(?:e|\xc3\xa9)phone)?|rufnummer|whatsapp"
    rb"|fax"
    rb"|account (?:number|no)|sort code|medicare(?: (?:number|no))?|patient (?:id|number))"
    rb"[\"'_ .:#=()-]{1,8}(?:(?:number|no|nr|is|est|es|ist"
    rb"|lautet)[\"' .:#=]{1,4})?(?P<value>[+(]?[0-9a-z][0-9a-z .()/-]{5,24})"
)
_BIRTH: Final = linear(
    rb"(?i)\b(?:d\.?o\.?b\.?|date[ _-]?of[ _-]?birth|birth[ _-]?da(?:te|y)|born(?: on)?|geburtsdatum"
    rb"|geb\.?(?:oren)?(?: am)?|date de naissance|n(?:e|\xc3\xa9)e? le"
    rb"|fecha[ _]de[ _]nacimiento|nacid[oa] el|data[ _]di[ _]nascita|nat[oa] il|data[ _]de[ _]nascimento"
    rb"|geboortedatum|urodzon[ya]|data urodzenia"
    rb"|\xd0\xb4\xd0\xb0\xd1\x82\xd0\xb0 \xd1\x80\xd0\xbe\xd0\xb6\xd0\xb4\xd0\xb5\xd0\xbd\xd0\xb8\xd1\x8f)["
    rb"\"' :=(]{1,6}"
    rb"(?P<value>[0-9]{1,4}[-/. ]{1,2}(?:[0-9]{1,2}|[a-z\x80-\xff]{3,12})[-/., ]{1,2}[0-9]{2,4}"
    rb"|[a-z]{3,9} [0-9]{1,2},? [0-9]{4})"
)
_NINO: Final = re.compile(
    r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", re.IGNORECASE
)
_CARD_PREFIX: Final = re.compile(r"4|5[1-5]|2[2-7]|3[47]|30[0-5]|3[689]|6(?:011|4[4-9]|5|2|7|0|3)|35")
_CARD_LENGTHS: Final = (13, 14, 15, 16, 19)
_RESERVED_MAIL: Final = re.compile(
    r"@(?:.*\.)?(?:invalid|localhost|local|internal)$|^(?:git|noreply|no-reply|donotreply)@|@\d|\.(?:png"
    r"|jpe?g|gif|svg|js|css|py|ts|md|json|yml|yaml|html|lock|webp)$",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"[+(]?[0-9A-Za-z](?:[ .()/-]{0,2}[0-9A-Za-z]){4,23}")
_FEWEST_DIGITS: Final = 6
_LOCAL_PART: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._%+-]*\Z|[_+-]\Z")
_LOCAL_LENGTH: Final = 64
_USER_OF_ADDRESS: Final = re.compile(rb"://[^\s/@]*\Z")


def _nino(number: str) -> None:
    if not _NINO.match(number.strip()):
        raise ValidationError


def _passport(number: str) -> None:
    head = re.match(r"[A-Z]{0,2}[0-9]{6,9}[A-Z]?\b", number.strip())
    if head is None:
        raise ValidationError


_BY_SHAPE: Final[dict[str, tuple[str, Check]]] = {
    "iban": ("iban", partial(iban.validate, check_country=False)),
    "ssn": ("us_ssn", ssn.validate),
    "cpf": ("br_cpf", cpf.validate),
    "ahv": ("ch_ahv", ahv.validate),
    "rrn": ("kr_rrn", rrn.validate),
    "hetu": ("fi_hetu", hetu.validate),
    "nir": ("fr_nir", nir.validate),
    "ric": ("cn_ric", ric.validate),
    "fiscal": ("it_codice_fiscale", codicefiscale.validate),
    "bnn": ("be_national_number", nn.validate),
    "personnummer": ("se_personnummer", personnummer.validate),
}
_BY_WORD: Final[tuple[tuple[re.Pattern[str], tuple[tuple[str, Check], ...]], ...]] = tuple(
    (re.compile(words, re.IGNORECASE), checks)
    for words, checks in (
        (r"ssn|social security|itin", (("us_ssn", ssn.validate),)),
        (r"dni|nie|nif", (("es_dni", dni.validate), ("es_nie", nie.validate))),
        (r"bsn|burger", (("nl_bsn", bsn.validate),)),
        (r"cpf", (("br_cpf", cpf.validate),)),
        (r"pesel", (("pl_pesel", pesel.validate),)),
        (r"aad", (("in_aadhaar", aadhaar.validate),)),
        (r"pan", (("in_pan", pan.validate),)),
        (r"nhs|patient", (("gb_nhs", nhs.validate),)),
        (r"national insurance|nino|ni number", (("gb_nino", _nino),)),
        (r"steuer|idnr", (("de_tax_id", idnr.validate),)),
        (r"kimlik|t\.?c", (("tr_identity_number", tckimlik.validate),)),
        (r"sin$|social insurance", (("ca_sin", sin.validate),)),
        (r"tax file|tfn", (("au_tfn", tfn.validate),)),
        (r"tax", (("de_tax_id", idnr.validate), ("au_tfn", tfn.validate), ("us_ssn", ssn.validate))),
        (r"codice", (("it_codice_fiscale", codicefiscale.validate),)),
        (r"sociale", (("fr_nir", nir.validate),)),
        (r"rijks", (("be_national_number", nn.validate),)),
        (r"personnummer", (("se_personnummer", personnummer.validate),)),
        (r"dselsnummer", (("no_fodselsnummer", fodselsnummer.validate),)),
        (r"cpr", (("dk_cpr", cpr.validate),)),
        (r"passport|passeport|reisepass|pasaporte", (("passport", _passport),)),
    )
)
_PHONE_WORD: Final = re.compile(r"phone|tel|t\xc3?.l|mobile|cell|call|handy|ruf|whatsapp|fax", re.IGNORECASE)


def personal_data(
    data: bytes, *, regions: tuple[str, ...], public_only: bool, most: int, sieved: Sieved = EVERYWHERE
) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of each.

    Args:
        data: The text.
        regions: Countries whose national telephone numbers count where a word says that they are.
        public_only: Leave addresses out that belong to no person's connection.
        most: Candidates of each sort that are checked.
        sieved: Where in the text there can be any.
    """
    for match in islice(_SHAPE.finditer(data, sieved.within("personal")), most):
        shape = match.name
        start, end = match.span()
        if shape == "email":
            head = _LOCAL_PART.search(data[max(0, start - _LOCAL_LENGTH) : start + 1])
            start = start + 1 - len(head[0]) if head else start
            if _USER_OF_ADDRESS.search(data[max(0, start - _LOCAL_LENGTH) : start]):
                continue  # the password in an address
        rule = _rule_of_shape(shape, data[start:end].decode("latin-1"), public_only=public_only)
        if rule:
            yield rule, start, end
    for match in islice(_NAMED.finditer(data, sieved.within("number")), most):
        start, _ = match.span("value")
        number = _NUMBER.match(match.group("value").decode("latin-1"))
        rule = _rule_of_word(match.group("word").decode("latin-1"), number[0], regions) if number else ""
        if number and rule:
            yield rule, start, start + len(number[0].rstrip(" .(/-"))
    for match in islice(_BIRTH.finditer(data, sieved.within("birth")), most):
        yield "date_of_birth", *match.span("value")


def _rule_of_shape(shape: str, text: str, *, public_only: bool) -> str:
    if shape == "email":
        return "" if _RESERVED_MAIL.search(text) else "email"
    if shape == "phone":
        return "phone" if _is_phone(text, None) else ""
    if shape in ("ip", "ip6"):
        return _address(text, public_only=public_only)
    if shape == "card":
        digits = re.sub(r"[ -]", "", text)
        good = len(digits) in _CARD_LENGTHS and _CARD_PREFIX.match(digits) and len(set(digits)) > 1
        return "payment_card" if good and luhn.is_valid(digits) else ""
    rule, check = _BY_SHAPE[shape]
    return rule if _passes(check, text) else ""


def _rule_of_word(word: str, number: str, regions: tuple[str, ...]) -> str:
    for words, checks in _BY_WORD:
        if words.search(word):
            for rule, check in checks:
                if any(_passes(check, part) for part in _heads(number)):
                    return rule
            return ""
    if _PHONE_WORD.search(word):
        digits = re.match(r"[+(]?[0-9][0-9 .()/-]*", number)
        text = digits[0] if digits else ""
        return "phone" if any(_is_phone(text, region) for region in (None, *regions)) else ""
    return ""


def _heads(number: str) -> Iterator[str]:
    """Yield a candidate, and what is left of it as words are taken from its end: the text may go on behind it."""
    yield number
    while " " in number:
        number = number.rsplit(" ", 1)[0]
        yield number


def _passes(check: Check, text: str) -> bool:
    try:
        check(text)
    except ValidationError:
        return False
    return True


def _is_phone(text: str, region: str | None) -> bool:
    if sum(character.isdigit() for character in text) < _FEWEST_DIGITS or (region is None and not text.startswith("+")):
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False


def _address(text: str, *, public_only: bool) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return "ip_address" if address.is_global or not public_only else ""
