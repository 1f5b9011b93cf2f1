"""Where each word of a string is spoken, by the CTC branch: forced alignment."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from service.lab.dataset import log_mel_of
from service.lab.sources import Span
from service.lab.speech_set import SpeechSet
from service.lab.targets import FRAME_S, to_characters
from service.model import encoder
from service.model.weights import Dims, from_state_dict
from service.profiles import BUILT_IN
from service.types import WINDOW_SAMPLES

REACH_S = 0.15  # a word begins and ends at most this far from its first and last character


def align(
    params: dict[str, Tensor], dims: Dims, speech: SpeechSet, path: Path, *, batch: int = 32
) -> None:
    """Writes the spans of every string's words to `path`, in seconds: (words of all, 2)."""
    weights = from_state_dict(params, dims)
    lengths = np.minimum(speech.lengths, WINDOW_SAMPLES)  # training sees no more either
    order = np.argsort(lengths)
    spans: dict[int, list[Span]] = {}
    for first in tqdm(range(0, len(order), batch), desc="align", unit="batch"):
        some = [int(i) for i in order[first : first + batch]]
        length = int(lengths[some[-1]])
        length += -length % 320
        heard = [speech.get(i)[: lengths[i]] for i in some]
        sound = np.stack([np.pad(each, (0, length - len(each))) for each in heard])
        with torch.inference_mode():
            states, _ = encoder.encode(
                weights.encoder, log_mel_of(torch.from_numpy(sound)), BUILT_IN["dense"]
            )
            logits = F.linear(states, params["ctc.weight"], params["ctc.bias"])
            logprobs_BTC = logits.log_softmax(-1).numpy()
        for i, logprobs_TC in zip(some, logprobs_BTC, strict=True):
            num_frames = max(1, int(lengths[i]) // 320)
            spans[i] = word_spans(logprobs_TC[:num_frames], speech.texts[i])
    flat = np.array([span for i in range(len(speech)) for span in spans[i]], np.float32)
    partial = path.with_suffix(".part.npy")
    np.save(partial, flat)
    os.replace(partial, path)


def load_spans(path: Path, speech: SpeechSet) -> list[list[Span]]:
    """The spans that `align` wrote, by string."""
    flat = np.load(path)
    counts = [len(text.split()) for text in speech.texts]
    ends = np.cumsum(counts)
    return [
        [(float(a), float(b)) for a, b in flat[end - count : end]]
        for count, end in zip(counts, ends, strict=True)
    ]


def word_spans(logprobs_TC: npt.NDArray[np.float32], text: str) -> list[Span]:
    """Seconds of each word of `text`, given log-probabilities (frames, characters)."""
    frames = best_path(logprobs_TC, to_characters(text))
    words, at = [], 0
    for word in text.split():
        count = len(to_characters(word))
        words.append((frames[at] * FRAME_S, (frames[at + count - 1] + 1) * FRAME_S))
        at += count + 1  # and the space
    total_s = len(logprobs_TC) * FRAME_S
    cuts = [(end + start) / 2 for (_, end), (start, _) in pairwise(words)]
    return [
        (max(start - REACH_S, before), min(end + REACH_S, after))
        for (start, end), before, after in zip(words, [0.0, *cuts], [*cuts, total_s], strict=True)
    ]


def best_path(logprobs_TC: npt.NDArray[np.float32], labels: list[int]) -> list[int]:
    """The first frame of each label on the likeliest CTC path (Viterbi over labels and blanks).

    Where the labels do not fit into the frames, they are spread evenly.
    """
    states = np.zeros(2 * len(labels) + 1, np.int64)
    states[1::2] = labels
    num_frames, num_states = len(logprobs_TC), len(states)
    skips = np.zeros(num_states, bool)
    skips[2:] = (states[2:] != 0) & (states[2:] != states[:-2])
    score = np.full(num_states, -np.inf)
    score[:2] = logprobs_TC[0, states[:2]]
    came = np.zeros((num_frames, num_states), np.int8)
    for t in range(1, num_frames):
        step = np.concatenate([[-np.inf], score[:-1]])
        skip = np.where(skips, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        choices = np.stack([score, step, skip])
        came[t] = choices.argmax(0)
        score = choices.max(0) + logprobs_TC[t, states]
    state = num_states - 1 if score[-1] >= score[-2] else num_states - 2
    if not np.isfinite(score[state]):
        return [int(i * num_frames / len(labels)) for i in range(len(labels))]
    first = [0] * len(labels)
    for t in range(num_frames - 1, -1, -1):
        if state % 2:
            first[state // 2] = t
        state -= int(came[t, state])  # numpy would make the position a byte, too
    return first
