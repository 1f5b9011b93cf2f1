"""Segments in order although windows are not, and a text that only ever grows."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from service.text.progress import InOrder, RunningText, whole_text
from service.text.stitch import WindowText, stitch
from service.types import Segment

from .test_stitch import HEARD, window_text


def numbered(*windows: WindowText) -> list[WindowText]:
    return [
        replace(one, window=replace(one.window, index=index)) for index, one in enumerate(windows)
    ]


def on(channel: int, one: WindowText) -> WindowText:
    return replace(one, window=replace(one.window, channel=channel))


def starts(segments: list[Segment]) -> list[float]:
    return [segment.start for segment in segments]


def in_order(windows: list[WindowText], duration_s: float) -> InOrder:
    return InOrder([one.window for one in windows], duration_s)


def test_a_window_waits_for_those_before_it() -> None:
    windows = numbered(*(window_text(10.0 * i, 10, (0, 1, f" {i}")) for i in range(4)))
    order = in_order(windows, 40)
    assert starts(order.add([windows[2]])) == []
    assert starts(order.add([windows[0]])) == [0]
    assert starts(order.add([windows[3]])) == []
    assert starts(order.add([windows[1]])) == [10, 20, 30]


def test_a_channel_waits_for_what_another_may_still_say_earlier() -> None:
    windows = numbered(
        on(0, window_text(0, 10, (0, 1, " a"), (8, 9, " c"))),
        on(1, window_text(2, 20, (2, 3, " b"), (17, 19, " d"))),
        on(0, window_text(15, 10, (0, 1, " late"))),
    )
    order = in_order(windows, 40)
    # The second channel may say something at 2 s: only what was before that is certain.
    assert starts(order.add([windows[0]])) == [0]
    assert starts(order.add([windows[1]])) == [4, 8]
    last = order.add([windows[2]])
    assert [(s.id, s.start, s.channel) for s in last] == [(3, 15, 0), (4, 19, 1)]


def test_a_silent_window_holds_nobody_up() -> None:
    silent = replace(HEARD, no_speech_prob=0.9, avg_logprob=-2.0)
    windows = numbered(
        window_text(0, 10, (0, 1, " noise"), hypothesis=silent), window_text(10, 10, (0, 1, " a"))
    )
    order = in_order(windows, 20)
    assert order.add([windows[1]]) == []
    assert starts(order.add([windows[0]])) == [10]


WINDOWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.lists(st.sampled_from([" one", "two", " 三 ", "", "  "]), max_size=3),
    ),
    max_size=8,
)


@given(WINDOWS, st.randoms(use_true_random=False), st.booleans())
def test_any_order_gives_the_same_segments_and_text(
    said: list[tuple[int, list[str]]], random: Random, split: bool
) -> None:
    windows = numbered(
        *(
            replace(one, window=replace(one.window, channel=channel if split else None))
            for at, (channel, texts) in enumerate(said)
            for one in [window_text(3.0 * at, 3, *((i, i + 1, t) for i, t in enumerate(texts)))]
        )
    )
    order, running = in_order(windows, 30), RunningText()
    segments: list[Segment] = []
    text = ""
    shuffled = list(windows)
    random.shuffle(shuffled)
    for one in shuffled:
        certain = order.add([one])
        segments += certain
        text += running.add(certain)
    assert [s.id for s in segments] == list(range(len(segments)))
    assert [s.start for s in segments] == sorted(s.start for s in segments)
    for channel in {one.window.channel for one in windows}:
        own = [one for one in windows if one.window.channel == channel]
        heard = [replace(s, id=0) for s in segments if s.channel == channel]
        assert heard == [replace(s, id=0) for s in stitch(own, 30)]
    assert text == whole_text(segments) == text.strip()
    if not split:
        assert text == "".join(s.text for s in segments).strip()


def test_each_turn_of_a_call_is_a_line() -> None:
    texts = [(0, " hello "), (0, " there"), (1, " yes"), (0, " good")]
    segments = [
        replace(stitch([window_text(0, 9, (0, 1, text))], 9)[0], channel=channel)
        for channel, text in texts
    ]
    assert whole_text(segments) == "Channel 1: hello  there\nChannel 2: yes\nChannel 1: good"
