"""Names of languages against openai-whisper's."""

from __future__ import annotations

from whisper.tokenizer import LANGUAGES, TO_LANGUAGE_CODE

from service.languages import ALIASES, NAMES, WRITTEN_WITHOUT_SPACES, english_name


def test_every_name_of_openai_whisper_means_the_same_here() -> None:
    ours = {name: code for code, name in NAMES.items()} | dict(ALIASES)
    assert ours == TO_LANGUAGE_CODE


def test_the_languages_are_openai_whispers() -> None:
    assert dict(NAMES) == LANGUAGES
    assert set(LANGUAGES) > WRITTEN_WITHOUT_SPACES


def test_a_code_without_a_name_names_itself() -> None:
    assert english_name("tlh") == "tlh"
