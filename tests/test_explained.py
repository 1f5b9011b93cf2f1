"""The pipeline's part of an explanation: every attempt at every window, and dense beside it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from service import pipeline
from service.errors import TooLarge
from service.explain.explanation import explain
from service.families.fake import FakeModel
from service.types import TranscribeRequest, Transcript

from .harness import LOW_HZ, Service, request, running, transcribe, wav

TONES = ((LOW_HZ, 2.0), (0.0, 1.0), (1000.0, 2.0))


def explained(
    service: Service, *tones: tuple[float, float], asked: TranscribeRequest
) -> tuple[Transcript, Transcript]:
    return asyncio.run(service.pipeline.explain(wav(*tones), asked))


def test_what_was_kept_of_each_window_in_time_order(service: Service) -> None:
    rising = [(300.0 + 60 * second, 1.0) for second in range(50)]
    ours, dense = explained(service, *rising, asked=request("fast"))
    assert [one.window.index for one in ours.readings] == [0, 1]
    assert ours.readings[0].window.start_s == 0
    assert 20 < ours.readings[1].window.start_s < 30
    assert all(one.profile == "fast" for one in ours.readings)
    assert all(len(one.kept.positions) == 750 for one in ours.readings)
    assert (ours.profile, dense.profile, dense.readings) == ("fast", "dense", ())
    assert ours.segments[0].words
    assert dense.segments[0].words
    made = explain("a.wav", request("fast").profile, ours, dense)
    assert sum(len(pane.words) for pane in made.panes) == len(ours.text.split())
    assert made.num_different == 0


def test_attempts_that_were_refused_are_there_too(service: Service) -> None:
    """A word over and over is a repetition: the window is decoded again with every frame."""
    ours, dense = explained(service, (LOW_HZ, 20.0), asked=request("fast", temperatures=(0.0,)))
    assert [one.profile for one in ours.readings] == ["fast", "dense"]
    assert [len(one.kept.positions) for one in ours.readings] == [750, 1500]
    (pane,) = explain("a.wav", request("fast").profile, ours, dense).panes
    assert len(pane.kept.positions) == 750
    assert pane.notes[0] == "Read again by dense, because its text repeated itself."


def test_dense_is_its_own_comparison(service: Service) -> None:
    ours, dense = explained(service, *TONES, asked=request("dense"))
    assert ours is dense
    assert len(ours.readings) == 1
    assert np.array_equal(ours.readings[0].kept.positions, np.arange(1500))


def test_the_model_is_asked_only_where_somebody_wants_to_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    whole = FakeModel.explain

    def noted(self: FakeModel, *given: object) -> object:
        asked.append("explain")
        return whole(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeModel, "explain", noted)
    with running() as service:
        assert transcribe(service, wav(*TONES), request("fast")).readings == ()
        assert asked == []
        explained(service, *TONES, asked=request("fast"))
        assert asked == ["explain"]


def test_more_than_an_hour_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "EXPLAINED_S", 4)
    with pytest.raises(TooLarge, match="lasts 5 s: at most 4 s are explained at once"):
        explained(service, *TONES, asked=request("fast"))
    assert transcribe(service, wav(*TONES), request("fast")).text
