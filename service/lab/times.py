"""How far the word times of one set of answers are from another's, on the same recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.lab.runs import Answer
from service.text.wer import align, words_of
from service.types import Word

NEAR_S = 0.1

Distances = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TimeDistances:
    """Seconds between two answers' times of the words that both have: `starts` and `ends`.

    `num_words`: how many words the reference has.
    """

    num_words: int
    starts: Distances
    ends: Distances

    def summary(self) -> dict[str, float]:
        """Mean, median and 90th percentile of the distances, and the share within 0.1 s."""
        figures: dict[str, float] = {"words": self.num_words, "matched": len(self.starts)}
        if not len(self.starts):
            return figures
        for name, distances in (("start", np.abs(self.starts)), ("end", np.abs(self.ends))):
            figures |= {
                f"{name}_mean_s": float(distances.mean()),
                f"{name}_median_s": float(np.median(distances)),
                f"{name}_p90_s": float(np.quantile(distances, 0.9)),
                f"{name}_within_0.1_s": float((distances <= NEAR_S).mean()),
            }
        return figures


def compare(
    reference: Sequence[Answer], answers: Sequence[Answer], languages: Sequence[str]
) -> TimeDistances:
    """The answers' word times against the reference's, recording by recording.

    Words are matched by the cheapest alignment of both texts after the normaliser.
    """
    starts, ends = [], []
    num_words = 0
    for expected, answer, language in zip(reference, answers, languages, strict=True):
        ours, theirs = _words(answer), _words(expected)
        num_words += len(theirs)
        said = [_key(word, language) for word in ours]
        wanted = [_key(word, language) for word in theirs]
        for i, j in align(wanted, said):
            if i is not None and j is not None and wanted[i] == said[j]:
                starts.append(ours[j].start - theirs[i].start)
                ends.append(ours[j].end - theirs[i].end)
    return TimeDistances(num_words, np.array(starts), np.array(ends))


def _words(answer: Answer) -> list[Word]:
    return [word for segment in answer.segments for word in segment.words]


def _key(word: Word, language: str) -> str:
    return " ".join(words_of(word.text, language)) or word.text.strip()
