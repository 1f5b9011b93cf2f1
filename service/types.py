"""The frozen values that cross rooms. Seconds and 16 kHz samples throughout."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    from service.profiles import Profile

SAMPLE_RATE = 16_000
WINDOW_S = 30.0
WINDOW_SAMPLES = 480_000

Samples = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Notice:
    """What whoever asked has to know about an answer that is not all they may take it for.

    `code`: `damaged_audio`, a stretch of the recording from `start` to `end` seconds that could
    not be read; or `ignored_parameter`, a `param` that means nothing here.
    """

    code: str
    message: str
    param: str | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """A whole recording: float32 mono at 16 kHz in [-1, 1].

    `losses`: what of it could not be read, in order; silence stands for it.
    """

    samples: Samples
    losses: tuple[Notice, ...] = ()

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Window:
    """Up to 30 s of a recording, the unit of scheduling: `samples` begin `start_s` into it.

    `channel`: the one it was cut from, where the channels of a recording are kept apart. `speech`:
    where in it the VAD heard some, in seconds from its start; None where nobody listened.
    """

    index: int
    start_s: float
    samples: Samples
    channel: int | None = None
    speech: tuple[tuple[float, float], ...] | None = None

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What a request asks of the decoder.

    `language` is a code of the checkpoint or None: detect it, among `languages` where there are
    any; `task` is `transcribe` or `translate`; `language_only` detects the language and decodes
    no text. `temperature` 0 is greedy, or a beam search where `beam_size` is more than 1; above 0
    it samples with `seed`.
    `length_penalty` None divides by the length. `prompt`: tokens of what was said before, the
    same for every window: windows are decoded side by side, so that none waits for another's
    text, as openai-whisper's `condition_on_previous_text` would have it. `prefix`: tokens that
    the text has to begin with; `suppress`: text tokens never to be said, -1 among them for the
    checkpoint's own as well, None for those alone.
    """

    language: str | None = None
    task: str = "transcribe"
    language_only: bool = False
    temperature: float = 0.0
    seed: int = 0
    beam_size: int = 1
    patience: float = 1.0
    length_penalty: float | None = None
    prompt: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    suppress: tuple[int, ...] | None = None
    timestamps: bool = True
    word_times: bool = False
    languages: tuple[str, ...] = ()

    @property
    def num_sequences(self) -> int:
        """That are decoded side by side: what is sampled has no beam."""
        return 1 if self.temperature else self.beam_size


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a hypothesis has to keep to, or its window is decoded again: openai-whisper's.

    `compression_ratio`: at most, bytes of text per byte compressed; `logprob`: at least, average
    log-probability of a token, None for what the model goes by; `no_speech`: probability above
    which a doubtful window is silent.
    """

    compression_ratio: float = 2.4
    logprob: float | None = None
    no_speech: float = 0.6


TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # openai-whisper's, tried in turn


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """What is asked of one recording. `timeout_s` counts from the call, decoding included.

    A window whose hypothesis misses the `thresholds` is decoded again, in the end at those of
    the `temperatures` above that of `options`.
    `split_channels` keeps the channels apart instead of mixing them. `strict`: a recording of which
    a part cannot be read is refused.
    `wait_for_room`: where the queue is full, wait until it is not instead of being refused.
    `explain`: the transcript comes with what was kept of every window, in its `readings`.
    """

    profile: Profile
    options: DecodeOptions
    vad: bool = True
    timeout_s: float = 900.0
    thresholds: Thresholds = Thresholds()
    temperatures: tuple[float, ...] = TEMPERATURES
    split_channels: bool = False
    strict: bool = False
    wait_for_room: bool = False
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its times: in a hypothesis from the window's start, in a segment from the
    recording's. `text` keeps its leading space; `probability` is the mean of its tokens'."""

    start: float
    end: float
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the decoder made of one window.

    `tokens` holds text and timestamp ids without the prompt and end-of-text, `token_logprobs` the
    log-probability of each among those that the rules allowed, 0 of a given prefix;
    `ended` is False where the token limit or the guard cut it off; `kept_frames` of
    `total_frames` encoder positions were seen by the decoder. `language_probs`: each language's
    probability, likeliest first, where the language was detected. `words`: with times from the
    window's start, where they were asked for.
    """

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    language: str
    ended: bool
    kept_frames: int
    total_frames: int
    language_probs: tuple[tuple[str, float], ...] = ()
    words: tuple[Word, ...] = ()
    token_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a hypothesis' text, with the tokens that say it, timestamps included.

    Times are seconds from the window's start, None where the model gave none.
    """

    start_s: float | None
    end_s: float | None
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in seconds.

    `queue` is the longest wait of any window; `mel`, `encode` and `decode` are this request's
    share of the device time of the batches it shared; `total` is wall clock.
    """

    decode_audio: float = 0.0
    queue: float = 0.0
    mel: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Fallback:
    """A window that was decoded again: from `profile` to `retry`, because of `reason`.

    `temperature` is that of the retry.
    """

    window: int
    reason: str
    profile: str
    retry: str
    temperature: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What the encoder made of a window's frames, for whoever wants to see it.

    State i of those that the decoder reads stands for `sizes[i]` frames from `positions[i]` on; a
    frame that none stands for was dropped. `importance`: the attention that each frame receives,
    dropped ones too, in encoder layer `layer`, by `aggregation` of its heads; the frames were
    `chosen_by_it`, or it is what such a choice would have gone by. `frame_s`: seconds of a frame,
    None where all of them are 30 s.
    """

    positions: Counts
    sizes: Counts
    importance: Scores
    layer: int
    aggregation: str
    chosen_by_it: bool
    frame_s: float | None = None


