from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from service.lab.statistics import difference, error_rate, least_words


def test_the_rate_is_all_errors_over_all_words() -> None:
    found = error_rate([1, 0, 5], [10, 20, 10])
    assert found.value == pytest.approx(6 / 40)
    assert found.low <= found.value <= found.high


def test_equal_length_items_have_the_interval_of_their_mean() -> None:
    """With as many words in each, the rate is a mean, whose standard error is known."""
    rng = np.random.default_rng(3)
    errors = rng.poisson(4, 400)
    found = error_rate(errors.tolist(), [50] * 400)
    half = 1.96 * errors.std() / math.sqrt(400) / 50
    assert found.high - found.value == pytest.approx(half, rel=0.05)
    assert found.value - found.low == pytest.approx(half, rel=0.05)


def test_the_interval_is_that_of_every_resample() -> None:
    errors, others, words = [3, 0, 1, 7], [1, 0, 2, 2], [10, 4, 8, 12]
    every = [
        sum(errors[i] - others[i] for i in chosen) / sum(words[i] for i in chosen)
        for chosen in product(range(4), repeat=4)
    ]
    low, high = np.percentile(every, [2.5, 97.5])
    found = difference(errors, others, words)
    assert found.value == pytest.approx(6 / 34)
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_what_is_hard_for_both_cancels_out() -> None:
    rng = np.random.default_rng(5)
    hard = rng.poisson(10, 200)
    more = rng.integers(0, 2, 200)
    found = difference((hard + more).tolist(), hard.tolist(), [40] * 200)
    alone = error_rate((hard + more).tolist(), [40] * 200)
    assert 0 < found.low < found.value < found.high
    assert found.high - found.low < (alone.high - alone.low) / 4
    none = difference(hard.tolist(), hard.tolist(), [40] * 200)
    assert (none.value, none.low, none.high) == (0, 0, 0)


def test_a_seed_gives_the_same_interval() -> None:
    errors, words = list(range(30)), [40] * 30
    assert error_rate(errors, words, seed=1) == error_rate(errors, words, seed=1)
    assert error_rate(errors, words, seed=1) != error_rate(errors, words, seed=2)


def test_no_words_no_rate() -> None:
    found = error_rate([2, 0], [0, 0])
    assert all(math.isnan(value) for value in (found.value, found.low, found.high))


def test_words_enough_to_show_a_budget() -> None:
    """Without an error in so many words, a rate at the budget would have had one, 97.5 in 100."""
    for points in (0.2, 0.5, 1.0):
        least = least_words(points)
        assert (1 - points / 100) ** least <= 0.025 < (1 - points / 100) ** (0.99 * least)
