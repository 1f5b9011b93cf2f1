from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import soundfile
import torch

from service.config import ServerConfig
from service.errors import EngineError, InvalidRequest
from service.families.fake import FakeModel
from service.lab.packing import Item
from service.lab.runs import How, Service
from service.pipeline import Pipeline
from service.profiles import BUILT_IN, Profile
from service.types import DecodeOptions, TranscribeRequest
from tests.harness import running
from tests.lab.recordings import item, tone

DENSE = BUILT_IN["dense"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Service]:
    with Service(ServerConfig(), FakeModel) as started:
        yield started


ITEMS = [
    item("low", "", tone(300, 2)),
    item("high", "", tone(4000, 40)),
    item("both", "", tone(300, 2), tone(4000, 3)),
    item("silent", "", tone(0, 2)),
]


def test_answers_are_in_the_order_of_the_items(lab: Service) -> None:
    raw = How(raw=True)
    run = lab.run(ITEMS, DENSE, raw)
    low, high, both, silent = (answer.text for answer in run.answers)
    assert set(low.split()) != set(high.split())
    assert both.split() == low.split() + high.split()[:3]
    assert silent == ""
    assert run.num_windows == 5
    alone = lab.run(ITEMS, DENSE, How(raw=True, concurrency=1))
    assert [answer.text for answer in alone.answers] == [a.text for a in run.answers]


def test_the_service_answers_the_same(lab: Service) -> None:
    """The whole path, VAD included, against the pipeline as the server makes it."""
    run = lab.run(ITEMS, DENSE, How())
    with running() as service:
        served = [served_text(service.pipeline, one) for one in ITEMS]
    assert [answer.text for answer in run.answers] == served


def served_text(pipeline: Pipeline, one: Item) -> str:
    import asyncio

    file = io.BytesIO()
    soundfile.write(file, one.pcm, 16_000, format="WAV")
    file.seek(0)
    request = TranscribeRequest(DENSE, DecodeOptions(language="en"))
    return asyncio.run(pipeline.transcribe(file, request)).text


def test_words_have_times_where_asked_for(lab: Service) -> None:
    (answer,) = lab.run(ITEMS[:1], DENSE, How(raw=True, word_times=True)).answers
    (segment,) = answer.segments
    assert [(word.start, word.end) for word in segment.words] == [(0.0, 1.0), (1.0, 2.0)]
    (without,) = lab.run(ITEMS[:1], DENSE, How(raw=True)).answers
    assert without.segments[0].words == ()


def test_every_item_is_counted(lab: Service) -> None:
    count: list[None] = []
    lab.run(ITEMS, DENSE, How(raw=True), lambda: count.append(None))
    assert len(count) == len(ITEMS)


class Looping(FakeModel):
    """Says one word a hundred times in sparse windows."""

    def encode(self, mel_BFT: torch.Tensor, profiles, audio_frames=None):  # type: ignore[no-untyped-def]
        encoded = super().encode(mel_BFT, profiles, audio_frames)
        for one, profile in zip(encoded, profiles, strict=True):
            if not profile.is_dense:
                one.states_TD[:] = 3.0
        return encoded


def test_what_is_decoded_again_is_told_and_raw_is_not_decoded_again() -> None:
    sparse = Profile("half", layer=2, sparsity=0.5)
    loud = [item("loud", "", tone(300, 30))]
    with Service(ServerConfig(), Looping) as lab:
        (raw,) = lab.run(loud, sparse, How(raw=True)).answers
        assert raw.fallbacks == ()
        assert len(set(raw.text.split())) == 1
        assert len(raw.text.split()) == 30


def test_a_language_that_the_model_has_not(lab: Service) -> None:
    one = ITEMS[0]
    other = Item(one.name, one.pcm, "", "ja")
    with pytest.raises(InvalidRequest, match="unknown language 'ja'"):
        lab.run([other], DENSE, How())
    assert lab.run([other], DENSE, How(raw=True, detect=True)).answers[0].text


def test_a_device_that_fails_is_told() -> None:
    with (
        Service(ServerConfig(), lambda: FakeModel(fail_encode_when=is_loud)) as lab,
        pytest.raises(EngineError),
    ):
        lab.run([ITEMS[0]], DENSE, How(raw=True))


def is_loud(mel_FT: torch.Tensor) -> bool:
    return float(mel_FT.max() - mel_FT.min()) > 1
