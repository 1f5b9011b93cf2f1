"""Training windows, made on the fly: batch n of a recipe is the same however often it is asked for.

A window holds strings of digits by one or several voices with pauses between them, padded with
silence and perturbed; or noise alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.audio_utils import mel_filter_bank

from service.lab import augment
from service.lab.synthesis import SpeechSet
from service.lab.vocabulary import token_id
from service.types import SAMPLE_RATE, WINDOW_SAMPLES, Samples

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Span = tuple[float, float]
CHARACTERS = "abcdefghijklmnopqrstuvwxyz' "
IGNORE = -100
FRAME_S = 0.02
NOWHERE = (-1.0, -1.0)


@dataclass(frozen=True, slots=True)
class Speech:
    """Where training windows take their sound from."""

    digits: SpeechSet
    synthetic: SpeechSet
    noises: SpeechSet


@dataclass(frozen=True, slots=True)
class Example:
    """One window: its sound, its words, and where in it each of them is, in seconds."""

    samples: Samples
    words: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """mel_BFT; decoder inputs and targets (B, N); CTC targets, flat, with lengths (B,).

    `spans_BN2`: where the word is that a target names, in seconds, or -1 where it names none.
    """

    mel_BFT: Tensor
    inputs_BN: Tensor
    targets_BN: Tensor
    spans_BN2: Tensor
    characters: Tensor
    character_lengths_B: Tensor
    seconds: float


@dataclass(frozen=True, slots=True)
class Mix:
    """What a batch is drawn from, by how far training has come."""

    long_share: float
    most_digits: int
    perturbed: float
    batch_share: float = 1.0


def mix_at(step: int) -> Mix:
    """Short, little perturbed strings until attention aligns; then everything, and 30 s windows."""
    if step < 1200:
        return Mix(0.0, most_digits=3, perturbed=0.3, batch_share=0.5)
    if step < 2250:
        return Mix(0.03, most_digits=10, perturbed=0.7)
    if step < 4000:
        return Mix(0.2, most_digits=10, perturbed=0.9)
    return Mix(0.45, most_digits=10, perturbed=0.8)


class Recipe(Dataset[TrainingBatch]):
    """Batch `step` of a run, of about `seconds` of audio.

    `spans`: where the words of every synthetic string are. Until that is known, strings are put
    together from single digits.
    """

    def __init__(
        self,
        speech: Speech,
        tokenizer: Tokenizer,
        *,
        num_steps: int,
        seconds: float,
        seed: int,
        spans: list[list[Span]] | None = None,
    ) -> None:
        self.speech, self.num_steps, self.seconds, self.seed = speech, num_steps, seconds, seed
        self.spans = spans
        self.tokens = TargetTokens(tokenizer)
        self.by_voice = _isolated_by_voice(speech.digits)
        self.synthetic_by_voice = _isolated_by_voice(speech.synthetic)
        sizes = np.array([len(text.split()) for text in speech.synthetic.texts])
        by_size = np.argsort(sizes, kind="stable")
        self.connected = by_size[sizes[by_size] > 1]
        self.connected_sizes = sizes[self.connected]

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> TrainingBatch:
        rng = np.random.default_rng([self.seed, step])
        mix = mix_at(step)
        draw = rng.random()
        if draw < mix.long_share:
            examples = [self._long(rng, mix) for _ in range(max(1, round(self.seconds / 30)))]
            return self._batch(examples, WINDOW_SAMPLES, rng, mix.perturbed)
        most = int(rng.integers(1, mix.most_digits + 1))
        examples, longest = [], 0
        enough = self.seconds * mix.batch_share * SAMPLE_RATE
        while len(examples) * longest < enough:
            examples.append(self._short(rng, max(1, most - 2), most, mix.perturbed))
            longest = max(longest, len(examples[-1].samples))
        return self._batch(examples, longest, rng, mix.perturbed)

    def _short(self, rng: np.random.Generator, least: int, most: int, perturbed: float) -> Example:
        if rng.random() < 0.06:
            return Example(self._background(rng, int(rng.uniform(1, 4) * SAMPLE_RATE)))
        samples, words, spans = self._string(rng, least, most)
        lead, tail = (rng.uniform(0, 0.8, 2) * SAMPLE_RATE).astype(int)
        placed = np.pad(samples, (lead, tail))
        return Example(
            self._perturb(placed, rng, perturbed), words, _shifted(spans, lead / SAMPLE_RATE)
        )

    def _long(self, rng: np.random.Generator, mix: Mix) -> Example:
        window = np.zeros(WINDOW_SAMPLES, np.float32)
        if rng.random() < 0.1:
            return Example(self._background(rng, WINDOW_SAMPLES))
        end = int(rng.uniform(0, 1) * SAMPLE_RATE)
        words: list[str] = []
        spans: list[Span] = []
        # Most windows that a service sees hold one utterance and a lot of padding.
        for _ in range(1 if rng.random() < 0.5 else int(rng.integers(2, 8))):
            samples, said, at = self._string(rng, 1, mix.most_digits)
            if end + len(samples) > WINDOW_SAMPLES:
                break
            window[end : end + len(samples)] = samples
            words += said
            spans += _shifted(at, end / SAMPLE_RATE)
            end += len(samples) + int(rng.uniform(0.6, 3) * SAMPLE_RATE)
        used = min(end, WINDOW_SAMPLES)
        window[:used] = self._perturb(window[:used], rng, mix.perturbed)
        return Example(window, tuple(words), tuple(spans))

    def _string(
        self, rng: np.random.Generator, least: int, most: int
    ) -> tuple[Samples, tuple[str, ...], tuple[Span, ...]]:
        """A string of digits by one voice: real, or synthetic in one breath or digit by digit."""
        draw = rng.random()
        if draw < 0.35 and most > 1 and self.spans is not None:
            fitting = self.connected[: int(np.searchsorted(self.connected_sizes, most, "right"))]
            index = int(rng.choice(fitting))
            factor = rng.uniform(0.85, 1.18)
            samples = augment.change_speed(self.speech.synthetic.get(index), factor)
            at = tuple((a / factor, b / factor) for a, b in self.spans[index])
            return samples, tuple(self.speech.synthetic.texts[index].split()), at
        real = draw < 0.72
        source = self.speech.digits if real else self.speech.synthetic
        voices = self.by_voice if real else self.synthetic_by_voice
        clips = voices[int(rng.integers(len(voices)))]
        chosen = rng.choice(clips, int(rng.integers(least, most + 1)))
        pause_s = rng.choice([0.03, 0.1, 0.25])
        speed = rng.uniform(0.8, 1.24) if real else rng.uniform(0.85, 1.18)
        pieces: list[Samples] = []
        for index in chosen:
            clip = source.get(int(index)) * np.float32(10 ** (rng.uniform(-3, 3) / 20))
            factor = speed * rng.uniform(0.96, 1.04)
            gap = min(rng.exponential(pause_s), 0.8)
            pieces += [augment.change_speed(clip, factor), _silence(gap)]
        words = tuple(source.texts[int(i)] for i in chosen)
        ends = np.cumsum([len(piece) for piece in pieces]) / SAMPLE_RATE
        starts = [0.0, *ends[1::2]]
        spans = tuple((float(a), float(b)) for a, b in zip(starts, ends[::2], strict=False))
        return np.concatenate(pieces[:-1]), words, spans

    def _perturb(self, samples: Samples, rng: np.random.Generator, share: float) -> Samples:
        if rng.random() < 0.4 * share:
            samples = augment.telephone(samples)
        if rng.random() < 0.7 * share:
            samples = augment.colour(samples, rng, reverberant=rng.random() < 0.4)
        if rng.random() < 0.7 * share:
            background = self._background(rng, len(samples))
            samples = augment.add_noise(samples, background, rng.uniform(5, 45))
        peak = np.abs(samples).max() + 1e-6
        return samples * np.float32(10 ** (rng.uniform(-26, -0.5) / 20) / peak)

    def _background(self, rng: np.random.Generator, length: int) -> Samples:
        """Noise alone, at a random level, or digital silence."""
        draw = rng.random()
        if draw < 0.08:
            return np.zeros(length, np.float32)
        if draw < 0.5:
            background = augment.noise(length, rng)
        else:
            clip = int(rng.integers(len(self.speech.noises)))
            start = int(rng.integers(max(1, self.speech.noises.lengths[clip] - length)))
            background = np.resize(self.speech.noises.get(clip)[start : start + length], length)
        rms = np.sqrt(np.mean(background**2)) + 1e-9
        return background * np.float32(10 ** (rng.uniform(-95, -15) / 20) / rms)

    def _batch(
        self,
        examples: list[Example],
        length: int,
        rng: np.random.Generator,
        perturbed: float,
    ) -> TrainingBatch:
        length += -length % 320
        sound = np.stack([np.pad(e.samples, (0, length - len(e.samples))) for e in examples])
        mel_BFT = log_mel_of(torch.from_numpy(sound)).numpy()
        for row in range(len(mel_BFT)):
            if rng.random() < 0.5 * perturbed:
                mel_BFT[row] = augment.warp_mel(mel_BFT[row], rng.uniform(0.9, 1.12))
        characters = [to_characters(" ".join(e.words)) for e in examples]
        inputs, targets, spans = self.tokens.pad([self.tokens.of(e, rng) for e in examples])
        return TrainingBatch(
            torch.from_numpy(mel_BFT),
            inputs,
            targets,
            spans,
            torch.tensor([c for row in characters for c in row], dtype=torch.long),
            torch.tensor([len(row) for row in characters]),
            sound.size / SAMPLE_RATE,
        )


class TargetTokens:
    """Whisper's decoder sequences: task tokens, then text with or without timestamps."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.language, self.task = token_id(tokenizer, "en"), token_id(tokenizer, "transcribe")
        self.start, self.end = (
            token_id(tokenizer, "startoftranscript"),
            token_id(tokenizer, "endoftext"),
        )
        self.no_speech, self.plain = (
            token_id(tokenizer, "nospeech"),
            token_id(tokenizer, "notimestamps"),
        )
        self.zero = token_id(tokenizer, "0.00")

    def of(
        self, example: Example, rng: np.random.Generator
    ) -> tuple[list[int], list[int], list[Span]]:
        """Inputs, targets, and the words' spans in the places of their targets.

        With timestamps every word is a segment: its time tells the decoder where it is, and no
        string is long enough to get lost in. A window without speech is `nospeech` at the first
        position.
        """
        timed = rng.random() < 0.75
        sequence = [self.start, self.language, self.task]
        if not timed:
            sequence.append(self.plain)
        elif not example.words:
            sequence.append(self.zero)
        spans: list[Span] = [NOWHERE] * (len(sequence) - 1)
        for word, span in zip(example.words, example.spans, strict=True):
            tokens = self.tokenizer.encode(" " + word).ids
            begin, end = ([self.zero + round(at * 50)] if timed else [] for at in span)
            sequence += [*begin, *tokens, *end]
            spans += [NOWHERE] * len(begin) + [span] * len(tokens) + [NOWHERE] * len(end)
        targets = [*sequence[1:], self.end]
        if not example.words:
            targets[0] = self.no_speech
        return sequence, targets, [*spans, NOWHERE]

    def pad(
        self, rows: list[tuple[list[int], list[int], list[Span]]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        longest = max(len(inputs) for inputs, _, _ in rows)
        inputs = [row + [self.end] * (longest - len(row)) for row, _, _ in rows]
        targets = [row + [IGNORE] * (longest - len(row)) for _, row, _ in rows]
        spans = [row + [NOWHERE] * (longest - len(row)) for _, _, row in rows]
        return torch.tensor(inputs), torch.tensor(targets), torch.tensor(spans, dtype=torch.float32)


def to_characters(text: str) -> list[int]:
    """CTC labels of a text: 1-based positions in CHARACTERS; 0 is the blank."""
    return [CHARACTERS.index(c) + 1 for c in text.lower() if c in CHARACTERS]


def log_mel_of(samples_BN: Tensor, num_mels: int = 80) -> Tensor:
    """Whisper's log-mel (B, F, N // 160) of windows of any one length."""
    window = torch.hann_window(400)
    power = torch.stft(samples_BN, 400, 160, window=window, return_complex=True).abs() ** 2
    log = torch.clamp(_filters(num_mels) @ power[..., :-1], min=1e-10).log10()
    floor = log.amax(dim=(1, 2), keepdim=True) - 8
    return (torch.maximum(log, floor) + 4) / 4


@lru_cache
def _filters(num_mels: int) -> Tensor:
    bank = mel_filter_bank(
        201, num_mels, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(bank.T).float()


def _silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def _shifted(spans: Iterable[Span], by_s: float) -> tuple[Span, ...]:
    return tuple((start + by_s, end + by_s) for start, end in spans)


def _isolated_by_voice(speech: SpeechSet) -> list[list[int]]:
    voices: dict[str, list[int]] = defaultdict(list)
    for index, (voice, text) in enumerate(zip(speech.voices, speech.texts, strict=True)):
        if " " not in text:
            voices[voice].append(index)
    return list(voices.values())
