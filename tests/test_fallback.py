"""Windows that are decoded again, from a recording to its transcript."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from service.engine.engine import Engine
from service.families.fake import FakeDecodeBatch, FakeModel
from service.profiles import Profile
from service.requests import windows as work
from service.types import (
    SAMPLE_RATE,
    DecodeOptions,
    Encoded,
    Hypothesis,
    Job,
    Thresholds,
    WindowResult,
)
from tests.api.harness import voice
from tests.harness import HIGH_HZ, LOW_HZ, num_decoded, request, running, transcribe, wav

Spoil = Callable[[Hypothesis], Hypothesis]


class SpoiltBatch(FakeDecodeBatch):
    def __init__(self, spoil: Spoil) -> None:
        super().__init__()
        self.spoil = spoil

    def step(self) -> dict[int, Hypothesis]:
        return {key: self.spoil(hypothesis) for key, hypothesis in super().step().items()}


class SpoiltModel(FakeModel):
    """The fake model, its hypotheses changed as a model's that errs; `said` has all of them."""

    def __init__(self, spoil: Spoil) -> None:
        super().__init__()
        self.said: list[Hypothesis] = []
        self._spoil = spoil

    def _remembered(self, hypothesis: Hypothesis) -> Hypothesis:
        self.said.append(self._spoil(hypothesis))
        return self.said[-1]

    def new_decode_batch(self) -> SpoiltBatch:
        return SpoiltBatch(self._remembered)


def loops_below(kept_frames: int) -> Spoil:
    """What a model makes of too few frames."""
    return lambda h: replace(h, tokens=(3,) * 40) if h.kept_frames < kept_frames else h


@pytest.mark.parametrize(
    ("needed", "stands", "kept"),
    [
        (num_decoded("fast"), [], num_decoded("fast")),
        (num_decoded("fast") + 1, ["dense"], 1500),
    ],
)
def test_sparsity_is_given_up_where_that_is_needed(
    needed: int, stands: list[str], kept: int
) -> None:
    model = SpoiltModel(loops_below(needed))
    with running(model) as service:
        answer = transcribe(service, wav((LOW_HZ, 2), (HIGH_HZ, 2)), request("fast"))
    assert [(f.reason, f.retry) for f in answer.fallbacks] == [("repetition", n) for n in stands]
    assert answer.kept_frames == kept
    assert len(set(answer.text.split())) > 1


class CountingModel(SpoiltModel):
    """Counts the windows that it encodes."""

    def __init__(self, spoil: Spoil) -> None:
        super().__init__(spoil)
        self.num_encoded = 0

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        self.num_encoded += len(profiles)
        return super().encode(mel_BFT, profiles, audio_frames)


@pytest.mark.parametrize(("profile", "encoded"), [("dense", 1), ("fast", 2)])
def test_another_temperature_encodes_nothing(profile: str, encoded: int) -> None:
    def loops_when_cold(hypothesis: Hypothesis) -> Hypothesis:
        if hypothesis.temperature >= 0.4:
            return hypothesis
        return replace(hypothesis, tokens=(3,) * 40)

    model = CountingModel(loops_when_cold)
    with running(model) as service:
        before = model.num_encoded
        answer = transcribe(service, wav((LOW_HZ, 2), (HIGH_HZ, 2)), request(profile))
        assert model.num_encoded - before == encoded
        assert [f.temperature for f in answer.fallbacks[-2:]] == [0.2, 0.4]
        again = transcribe(service, wav((LOW_HZ, 2), (HIGH_HZ, 2)), request("dense"))
        assert again.text == answer.text != ""


def spoken_twice() -> io.BytesIO:
    """A recording of 2 s of speech, a pause of 2 s, and 2 s of speech."""
    speech, _ = soundfile.read(io.BytesIO(voice(2)), dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([speech, 0 * speech, speech]), SAMPLE_RATE, format="WAV")
    file.seek(0)
    return file


