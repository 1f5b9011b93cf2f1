"""What clients call a language -> the code that a model has for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from service.languages import ALIASES

# What clients send where they leave the language to the model, or mean to send nothing.
ANY = frozenset(
    [
        "auto",
        "automatic",
        "auto-detect",
        "autodetect",
        "detect",
        "multi",
        "mul",
        "und",
        "none",
        "null",
        "undefined",
    ]
)
# Whisper's codes and the same languages' in ISO 639-2 and 639-3, those of their chief or standard
# variety, and codes that were withdrawn or that Whisper does not follow (jw).
_CODES = """
en eng | zh zho chi cmn | de deu ger | es spa | ru rus | ko kor | fr fra fre | ja jpn | pt por
tr tur | pl pol | ca cat | nl nld dut | ar ara arb | sv swe | it ita | id ind in | hi hin | fi fin
vi vie | he heb iw | uk ukr | el ell gre | ms msa may zsm | cs ces cze | ro ron rum mo mol | da dan
hu hun | ta tam | no nor nb nob | th tha | ur urd | hr hrv | bg bul | lt lit | la lat | mi mri mao
ml mal | cy cym wel | sk slk slo | te tel | fa fas per pes | lv lav lvs | bn ben | sr srp
az aze azj | sl slv | kn kan | et est ekk | mk mkd mac | br bre | eu eus baq | is isl ice
hy hye arm | ne nep npi | mn mon khk | bs bos | kk kaz | sq sqi alb | sw swa swh | gl glg | mr mar
pa pan | si sin | km khm | sn sna | yo yor | so som | af afr | oc oci | ka kat geo | be bel | tg tgk
sd snd | gu guj | am amh | yi yid ydd ji | lo lao | uz uzb uzn | fo fao | ht hat | ps pus | tk tuk
nn nno | mt mlt | sa san | lb ltz | my mya bur | bo bod tib | tl tgl fil | mg mlg plt | as asm
tt tat | haw haw | ln lin | ha hau | ba bak | jw jv jav | su sun | yue yue
"""
CODES: Mapping[str, str] = MappingProxyType(
    {
        other: code
        for code, *others in (row.split() for row in _CODES.replace("\n", "|").split("|") if row)
        for other in others
    }
)
NAMES = MappingProxyType(
    {
        "farsi": "fa",
        "filipino": "tl",
        "mandarin chinese": "zh",
        "norwegian bokmål": "no",
        "norwegian nynorsk": "nn",
    }
)
_REGION_IN_WORDS = re.compile(r"\s*\(.*\)$")  # English (US)
# A tag of BCP 47, or a locale of POSIX with its encoding: en-US, zh_Hans_CN, de_DE.UTF-8.
_TAG = re.compile(r"([^\W_]+)((?:[-_][a-z0-9]{1,8})*)(?:[.@].*)?")


def language_code(wanted: str, names: Mapping[str, str]) -> str | None:
    """The code of the language that is `wanted`, or None where there is none such.

    By code, by English name or by a tag with region or script, in any case. `names` maps the
    model's codes to English names.
    """
    known = {name.lower(): code for code, name in names.items()}
    known |= {code.lower(): code for code in names}
    return next((known[one] for one in _readings(wanted.strip().lower()) if one in known), None)


def _readings(wanted: str) -> Iterator[str]:
    """What a code or name may mean, the plainest first."""
    name = _REGION_IN_WORDS.sub("", wanted)
    yield from _synonyms(name)
    if tag := _TAG.fullmatch(name):
        following = re.split("[-_]", tag[2])[1:2]
        # zh-yue: the second part may be a language of its own, within the first.
        yield from (part for part in following if len(part) == 3)
        yield from _synonyms(tag[1])


def _synonyms(name: str) -> Iterator[str]:
    yield name
    yield from (table[name] for table in (CODES, ALIASES, NAMES) if name in table)
