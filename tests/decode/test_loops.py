from __future__ import annotations

import random
import zlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from service.decode.loops import MAX_UNIT, MIN_REPEATS, MIN_SPAN, STRIDE, is_due, is_looping

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

texts = st.lists(st.integers(0, 9), max_size=120)
units = st.lists(st.integers(0, 9), min_size=1, max_size=MAX_UNIT)


def ratio(text: list[int]) -> float:
    raw = "".join(f" {DIGITS[token]}" for token in text).encode()
    return len(raw) / len(zlib.compress(raw))


@given(texts, units)
def test_every_loop_is_seen_whatever_came_before(before: list[int], unit: list[int]) -> None:
    repeats = max(MIN_REPEATS, -(-MIN_SPAN // len(unit)))
    assert is_looping(before + unit * repeats)


@given(texts, units, st.integers(0, 23))
def test_a_loop_is_seen_wherever_it_is_looked_at(
    before: list[int], unit: list[int], more: int
) -> None:
    """Rows are looked at now and then, hardly ever where a unit ends."""
    loop = unit * (max(MIN_REPEATS, -(-MIN_SPAN // len(unit))) + 24)
    assert is_looping(before + loop[: len(loop) - more])


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 9), st.integers(0, 31))
def test_the_same_digit_several_times_in_a_row_is_no_loop(
    before: list[int], digit: int, times: int
) -> None:
    other = (digit + 1) % 10
    varied = [n % 9 if n % 9 != digit else 9 for n in before]
    assert not is_looping([*varied[:8], other, *[digit] * (MIN_SPAN - 1 - times % MIN_SPAN)])


@given(st.permutations(range(100)))
def test_a_text_without_repetition_is_never_one(text: list[int]) -> None:
    assert not is_looping(text)


@given(texts, units, st.integers(1, 40))
def test_what_is_called_a_loop_is_what_whispers_compression_ratio_refuses(
    before: list[int], unit: list[int], repeats: int
) -> None:
    text = before[:20] + unit * repeats
    if is_looping(text):
        assert ratio(text) > 2.4


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20)), min_size=4, max_size=12))
def test_so_it_is_with_a_loop_that_stumbles(runs: list[tuple[int, int]]) -> None:
    text = [digit for digit, times in runs for _ in range(times)]
    if is_looping(text):
        assert ratio(text) > 2.4


def test_a_few_words_in_long_runs_are_a_loop_and_as_many_in_no_order_are_not() -> None:
    runs = [
        n for n, times in ((2, 20), (4, 9), (8, 3), (4, 14), (2, 11), (8, 7)) for _ in range(times)
    ]
    assert is_looping(runs)
    random.Random(0).shuffle(runs)
    assert not is_looping(runs)


@given(st.integers(0, 10**6))
def test_digits_at_random_are_no_loop(seed: int) -> None:
    source = random.Random(seed)
    assert not is_looping([source.randrange(10) for _ in range(100)])


def test_a_phrase_three_times_is_no_loop_and_four_times_is() -> None:
    phrase = list(range(12))
    assert not is_looping(phrase * 3)
    assert is_looping(phrase * 4)


def test_a_row_is_looked_at_before_a_loop_is_a_stride_old() -> None:
    looked = [n for n in range(200) if is_due(n)]
    assert looked[0] == MIN_SPAN
    assert {b - a for a, b in pairwise(looked)} == {STRIDE}
