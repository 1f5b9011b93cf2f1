"""What the engine asks of a model. `whisper.Whisper`, `ctc.model.CtcModel` and `fake.FakeModel`
answer it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from service.profiles import Profile
from service.types import DecodeOptions, Encoded, Hypothesis, Kept, Piece, Word


def dtype_name(dtype: torch.dtype) -> str:
    """As `ModelInfo` says it: float32."""
    return str(dtype).removeprefix("torch.")


# What a model reads: Whisper's log-mel of windows filled up to 30 s, or the samples themselves, of
# as many as there are.
Features = Literal["log-mel", "waveform"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is: for answers, `/v1/models`, metrics and start-up lines.

    `name` is what answers carry; `dtype` is of what is computed, `weight_dtype` of the products'
    weights, as int8; `languages` maps codes to English names, in the checkpoint's
    order, `{"en": "english"}` for an English-only one. `vocab_size` counts its tokens,
    `max_prompt_tokens` those of a prompt that it takes: 0 for none. In decode a sequence takes
    `row_bytes` at the most, and a frame that was kept `frame_bytes`, in blocks of `block_frames`;
    the weights are `weight_bytes`; 0: nothing to speak of.
    `origin` (an address), `license` and `owner` are "" where they are not known. `features` is what
    it reads, with `num_mels` bands where that is a log-mel; `num_frames` are those of 30 s.
    `frame_by_frame`: each frame says its own symbol (CTC). So there is nothing to draw, no beam, no
    text to begin with, and no text that ends before its speech.
    """

    name: str
    num_mels: int
    num_frames: int
    num_encoder_layers: int
    num_parameters: int
    device: str
    dtype: str
    weight_dtype: str
    languages: dict[str, str]
    multilingual: bool
    vocab_size: int
    max_prompt_tokens: int
    row_bytes: int = 0
    frame_bytes: int = 0
    block_frames: int = 1
    weight_bytes: int = 0
    origin: str = ""
    license: str = ""
    owner: str = ""
    features: Features = "log-mel"
    frame_by_frame: bool = False

    @property
    def knows_several(self) -> bool:
        """Whether there is a language to detect, or to translate from. A multilingual vocabulary
        alone is not enough: a model may have been trained on one of its languages."""
        return self.multilingual and len(self.languages) > 1

    @property
    def only_language(self) -> str | None:
        """The language of whatever it hears; None where it knows several."""
        return None if self.knows_several else next(iter(self.languages))


class WindowsFailedError(Exception):
    """What was to be said of the windows `keys` is not a number: the batch has forgotten them.

    Nothing happened to the others; those that were done are in what the next step returns.
    """

    def __init__(self, keys: Sequence[int]) -> None:
        super().__init__("the logits are not numbers")
        self.keys = tuple(keys)


class DecodeBatch(Protocol):
    """Windows being decoded together. All its state is here, none on the model."""

    def __len__(self) -> int:
        """How many windows are being decoded."""

    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        """Adds windows at the next step. Keys are the caller's, and unique within the batch.

        Raises WindowsFailedError for those that failed; after any other error none has joined.
        """

    def step(self) -> dict[int, Hypothesis]:
        """Decodes one token of every window; returns, and forgets, those that are done.

        Raises WindowsFailedError for those that failed; after any other error the batch is lost.
        """

    def drop(self, keys: Collection[int]) -> None:
        """Forgets windows whose results nobody waits for."""


class SpeechModel(Protocol):
    """A checkpoint on a device. Called by one thread only, but for `find_words`, which another may
    call meanwhile, and for what deals with text."""

    @property
    def info(self) -> ModelInfo: ...

    def prepare(self, profiles: Iterable[Profile], adapters: Collection[str] = ()) -> None:
        """Makes ready what profiles need beside the model's own weights, from folders.

        Before any of them is asked for. Raises ConfigError for what there is not or cannot be,
        and CheckpointError for a folder that is damaged.
        """

    def encode(
        self,
        features_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        sounding: Sequence[int] | None = None,
        /,
    ) -> list[Encoded]:
        """Encodes windows, each by its own profile.

        `features_BFT`: the log-mel of padded windows, (B, num_mels, 3000), and `sounding`: how many
        of each one's `num_frames` hold the recording; or their samples, (B, 1, S), and how many of
        these. None: all.
        """

    def explain(self, features_1FT: torch.Tensor, profile: Profile, encoded: Encoded, /) -> Kept:
        """What became of the frames of one window that `encode` gave; as costly as that."""

    def new_decode_batch(self) -> DecodeBatch:
        """An empty decode batch."""

    def find_words(
        self, encoded: Encoded, hypothesis: Hypothesis, options: DecodeOptions
    ) -> tuple[Word, ...]:
        """The words of what was decoded of a window by these options, with their times."""

    def split_text(self, tokens: Sequence[int]) -> list[Piece]:
        """The timestamped pieces of a hypothesis, in one pass. Text keeps its leading space."""

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 of a text token, which may be part of a character; b"" for any other."""

    def encode_text(self, text: str) -> tuple[int, ...]:
        """The tokens of a text, for prompts and prefixes; from any thread. No special ones."""
