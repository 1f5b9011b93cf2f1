"""How far a model's word times are from where the words are known to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from service.audio.mel import log_mel
from service.lab.evaluate import decode_together
from service.lab.speech_set import SpeechSet
from service.model.protocol import SpeechModel
from service.profiles import Profile
from service.text.stitch import WindowText, stitch
from service.types import (
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    DecodeOptions,
    Samples,
    Window,
    Word,
)

BLOCK = SAMPLE_RATE // 200  # 5 ms, over which energy is judged
QUIET_DB = -30.0  # under the clip's loudest 5 ms: below it, at a clip's edges, nothing is said

NEAR_S = 0.1

Span = tuple[float, float]
Errors = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TimedUtterance:
    """Speech of at most 30 s, the words in it, and each one's beginning and end in seconds."""

    samples: Samples
    words: tuple[str, ...]
    spans: tuple[Span, ...]


def timed_digits(speech: SpeechSet, count: int, seed: int = 0) -> list[TimedUtterance]:
    """Strings of 3 to 10 digits of one set, put together from recordings of single ones.

    A digit is where its recording was put, less the silence at the recording's edges. Between
    recordings lie 0 to 0.3 s, before the first and after the last 0.25 s.
    """
    rng = np.random.default_rng(seed)
    singles = [i for i, text in enumerate(speech.texts) if " " not in text]
    edges = {i: sounding(speech.get(i)) for i in singles}
    utterances = []
    for _ in range(count):
        chosen = [int(i) for i in rng.choice(singles, rng.integers(3, 11))]
        at = SAMPLE_RATE // 4
        pieces: list[Samples] = [np.zeros(at, np.float32)]
        spans = []
        for i in chosen:
            clip, (begin, end) = speech.get(i), edges[i]
            spans.append(((at + begin) / SAMPLE_RATE, (at + end) / SAMPLE_RATE))
            pause = int(rng.uniform(0, 0.3) * SAMPLE_RATE)
            pieces += [clip, np.zeros(pause, np.float32)]
            at += len(clip) + pause
        pieces.append(np.zeros(SAMPLE_RATE // 4, np.float32))
        words = tuple(speech.texts[i] for i in chosen)
        utterances.append(TimedUtterance(np.concatenate(pieces), words, tuple(spans)))
    return utterances


@dataclass(frozen=True, slots=True)
class TimeErrors:
    """Seconds from where words are to where a model said: of those of `words` it read right."""

    words: int
    starts: Errors
    ends: Errors

    def summary(self) -> dict[str, float]:
        """Mean, median and 90th percentile of starts' and ends' distances, and shares in 0.1 s."""
        figures: dict[str, float] = {"words": self.words, "read": len(self.starts)}
        if not len(self.starts):
            return figures
        for name, errors in (("start", np.abs(self.starts)), ("end", np.abs(self.ends))):
            figures |= {
                f"{name} mean": float(errors.mean()),
                f"{name} median": float(np.median(errors)),
                f"{name} p90": float(np.quantile(errors, 0.9)),
                f"{name} within 0.1": float((errors <= NEAR_S).mean()),
            }
        return figures


def measure(
    model: SpeechModel, utterances: Sequence[TimedUtterance], profile: Profile, *, batch: int = 16
) -> TimeErrors:
    """Transcribes every utterance as one window, as the service does, and compares times.

    Words are matched by their place in the cheapest alignment of what was said and what was read.
    """
    starts, ends = [], []
    for first in range(0, len(utterances), batch):
        some = utterances[first : first + batch]
        for utterance, words in zip(some, _words(model, some, profile), strict=True):
            said = [word.text.strip().lower() for word in words]
            for i, j in matched(utterance.words, said):
                starts.append(words[j].start - utterance.spans[i][0])
                ends.append(words[j].end - utterance.spans[i][1])
    num_words = sum(len(utterance.words) for utterance in utterances)
    return TimeErrors(num_words, np.array(starts), np.array(ends))


def _words(
    model: SpeechModel, utterances: Sequence[TimedUtterance], profile: Profile
) -> list[list[Word]]:
    count = len(utterances)
    mel_BFT = log_mel([u.samples for u in utterances], model.info.num_mels, model.info.device)
    encoded = [
        replace(one, audio_frames=len(u.samples) * one.total_frames // WINDOW_SAMPLES)
        for one, u in zip(model.encode(mel_BFT, [profile] * count), utterances, strict=True)
    ]
    options = DecodeOptions("en", word_times=True)
    said = decode_together(model.new_decode_batch(), encoded, options)
    texts = [
        WindowText(Window(0, 0.0, u.samples), one, tuple(model.split_text(one.tokens)))
        for u, one in zip(utterances, said, strict=True)
    ]
    return [
        [word for s in stitch([text], text.window.duration_s) for word in s.words] for text in texts
    ]


def sounding(clip: Samples) -> tuple[int, int]:
    """First and past-last sample of a clip without the silence at its edges.

    Edges end where the energy of 5 ms first comes within 30 dB of the clip's loudest 5 ms.
    """
    whole = len(clip) // BLOCK * BLOCK
    power = np.square(clip[:whole].reshape(-1, BLOCK)).mean(axis=1)
    if not len(power) or not power.any():
        return 0, len(clip)
    loud = np.flatnonzero(power >= power.max() * 10 ** (QUIET_DB / 10))
    return int(loud[0]) * BLOCK, int(loud[-1] + 1) * BLOCK


def matched(reference: Sequence[str], said: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the words that the cheapest alignment finds said right: (reference, said)."""
    rows, columns = len(reference) + 1, len(said) + 1
    cost = np.add.outer(np.arange(rows), np.arange(columns))
    for i in range(1, rows):
        for j in range(1, columns):
            wrong = int(reference[i - 1] != said[j - 1])
            cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + wrong)
    pairs = []
    i, j = rows - 1, columns - 1
    while i and j:
        same = reference[i - 1] == said[j - 1]
        if cost[i, j] == cost[i - 1, j - 1] + (not same):
            i, j = i - 1, j - 1
            if same:
                pairs.append((i, j))
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
