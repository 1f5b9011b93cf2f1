"""Which letter is at which frame, as Whisper's cross-attention has it: what training begins with.

CTC alone takes long to find out where anything is said; once that is roughly known, it is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from service.audio.mel import log_mel
from service.families.whisper import Whisper
from service.lab.breakdown import DENSE
from service.lab.packing import Item, to_float
from service.lab.reproduce.ctc.letters import BLANK, labels_of, spelled
from service.lab.reproduce.ctc.model import CtcWeights
from service.lab.reproduce.ctc.train import FRAME_SAMPLES, Window, windows_of
from service.types import SAMPLE_RATE, DecodeOptions, Word
from service.words.find import find_words

FRAMES_A_SECOND = SAMPLE_RATE // FRAME_SAMPLES


def frame_labels(words: Iterable[Word], num_frames: int) -> list[int]:
    """The letters of each word spread evenly over its frames, a space before it, and blanks where
    there is no word."""
    found = [BLANK] * num_frames
    for word in words:
        labels = labels_of(spelled(word.text))
        first = min(round(word.start * FRAMES_A_SECOND), num_frames)
        frames = min(round(word.end * FRAMES_A_SECOND), num_frames) - first
        if not labels or frames <= 0:
            continue
        for frame in range(frames):
            found[first + frame] = labels[frame * len(labels) // frames]
        if first:
            found[first - 1] = labels_of(" ")[0]
    return found


def told_windows(
    model: Whisper, weights: CtcWeights, items: Sequence[Item], *, bfloat16: bool = False
) -> list[Window]:
    """Windows whose letters are known by frame."""
    made = windows_of(weights, items, model.info.num_mels, bfloat16=bfloat16)
    return [
        replace(window, labels_T=torch.tensor(spelled_out(model, item, len(window.states_TD))))
        for item, window in zip(items, made, strict=True)
    ]


@torch.inference_mode()
def spelled_out(model: Whisper, item: Item, num_frames: int) -> list[int]:
    """Of a window of at most 30 s, whose text is given: a label for each of its frames."""
    checkpoint = model.checkpoint
    mel_1FT = log_mel([to_float(item.pcm)], model.info.num_mels)
    encoded = model.encode(mel_1FT, [DENSE], [min(num_frames, model.info.num_frames)])[0]
    options = DecodeOptions(item.language if model.info.multilingual else "en")
    words = find_words(
        checkpoint.weights.decoder,
        checkpoint.vocabulary,
        checkpoint.alignment,
        encoded,
        options,
        _tokens(model, item.text),
    )
    return frame_labels(words, num_frames)


def _tokens(model: Whisper, text: str) -> Sequence[int]:
    """As many as the decoder's context has room for beside its prompt."""
    return model.encode_text(f" {text}")[: model.checkpoint.weights.dims.max_tokens // 2]
