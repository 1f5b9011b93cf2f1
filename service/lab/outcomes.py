"""What became of a profile's answers: errors, intervals, and the ways in which texts go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.lab.packing import Item
from service.lab.runs import Answer, Run
from service.lab.statistics import Estimate, difference, error_rate
from service.text.timestamps import compression_ratio
from service.text.wer import Errors, Pair, align, errors_of, words_of
from service.types import Thresholds

LOOPS_ABOVE = Thresholds().compression_ratio
GAP = 5  # words of reference in a row that a text lacks: more than a word misheard


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """One recording's answer against what was said in it.

    `looped`: the text repeats itself, by Whisper's compression ratio. `broke_off`: the last 5
    words or more of the reference are missing, by the alignment that errors are counted by;
    `skipped`: so many in a row are missing before. `invented`: there are words where none were
    said. `again`: attempts after the first by their reasons, of any of its windows;
    `windows_again`: how many of its windows had some.
    """

    errors: Errors
    said: int
    looped: bool
    broke_off: bool
    skipped: bool
    invented: bool
    again: Mapping[str, int]
    windows_again: int
    text: str


def outcome(item: Item, answer: Answer) -> ItemOutcome:
    """How an answer compares."""
    reference, said = words_of(item.text, item.language), words_of(answer.text, item.language)
    pairs = align(reference, said)
    inside, at_the_end = _gaps(pairs)
    return ItemOutcome(
        errors=errors_of(pairs, reference, said),
        said=len(said),
        looped=compression_ratio(answer.text.strip()) > LOOPS_ABOVE,
        broke_off=at_the_end >= GAP,
        skipped=inside >= GAP,
        # The English normaliser leaves a word of "...": a full stop is nothing said.
        invented=not reference and any(char.isalnum() for word in said for char in word),
        again=Counter(fallback.reason for fallback in answer.fallbacks),
        windows_again=len({fallback.window for fallback in answer.fallbacks}),
        text=answer.text,
    )


def _gaps(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Words of reference that nothing stands for: most in a row before the end, and at the end."""
    longest = run = 0
    for _, said in pairs:
        if said is None:
            run += 1
        else:
            longest, run = max(longest, run), 0
    return longest, run


@dataclass(frozen=True, slots=True)
class Figures:
    """A profile on a domain. `difference` is to dense, None for dense itself.

    `speeds`: seconds of audio per wall-clock second, a round each.
    """

    profile: str
    items: tuple[ItemOutcome, ...]
    num_windows: int
    wer: Estimate
    difference: Estimate | None
    speeds: tuple[float, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> Errors:
        """Of all items together."""
        every = [item.errors for item in self.items]
        return Errors(
            sum(e.substitutions for e in every),
            sum(e.deletions for e in every),
            sum(e.insertions for e in every),
            sum(e.words for e in every),
        )

    @property
    def again(self) -> Counter[str]:
        """Attempts after the first, by reason."""
        return sum((Counter(item.again) for item in self.items), Counter())

    @property
    def windows_again(self) -> int:
        return sum(item.windows_again for item in self.items)

    @property
    def looped(self) -> int:
        return sum(item.looped for item in self.items)

    @property
    def broke_off(self) -> int:
        return sum(item.broke_off for item in self.items)

    @property
    def skipped(self) -> int:
        return sum(item.skipped for item in self.items)

    @property
    def invented(self) -> int:
        return sum(item.invented for item in self.items)


def figures(
    items: Sequence[Item],
    runs: Mapping[str, Run],
    reference: str = "dense",
    *,
    seed: int = 0,
    speeds: Mapping[str, Sequence[float]] | None = None,
    times: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Figures]:
    """The figures of every profile's run over the same items, the reference among them."""
    outcomes = {
        name: tuple(outcome(item, answer) for item, answer in zip(items, run.answers, strict=True))
        for name, run in runs.items()
    }
    num_windows = {name: run.num_windows for name, run in runs.items()}
    return compared(outcomes, num_windows, reference, seed=seed, speeds=speeds, times=times)


def compared(
    outcomes: Mapping[str, tuple[ItemOutcome, ...]],
    num_windows: Mapping[str, int],
    reference: str = "dense",
    *,
    seed: int = 0,
    speeds: Mapping[str, Sequence[float]] | None = None,
    times: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Figures]:
    """The figures of every profile's outcomes of the same items, the reference among them."""
    words = [one.errors.words for one in outcomes[reference]]
    totals = {name: [one.errors.total for one in some] for name, some in outcomes.items()}
    return [
        Figures(
            profile=name,
            items=some,
            num_windows=num_windows[name],
            wer=error_rate(totals[name], words, seed),
            difference=None
            if name == reference
            else difference(totals[name], totals[reference], words, seed),
            speeds=tuple((speeds or {}).get(name, ())),
            times=dict((times or {}).get(name, {})),
        )
        for name, some in outcomes.items()
    ]
