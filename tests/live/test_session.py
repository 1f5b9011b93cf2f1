"""A session's stream between two moments: nothing held back, nothing shifted, bounded."""

from __future__ import annotations

import numpy as np
import pytest

from service.audio.vad import CHUNK_SAMPLES
from service.live.session import LiveRequest, Session
from service.types import SAMPLE_RATE
from tests.harness import request


def session(encoding: str, rate: int) -> Session:
    return Session("one", LiveRequest("fake", request(), encoding, rate), 60 * SAMPLE_RATE)


@pytest.mark.parametrize(
    ("encoding", "rate", "size"),
    [("pcm_s16le", 24_000, 2), ("pcm_s16le", 16_000, 2), ("pcmu", 0, 1)],
)
def test_all_that_was_received_is_heard_before_an_utterance_is_ended(
    encoding: str, rate: int, size: int
) -> None:
    one = session(encoding, rate)
    one.take(bytes(size * (rate or 8_000)))
    assert one.received_s == 1
    assert len(one.unheard()) < SAMPLE_RATE
    one.fill_chunk()
    assert one.received_s == 1
    heard = one.unheard()
    assert 0 <= len(heard) - SAMPLE_RATE < CHUNK_SAMPLES
    one.hear(one.vad_state(), np.zeros(len(heard) // CHUNK_SAMPLES, np.float32))
    one.finish()
    assert one.received_s == 1


def test_what_a_change_of_format_finds_held_back_is_not_lost() -> None:
    one = session("pcm_s16le", 24_000)
    one.take(bytes(48_000))
    one.change(LiveRequest("fake", request(), "pcma"))
    assert one.received_s == 1
    one.take(bytes(8_000))
    assert one.received_s == 2
