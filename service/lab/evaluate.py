"""Word error rate of a model under its profiles, by domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from service.audio.mel import log_mel
from service.lab.speech_set import SpeechSet
from service.lab.wer import word_errors, words_of
from service.model.protocol import DecodeBatch, SpeechModel
from service.profiles import Profile
from service.text.guard import is_silent
from service.types import SAMPLE_RATE, WINDOW_SAMPLES, DecodeOptions, Encoded, Hypothesis, Samples


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech of at most 30 s, and what is said in it."""

    samples: Samples
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """Corpus word errors: `errors` over `words` of reference, in `utterances`.

    `invented`: utterances in which nothing is said and the model wrote something.
    """

    errors: int
    words: int
    utterances: int
    invented: int = 0

    @property
    def wer(self) -> float:
        return self.errors / self.words if self.words else float(self.errors > 0)

    def __str__(self) -> str:
        return f"{self.wer:.1%}" if self.words else f"{self.invented} of {self.utterances}"


def score(
    model: SpeechModel, utterances: Sequence[Utterance], profile: Profile, *, batch: int = 16
) -> Score:
    """Transcribes every utterance as one window, greedily, and counts the errors."""
    errors = words = invented = 0
    texts = transcribe(model, [u.samples for u in utterances], profile, batch=batch)
    for utterance, text in zip(utterances, texts, strict=True):
        reference, said = words_of(utterance.text), words_of(text)
        errors += word_errors(reference, said)
        words += len(reference)
        invented += bool(said and not reference)
    return Score(errors, words, len(utterances), invented)


def transcribe(
    model: SpeechModel, windows: Sequence[Samples], profile: Profile, *, batch: int = 16
) -> Iterator[str]:
    """The text of each window, decoded `batch` at a time; "" where the model hears no speech."""
    options = DecodeOptions(language="en")
    for first in tqdm(range(0, len(windows), batch), desc=profile.name, leave=False):
        some = windows[first : first + batch]
        mel_BFT = log_mel(some, model.info.num_mels)
        encoded = model.encode(mel_BFT, [profile] * len(some))
        for hypothesis in decode_together(model.new_decode_batch(), encoded, options):
            silent = is_silent(hypothesis)
            pieces = [] if silent else model.split_text(hypothesis.tokens)
            yield "".join(piece.text for piece in pieces).strip()


def decode_together(
    batch: DecodeBatch, encoded: Sequence[Encoded], options: DecodeOptions
) -> list[Hypothesis]:
    """What an empty batch makes of these windows, in their order."""
    batch.join(range(len(encoded)), encoded, [options] * len(encoded))
    done: dict[int, Hypothesis] = {}
    while len(batch):
        done |= batch.step()
    return [done[key] for key in range(len(encoded))]


def connected_digits(speech: SpeechSet, count: int, seed: int = 0) -> list[Utterance]:
    """Strings of 3 to 10 digits of one speaker from recordings of single ones.

    Pauses between digits are drawn from 0 to 0.3 s; the clips themselves are not touched.
    """
    rng = np.random.default_rng(seed)
    lead = np.zeros(SAMPLE_RATE // 4, np.float32)
    utterances = []
    for _ in range(count):
        chosen = rng.integers(len(speech), size=rng.integers(3, 11))
        pieces = [lead]
        for index in chosen:
            pause = np.zeros(int(rng.uniform(0, 0.3) * SAMPLE_RATE), np.float32)
            pieces += [speech.get(int(index)), pause]
        text = " ".join(speech.texts[int(i)] for i in chosen)
        utterances.append(Utterance(np.concatenate([*pieces, lead]), text))
    return utterances


def with_pauses(strings: Sequence[Utterance], seed: int = 0) -> list[Utterance]:
    """The strings two to four together as they fit into a window, 0.6 to 1.5 s between them.

    Every string is used once.
    """
    rng = np.random.default_rng(seed)
    utterances = []
    left = list(strings)
    while left:
        one, most = left.pop(0), int(rng.integers(2, 5))
        pieces, texts, length = [one.samples], [one.text], len(one.samples)
        while left and len(texts) < most:
            pause = np.zeros(int(rng.uniform(0.6, 1.5) * SAMPLE_RATE), np.float32)
            length += len(pause) + len(left[0].samples)
            if length > WINDOW_SAMPLES:
                break
            one = left.pop(0)
            pieces += [pause, one.samples]
            texts.append(one.text)
        utterances.append(Utterance(np.concatenate(pieces), " ".join(texts)))
    return utterances


def whole(speech: SpeechSet) -> list[Utterance]:
    """Every recording of a set as it is."""
    return [Utterance(speech.get(i), text) for i, text in enumerate(speech.texts)]


def in_windows(speech: SpeechSet) -> list[Utterance]:
    """Every recording of a set cut every 30 s, with nothing said in it."""
    utterances = []
    for i in range(len(speech)):
        samples = speech.get(i)
        for start in range(0, len(samples), WINDOW_SAMPLES):
            utterances.append(Utterance(samples[start : start + WINDOW_SAMPLES], ""))
    return utterances


def grid(layers: Sequence[int], sparsities: Sequence[float], selection: str) -> list[Profile]:
    """A profile for every layer and sparsity."""
    return [
        Profile(f"{selection}-{layer}-{sparsity:g}", layer, sparsity, selection=selection)
        for layer in layers
        for sparsity in sparsities
    ]
