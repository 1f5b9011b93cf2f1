from __future__ import annotations

import pytest
import whisper

from service.model.formats.names import known_model, known_names, other_names

# faster-whisper 1.2.1, `available_models()`.
FASTER_WHISPER = (
    "tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium", "large-v1",
    "large-v2", "large-v3", "large", "distil-large-v2", "distil-medium.en", "distil-small.en",
    "distil-large-v3", "distil-large-v3.5", "large-v3-turbo", "turbo",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted({*FASTER_WHISPER, *whisper.available_models()}))
def test_the_names_of_others_are_known(name: str) -> None:
    assert name in known_names()
    known = known_model(name)
    assert known
    assert known_model(known.name) == known


@pytest.mark.parametrize(
    ("name", "answered", "hub_id"),
    [
        ("base", "whisper-base", "openai/whisper-base"),
        ("whisper-tiny.en", "whisper-tiny.en", "openai/whisper-tiny.en"),
        ("turbo", "whisper-large-v3-turbo", "openai/whisper-large-v3-turbo"),
        ("large", "whisper-large-v3", "openai/whisper-large-v3"),
        ("large-v1", "whisper-large-v1", "openai/whisper-large"),
        ("distil-large-v3", "distil-large-v3", "distil-whisper/distil-large-v3"),
    ],
)
def test_a_name_is_a_place_on_the_hub(name: str, answered: str, hub_id: str) -> None:
    known = known_model(name)
    assert known
    assert (known.name, known.hub_id) == (answered, hub_id)


@pytest.mark.parametrize("name", ["", "embedded", "whisper-1", "openai/whisper-base", "base.de"])
def test_other_names_are_not(name: str) -> None:
    assert known_model(name) is None


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("whisper-base", ("openai/whisper-base", "Systran/faster-whisper-base", "base")),
        ("base", ("whisper-base", "openai/whisper-base", "Systran/faster-whisper-base")),
        ("Systran/faster-whisper-base", ("whisper-base", "openai/whisper-base", "base")),
        (
            "whisper-large-v3-turbo",
            (
                "openai/whisper-large-v3-turbo",
                "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
                "large-v3-turbo",
                "turbo",
            ),
        ),
        (
            "distil-small.en",
            ("distil-whisper/distil-small.en", "Systran/faster-distil-small.en"),
        ),
        ("whisper-mine", ()),
        ("somebody/whisper-base", ()),
        ("fake", ()),
    ],
)
def test_a_known_model_goes_by_its_names_on_the_hub(name: str, others: tuple[str, ...]) -> None:
    assert other_names(name) == others
