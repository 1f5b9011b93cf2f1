"""What became of each frame: kept as it is, merged into which state, or dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.types import Counts, Kept

DROPPED = -1


@dataclass(frozen=True, slots=True)
class Tally:
    """Frames by what became of them: `alone` in a state, or `merged` into so many `means`."""

    total: int
    alone: int
    merged: int
    means: int

    @property
    def dropped(self) -> int:
        return self.total - self.alone - self.merged

    @property
    def states(self) -> int:
        """How many the decoder reads."""
        return self.alone + self.means

    def __str__(self) -> str:
        if self.states == self.total:
            return f"all {self.total:,} frames are kept"
        parts = (
            (self.alone, f"{self.alone:,} kept as they are"),
            (self.merged, f"{self.merged:,} merged into {self.means:,}"),
            (self.dropped, f"{self.dropped:,} dropped"),
        )
        return f"of {self.total:,} frames " + ", ".join(said for number, said in parts if number)


def owners_of(kept: Kept) -> Counts:
    """For each frame the state that stands for it, or DROPPED: int64 (T,).

    Raises ValueError where states overlap, stand for nothing or reach past the window.
    """
    num_frames = len(kept.importance)
    ends = kept.positions + kept.sizes
    apart = (kept.positions[1:] >= ends[:-1]).all() and (kept.sizes > 0).all()
    if not apart or (len(ends) and (kept.positions[0] < 0 or ends[-1] > num_frames)):
        raise ValueError("states overlap, or stand for frames that there are not")
    owners = np.full(num_frames, DROPPED, np.int64)
    frames = np.repeat(kept.positions - _before(kept.sizes), kept.sizes) + np.arange(
        kept.sizes.sum()
    )
    owners[frames] = np.repeat(np.arange(len(kept.sizes)), kept.sizes)
    return owners


def tally(kept: Kept, first: int = 0, last: int | None = None) -> Tally:
    """Of the frames from `first` to before `last`, all of them by default.

    A state counts where its first frame is.
    """
    owners = owners_of(kept)[first:last]
    starts = (kept.positions >= first) & (kept.positions < first + len(owners))
    sizes = kept.sizes[owners[owners != DROPPED]]
    return Tally(
        total=len(owners),
        alone=int((sizes == 1).sum()),
        merged=int((sizes > 1).sum()),
        means=int((kept.sizes[starts] > 1).sum()),
    )


def _before(sizes: Counts) -> Counts:
    return np.cumsum(sizes) - sizes
