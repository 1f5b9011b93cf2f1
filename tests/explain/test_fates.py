from __future__ import annotations

import numpy as np
import pytest

from service.explain.fates import DROPPED, Tally, owners_of, tally

from .made import kept_of, pairs


def test_frames_belong_to_the_state_that_stands_for_them() -> None:
    owners = owners_of(kept_of([0, 1, 5], [1, 3, 2]))
    assert owners[:9].tolist() == [0, 1, 1, 1, DROPPED, 2, 2, DROPPED, DROPPED]
    assert (owners[9:] == DROPPED).all()


@pytest.mark.parametrize(
    ("positions", "sizes"),
    [([0, 1], [2, 1]), ([1499], [2]), ([-1], [1]), ([0, 1], [1, 0]), ([5, 2], [1, 1])],
)
def test_a_frame_counted_twice_or_not_there_is_refused(
    positions: list[int], sizes: list[int]
) -> None:
    with pytest.raises(ValueError, match="overlap"):
        owners_of(kept_of(positions, sizes))


def test_figures_of_a_part_add_up_to_those_of_all() -> None:
    kept = kept_of([*range(400), *range(400, 1500, 10)], [1] * 400 + [8] * 110)
    whole = tally(kept)
    assert whole == Tally(total=1500, alone=400, merged=880, means=110)
    assert (whole.dropped, whole.states) == (220, 510)
    parts = [tally(kept, first, first + 375) for first in range(0, 1500, 375)]
    for name in ("total", "alone", "merged", "means", "dropped"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)


def test_what_people_are_told() -> None:
    assert str(tally(kept_of(range(1500), [1] * 1500))) == "all 1,500 frames are kept"
    assert str(tally(pairs())) == "of 1,500 frames 1,500 merged into 750"
    some = kept_of([0, 1, 9], [1, 4, 1])
    assert str(tally(some)) == (
        "of 1,500 frames 2 kept as they are, 4 merged into 1, 1,494 dropped"
    )


def test_the_order_of_states_is_that_of_frames() -> None:
    owners = owners_of(pairs())
    assert (np.diff(owners) >= 0).all()
