"""A model without weights: deterministic and instant, for the whole path of the service.

It names, for every second of a window, the loudest mel band. So different sounds give different
words, the same sound the same words in any batch, silence none, and times that can be checked.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from service.model import pieces
from service.model.explain import sizes_of
from service.model.protocol import ModelInfo
from service.model.sparsify import even_positions, num_kept
from service.profiles import Profile, check_plain
from service.types import WINDOW_S, DecodeOptions, Encoded, Hypothesis, Kept, Piece, Word

NUM_FRAMES = 1500
FRAME_S = WINDOW_S / NUM_FRAMES
FRAMES_PER_WORD = 50
# Words differ in the band they name, and translation in its capitals.
VOWELS = ("a", "e", "i", "o", "u", "ai", "ei", "ou")
WORDS = tuple(f" {consonant}{vowel}" for consonant in "bdfghjklmnprstvz" for vowel in VOWELS)
FIRST_TRANSLATED = len(WORDS)
FIRST_TIME = 2 * len(WORDS)
MAX_PROMPT_TOKENS = 223  # as Whisper's
SILENCE = -1.0
LOGPROB = -0.1  # of every token
# A second counts as silent when its loudest band rises by less than this over the window's floor,
# on Whisper's log-mel scale, where a window spans 2. About 50 ms of a loud sound pass it.
SILENCE_RISE = 0.08

LANGUAGES = {"en": "english", "de": "german", "fr": "french"}
LANGUAGE_PROBS = (("en", 0.5), ("fr", 0.375), ("de", 0.125))  # whatever it hears

Predicate = Callable[[torch.Tensor], bool]


class FakeModel:
    """Answers `SpeechModel` from the mel alone.

    `fail_encode_when` and `fail_step_when` are asked about each window's mel (num_mels, 3000):
    where they say yes, `encode`, or every `step` that includes the window, raises RuntimeError.
    A predicate may also block, to hold the device. Each step lasts `step_seconds`.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        num_mels: int = 80,
        num_encoder_layers: int = 4,
        fail_encode_when: Predicate | None = None,
        fail_step_when: Predicate | None = None,
        step_seconds: float = 0.0,
    ) -> None:
        if not 0 < num_mels <= len(WORDS):
            raise ValueError(f"num_mels must be 1 to {len(WORDS)}")
        self._info = ModelInfo(
            name=name,
            num_mels=num_mels,
            num_frames=NUM_FRAMES,
            num_encoder_layers=num_encoder_layers,
            num_parameters=0,
            device="cpu",
            dtype="float32",
            weight_dtype="float32",
            languages=dict(LANGUAGES),
            multilingual=True,
            vocab_size=FIRST_TIME + NUM_FRAMES + 1,
            max_prompt_tokens=MAX_PROMPT_TOKENS,
        )
        self._fail_encode_when = fail_encode_when
        self._fail_step_when = fail_step_when
        self._step_seconds = step_seconds

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prepare(self, profiles: Iterable[Profile], adapters: Collection[str] = ()) -> None:
        """It has no weights, and so no others. Raises ConfigError for a profile that needs some."""
        check_plain(profiles, "the fake model has no weights")

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        """Each window's word ids as (kept, 1) states, the frames kept at even distances.

        `mel_BFT`: (B, num_mels, 3000), one profile for each window. Raises ValueError for any
        other shape, RuntimeError where `fail_encode_when` says so.
        """
        expected = (len(profiles), self._info.num_mels, 2 * NUM_FRAMES)
        if mel_BFT.shape != expected:
            raise ValueError(f"mel must be {expected}, not {tuple(mel_BFT.shape)}")
        sounding: Sequence[int | None] = audio_frames or [None] * len(profiles)
        return [self._encode_one(*each) for each in zip(mel_BFT, profiles, sounding, strict=True)]

    def _encode_one(
        self, mel_FT: torch.Tensor, profile: Profile, audio_frames: int | None
    ) -> Encoded:
        if self._fail_encode_when and self._fail_encode_when(mel_FT):
            raise RuntimeError("the fake model was told to fail in encode")
        loudness = mel_FT.float().reshape(len(mel_FT), -1, 2 * FRAMES_PER_WORD).mean(dim=2)
        peak, word = loudness.max(dim=0)
        silent = peak - mel_FT.min() < SILENCE_RISE
        states_T = word.float().masked_fill(silent, SILENCE).repeat_interleave(FRAMES_PER_WORD)
        if self._fail_step_when and self._fail_step_when(mel_FT):
            states_T = torch.full_like(states_T, math.nan)
        kept = num_kept(num_kept(NUM_FRAMES, profile.sparsity), profile.late)
        positions_T = even_positions(NUM_FRAMES, kept)
        states_TD = states_T[positions_T].unsqueeze(1)
        return Encoded(states_TD, positions_T, NUM_FRAMES, audio_frames, pooled=profile.pools)

    def explain(self, mel_1FT: torch.Tensor, profile: Profile, encoded: Encoded) -> Kept:
        """What it kept, and the frames' loudness as their importance."""
        loudness_T = mel_1FT[0].float().reshape(len(mel_1FT[0]), NUM_FRAMES, -1).mean(dim=(0, 2))
        return Kept(
            positions=encoded.positions_T.numpy(),
            sizes=sizes_of(encoded).numpy(),
            importance=loudness_T.softmax(dim=0).numpy(),
            layer=profile.layer,
            aggregation=profile.aggregation,
            chosen_by_it=False,
        )

    def new_decode_batch(self) -> FakeDecodeBatch:
        """An empty decode batch."""
        return FakeDecodeBatch(self._step_seconds)

    def find_words(
        self, encoded: Encoded, hypothesis: Hypothesis, options: DecodeOptions
    ) -> tuple[Word, ...]:
        """A word lasts the second that it names."""
        return tuple(
            Word(float(second), second + 1.0, _word(word), 0.9)
            for first, words in _runs(encoded, options)
            for second, word in enumerate(words, start=first)
        )

    def split_text(self, tokens: Sequence[int]) -> list[Piece]:
        """The timestamped pieces of a hypothesis; raises ValueError for an unknown id."""
        return pieces.split(tokens, _time_of, _word)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 of a word; b"" for a time."""
        return _word(token).encode() if 0 <= token < FIRST_TIME else b""

    def encode_text(self, text: str) -> tuple[int, ...]:
        """The words of a text that the model could say itself; others are left out."""
        return _tokens_of(text)


def _tokens_of(text: str) -> tuple[int, ...]:
    spoken = {word: token for token, word in enumerate(WORDS)}
    spoken |= {word.upper(): FIRST_TRANSLATED + token for word, token in spoken.items()}
    words = text.replace(",", " ").split()
    return tuple(spoken[f" {word}"] for word in words if f" {word}" in spoken)


def _time_of(token: int) -> float | None:
    if not 0 <= token <= FIRST_TIME + NUM_FRAMES:
        raise ValueError(f"token {token} is not in the fake vocabulary")
    return (token - FIRST_TIME) * FRAME_S if token >= FIRST_TIME else None


def _word(token: int) -> str:
    return WORDS[token] if token < FIRST_TRANSLATED else WORDS[token - FIRST_TRANSLATED].upper()


@dataclass(slots=True)
class _Window:
    encoded: Encoded
    options: DecodeOptions
    script: tuple[int, ...]
    spoken: int = 0

    @property
    def _is_told(self) -> bool:
        return self.options.language is not None and not self.options.language_only

    @property
    def _heard(self) -> tuple[tuple[str, float], ...]:
        among = self.options.languages or tuple(LANGUAGES)
        known = [(code, share) for code, share in LANGUAGE_PROBS if code in among]
        shares = known or [(code, 1.0) for code in among]
        total = sum(share for _, share in shares)
        return tuple((code, share / total) for code, share in shares)

    def hypothesis(self) -> Hypothesis:
        told = self._is_told
        return Hypothesis(
            tokens=self.script,
            avg_logprob=LOGPROB,
            no_speech_prob=0.05 if self.script or self.options.language_only else 0.95,
            temperature=self.options.temperature,
            language=self.options.language if told and self.options.language else self._heard[0][0],
            language_probs=() if told else self._heard,
            ended=True,
            kept_frames=len(self.encoded.positions_T),
            total_frames=self.encoded.total_frames,
            token_logprobs=(LOGPROB,) * len(self.script),
        )


class FakeDecodeBatch:
    """Speaks one token of each window per step, and its end in a step of its own."""

    def __init__(self, step_seconds: float = 0.0) -> None:
        self._step_seconds = step_seconds
        self._windows: dict[int, _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        """Adds windows; raises ValueError for a key that is already here."""
        for key, window, wish in zip(keys, encoded, options, strict=True):
            if key in self._windows:
                raise ValueError(f"key {key} is already in the batch")
            script = () if wish.language_only else wish.prefix + _script(window, wish)
            self._windows[key] = _Window(window, wish, script)

    def step(self) -> dict[int, Hypothesis]:
        """One token of every window; raises RuntimeError where `fail_step_when` said so."""
        if self._step_seconds:
            time.sleep(self._step_seconds)
        if any(bool(w.encoded.states_TD.isnan().any()) for w in self._windows.values()):
            raise RuntimeError("the fake model was told to fail in step")
        done = [key for key, w in self._windows.items() if w.spoken == len(w.script)]
        for window in self._windows.values():
            window.spoken += 1
        return {key: self._windows.pop(key).hypothesis() for key in done}

    def drop(self, keys: Collection[int]) -> None:
        """Forgets windows; a key that is not here is ignored."""
        for key in keys:
            self._windows.pop(key, None)


class _Run(NamedTuple):
    """Seconds of sound in a row: the first one's index, and their words."""

    first: int
    words: list[int]


def _script(encoded: Encoded, options: DecodeOptions) -> tuple[int, ...]:
    """The tokens of a window: each run of sound between its timestamps, if they are wanted."""
    runs = _runs(encoded, options)
    if not options.timestamps:
        return tuple(word for run in runs for word in run.words)
    return tuple(
        token
        for first, words in runs
        for token in (_time(first), *words, _time(first + len(words)))
    )


def _runs(encoded: Encoded, options: DecodeOptions) -> list[_Run]:
    heard = {
        int(position) // FRAMES_PER_WORD: state
        for position, state in zip(
            encoded.positions_T.tolist(), encoded.states_TD[:, 0].tolist(), strict=True
        )
    }
    first_id = FIRST_TRANSLATED if options.task == "translate" else 0
    runs: list[_Run] = []
    for second, state in heard.items():
        if state == SILENCE or math.isnan(state):
            continue
        if not runs or runs[-1].first + len(runs[-1].words) != second:
            runs.append(_Run(second, []))
        runs[-1].words.append(first_id + int(state))
    return runs


def _time(second: int) -> int:
    return FIRST_TIME + second * FRAMES_PER_WORD
