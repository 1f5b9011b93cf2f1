"""One candidate's answer to one recording: what is written down of it, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.lab.outcomes import ItemOutcome, outcome
from service.lab.packing import Item
from service.lab.runs import Answer
from service.requests.guard import UNFINISHED
from service.text.wer import Errors

_FLAGS = ("looped", "broke_off", "skipped", "invented")


@dataclass(frozen=True, slots=True)
class Place:
    """A recording by its place: `number` counts within the domain, in the search's order."""

    split: str
    domain: str
    number: int
    item: Item

    @property
    def key(self) -> str:
        return f"{self.split} {self.domain} {self.number}"


@dataclass(frozen=True, slots=True)
class Trial:
    """How an answer compares, without its text, and what it took: windows, frames there were,
    frames that the decoder saw, and tokens said."""

    outcome: ItemOutcome
    num_windows: int
    total_frames: int
    kept_frames: int
    tokens: int


def trial_of(item: Item, answer: Answer, num_frames: int) -> Trial:
    """`num_frames`: of a window."""
    found = outcome(item, answer)
    # A window that was gone on with counts once.
    windows = answer.total_frames // num_frames - found.again.get(UNFINISHED, 0)
    tokens = sum(len(segment.tokens) for segment in answer.segments)
    return Trial(found, windows, answer.total_frames, answer.kept_frames, tokens)


def to_record(trial: Trial) -> dict[str, Any]:
    """As JSON holds it; no text is in it."""
    one, errors = trial.outcome, trial.outcome.errors
    return {
        "errors": [errors.substitutions, errors.deletions, errors.insertions],
        "words": errors.words,
        "said": one.said,
        "went": [name for name in _FLAGS if getattr(one, name)],
        "again": dict(one.again),
        "windows": [trial.num_windows, one.windows_again],
        "frames": [trial.total_frames, trial.kept_frames],
        "tokens": trial.tokens,
    }


def from_record(record: Mapping[str, Any]) -> Trial:
    """Raises KeyError, TypeError or ValueError for what `to_record` does not write."""
    substitutions, deletions, insertions = record["errors"]
    total, kept = record["frames"]
    windows, windows_again = record["windows"]
    one = ItemOutcome(
        errors=Errors(substitutions, deletions, insertions, record["words"]),
        said=record["said"],
        **{name: name in record["went"] for name in _FLAGS},
        again=dict(record["again"]),
        windows_again=windows_again,
        text="",
    )
    return Trial(one, windows, total, kept, record["tokens"])