@dataclass(frozen=True, slots=True)
class WindowResult:
    """The engine's reply to one job: the hypothesis it stands by, and what it cost; what was
    `kept`, where the job asked; and the states it was decoded from, for another attempt."""

    hypothesis: Hypothesis
    timings: Timings
    fallbacks: tuple[Fallback, ...] = ()
    kept: Kept | None = None
    encoded: Encoded | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One window to transcribe, with its own reply, which is resolved exactly once.

    `deadline` and `submitted` are readings of `time.monotonic()`. `reply.cancel()` asks for the
    work to be dropped. `request_id` is what fair turns are taken by; a `resumed` job goes on with
    a window that has had its turn. `explain`: the reply says what was kept. `encoded`: the window's
    states, where an attempt before this one had the same profile.
    """

    request_id: str
    window: Window
    profile: Profile
    options: DecodeOptions
    deadline: float
    resumed: bool = False
    submitted: float = field(default_factory=time.monotonic)
    reply: Future[WindowResult] = field(default_factory=Future)
    explain: bool = False
    encoded: Encoded | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs that are encoded together next, in the order their turns came."""

    jobs: tuple[Job, ...]


ATTENTION, ACROSS, FEED = range(3)  # the modules of a decoder layer


@dataclass(frozen=True, slots=True)
class OpenModules:
    """Which modules of each layer run for a window: of an encoder layer attention and MLP, of a
    decoder layer attention, cross-attention and MLP."""

    encoder: tuple[tuple[bool, ...], ...]
    decoder: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One window as the decoder sees it.

    `states_TD`: kept encoder states; `positions_T`: their original frame indices (20 ms each),
    ascending int64; `total_frames`: how many there were before the drop; `audio_frames`: how many
    of those hold the recording, the rest being padding; None where nobody said. `pooled`: a state
    is the mean of all frames from its position to the next state's, and nothing was dropped.
    `log_weights_T`: the logarithms of how many frames each state counts as in attention; None: of
    one. `gates`: which modules run; None: all.
    """

    states_TD: torch.Tensor
    positions_T: torch.Tensor
    total_frames: int
    audio_frames: int | None = None
    pooled: bool = False
    log_weights_T: torch.Tensor | None = None
    gates: OpenModules | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text with its times in the whole recording, `words` where asked for.

    `token_logprobs`: of each of the `tokens`, as a hypothesis has them.
    `channel`: the one it was said on, where the channels of a recording are kept apart.
    """

    id: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float
    words: tuple[Word, ...] = ()
    channel: int | None = None
    token_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One attempt at a window, or at the rest of one: the profile it was read by, and its kept
    frames and text."""

    window: Window
    profile: str
    kept: Kept
    hypothesis: Hypothesis


@dataclass(frozen=True, slots=True)
class Transcript:
    """The answer to one request.

    `language`: that of most windows; `languages`: those in which anything was said, the commonest
    first. `readings`: every attempt at every window, in time order, where that was asked for.
    """

    text: str
    language: str
    duration: float
    model: str
    profile: str
    segments: tuple[Segment, ...]
    total_frames: int
    kept_frames: int
    timings: Timings
    fallbacks: tuple[Fallback, ...] = ()
    warnings: tuple[Notice, ...] = ()
    languages: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()

    @property
    def real_time_factor(self) -> float:
        """Wall-clock seconds of processing per second of audio."""
        return self.timings.total / self.duration if self.duration else 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What became final of a transcript since the last one.

    The `text` of all of them, joined, is the transcript's. The last one, and only it, has the
    `transcript`.
    """

    text: str = ""
    segments: tuple[Segment, ...] = ()
    transcript: Transcript | None = None


@dataclass(frozen=True, slots=True)
class SpokenLanguage:
    """The language of a recording: each one's probability, likeliest first; none in silence."""

    probabilities: tuple[tuple[str, float], ...]
    duration: float
    model: str
    profile: str
