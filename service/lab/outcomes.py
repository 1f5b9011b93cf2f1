"""What became of a profile's answers: errors, intervals, and the ways in which texts go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.lab.packing import Item
from service.lab.runs import Answer, Run
from service.lab.statistics import Estimate, difference, error_rate
from service.lab.wer import Errors, count_errors, words_of
from service.text.timestamps import compression_ratio
from service.types import Thresholds

LOOPS_ABOVE = Thresholds().compression_ratio
BROKE_OFF_BELOW = 0.6  # of the words of reference
LEAST_WORDS = 5  # of reference: fewer tell nothing about a text's length


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """One recording's answer against what was said in it.

    `looped`: the text repeats itself, by Whisper's compression ratio. `broke_off`: it has fewer
    than 60% of the words of a reference of at least 5. `invented`: it has words where none were
    said. `again`: attempts after the first by their reasons, of any of its windows;
    `windows_again`: how many of its windows had some.
    """

    errors: Errors
    said: int
    looped: bool
    broke_off: bool
    invented: bool
    again: Mapping[str, int]
    windows_again: int
    text: str


def outcome(item: Item, answer: Answer) -> ItemOutcome:
    """How an answer compares."""
    reference, said = words_of(item.text, item.language), words_of(answer.text, item.language)
    return ItemOutcome(
        errors=count_errors(reference, said),
        said=len(said),
        looped=compression_ratio(answer.text.strip()) > LOOPS_ABOVE,
        broke_off=len(reference) >= LEAST_WORDS and len(said) < BROKE_OFF_BELOW * len(reference),
        # The English normaliser leaves a word of "...": a full stop is nothing said.
        invented=not reference and any(char.isalnum() for word in said for char in word),
        again=Counter(fallback.reason for fallback in answer.fallbacks),
        windows_again=len({fallback.window for fallback in answer.fallbacks}),
        text=answer.text,
    )


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
    words = [one.errors.words for one in outcomes[reference]]
    totals = {name: [one.errors.total for one in some] for name, some in outcomes.items()}
    return [
        Figures(
            profile=name,
            items=outcomes[name],
            num_windows=run.num_windows,
            wer=error_rate(totals[name], words, seed),
            difference=None
            if name == reference
            else difference(totals[name], totals[reference], words, seed),
            speeds=tuple((speeds or {}).get(name, ())),
            times=dict((times or {}).get(name, {})),
        )
        for name, run in runs.items()
    ]
