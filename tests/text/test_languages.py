"""Names of languages against openai-whisper's."""

from __future__ import annotations

from whisper.tokenizer import TO_LANGUAGE_CODE

from service.text.languages import ALIASES, NAMES


def test_every_name_of_openai_whisper_means_the_same_here() -> None:
    ours = {name: code for code, name in NAMES.items()} | dict(ALIASES)
    assert ours == TO_LANGUAGE_CODE