@pytest.mark.parametrize(("profile", "vad"), [("dense", True), ("fast", True), ("dense", False)])
def test_a_text_that_ends_before_the_speech_does_is_gone_on_with(profile: str, vad: bool) -> None:
    asked = replace(request(profile), vad=vad)
    with running() as service:
        whole = transcribe(service, spoken_twice(), asked)
    model = SpoiltModel(
        lambda h: replace(h, tokens=h.tokens[: h.tokens.index(h.tokens[0] + 100) + 1])
    )
    with running(model) as service:
        answer = transcribe(service, spoken_twice(), asked)
        counted = service.sample("winnow_fallbacks_total", profile=profile, reason="unfinished")
    assert len(model.said) == 2
    assert len(whole.text.split()) == 4
    assert answer.text == whole.text
    assert [(f.reason, f.retry) for f in answer.fallbacks] == [("unfinished", profile)]
    assert counted == 1
    for one, other in zip(answer.segments, whole.segments, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.7)


def test_a_text_that_never_gets_further_is_given_up() -> None:
    model = SpoiltModel(lambda h: replace(h, tokens=(*h.tokens[:2], h.tokens[0] + 30)))
    with running(model) as service:
        answer = transcribe(service, io.BytesIO(voice(20)), replace(request(), vad=True))
    assert [f.reason for f in answer.fallbacks] == ["unfinished"] * (work.MAX_PARTS - 1)
    assert len(answer.segments) == work.MAX_PARTS


def breaks_off_below(kept_frames: int) -> Spoil:
    """One word for the whole window, as base says it of windows that lost the wrong frames."""
    return lambda h: (
        replace(h, tokens=(h.tokens[0], 0, h.tokens[-1])) if h.kept_frames < kept_frames else h
    )


@pytest.mark.parametrize("vad", [True, False])
def test_a_text_that_breaks_off_is_decoded_once_more_with_every_frame(vad: bool) -> None:
    model = SpoiltModel(breaks_off_below(1500))
    asked = request("fast", vad=vad, thresholds=Thresholds(compression_ratio=100.0))
    with running(model) as service:
        answer = transcribe(service, io.BytesIO(voice(20)), asked)
    assert [(f.reason, f.retry) for f in answer.fallbacks] == [("skipped", "dense")]
    assert len(model.said) == 2
    assert len(answer.text.split()) > 10


def test_a_text_that_breaks_off_with_every_frame_is_sampled_once() -> None:
    model = SpoiltModel(breaks_off_below(1501))
    with running(model) as service:
        answer = transcribe(service, io.BytesIO(voice(20)), replace(request(), vad=True))
    assert [(f.reason, f.temperature) for f in answer.fallbacks] == [("skipped", 0.2)]


@pytest.mark.parametrize(
    ("avg_logprob", "no_speech_prob", "ended"),
    [(-0.28, 0.065, False), (-0.82, 0.932, True), (-0.46, 0.042, True), (-0.2, 0.55, True)],
)
def test_text_where_nobody_was_heard_is_not_used_and_not_tried_again(
    avg_logprob: float, no_speech_prob: float, ended: bool
) -> None:
    """What base says of dishes, of zeros, of a running tap and of a nearly silent room."""

    def noise(hypothesis: Hypothesis) -> Hypothesis:
        return replace(
            hypothesis, avg_logprob=avg_logprob, no_speech_prob=no_speech_prob, ended=ended
        )

    model = SpoiltModel(noise)
    heeding = request(thresholds=Thresholds())
    with running(model) as service:
        answer = transcribe(service, wav((LOW_HZ, 2)), heeding)
        num_said = len(model.said)
        spoken = transcribe(service, io.BytesIO(voice(2)), heeding)
        kept = transcribe(service, wav((LOW_HZ, 2)), request())
    assert (answer.text, answer.fallbacks, num_said) == ("", (), 1)
    assert spoken.text
    assert kept.text


def test_confident_text_where_the_vad_heard_nobody_is_used() -> None:
    with running() as service:
        answer = transcribe(service, wav((LOW_HZ, 2)), request(thresholds=Thresholds()))
    assert answer.text


def test_a_loop_raises_the_temperature_until_it_is_gone() -> None:
    def looping(hypothesis: Hypothesis) -> Hypothesis:
        return replace(hypothesis, ended=hypothesis.temperature > 0.5)

    with running(SpoiltModel(looping)) as service:
        answer = transcribe(service, wav((LOW_HZ, 2)), request())
    assert [(f.reason, f.temperature) for f in answer.fallbacks] == [
        ("endless", 0.2),
        ("endless", 0.4),
        ("endless", 0.6),
    ]
    assert answer.segments[0].temperature == 0.6


