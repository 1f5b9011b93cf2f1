"""The state of a decode batch beside its cache: windows, and the rows that speak for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from service.decode import rules
from service.decode.search import Candidate, Scored
from service.model.tokens import Vocabulary
from service.types import DecodeOptions, Encoded, Hypothesis

# A segment that opens later than so many frames before the recording's end may be nothing: a
# model's times are that much off.
LEAST_LEFT = 50
GIVEN = 0.0  # the log-probability of a token that was not chosen


@dataclass(slots=True, eq=False)
class WindowState:
    """A window being decoded. Its hypotheses begin with `opening`, which was not decoded.

    Where there are timestamps, the opening is part of what the timestamp rules look back on, and
    so of each row's tokens: their first `num_given`. `token_limit` counts those too. `draws`
    samples the tokens, if they are; `bias_KV` replaces the rules' own table, if it is not None.
    `unsaid`: the timestamp before which there is something left to say.
    """

    key: int
    options: DecodeOptions
    opening: tuple[int, ...]
    token_limit: int
    kept_frames: int
    total_frames: int
    unsaid: int
    draws: torch.Generator | None = None
    bias_KV: Tensor | None = None
    language_probs: tuple[tuple[str, float], ...] = ()
    no_speech_prob: float = 0.0
    finished: list[Scored] = field(default_factory=list)

    @property
    def num_given(self) -> int:
        return len(self.opening) if self.options.timestamps else 0

    @property
    def beam_size(self) -> int:
        return self.options.num_sequences

    def hypothesis(self, said: Scored) -> Hypothesis:
        """The answer. The opening's tokens are in it, but not in its log-probability."""
        return Hypothesis(
            tokens=(*self.opening, *said.tokens[self.num_given :]),
            avg_logprob=said.sum_logprob / (len(said.tokens) - self.num_given + 1),
            no_speech_prob=self.no_speech_prob,
            temperature=self.options.temperature,
            language=self.options.language or "en",
            ended=said.ended,
            kept_frames=self.kept_frames,
            total_frames=self.total_frames,
            language_probs=self.language_probs,
            token_logprobs=(*(GIVEN for _ in self.opening), *said.logprobs[self.num_given :]),
        )


@dataclass(slots=True, eq=False)
class Row:
    """A row of the cache: one sequence of tokens of a window. `over`: it leaves at this step.

    `logprobs`: of each of the tokens.
    """

    window: WindowState
    tokens: list[int]
    logprobs: list[float]
    sum_logprob: float = 0.0
    over: bool = False

    def said(self, sum_logprob: float, ended: bool) -> Scored:
        """The sequence as it is; `sum_logprob` may have the end's too."""
        return Scored(tuple(self.tokens), sum_logprob, ended, tuple(self.logprobs))

    def going_on(self, candidate: Candidate) -> Scored:
        """The sequence and one more token."""
        total = candidate.sum_logprob
        logprobs = (*self.logprobs, total - self.sum_logprob)
        return Scored((*self.tokens, candidate.token), total, False, logprobs)


def new_state(
    key: int,
    encoded: Encoded,
    options: DecodeOptions,
    vocabulary: Vocabulary,
    device: torch.device,
    token_limit: int,
) -> WindowState:
    """A window that has said nothing yet; `token_limit` is of tokens that it decodes itself."""
    audio_frames = encoded.total_frames if encoded.audio_frames is None else encoded.audio_frames
    state = WindowState(
        key=key,
        options=options,
        opening=vocabulary.opening(options),
        token_limit=token_limit,
        kept_frames=len(encoded.states_TD),
        total_frames=encoded.total_frames,
        unsaid=vocabulary.timestamp_begin + audio_frames - LEAST_LEFT,
    )
    state.token_limit += state.num_given
    if options.temperature:
        state.draws = torch.Generator(device).manual_seed(options.seed)
    if options.suppress is not None:
        state.bias_KV = rules.suppressing(vocabulary, options.suppress, device)
    return state


def fit(options: DecodeOptions, max_tokens: int) -> DecodeOptions:
    """Cuts what is given to the decoder, so that at least a quarter of the context is left.

    The prompt loses its beginning beyond half the context, less the token that opens it, as
    openai-whisper has it; the prefix its end beyond a quarter.
    """
    most_prompt, most_prefix = max_tokens // 2 - 1, max_tokens // 4
    if len(options.prompt) <= most_prompt and len(options.prefix) <= most_prefix:
        return options
    return replace(
        options, prompt=options.prompt[-most_prompt:], prefix=options.prefix[:most_prefix]
    )
