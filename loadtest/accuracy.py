"""Word error rate of what was answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtest.outcomes import Visit
from service.text.wer import word_errors, words_of


@dataclass(frozen=True, slots=True)
class WordErrors:
    """All errors over all words of reference, after Whisper's normaliser."""

    errors: int = 0
    words: int = 0

    @property
    def wer(self) -> float | None:
        """None where no transcript is known."""
        return self.errors / self.words if self.words else None


def score(visits: Sequence[Visit]) -> WordErrors:
    """The word errors of the answers to recordings whose transcript is known."""
    known = [(v.recording.transcript, v.text) for v in visits if v.answered]
    return together(_score(transcript, text) for transcript, text in known if transcript)


def together(scores: Iterable[WordErrors]) -> WordErrors:
    """The errors and the words of all of them."""
    listed = list(scores)
    return WordErrors(sum(s.errors for s in listed), sum(s.words for s in listed))


def _score(transcript: str, text: str) -> WordErrors:
    reference = words_of(transcript)
    return WordErrors(word_errors(reference, words_of(text)), len(reference))
