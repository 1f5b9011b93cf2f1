"""Subtitles: golden files, openai-whisper's own writers, and what must hold for any text."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from whisper.utils import WriteSRT

from service.errors import InvalidRequest
from service.text.subtitles import Layout, columns, cues, to_srt, to_tsv, to_vtt
from service.types import Segment, Word

GOLDEN = Path(__file__).parent / "golden"


def segment(start: float, end: float, text: str, **more: Any) -> Segment:
    return Segment(0, start, end, text, (), -0.1, 0.01, 1.0, 0.0, **more)


def spoken(*words: tuple[float, float, str], **more: Any) -> Segment:
    """A segment with the times of its words."""
    timed = tuple(Word(start, end, text, 0.9) for start, end, text in words)
    text = "".join(word.text for word in timed)
    return segment(timed[0].start, timed[-1].end, text, words=timed, **more)


SEGMENTS = (
    segment(0.0, 1.9996, " Fish & chips <b>now</b> --> later"),
    segment(2.5, 4.25, " one\ttwo\nthree"),
    segment(10.0, 14.0, "今日は、良い天気ですね。「散歩」に行きましょう。"),
    segment(20.0, 24.0, " שלום עולם, מה שלומך היום?"),
    segment(25.0, 27.5, " مرحبا بالعالم"),
    segment(359999.9996, 360001.5, " a hundred hours"),
)
CALL = (
    segment(0.0, 2.0, " Hello, who is there?", channel=0),
    segment(1.5, 3.0, " It is me.", channel=1),
    segment(3.0, 5.0, " Good to hear you again.", channel=1),
)
NARROW = Layout(max_line_width=16)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("plain.srt", to_srt(SEGMENTS, Layout())),
        ("plain.vtt", to_vtt(SEGMENTS, Layout())),
        ("plain.tsv", to_tsv(SEGMENTS)),
        ("narrow.srt", to_srt(SEGMENTS, NARROW)),
        ("two_lines.vtt", to_vtt(SEGMENTS, Layout(max_line_width=16, max_line_count=2))),
        ("few_words.srt", to_srt(SEGMENTS, Layout(max_words_per_line=2))),
        ("call.srt", to_srt(CALL, Layout(max_line_width=20))),
        ("call.vtt", to_vtt(CALL, Layout())),
        ("call.tsv", to_tsv(CALL)),
    ],
)
def test_subtitles_match_the_golden_file(name: str, written: str) -> None:
    assert written.encode() == (GOLDEN / name).read_bytes()


def test_silence_invents_nothing() -> None:
    assert to_srt((), Layout()) == ""
    assert to_vtt((), Layout()) == "WEBVTT\n\n"
    assert to_tsv(()) == "start\tend\ttext\n"


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [
        (0.0004, "00:00:00,000"),
        (0.9996, "00:00:01,000"),
        (59.9996, "00:01:00,000"),
        (3599.9999, "01:00:00,000"),
        (359999.9996, "100:00:00,000"),
    ],
)
def test_rounding_carries(seconds: float, clock: str) -> None:
    assert to_srt([segment(seconds, seconds + 1, " a")], Layout()).split("\n")[1].startswith(clock)


def test_a_cue_ends_after_it_starts() -> None:
    assert "00:00:01.000 --> 00:00:01.001" in to_vtt([segment(1.0, 1.0, " a")], Layout())


def test_stray_marks_and_blank_lines_leave_the_text() -> None:
    text = " \u202bאב\u202c \u200fגד\ufeff\n\n\x00הד"
    assert [cue.lines for cue in cues([segment(0, 1, text)], Layout())] == [("אב גד הד",)]


def test_the_times_of_words_are_used_where_there_are_any() -> None:
    said = spoken((1.0, 1.5, " one"), (4.0, 4.2, " two"), (5.0, 9.0, " three"))
    shown = list(cues([said], Layout(max_words_per_line=1)))
    assert [(cue.start, cue.end) for cue in shown] == [(1.0, 1.5), (4.0, 4.2), (5.0, 9.0)]
    guessed = list(cues([replace(said, words=())], Layout(max_words_per_line=1)))
    assert [round(cue.start, 3) for cue in guessed] == [1.0, 3.286, 5.571]


def whispers(segments: list[Segment], **options: int) -> str:
    result = {
        "segments": [
            {
                "start": one.start,
                "end": one.end,
                "text": one.text,
                "words": [{"start": w.start, "end": w.end, "word": w.text} for w in one.words],
            }
            for one in segments
        ]
    }
    file = io.StringIO()
    WriteSRT("").write_result(result, file, options)
    return file.getvalue()


WORDS = st.lists(
    st.tuples(st.text("abc,", min_size=1, max_size=9), st.integers(50, 5000)),
    min_size=1,
    max_size=12,
)


@given(
    st.lists(WORDS, min_size=1, max_size=4),
    st.sampled_from(
        [
            {},
            {"max_words_per_line": 1},
            {"max_words_per_line": 3},
            {"max_line_width": 12},
            {"max_line_width": 12, "max_line_count": 1},
            {"max_line_width": 20, "max_line_count": 2},
        ]
    ),
)
def test_lines_break_where_openai_whisper_breaks_them(
    said: list[list[tuple[str, int]]], options: dict[str, int]
) -> None:
    segments, at_ms = [], 0
    for sentence in said:
        words = []
        for text, lasts_ms in sentence:
            words.append((at_ms / 1000, (at_ms + lasts_ms) / 1000, f" {text}"))
            at_ms += lasts_ms
        segments.append(spoken(*words))
    assert to_srt(segments, Layout(**options)) == whispers(segments, **options)


TEXTS = st.text(
    st.sampled_from("ab, 今日ー。「」한국어שלםمرحกำน้ำ👩\u200d👧🏽e\u0301\t\n"), max_size=60
)


@given(
    TEXTS,
    st.integers(10, 30),
    st.one_of(st.none(), st.integers(1, 3)),
    st.one_of(st.none(), st.integers(0, 7)),
)
def test_no_line_is_too_wide_and_nothing_is_lost(
    text: str, width: int, count: int | None, channel: int | None
) -> None:
    said = segment(3.0, 9.0, text, channel=channel)
    shown = list(cues([said], Layout(max_line_width=width, max_line_count=count)))
    assert all(columns(line) <= width for cue in shown for line in cue.lines)
    most = 99 if count is None else max(count, 1 if channel is None else 2)
    assert all(len(cue.lines) <= most for cue in shown)
    lines = "".join(line for cue in shown for line in cue.lines)
    if channel is not None:
        mark = f"Channel {channel + 1}:"
        assert all("".join(cue.lines).startswith(mark) for cue in shown)
        lines = lines.replace(mark, "")
    assert "".join(lines.split()) == "".join(text.split())
    times = [time for cue in shown for time in (cue.start, cue.end)]
    assert times == sorted(times)
    assert all(3.0 <= time <= 9.0 for time in times)


CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)[.,](\d{3})")
LAYOUTS = st.builds(Layout, st.none() | st.integers(10, 30)) | st.builds(
    Layout, max_words_per_line=st.integers(1, 3)
)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), TEXTS), max_size=5),
    LAYOUTS,
    st.booleans(),
)
@example([(3, 0, "a b a"), (1, 1, "b")], Layout(max_words_per_line=1), True)
def test_cues_come_in_order_each_with_a_time_of_its_own(
    said: list[tuple[int, int, str]], layout: Layout, split: bool
) -> None:
    """However short a segment is for its text, and where two channels speak at once."""
    ends, segments = [0.0, 0.0], []
    for lasts, channel, text in said:
        start = ends[channel]
        ends[channel if split else 0] = end = start + lasts / 4
        segments.append(segment(start, end, text, channel=channel if split else None))
        ends = ends if split else [end, end]
    segments.sort(key=lambda one: one.start)
    for written in (to_srt(segments, layout), to_vtt(segments, layout)):
        shown: dict[str, int] = {}
        starts = []
        for block in written.split("\n\n"):
            if (arrow := block.find(" --> ")) < 0:
                continue
            start, end = (
                int(h) * 3600000 + int(m) * 60000 + int(s) * 1000 + int(ms)
                for h, m, s, ms in CLOCK.findall(block)[:2]
            )
            name = block[block.index("\n", arrow) :].lstrip()[: len("Channel 1:")] if split else ""
            assert shown.get(name, 0) <= start < end
            shown[name] = end
            starts.append(start)
        # A cue that was too short moves by a millisecond.
        assert all(before - len(starts) <= after for before, after in pairwise(starts))


@given(TEXTS)
def test_a_cue_has_no_blank_line_and_no_arrow_in_it(text: str) -> None:
    said = [segment(0, 1, f"{text} --> {text}")]
    for written, before in (
        (to_srt(said, Layout()), "1\n"),
        (to_vtt(said, Layout()), "WEBVTT\n\n"),
    ):
        (cue,) = written.removeprefix(before).rstrip("\n").split("\n\n")
        assert cue.count("-->") == 1


@pytest.mark.parametrize(
    ("layout", "param"),
    [
        (Layout(max_line_width=9), "max_line_width"),
        (Layout(max_line_count=0), "max_line_count"),
        (Layout(max_line_count=2), "max_line_count"),
        (Layout(max_words_per_line=1001), "max_words_per_line"),
        (Layout(max_line_width=20, max_words_per_line=3), "max_words_per_line"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(layout: Layout, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        layout.check()
    assert refused.value.param == param
