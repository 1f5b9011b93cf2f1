"""What encoding does with a window, by its profile and its audio, before a device is asked.

Windows go through a layer together if it does the same with them and they have as many states:
whatever their profiles are called, what they did before, and what they will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from service.model.padding import Layout, lay_out, plain
from service.profiles import Profile


class Thinning(NamedTuple):
    """`share` of the recording's states goes, by `pool` as profiles have it. With `drop`, by whose
    scores, and how: `selection`, `aggregation` and `within`; "": every n-th stays."""

    share: float
    pool: str
    selection: str = ""
    aggregation: str = ""
    within: int = 0

    @property
    def looks(self) -> bool:
        """Whether it looks at the layer's attention: at what frames receive, or at their keys."""
        return self.selection == "attention" or self.pool == "alike"


class Way(NamedTuple):
    """How a layer attends: how many states to either side, 0 for all; and `aggregation`, by which
    what frames receive of it is said, "" where nobody asks."""

    reach: int
    aggregation: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`layout`: what the window's states stand for at first. `layer`: after how many layers some
    go (`early`); `late`: what goes after the last. `reach`: of layers up to that, or of all."""

    layout: Layout
    layer: int
    early: Thinning | None
    late: Thinning | None
    reach: int

    @property
    def pools(self) -> bool:
        """Whether a state stands for all the frames from its position to the next one's."""
        thinnings = [thinning for thinning in (self.early, self.late) if thinning is not None]
        averages = any(thinning.pool != "drop" for thinning in thinnings)
        return averages or not self.layout.is_even

    def way(self, layer: int) -> Way:
        """Of an encoder layer, 1-based."""
        near = self.early is None or layer <= self.layer
        thinning = self.thinning(layer)
        return Way(self.reach if near else 0, thinning.aggregation if thinning else "")

    def thinning(self, layer: int) -> Thinning | None:
        """What goes after a layer; 0: before the first."""
        return self.early if layer == self.layer else None


def plan_of(profile: Profile, num_frames: int, audio_frames: int | None = None) -> Plan:
    """For a window of `num_frames`, of which the first `audio_frames` hold the recording; None: all
    of them."""
    heard = num_frames if audio_frames is None else audio_frames
    return Plan(
        layout=lay_out(heard, num_frames, profile.padding) or plain(num_frames),
        layer=profile.layer,
        early=_early(profile),
        late=Thinning(profile.late, profile.pool) if profile.late else None,
        reach=profile.reach,
    )


def _early(profile: Profile) -> Thinning | None:
    if not profile.sparsity:
        return None
    if profile.pool != "drop":
        return Thinning(profile.sparsity, profile.pool)
    by_attention = profile.selection == "attention"
    aggregation = profile.aggregation if by_attention else ""
    return Thinning(profile.sparsity, profile.pool, profile.selection, aggregation, profile.within)
