"""A loaded Whisper checkpoint as the engine sees it: encode windows, decode them together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from service.decode.batch import WindowDecoder
from service.decode.gpu import graphs_for
from service.decode.kept import FRAMES
from service.decode.rules import make_rules
from service.decode.sizes import frame_bytes, row_bytes
from service.errors import ConfigError
from service.model import encoder, explain
from service.model.adapters import adapters_of, find_gates, key_of, make_encoder
from service.model.checkpoint import Checkpoint
from service.model.gates import Deciding, Gates, check_fits, deciding, on_device
from service.model.plan import plan_of
from service.model.protocol import ModelInfo, dtype_name
from service.model.weights import EncoderWeights, held_bytes
from service.profiles import Profile
from service.transfer import picked
from service.types import DecodeOptions, Encoded, Hypothesis, Kept, Piece, Word
from service.words.find import find_words

NO_GATES: Mapping[float, Gates] = MappingProxyType({})


class Whisper:
    """`protocol.SpeechModel` over a checkpoint. Holds weights only, no state of any request.

    `gates`: predictors of which modules run, by the share that they leave out.
    """

    def __init__(self, checkpoint: Checkpoint, gates: Mapping[float, Gates] = NO_GATES) -> None:
        """Raises CheckpointError for gates of another model, or on a device that has none."""
        self.checkpoint = checkpoint
        self._encoders = {("", 0): checkpoint.weights.encoder}
        self.rules = make_rules(checkpoint.vocabulary, checkpoint.device)
        self.new_graphs = graphs_for(checkpoint.weights.decoder, self.rules)
        dims, vocabulary = checkpoint.weights.dims, checkpoint.vocabulary
        self.gates: dict[float, Gates] = {}
        for share, one in gates.items():
            self._add_gates(share, one)
        self.info = ModelInfo(
            name=checkpoint.name,
            num_mels=dims.num_mels,
            num_frames=dims.num_frames,
            num_encoder_layers=dims.encoder_layers,
            num_parameters=checkpoint.num_parameters,
            device=str(checkpoint.device),
            dtype=dtype_name(checkpoint.dtype),
            weight_dtype=checkpoint.weight_dtype,
            languages=vocabulary.language_names,
            multilingual=vocabulary.multilingual,
            vocab_size=dims.vocab_size,
            max_prompt_tokens=dims.max_tokens // 2 - 1 if self._takes_prompts else 0,
            row_bytes=row_bytes(checkpoint.weights.decoder, dims.max_tokens),
            frame_bytes=frame_bytes(checkpoint.weights.decoder),
            block_frames=FRAMES,
            weight_bytes=held_bytes(checkpoint.weights),
            origin=checkpoint.origin,
            license=checkpoint.license,
            owner=checkpoint.owner,
        )

    def prepare(self, profiles: Iterable[Profile], adapters: Collection[str] = ()) -> None:
        """As `SpeechModel` has it. Other weights of the encoder are made, once for all profiles
        that have them."""
        found = adapters_of(self.info.name, adapters)
        for profile in profiles:
            key = self._key_of(profile)
            if key not in self._encoders:
                self._encoders[key] = make_encoder(self.checkpoint, profile, found)
            if profile.gates and profile.gates not in self.gates:
                gates = find_gates(self.info.name, profile, found)
                self._add_gates(profile.gates, gates, f"profile {profile.name}: ")
        held = held_bytes((self.checkpoint.weights, *self._encoders.values()))
        self.info = replace(self.info, weight_bytes=held)

    def _add_gates(self, share: float, gates: Gates, whose: str = "") -> None:
        device = self.checkpoint.device
        if self.new_graphs is not None:
            raise ConfigError(
                f"{whose}gates are not served on {device}: use device cpu, or no gates"
            )
        check_fits(gates, self.checkpoint.name, self.checkpoint.weights)
        self.gates[share] = on_device(gates, device)

    def encoder_of(self, profile: Profile) -> EncoderWeights:
        """The encoder's weights by a profile that was prepared."""
        return self._encoders[self._key_of(profile)]

    def _key_of(self, profile: Profile) -> tuple[str, int]:
        return key_of(profile, self.checkpoint.weight_dtype)

    @property
    def _takes_prompts(self) -> bool:
        return self.checkpoint.tokenizer is not None and bool(self.checkpoint.vocabulary.previous)

    @torch.inference_mode()
    def encode(
        self,
        mel_BFT: Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        """Encodes padded windows (B, mels, 3000): on a GPU those of the same weights together, on a
        CPU one after the other, because one window's states fit its cache. What has gates is alone
        everywhere."""
        mel_BFT = mel_BFT.to(self.checkpoint.device, self.checkpoint.dtype)
        heard: Sequence[int | None] = audio_frames or [None] * len(profiles)
        parts: dict[object, list[int]] = defaultdict(list)
        for window, profile in enumerate(profiles):
            alone = mel_BFT.is_cpu or profile.gates
            parts[window if alone else self._key_of(profile)].append(window)
        encoded: dict[int, Encoded] = {}
        for windows in parts.values():
            some = [(profiles[window], heard[window]) for window in windows]
            found = self._encode_together(picked(mel_BFT, windows), some)
            encoded |= zip(windows, found, strict=True)
        return [encoded[window] for window in range(len(profiles))]

    def _encode_together(
        self, mel_BFT: Tensor, asked: Sequence[tuple[Profile, int | None]]
    ) -> list[Encoded]:
        """Windows of the same weights, each by its profile and the frames that are heard of it."""
        num_frames = self.info.num_frames
        profile, heard = asked[0]
        gates = self._gates_of(profile)
        deciding = self._deciding(gates, mel_BFT, heard) if gates else None
        plans = [plan_of(profile, num_frames, heard) for profile, heard in asked]
        found = encoder.encode_windows(self.encoder_of(profile), mel_BFT, plans, deciding)
        return [
            Encoded(
                one.states_TD,
                one.positions_T,
                num_frames,
                heard,
                pooled=plan.pools,
                log_weights_T=one.log_weights_T,
                gates=deciding.modules(one.states_TD[None], one.positions_T) if deciding else None,
            )
            for one, plan, (_, heard) in zip(found, plans, asked, strict=True)
        ]

    def _gates_of(self, profile: Profile) -> Gates | None:
        """What decides which modules run for a window of the profile; None: all do."""
        return self.gates[profile.gates] if profile.gates else None

    def _deciding(self, gates: Gates, mel_1FT: Tensor, audio_frames: int | None) -> Deciding:
        # A window is encoded before its language is heard, and before anybody is asked for it.
        return deciding(gates, mel_1FT, audio_frames, self.info.only_language)

    @torch.inference_mode()
    def explain(self, mel_1FT: Tensor, profile: Profile, encoded: Encoded) -> Kept:
        """What became of the frames of a window that was encoded by the profile."""
        mel_1FT = mel_1FT.to(self.checkpoint.device, self.checkpoint.dtype)
        return explain.explain(self.encoder_of(profile), mel_1FT, profile, encoded)

    def new_decode_batch(self) -> WindowDecoder:
        return WindowDecoder(
            self.checkpoint.weights.decoder,
            self.checkpoint.vocabulary,
            self.rules,
            self.checkpoint.weights.dims.max_tokens,
            self.new_graphs and self.new_graphs(),
        )

    @torch.inference_mode()
    def find_words(
        self, encoded: Encoded, hypothesis: Hypothesis, options: DecodeOptions
    ) -> tuple[Word, ...]:
        return find_words(
            self.checkpoint.weights.decoder,
            self.checkpoint.vocabulary,
            self.checkpoint.alignment,
            encoded,
            replace(options, language=hypothesis.language),
            hypothesis.tokens,
        )

    def split_text(self, tokens: Sequence[int]) -> list[Piece]:
        return self.checkpoint.vocabulary.split_text(tokens)

    def token_bytes(self, token: int) -> bytes:
        return self.checkpoint.vocabulary.token_bytes(token)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """() where the checkpoint does not say how text is split."""
        if self.checkpoint.tokenizer is None:
            return ()
        ids = self.checkpoint.tokenizer.encode(text, add_special_tokens=False).ids
        # A text may spell a special token. It is not one.
        return tuple(token for token in ids if token < self.checkpoint.vocabulary.eot)
