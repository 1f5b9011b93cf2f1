"""Training windows, made on the fly: batch n of a recipe is the same however often it is asked for.

A window holds utterances by one or several voices with pauses between them, padded with silence
and perturbed; or noise alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from service.audio.mel import compress, mel_power
from service.lab import augment
from service.lab.curriculum import Curriculum, Mix, has_sentences, mix_at
from service.lab.sources import Phrase, Source, Utterance
from service.lab.speech_set import SpeechSet
from service.lab.targets import TargetTokens, to_characters
from service.profiles import BUILT_IN, Profile
from service.types import SAMPLE_RATE, WINDOW_SAMPLES, Samples

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Packed rows: how long at most, how many utterances are tried, and how fast people speak.
PACKED_S, PACKED_TRIES, WORDS_PER_S = 9.0, 6, 3.2
LEAST_GAP_S, SHORTEST_S = 0.06, 0.6


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """mel_BFT; decoder inputs and targets (B, N); CTC targets, flat, with lengths (B,).

    `spans_BN2`: where the word is that a target names, in seconds, or -1 where it names none.
    `profile`: how the encoder is to winnow it.
    """

    mel_BFT: Tensor
    inputs_BN: Tensor
    targets_BN: Tensor
    spans_BN2: Tensor
    characters: Tensor
    character_lengths_B: Tensor
    seconds: float
    profile: Profile = BUILT_IN["dense"]

    def to(self, device: str) -> TrainingBatch:
        """The same on a device; the CTC loss wants its lengths where they are."""
        if device == "cpu":
            return self
        return replace(
            self,
            mel_BFT=self.mel_BFT.to(device),
            inputs_BN=self.inputs_BN.to(device),
            targets_BN=self.targets_BN.to(device),
            spans_BN2=self.spans_BN2.to(device),
            characters=self.characters.to(device),
        )


class Recipe(Dataset[TrainingBatch]):
    """Batch `step` of a run, of about `seconds` of audio, from sources by their shares.

    Raises ValueError where the curriculum asks for sentences and there are none.
    """

    def __init__(
        self,
        digits: Source,
        sentences: Source | None,
        noises: SpeechSet,
        tokenizer: Tokenizer,
        curriculum: Curriculum,
        *,
        num_steps: int,
        seconds: float,
        seed: int,
    ) -> None:
        if sentences is None and has_sentences(curriculum):
            raise ValueError("the curriculum asks for sentences, and there is no source of them")
        self.digits, self.sentences = digits, sentences
        self.noises, self.curriculum = noises, curriculum
        self.num_steps, self.seconds, self.seed = num_steps, seconds, seed
        self.tokens = TargetTokens(tokenizer)

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> TrainingBatch:
        rng = np.random.default_rng([self.seed, step])
        mix = mix_at(self.curriculum, step)
        draw = rng.random()
        if draw < mix.long_share:
            examples = [self._long(rng, mix) for _ in range(max(1, round(self.seconds / 30)))]
            batch = self._batch(examples, WINDOW_SAMPLES, rng, mix)
            return replace(batch, profile=mix.profile_of_window(rng))
        if draw < mix.long_share + mix.packed_share:
            seconds = float(rng.uniform(4, PACKED_S))
            count = max(1, round(self.seconds / seconds))
            rows = [self._packed(rng, seconds, mix) for _ in range(count)]
            length = max(len(row.samples) for row in rows)
            profile = Profile("training", sparsity=mix.dropped, selection="stride")
            return replace(self._batch(rows, length, rng, mix), profile=profile)
        # Utterances of about the same number of words are about as long, and little is padding.
        most = int(rng.integers(1, mix.most_words + 1))
        least = max(1, most - 2 - most // 8)
        examples, longest = [], 0
        enough = self.seconds * mix.batch_share * SAMPLE_RATE
        while len(examples) * longest < enough:
            examples.append(self._short(rng, least, most, mix))
            longest = max(longest, len(examples[-1].samples))
        return self._batch(examples, longest, rng, mix)

    def _short(self, rng: np.random.Generator, least: int, most: int, mix: Mix) -> Utterance:
        if rng.random() < 0.06:
            return Utterance(self._background(rng, int(rng.uniform(1, 4) * SAMPLE_RATE)), ())
        if rng.random() < 0.4:
            said = self._several(rng, least, most, mix)
        else:
            said = self._draw(rng, least, most, mix.digit_share)
        lead, tail = (rng.uniform(0, 0.8, 2) * SAMPLE_RATE).astype(int)
        placed = np.pad(said.samples, (lead, tail))[:WINDOW_SAMPLES]
        phrases = tuple(phrase.shifted(lead / SAMPLE_RATE) for phrase in said.phrases)
        return Utterance(self._perturb(placed, rng, mix.perturbed), phrases)

    def _packed(self, rng: np.random.Generator, seconds: float, mix: Mix) -> Utterance:
        """Utterances with hardly a pause between, by different voices, until none fits."""
        digit_share = mix.digit_share_of_one(rng)
        said: list[Utterance] = []
        left = seconds
        for _ in range(PACKED_TRIES):
            most = min(max(1, int(left * WORDS_PER_S)), mix.most_words)
            one = self._draw(rng, (most + 1) // 2, most, digit_share)
            if len(one.samples) <= left * SAMPLE_RATE:
                said.append(one)
                left -= len(one.samples) / SAMPLE_RATE + LEAST_GAP_S
            if left < SHORTEST_S:
                break
        if not said:
            return Utterance(self._background(rng, int(seconds * SAMPLE_RATE)), ())
        gaps = rng.dirichlet(np.ones(len(said) + 1))[:-1] * left + LEAST_GAP_S
        placed = _one_after_another(said, gaps, int(seconds * SAMPLE_RATE))
        return Utterance(self._perturb(placed.samples, rng, mix.perturbed), placed.phrases)

    def _several(self, rng: np.random.Generator, least: int, most: int, mix: Mix) -> Utterance:
        """As many words in two to four utterances: after a pause a text goes on."""
        count = int(rng.integers(2, 5))
        each = max(1, most // count)
        digit_share = mix.digit_share_of_one(rng)
        said = [self._draw(rng, max(1, least // count), each, digit_share) for _ in range(count)]
        return _one_after_another(said, rng.uniform(0.3, 2.5, count), WINDOW_SAMPLES)

    def _long(self, rng: np.random.Generator, mix: Mix) -> Utterance:
        if rng.random() < 0.1:
            return Utterance(self._background(rng, WINDOW_SAMPLES), ())
        # Most windows that a service sees hold one utterance and a lot of padding.
        count = 1 if rng.random() < mix.lone_share else int(rng.integers(2, 8))
        digit_share = mix.digit_share_of_one(rng)
        said = [self._draw(rng, 1, mix.most_words, digit_share) for _ in range(count)]
        pauses = np.array([rng.uniform(0, 1), *rng.uniform(0.6, 3, count - 1)])
        placed = _one_after_another(said, pauses, WINDOW_SAMPLES)
        spoken = self._perturb(placed.samples, rng, mix.perturbed)
        return Utterance(np.pad(spoken, (0, WINDOW_SAMPLES - len(spoken))), placed.phrases)

    def _draw(
        self, rng: np.random.Generator, least: int, most: int, digit_share: float
    ) -> Utterance:
        source = self.digits if rng.random() < digit_share else self.sentences
        assert source is not None  # a curriculum with sentences has a source of them
        return source.draw(rng, least, most)

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
            clip = int(rng.integers(len(self.noises)))
            start = int(rng.integers(max(1, self.noises.lengths[clip] - length)))
            background = np.resize(self.noises.get(clip)[start : start + length], length)
        rms = np.sqrt(np.mean(background**2)) + 1e-9
        return background * np.float32(10 ** (rng.uniform(-95, -15) / 20) / rms)

    def _batch(
        self,
        examples: list[Utterance],
        length: int,
        rng: np.random.Generator,
        mix: Mix,
    ) -> TrainingBatch:
        length += -length % 320
        sound = np.stack([np.pad(e.samples, (0, length - len(e.samples))) for e in examples])
        mel_BFT = log_mel_of(torch.from_numpy(sound)).numpy()
        for row in range(len(mel_BFT)):
            if rng.random() < 0.5 * mix.perturbed:
                mel_BFT[row] = augment.warp_mel(mel_BFT[row], rng.uniform(0.9, 1.12))
            if rng.random() < mix.masked:
                mel_BFT[row] = augment.mask(mel_BFT[row], rng)
        said = ((word for phrase in e.phrases for word in phrase.words) for e in examples)
        characters = [to_characters(" ".join(words)) for words in said]
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


def _one_after_another(
    said: Sequence[Utterance], pauses_s: npt.NDArray[np.float64], most: int
) -> Utterance:
    """The utterances with a pause before each, as many as fit into `most` samples."""
    pieces: list[Samples] = []
    phrases: list[Phrase] = []
    end = 0
    for one, pause_s in zip(said, pauses_s, strict=True):
        begin = end + int(pause_s * SAMPLE_RATE)
        if pieces and begin + len(one.samples) > most:
            break
        pieces += [np.zeros(begin - end, np.float32), one.samples]
        phrases += [phrase.shifted(begin / SAMPLE_RATE) for phrase in one.phrases]
        end = begin + len(one.samples)
    return Utterance(np.concatenate(pieces)[:most], tuple(phrases))


def log_mel_of(samples_BN: Tensor, num_mels: int = 80) -> Tensor:
    """Whisper's log-mel (B, F, N // 160) of windows of any one length.

    Where the service pads a window with silence to 30 s, this one ends as it is, mirrored by the
    transform: training on padding would cost the time that it spends on speech.
    """
    return compress(mel_power(samples_BN, num_mels))
