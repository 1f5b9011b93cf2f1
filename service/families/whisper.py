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
from service.model import encoder, explain, padding
from service.model.adapters import adapters_of, find_gates, key_of, make_encoder
from service.model.checkpoint import Checkpoint
from service.model.gates import Deciding, Gates, check_fits, deciding, on_device
from service.model.protocol import ModelInfo, dtype_name
from service.model.weights import EncoderWeights, held_bytes
from service.profiles import Profile
from service.transfer import sent
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
            key = key_of(profile, self.checkpoint.weight_dtype)
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
        return self._encoders[key_of(profile, self.checkpoint.weight_dtype)]

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
        """Encodes padded windows (B, mels, 3000): on a GPU those of one profile together, on a CPU
        one after the other, because one window's states fit its cache. What has gates, or a layout
        of its own, is alone everywhere."""
        mel_BFT = mel_BFT.to(self.checkpoint.device, self.checkpoint.dtype)
        sounding: Sequence[int | None] = audio_frames or [None] * len(profiles)
        # Profiles that differ in name only, and all dense ones, are one piece of work.
        groups: dict[tuple[Profile, int], list[int]] = defaultdict(list)
        encoded: dict[int, Encoded] = {}
        for window, (profile, frames) in enumerate(zip(profiles, sounding, strict=True)):
            layout, gates = self._lay_out(profile, frames), self._gates_of(profile)
            if layout is not None:
                mel_1FT = mel_BFT[window : window + 1]
                encoded[window] = self._encode_laid_out(mel_1FT, profile, layout, frames, gates)
            elif gates is not None:
                mel_1FT = mel_BFT[window : window + 1]
                encoded[window] = self._encode_gated(mel_1FT, profile, frames, gates)
            else:
                groups[_what_it_does(profile), window if mel_BFT.is_cpu else 0].append(window)
        for (profile, _), windows in groups.items():
            # By a list, torch would wait for the device.
            some_BFT = torch.stack([mel_BFT[window] for window in windows])
            states_BTD, positions_BT = encoder.encode(self.encoder_of(profile), some_BFT, profile)
            for window, states_TD, positions_T in zip(
                windows, states_BTD, positions_BT, strict=True
            ):
                # A view would keep the whole batch's states while one of its windows decodes.
                if len(windows) > 1:
                    states_TD = states_TD.clone()
                encoded[window] = Encoded(
                    states_TD,
                    positions_T,
                    self.info.num_frames,
                    sounding[window],
                    pooled=profile.pools,
                )
        return [encoded[window] for window in range(len(profiles))]

    def _lay_out(self, profile: Profile, audio_frames: int | None) -> padding.Layout | None:
        """How a window is laid out that is encoded by itself: None where it need not be."""
        whole = self.info.num_frames
        sounding = whole if audio_frames is None else audio_frames
        layout = padding.lay_out(sounding, whole, profile.padding)
        if layout is None and profile.sparsity and profile.pool == "alike":
            return padding.plain(whole)
        return layout

    def _encode_laid_out(
        self,
        mel_1FT: Tensor,
        profile: Profile,
        layout: padding.Layout,
        audio_frames: int | None,
        gates: Gates | None,
    ) -> Encoded:
        asked = self._deciding(gates, mel_1FT, audio_frames) if gates else None
        states_1TD, layout = encoder.encode_laid_out(
            self.encoder_of(profile), mel_1FT, profile, layout, asked
        )
        return Encoded(
            states_1TD[0],
            sent(layout.positions_T, states_1TD.device),
            self.info.num_frames,
            audio_frames,
            pooled=True,
            log_weights_T=layout.log_weights(states_1TD),
            gates=asked.modules(states_1TD, layout.positions_T) if asked else None,
        )

    def _encode_gated(
        self, mel_1FT: Tensor, profile: Profile, audio_frames: int | None, gates: Gates
    ) -> Encoded:
        asked = self._deciding(gates, mel_1FT, audio_frames)
        states_1TD, positions_1T = encoder.encode(self.encoder_of(profile), mel_1FT, profile, asked)
        return Encoded(
            states_1TD[0],
            positions_1T[0],
            self.info.num_frames,
            audio_frames,
            pooled=profile.pools,
            gates=asked.modules(states_1TD, positions_1T[0]),
        )

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


def _what_it_does(profile: Profile) -> Profile:
    """The same for profiles that differ in what has no effect only."""
    profile = replace(profile, padding=0)  # where there is none to gain from
    if profile.is_dense:
        return Profile("dense")
    if profile.sparsity == 0:
        return replace(profile, name="sparse", layer=1, selection="attention", aggregation="mean")
    if profile.selection != "attention":
        profile = replace(profile, aggregation="mean")
    return replace(profile, name="sparse")