def test_where_nothing_helps_the_likeliest_attempt_is_kept() -> None:
    def unsure(hypothesis: Hypothesis) -> Hypothesis:
        return replace(
            hypothesis, ended=False, avg_logprob=-1.5 - abs(hypothesis.temperature - 0.4)
        )

    with running(SpoiltModel(unsure)) as service:
        answer = transcribe(service, wav((LOW_HZ, 2)), request())
    assert len(answer.fallbacks) == 5
    assert answer.segments[0].temperature == 0.4


def test_no_text_over_speech_is_tried_again_and_over_any_other_sound_it_is_not() -> None:
    def deaf(hypothesis: Hypothesis) -> Hypothesis:
        return replace(hypothesis, tokens=(), no_speech_prob=0.1)

    with running(SpoiltModel(deaf)) as service:
        spoken = transcribe(service, io.BytesIO(voice(2)), request("fast"))
        unspoken = transcribe(service, wav((LOW_HZ, 2)), request("fast"))
        silent = transcribe(service, wav((0, 2)), request("fast"))
    assert [(f.reason, f.retry) for f in spoken.fallbacks] == [("empty", "dense")]
    assert unspoken.fallbacks == silent.fallbacks == ()


def test_the_thresholds_of_a_request_hold() -> None:
    asked = request(thresholds=Thresholds(compression_ratio=1000.0, no_speech=1.0))
    with running() as service:
        assert transcribe(service, wav((LOW_HZ, 29)), asked).fallbacks == ()


def test_one_window_that_is_decoded_again_leaves_the_others_as_they_are() -> None:
    with running() as service:
        answer = transcribe(service, wav((LOW_HZ, 29), (0, 4), (HIGH_HZ, 2)), request())
        alone = transcribe(service, wav((HIGH_HZ, 2)), request())
    assert answer.total_frames == 3000
    assert {f.window for f in answer.fallbacks} == {0}
    assert answer.segments[-1].text.split()[-1] == alone.segments[0].text.split()[0]


def test_a_window_that_is_decoded_again_waits_for_nobodys_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def watched(engine: Engine, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        seen.extend(jobs)
        submit(engine, jobs, admitted=admitted)

    seen: list[Job] = []
    submit = Engine.submit
    monkeypatch.setattr(Engine, "submit", watched)
    with running() as service:
        answer = transcribe(service, wav((LOW_HZ, 29), (0, 4), (HIGH_HZ, 2)), request())
    assert answer.fallbacks
    assert [job.resumed for job in seen] == [False] * 2 + [True] * len(answer.fallbacks)


def test_every_attempt_is_in_the_timings() -> None:
    batches: list[SlowBatch] = []

    class SlowBatch(FakeDecodeBatch):
        def __init__(self) -> None:
            super().__init__()
            self.slept_s = 0.0

        def join(
            self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
        ) -> None:
            time.sleep(0.02)
            self.slept_s += 0.02
            super().join(keys, encoded, options)

    class SlowModel(FakeModel):
        def new_decode_batch(self) -> FakeDecodeBatch:
            batches.append(SlowBatch())
            return batches[-1]

    with running(SlowModel()) as service:
        answer = transcribe(service, wav((LOW_HZ, 29)), request("fast"))
    assert len(answer.fallbacks) == 6
    assert sum(batch.slept_s for batch in batches) >= 7 * 0.02
    assert answer.timings.decode >= 7 * 0.02


def test_no_attempt_is_begun_that_would_not_be_done_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def slow(job: Job) -> WindowResult:
        result = await reply(job)
        return replace(result, timings=replace(result.timings, total=50.0))

    reply = work._reply
    monkeypatch.setattr(work, "_reply", slow)
    with running() as service:
        hurried = transcribe(service, wav((LOW_HZ, 29)), request("fast", timeout_s=40))
        patient = transcribe(service, wav((LOW_HZ, 29)), request("fast", timeout_s=90))
    assert hurried.text
    assert hurried.fallbacks == ()
    assert len(patient.fallbacks) == 6
