"""A loaded CTC model as the engine sees it: encode windows, and hear what their frames say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from service.decode import ctc
from service.decode.ctc import Heard
from service.languages import english_name
from service.model.ctc import encoder
from service.model.ctc.places import Places
from service.model.ctc.vocabulary import CtcVocabulary
from service.model.ctc.weights import CtcWeights
from service.model.explain import PUBLISHED_LAYER, sizes_of
from service.model.protocol import ModelInfo, WindowsFailedError, dtype_name
from service.model.weights import held_bytes
from service.profiles import Profile, check_plain
from service.transfer import picked
from service.types import WINDOW_SAMPLES, DecodeOptions, Encoded, Hypothesis, Kept, Piece, Word


@dataclass(frozen=True, slots=True, eq=False)
class CtcCheckpoint:
    """A loaded model. `name` is what answers carry, `language` the code of what it hears;
    `normalises`: windows of samples, before anything reads them. `origin` (an address) is "" where
    it is not known."""

    name: str
    weights: CtcWeights
    vocabulary: CtcVocabulary
    language: str
    normalises: bool
    device: torch.device
    dtype: torch.dtype
    weight_dtype: str
    num_parameters: int
    origin: str = ""


class CtcModel:
    """`protocol.SpeechModel` over a CTC checkpoint. Holds weights only, no state of any request."""

    def __init__(self, checkpoint: CtcCheckpoint) -> None:
        self.checkpoint = checkpoint
        dims, language = checkpoint.weights.dims, checkpoint.language
        num_frames = dims.num_frames(WINDOW_SAMPLES)
        self.info = ModelInfo(
            name=checkpoint.name,
            num_mels=0,
            num_frames=num_frames,
            num_encoder_layers=dims.layers,
            num_parameters=checkpoint.num_parameters,
            device=str(checkpoint.device),
            dtype=dtype_name(checkpoint.dtype),
            weight_dtype=checkpoint.weight_dtype,
            languages={language: english_name(language)},
            multilingual=False,
            # A time for each frame, and one for the end of the last.
            vocab_size=checkpoint.vocabulary.size + num_frames + 1,
            max_prompt_tokens=0,
            frame_bytes=dims.d_model * checkpoint.dtype.itemsize,
            weight_bytes=held_bytes(checkpoint.weights),
            origin=checkpoint.origin,
            features="waveform",
            frame_by_frame=True,
        )

    def prepare(self, profiles: Iterable[Profile], adapters: Collection[str] = ()) -> None:
        """It has no weights but its own. Raises ConfigError for a profile that needs others."""
        check_plain(profiles, f"{self.info.name} is a CTC model; these are for Whisper's")

    @torch.inference_mode()
    def encode(
        self,
        waves_B1S: Tensor,
        profiles: Sequence[Profile],
        num_samples: Sequence[int] | None = None,
    ) -> list[Encoded]:
        """Encodes windows of samples at 16 kHz, each of its own length: those of one length and
        profile together on a GPU, one after the other on a CPU.

        `num_samples`: how many of each are the recording; None: all. What is behind them is not
        looked at: models with a norm over time were trained without padding.
        """
        lengths = num_samples or [waves_B1S.shape[-1]] * len(profiles)
        groups: dict[tuple[Profile, int, int], list[int]] = defaultdict(list)
        for window, (profile, length) in enumerate(zip(profiles, lengths, strict=True)):
            alone = waves_B1S.is_cpu or profile.pool == "alike"
            groups[_what_it_does(profile), length, window if alone else -1].append(window)
        encoded: dict[int, Encoded] = {}
        for (profile, length, _), windows in groups.items():
            wave_BS = self._read(picked(waves_B1S, windows)[:, 0, :length])
            states_BTD, at = encoder.encode(self.checkpoint.weights, wave_BS, profile)
            for number, window in enumerate(windows):
                # A view would keep the whole batch's states while one of its windows is heard.
                states_TD = states_BTD[number].clone() if len(windows) > 1 else states_BTD[number]
                encoded[window] = _encoded(states_TD, at, number)
        return [encoded[window] for window in range(len(profiles))]

    @torch.inference_mode()
    def explain(self, wave_11S: Tensor, profile: Profile, encoded: Encoded) -> Kept:
        """What became of the frames of a window that was encoded by the profile."""
        profile, weights = _what_it_does(profile), self.checkpoint.weights
        drops = profile.sparsity > 0
        layer = max(1, profile.layer) if drops else min(PUBLISHED_LAYER, weights.dims.layers)
        scores_1T = encoder.importance(
            weights, self._read(wave_11S[:, 0]), layer, profile.aggregation
        )
        return Kept(
            positions=encoded.positions_T.cpu().numpy(),
            sizes=sizes_of(encoded).cpu().numpy(),
            importance=scores_1T[0].float().cpu().numpy(),
            layer=layer,
            aggregation=profile.aggregation,
            chosen_by_it=drops and profile.pool == "drop" and profile.selection == "attention",
            frame_s=self.checkpoint.vocabulary.frame_s,
        )

    def new_decode_batch(self) -> CtcDecodeBatch:
        return CtcDecodeBatch(self.checkpoint)

    @torch.inference_mode()
    def find_words(
        self, encoded: Encoded, hypothesis: Hypothesis, options: DecodeOptions
    ) -> tuple[Word, ...]:
        """Its frames are the alignment: it is read off once more."""
        return ctc.timed_words(hear(self.checkpoint, encoded), self.checkpoint.vocabulary)

    def split_text(self, tokens: Sequence[int]) -> list[Piece]:
        return self.checkpoint.vocabulary.split_text(tokens)

    def token_bytes(self, token: int) -> bytes:
        return self.checkpoint.vocabulary.token_bytes(token)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """(): nothing can be said before, or for, a model whose frames speak for themselves."""
        return ()

    def _read(self, samples_BS: Tensor) -> Tensor:
        """What the stem reads: at least as much as its first frame looks at."""
        wave_BS = samples_BS.to(self.checkpoint.device, torch.float32)
        if self.checkpoint.normalises:
            wave_BS = encoder.normalise(wave_BS)
        short = self.checkpoint.weights.dims.least_samples - wave_BS.shape[1]
        return F.pad(wave_BS, (0, max(0, short))).to(self.checkpoint.dtype)


class CtcDecodeBatch:
    """`protocol.DecodeBatch`: a window that has joined is done at the next step."""

    def __init__(self, checkpoint: CtcCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._waiting: dict[int, tuple[Encoded, DecodeOptions]] = {}
        self._done: dict[int, Hypothesis] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._done)

    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        for key, window, wish in zip(keys, encoded, options, strict=True):
            self._waiting[key] = (window, wish)

    @torch.inference_mode()
    def step(self) -> dict[int, Hypothesis]:
        """Everything that every window says."""
        waiting, self._waiting = self._waiting, {}
        failed = []
        for key, (window, wish) in waiting.items():
            heard = hear(self._checkpoint, window)
            if math.isnan(heard.avg_logprob):
                failed.append(key)
            else:
                self._done[key] = _hypothesis(self._checkpoint, heard, window, wish)
        if failed:
            raise WindowsFailedError(failed)
        done, self._done = self._done, {}
        return done

    def drop(self, keys: Collection[int]) -> None:
        for key in keys:
            self._waiting.pop(key, None)
            self._done.pop(key, None)


def hear(checkpoint: CtcCheckpoint, encoded: Encoded) -> Heard:
    """What a window's states say."""
    logprobs_TV = ctc.logprobs_of(checkpoint.weights.head(encoded.states_TD)).cpu()
    positions_T, sizes_T = encoded.positions_T.cpu(), sizes_of(encoded).cpu()
    return ctc.hear(logprobs_TV, positions_T, sizes_T, checkpoint.vocabulary)


