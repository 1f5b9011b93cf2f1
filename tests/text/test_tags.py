"""What clients call a language."""

from __future__ import annotations

import pytest

from service.languages import ALIASES, NAMES
from service.text.tags import ANY, CODES, language_code


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("en-US", "en"),
        ("en_GB", "en"),
        ("eng", "en"),
        ("ENG", "en"),
        (" English ", "en"),
        ("English (US)", "en"),
        ("english-us", "en"),
        ("de-DE", "de"),
        ("de_DE.UTF-8", "de"),
        ("ger", "de"),
        ("deu-AT", "de"),
        ("pt-BR", "pt"),
        ("zh-Hans-CN", "zh"),
        ("zh_TW", "zh"),
        ("cmn-Hans", "zh"),
        ("zh-yue", "yue"),
        ("yue-HK", "yue"),
        ("nb-NO", "no"),
        ("nn", "nn"),
        ("iw", "he"),
        ("jv-ID", "jw"),
        ("fil", "tl"),
        ("es-419", "es"),
        ("sr-Latn-RS", "sr"),
        ("Castilian", "es"),
        ("farsi", "fa"),
        ("haitian creole", "ht"),
    ],
)
def test_a_tag_means_its_language(wanted: str, code: str) -> None:
    assert language_code(wanted, NAMES) == code


@pytest.mark.parametrize("wanted", ["xx", "xx-US", "klingon", "e", "-", "en US", "英語", "("])
def test_what_is_no_language_of_the_model_has_no_code(wanted: str) -> None:
    assert language_code(wanted, NAMES) is None


def test_a_part_of_a_tag_is_a_language_only_where_the_model_has_it() -> None:
    assert language_code("zh-yue", {"zh": "chinese"}) == "zh"
    assert language_code("de", {"en": "english"}) is None
    assert language_code("gsw-CH", {"gsw": "swiss german"}) == "gsw"


def test_every_language_of_whisper_has_a_code_of_three_letters() -> None:
    assert set(CODES.values()) == set(NAMES)
    three = [other for other in CODES if len(other) == 3]
    assert {CODES[other] for other in three} == set(NAMES)
    # None of the table's codes is another language's of Whisper.
    assert not set(CODES) & (set(NAMES) - set(CODES.values()))
    assert all(CODES[code] == code for code in set(CODES) & set(NAMES))
    assert not set(ANY) & {*NAMES, *NAMES.values(), *CODES, *ALIASES}
