"""Windows hold all speech, at most 30 s each, in order, cut where it is quiet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.audio.segment import cover, find_speech, loudness, plan, split
from service.types import Audio, Samples, Window

from .files import noise, silence, speech, tone

MAX_CHUNKS = 30 * 16_000 // 512
CHUNKS_A_SECOND = 31.25
Floats = npt.NDArray[np.float32]


@st.composite
def probabilities(draw: st.DrawFn) -> Floats:
    """Up to four minutes of runs of speech and silence, with some wavering."""
    runs = draw(
        st.lists(
            st.tuples(st.sampled_from([0.02, 0.2, 0.45, 0.7, 0.98]), st.integers(1, 1_500)),
            max_size=12,
        )
    )
    levels = np.concatenate([np.full(n, p) for p, n in runs] or [np.empty(0)])[:7_500]
    wavering = np.random.default_rng(draw(st.integers(0, 99))).uniform(-0.1, 0.1, len(levels))
    return np.clip(levels + wavering, 0, 1).astype(np.float32)


def planned(found: Floats, loud: Floats) -> list[tuple[int, int]]:
    return plan(find_speech(found, loud), found, loud)


def assert_ordered(bounds: list[tuple[int, int]], num_chunks: int) -> None:
    ends = [0, *(last for _, last in bounds)]
    for before, (first, last) in zip(ends, bounds, strict=False):
        assert before <= first < last <= num_chunks
        assert last - first <= MAX_CHUNKS


@settings(max_examples=150, deadline=None)
@given(probabilities())
def test_plan_holds_all_speech(found: Floats) -> None:
    bounds = planned(found, found)
    assert_ordered(bounds, len(found))
    inside = np.zeros(len(found), bool)
    for first, last in bounds:
        inside[first:last] = True
    runs = np.split(np.arange(len(found)), np.flatnonzero(np.diff(found >= 0.5)) + 1)
    for run in runs:
        if len(run) >= 3 and found[run[0]] >= 0.5:
            assert inside[run].all()


@settings(max_examples=100, deadline=None)
@given(probabilities())
def test_plan_without_speech_is_empty(found: Floats) -> None:
    assert planned(np.minimum(found, np.float32(0.49)), found) == []


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, st.integers(0, 4_000), elements=st.floats(0, 1, width=32)))
def test_cover_has_no_gap_and_no_overlap(loud: Floats) -> None:
    bounds = cover(loud)
    assert_ordered(bounds, len(loud))
    assert [first for first, _ in bounds] == [0, *(last for _, last in bounds)][: len(bounds)]
    assert (bounds[-1][1] if bounds else 0) == len(loud)


def timeline(*runs: tuple[float, float]) -> Floats:
    """(probability, seconds) runs in chunks."""
    return np.concatenate(
        [np.full(round(seconds * CHUNKS_A_SECOND), p, np.float32) for p, seconds in runs]
    )


def seconds(bounds: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(first / CHUNKS_A_SECOND, last / CHUNKS_A_SECOND) for first, last in bounds]


def test_neighbours_share_a_window() -> None:
    found = timeline((0, 2), (0.9, 3), (0, 1), (0.9, 3), (0, 3), (0.9, 3), (0, 2))
    assert len(planned(found, found)) == 1


def test_long_silence_is_dropped() -> None:
    found = timeline((0, 20), (0.9, 3), (0, 13), (0.9, 3), (0, 20))
    first, second = seconds(planned(found, found))
    assert first == pytest.approx((19.7, 23.3), abs=0.05)
    assert second == pytest.approx((35.7, 39.3), abs=0.05)


def test_sparse_words_share_windows() -> None:
    """Twelve words, 9 s from each other: three fill a window, one for each would be twelve."""
    found = timeline(*[(0.9, 1), (0, 9)] * 12)
    bounds = planned(found, found)
    assert_ordered(bounds, len(found))
    assert len(bounds) == 4


def test_the_cut_is_in_the_longest_pause() -> None:
    """Two windows are needed; a 0.2 s pause lies nearer the edge than the 1 s pause does."""
    found = timeline((0.9, 20), (0, 1), (0.9, 8), (0, 0.2), (0.9, 10), (0, 0.2), (0.9, 5))
    bounds = seconds(planned(found, found))
    assert len(bounds) == 2
    assert 20 < bounds[0][1] < 21
    assert 20 < bounds[1][0] < 21


def test_speech_without_a_pause_is_cut_where_it_is_least_certain() -> None:
    found = timeline((0.95, 26), (0.6, 0.3), (0.95, 20))
    loud = np.ones_like(found)
    first, second = seconds(planned(found, loud))
    assert 26 < first[1] < 26.4
    assert second[0] == first[1]


def test_certain_speech_is_cut_where_it_is_quietest() -> None:
    found = timeline((0.95, 50))
    loud = timeline((0.5, 25), (0.1, 0.3), (0.5, 24.7))
    first, second = seconds(planned(found, loud))
    assert 25 < first[1] < 25.4
    assert second[0] == first[1]


def test_a_click_is_not_speech() -> None:
    found = timeline((0, 3), (0.9, 0.064), (0, 3))
    assert planned(found, found) == []


def test_a_dip_does_not_end_speech() -> None:
    """Two chunks on, two off: no run is long enough by itself, all of it together is."""
    found = timeline((0, 1), *[(0.9, 0.064), (0.1, 0.064)] * 8, (0, 1))
    ((first, last),) = seconds(planned(found, found))
    assert first < 1 < 1.9 < last


@pytest.mark.parametrize(
    ("word_at_s", "word", "after", "kept"),
    [
        (0.1, 0.050, 0.050, False),
        (0.1, 0.060, 0.050, True),
        (2.0, 0.050, 0.050, True),
        (0.1, 0.010, 0.000, True),
    ],
    ids=["noise sets in", "speech in noise", "later than the onset", "speech in silence"],
)
def test_noise_that_sets_in_is_not_speech(
    word_at_s: float, word: float, after: float, kept: bool
) -> None:
    """At its beginning a recording's noise passes for a word, and is as loud as what follows."""
    found = timeline((0, word_at_s), (0.9, 0.3), (0.1, 2))
    loud = np.where(found >= 0.5, word, after).astype(np.float32)
    assert bool(planned(found, loud)) is kept


