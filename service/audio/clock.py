"""The recording's clock: where samples belong on it, and what of it was lost.

Containers say when what they hold is heard, and their times are believed as a player believes
them: silence stands for a gap or a late start. Times are not believed where that would

- hear jitter as pauses: a gap of less than 0.1 s is none, unless something could not be read there
- jump back, as at the seam of two recordings, or further ahead than the container says it lasts:
  what follows is put where the sound before it ended
"""

from __future__ import annotations

from service.types import Notice

_JITTER_S = 0.1  # what ffmpeg's own resampler takes without adding silence
_EXACT_S = 0.001  # where there was damage
_SLACK_S = 0.1  # encoders' padding, and headers that round
_BACK_S = 1.0
_LONGEST_UNTOLD_S = 3600.0  # a gap in a container that does not say how long it is
_ABSURD_S = 6 * 3600.0  # promised, where not a tenth of it is there
_NEIGHBOURS_S = 1.0  # losses that are nearer to one another are one
_MAX_NOTICES = 20


class Clock:
    """Seconds from the start of the recording, as its parts and their samples come.

    `now_s` is where all samples and silence so far end.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self._began_s = 0.0
        self._ended_s = 0.0  # by the container's time, which may be some padding later
        self._zero_s: float | None = None  # where 0 of the container's time is
        self._longest_s = _LONGEST_UNTOLD_S
        self._seamless = False
        self._jitter_s = _JITTER_S
        self._promised_s = 0.0
        self._lost_s: float | None = None  # since the last sample, where something was not read
        self._losses: list[tuple[float, float]] = []
        self._cuts: list[tuple[float, float | None]] = []

    @property
    def has_begun(self) -> bool:
        return self._zero_s is not None

    def begin(
        self, origin_s: float, longest_s: float | None, promised_s: float | None, seamless: bool
    ) -> None:
        """A recording begins: `origin_s` of its container's time is now.

        `longest_s`: no gap in it is longer. `promised_s`: how long its header says it is.
        `seamless`: there are no gaps in its kind but by damage.
        """
        self._check_promise()
        self._began_s = self.now_s
        self._zero_s = self.now_s - origin_s
        self._longest_s = _LONGEST_UNTOLD_S if longest_s is None else longest_s
        self._seamless = seamless
        self._jitter_s = _EXACT_S if seamless else _JITTER_S
        self._promised_s = 0.0 if promised_s is None else self.now_s + promised_s

    def damaged(self, lasts_s: float = 0.0) -> None:
        """Something that lasts about so long could not be read here."""
        self._lost_s = (self._lost_s or 0.0) + lasts_s

    def lost(self, seconds: float) -> None:
        """So much is lost here, for certain: silence that is played next stands for it."""
        self._lose(self.now_s + seconds)
        if self._zero_s is not None:
            self._zero_s += seconds

    def place(self, time_s: float | None, lasts_s: float) -> float:
        """Seconds of silence before samples that begin at `time_s` of the container's time.

        They, and the silence, are played then.
        """
        gap_s = 0.0
        if time_s is not None and self._zero_s is not None:
            gap_s = self._zero_s + time_s - self.now_s
        if self._lost_s is None and -_JITTER_S < gap_s < self._jitter_s:
            gap_s = 0.0
        else:
            gap_s = self._believed(gap_s, time_s is not None)
        self.now_s += gap_s + lasts_s
        self._ended_s = self.now_s
        if time_s is not None and self._zero_s is not None:
            self._ended_s = max(self.now_s, self._zero_s + time_s + lasts_s)
        return gap_s

    def _believed(self, gap_s: float, is_timed: bool) -> float:
        if not is_timed or self._zero_s is None:
            gap_s = self._lost_s or 0.0
        elif not -_BACK_S <= gap_s <= self._longest_s:
            self._zero_s -= gap_s
            gap_s = 0.0
        elif gap_s < (self._jitter_s if self._lost_s is None else _EXACT_S):
            gap_s = 0.0
        if self._lost_s is not None or (self._seamless and gap_s):
            self._lose(self.now_s + gap_s)
        return gap_s

    def played(self, seconds: float) -> None:
        """So much sound or silence was put where the recording is."""
        self.now_s += seconds

    def end(self, promised: float | None, cut: bool) -> None:
        """Nothing more comes of the part that was begun last.

        `promised`: how many times what there was its header declares. `cut`: it ends in the
        middle of something.
        """
        if promised is not None:
            self._promised_s = self._began_s + promised * (self.now_s - self._began_s)
        if cut and not self._is_broken():
            self._cuts.append((self.now_s, None))
        elif self._lost_s is not None and self._promised_s == 0:
            self._lose(self.now_s + self._lost_s)
        self._lost_s = None

    def notices(self) -> list[Notice]:
        """What was lost, in order, and not more than some twenty of it."""
        self._check_promise()
        damage = self._losses
        notices = [_damage(start_s, end_s) for start_s, end_s in damage[:_MAX_NOTICES]]
        if rest := damage[_MAX_NOTICES:]:
            seconds = sum(end_s - start_s for start_s, end_s in rest)
            start_s, end_s = rest[0][0], rest[-1][1]
            text = (
                f"The recording is damaged in {len(rest)} more places between {start_s:.1f} s and "
                f"{end_s:.1f} s, {seconds:.1f} s together."
            )
            notices.append(_notice(text, start_s, end_s))
        cuts = self._cuts[:_MAX_NOTICES]
        return sorted([*notices, *(_cut(*cut) for cut in cuts)], key=lambda n: n.start or 0.0)

    def _check_promise(self) -> None:
        if self._is_broken():
            self._cuts.append((self.now_s, self._promised_s))
        self._promised_s = 0.0

    def _is_broken(self) -> bool:
        """Whether more was promised than came, and not so much more that it means nothing."""
        there_s = max(self.now_s, self._ended_s) - self._began_s
        promised_s = self._promised_s - self._began_s
        absurd = promised_s > _ABSURD_S and promised_s > 10 * there_s
        slack_s = _EXACT_S if self._seamless else _SLACK_S  # those count each sample
        return promised_s > there_s + slack_s and not absurd

    def _lose(self, end_s: float) -> None:
        start_s, self._lost_s = self.now_s, None
        if self._losses and start_s - self._losses[-1][1] < _NEIGHBOURS_S:
            start_s = self._losses.pop()[0]
        self._losses.append((start_s, end_s))


def _damage(start_s: float, end_s: float) -> Notice:
    return _notice(
        f"The recording is damaged between {start_s:.2f} s and {end_s:.2f} s: what could not be "
        "read is silence.",
        start_s,
        end_s,
    )


def _cut(at_s: float, promised_s: float | None) -> Notice:
    text = f"The recording is cut off at {at_s:.1f} s"
    text += "." if promised_s is None else f"; its header promises {promised_s:.1f} s."
    return _notice(text, at_s, promised_s)


def _notice(message: str, start_s: float, end_s: float | None) -> Notice:
    end = None if end_s is None else round(end_s, 3)
    return Notice("damaged_audio", message, start=round(start_s, 3), end=end)