def _hypothesis(
    checkpoint: CtcCheckpoint, heard: Heard, window: Encoded, wish: DecodeOptions
) -> Hypothesis:
    timestamps = wish.timestamps
    tokens, logprobs = ctc.tokens_of(heard, checkpoint.vocabulary, timestamps=timestamps)
    language = checkpoint.language
    return Hypothesis(
        tokens=() if wish.language_only else tokens,
        avg_logprob=heard.avg_logprob,
        no_speech_prob=heard.silence,
        temperature=0.0,
        language=language,
        ended=True,
        kept_frames=len(window.positions_T),
        total_frames=window.total_frames,
        language_probs=((language, 1.0),) if wish.language_only else (),
        token_logprobs=() if wish.language_only else logprobs,
    )


def _encoded(states_TD: Tensor, at: Places, number: int) -> Encoded:
    return Encoded(
        states_TD,
        at.positions_BT[number],
        at.num_frames,
        audio_frames=at.num_frames,
        pooled=at.pooled,
        log_weights_T=at.log_weights_T,
    )


def _what_it_does(profile: Profile) -> Profile:
    """The same for profiles that differ in what has no effect only: a window has no padding, and
    its frames attend to all."""
    profile = replace(profile, padding=0, reach=0)
    if profile.is_dense:
        return Profile("dense")
    return replace(profile, name="sparse")