def test_a_word_before_louder_speech_is_speech() -> None:
    found = timeline((0.9, 0.3), (0, 0.2), (0.9, 2))
    loud = timeline((0.05, 0.3), (0.001, 0.2), (0.2, 2))
    ((first, last),) = seconds(planned(found, loud))
    assert first == 0
    assert last > 2


def test_a_word_that_is_all_there_is_stays() -> None:
    found = timeline((0.9, 0.3))
    assert planned(found, found) == [(0, len(found))]


# ---- split: real sound ----


def recording(*parts: Samples) -> Audio:
    return Audio(np.concatenate(parts))


def assert_windows(windows: list[Window], audio: Audio) -> None:
    assert [window.index for window in windows] == list(range(len(windows)))
    end = 0.0
    for window in windows:
        assert end <= window.start_s
        assert 0 < window.duration_s <= 30
        start = round(window.start_s * 16_000)
        assert start == window.start_s * 16_000
        np.testing.assert_array_equal(
            window.samples, audio.samples[start : start + len(window.samples)]
        )
        end = window.start_s + window.duration_s
    assert end <= audio.duration_s


def test_speech_is_found_where_it_is() -> None:
    digits = speech()
    audio = recording(silence(10), digits, silence(14), digits, noise(7, rms=0.003))
    windows = split(audio)
    assert_windows(windows, audio)
    assert len(windows) == 2
    for window, start in zip(windows, (10, 24 + len(digits) / 16_000), strict=True):
        assert start - 0.5 < window.start_s < start + 0.3
        assert abs(window.duration_s - len(digits) / 16_000) < 0.8


@pytest.mark.parametrize("vad", [True, False])
def test_windows_do_not_hold_the_recording(vad: bool) -> None:
    audio = recording(silence(2), speech(), silence(60))
    windows = split(audio, vad)
    assert windows
    for window in windows:
        assert window.samples.base is None
        assert not np.shares_memory(window.samples, audio.samples)


def test_long_speech_is_covered() -> None:
    audio = recording(*[speech()] * 50)
    windows = split(audio)
    assert_windows(windows, audio)
    assert sum(window.duration_s for window in windows) > 0.95 * audio.duration_s
    assert len(windows) <= audio.duration_s / 30 * 1.25 + 1


@pytest.mark.parametrize(
    "sound",
    [silence(0.01), silence(40), noise(40), tone(3)],
    ids=["tick", "silence", "noise", "tone"],
)
def test_no_speech_gives_no_window(sound: Samples) -> None:
    assert split(Audio(sound)) == []


def test_a_short_word_at_the_very_start() -> None:
    """A clip cut tightly around a word still gives a window."""
    digits = speech()
    loud = np.flatnonzero(np.abs(digits) > 0.05)
    audio = Audio(digits[loud[0] : loud[0] + 4_800])
    assert len(split(audio)) == 1


def test_without_vad_everything_is_kept() -> None:
    audio = recording(noise(25.3), silence(0.5), noise(40.123), silence(12))
    windows = split(audio, vad=False)
    assert_windows(windows, audio)
    np.testing.assert_array_equal(
        np.concatenate([window.samples for window in windows]), audio.samples
    )
    assert 25.3 <= windows[0].duration_s <= 25.8  # cut in the silence


def test_without_vad_silence_is_a_window() -> None:
    (window,) = split(Audio(silence(3)), vad=False)
    assert window.duration_s == 3
    assert window.speech == ()


def test_without_vad_it_is_known_all_the_same_where_somebody_speaks() -> None:
    digits = speech()
    first, second = split(recording(silence(4), digits, noise(30, rms=0.003)), vad=False)
    assert second.speech == ()
    assert first.speech
    begin, end = first.speech[0][0], first.speech[-1][1]
    assert 3.5 < begin < 4.3
    assert abs(end - begin - len(digits) / 16_000) < 0.8


def test_loudness_of_a_partly_filled_chunk() -> None:
    loud = loudness(np.full(700, 0.5, np.float32))
    np.testing.assert_allclose(loud, [0.5, 0.5])
