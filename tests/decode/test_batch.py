"""Beams, prompts, prefixes and suppressed tokens: the same tokens as the reference decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import whisper
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from whisper.decoding import DecodingOptions, DecodingTask
from whisper.model import Whisper as OpenAIWhisper

from service.decode import rules
from service.families.whisper import Whisper
from service.model.operators.products import Dense
from service.model.tokens import Vocabulary
from service.profiles import BUILT_IN
from service.types import DecodeOptions, Encoded, Hypothesis
from tests.checkpoints import load_plain, openai_tokenizer, to_openai_whisper
from tests.windows import finish, noise

# openai-whisper's beam sorts a tensor by numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

DENSE = BUILT_IN["dense"]
NUM_TOKENS = 24
PROMPT = (400, 2425, 1000, 11, 500)
PREFIX = (300, 7, 1234)


@dataclass(frozen=True)
class Both:
    """One checkpoint as ours and as openai-whisper's, and windows as both encode them."""

    folder: Path
    ours: Whisper
    theirs: OpenAIWhisper
    encoded: list[Encoded]


@pytest.fixture(scope="module")
def both(mini_folder: Path) -> Both:
    ours = Whisper(load_plain(str(mini_folder)))
    return Both(
        mini_folder, ours, to_openai_whisper(mini_folder), ours.encode(noise(2), [DENSE] * 2)
    )


def say(model: Whisper, encoded: Sequence[Encoded], *wishes: DecodeOptions) -> list[Hypothesis]:
    """At most NUM_TOKENS of each window, all in one batch."""
    batch = model.new_decode_batch()
    batch.token_limit = NUM_TOKENS
    batch.join(range(len(wishes)), encoded, wishes)
    return finish(batch, len(wishes))


def openai_says(both: Both, window: Encoded, **options: Any) -> whisper.DecodingResult:
    timed = not options.get("without_timestamps")
    if not timed:  # untrained weights would say times unasked, which ours never do
        options["suppress_tokens"] = [
            *options.get("suppress_tokens", [-1]),
            *times(both.ours.checkpoint.vocabulary),
        ]
    wish = DecodingOptions(
        language="en", temperature=0, fp16=False, sample_len=NUM_TOKENS, **options
    )
    (result,) = whisper.decode(both.theirs, window.states_TD[None].clone(), wish)
    return result


def times(vocabulary: Vocabulary) -> range:
    return range(vocabulary.timestamp_begin, vocabulary.size)


def assert_same(ours: Hypothesis, theirs: whisper.DecodingResult) -> None:
    assert list(ours.tokens) == theirs.tokens
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-4)
    assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob, abs=1e-6)


BEAMS: dict[str, dict[str, Any]] = {
    "two": {"beam_size": 2},
    "five": {"beam_size": 5},
    "eight": {"beam_size": 8},
    "patient": {"beam_size": 3, "patience": 2.0},
    "impatient": {"beam_size": 4, "patience": 0.5},
    "short": {"beam_size": 4, "length_penalty": 0.0},
    "long": {"beam_size": 4, "length_penalty": 1.0},
    "prompted": {"beam_size": 3, "prompt": PROMPT},
}


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("case", BEAMS.values(), ids=BEAMS)
def test_a_beam_says_what_openai_whisper_says(
    both: Both, case: dict[str, Any], timestamps: bool
) -> None:
    wish = DecodeOptions("en", timestamps=timestamps, **case)
    theirs = {name: list(v) if isinstance(v, tuple) else v for name, v in case.items()}
    ours = say(both.ours, both.encoded, wish, wish)
    for hypothesis, window in zip(ours, both.encoded, strict=True):
        expected = openai_says(both, window, without_timestamps=not timestamps, **theirs)
        assert_same(hypothesis, expected)


@torch.inference_mode()
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("case", [{}, {"beam_size": 4}, {"prefix": PREFIX, "beam_size": 2}])
def test_each_token_has_its_log_probability(
    both: Both, case: dict[str, Any], timestamps: bool
) -> None:
    wish = DecodeOptions("en", timestamps=timestamps, **case)
    vocabulary = both.ours.checkpoint.vocabulary
    given = vocabulary.prompt(replace(wish, prefix=()))
    opening = len(vocabulary.opening(wish))
    for said, window in zip(say(both.ours, both.encoded, wish, wish), both.encoded, strict=True):
        logits_NV = both.theirs.decoder(
            torch.tensor([[*given, *said.tokens]]), window.states_TD[None]
        )[0, len(given) - 1 :]
        expected = [0.0] * opening
        for at in range(opening, len(said.tokens)):
            own = said.tokens[0 if timestamps else opening : at]
            so_far = rules.said(both.ours.rules, [own], [timestamps])
            allowed_BV = rules.apply(both.ours.rules, logits_NV[[at]], so_far)
            expected.append(float(allowed_BV.log_softmax(-1)[0, said.tokens[at]]))
        assert said.token_logprobs == pytest.approx(expected, abs=1e-4)


def test_only_the_languages_named_are_considered(both: Both) -> None:
    batch = both.ours.new_decode_batch()
    anything = DecodeOptions(language_only=True)
    wishes = [anything, replace(anything, languages=("de", "ja", "fr"))]
    batch.join([0, 1], [both.encoded[0]] * 2, wishes)
    all_of_them, some = finish(batch, 2)
    shares = dict(all_of_them.language_probs)
    total = sum(shares[code] for code in ("de", "ja", "fr"))
    expected = {code: shares[code] / total for code in ("de", "ja", "fr")}
    assert dict(some.language_probs) == pytest.approx(expected, rel=1e-4)
    assert some.language == max(expected, key=lambda code: expected[code])


def test_a_beam_of_five_says_something_likelier_than_greedy(both: Both) -> None:
    greedy, beam = DecodeOptions("en"), DecodeOptions("en", beam_size=5)
    first, second = say(both.ours, [both.encoded[0]] * 2, greedy, beam)
    assert first.tokens != second.tokens
    assert second.avg_logprob > first.avg_logprob


@pytest.mark.parametrize("length", [5, 300])
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_prompt_changes_what_is_said_as_in_openai_whisper(
    both: Both, length: int, timestamps: bool
) -> None:
    prompt = (PROMPT * 60)[:length]
    wish = DecodeOptions("en", prompt=prompt, timestamps=timestamps)
    window = both.encoded[0]
    (ours,) = say(both.ours, [window], wish)
    theirs = openai_says(both, window, prompt=list(prompt), without_timestamps=not timestamps)
    assert_same(ours, theirs)
    (without,) = say(both.ours, [window], replace(wish, prompt=()))
    assert without.tokens != ours.tokens


def test_a_prompt_says_what_generate_says(both: Both) -> None:
    vocabulary = both.ours.checkpoint.vocabulary
    hub = WhisperForConditionalGeneration.from_pretrained(both.folder).eval()
    window = both.encoded[0]
    (theirs,) = hub.generate(
        encoder_outputs=BaseModelOutput(window.states_TD[None].clone()),
        language="en",
        task="transcribe",
        prompt_ids=torch.tensor([vocabulary.previous, *PROMPT]),
        max_new_tokens=NUM_TOKENS,
        force_unique_generate_call=True,
        suppress_tokens=[*vocabulary.suppress_tokens, *times(vocabulary)],
    ).tolist()
    (ours,) = say(both.ours, [window], DecodeOptions("en", prompt=PROMPT, timestamps=False))
    own = theirs[-len(ours.tokens) - 1 :] if theirs[-1] == vocabulary.eot else theirs[-NUM_TOKENS:]
    assert list(ours.tokens) == [token for token in own if token != vocabulary.eot]


def test_a_prompt_does_not_change_the_language_that_is_heard(both: Both) -> None:
    plain, prompted = say(
        both.ours, [both.encoded[1]] * 2, DecodeOptions(), DecodeOptions(prompt=PROMPT)
    )
    assert [code for code, _ in plain.language_probs] == [c for c, _ in prompted.language_probs]
    assert dict(plain.language_probs) == pytest.approx(dict(prompted.language_probs), abs=1e-5)
    named = DecodeOptions(plain.language, prompt=PROMPT)
    (expected,) = say(both.ours, [both.encoded[1]], named)
    assert prompted.tokens == expected.tokens
    assert prompted.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-6)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_text_goes_on_after_its_prefix_as_in_openai_whisper(both: Both, beam_size: int) -> None:
    wish = DecodeOptions("en", prefix=PREFIX, timestamps=False, beam_size=beam_size)
    (ours,) = say(both.ours, both.encoded[:1], wish)
    beam = {"beam_size": beam_size} if beam_size > 1 else {}
    theirs = openai_says(
        both, both.encoded[0], prefix=list(PREFIX), without_timestamps=True, **beam
    )
    assert ours.tokens[: len(PREFIX)] == PREFIX
    assert_same(replace(ours, tokens=ours.tokens[len(PREFIX) :]), theirs)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_with_timestamps_the_prefix_is_the_first_segments_text(both: Both, beam_size: int) -> None:
    """openai-whisper puts the prefix before the first timestamp; here its rules look back on it."""
    wish = DecodeOptions("en", prefix=PREFIX, beam_size=beam_size)
    opening = [both.ours.checkpoint.vocabulary.timestamp_begin, *PREFIX]
    task = DecodingTask(
        both.theirs,
        DecodingOptions(
            language="en",
            fp16=False,
            sample_len=NUM_TOKENS,
            prefix=opening,
            beam_size=beam_size if beam_size > 1 else None,
        ),
    )
    for logit_filter in task.logit_filters:
        if hasattr(logit_filter, "sample_begin"):
            logit_filter.sample_begin -= len(opening)
    (theirs,) = task.run(both.encoded[0].states_TD[None].clone())
    (ours,) = say(both.ours, both.encoded[:1], wish)
    assert list(ours.tokens) == [*opening, *theirs.tokens]
    assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-4)
    (piece, *_) = both.ours.split_text(ours.tokens)
    assert piece.text.startswith(both.ours.checkpoint.vocabulary.decode(PREFIX))


@pytest.mark.parametrize("own", [True, False])
def test_suppressed_tokens_are_those_of_the_request(both: Both, own: bool) -> None:
    window = both.encoded[0]
    plain = DecodeOptions("en", timestamps=False)
    (first,) = say(both.ours, [window], plain)
    unwanted = tuple(sorted(set(first.tokens[:4])))
    suppress = (*unwanted, -1) if own else unwanted
    # Beside one that goes by the checkpoint's own.
    ours, again = say(both.ours, [window] * 2, replace(plain, suppress=suppress), plain)
    assert again.tokens == first.tokens
    assert not set(ours.tokens) & set(unwanted)
    theirs = openai_says(both, window, suppress_tokens=list(suppress), without_timestamps=True)
    assert list(ours.tokens) == theirs.tokens


def test_suppressing_every_word_leaves_an_empty_text(both: Both) -> None:
    suppress = tuple(range(both.ours.checkpoint.vocabulary.eot + 5))
    for timestamps in (True, False):
        wish = DecodeOptions("en", suppress=suppress, timestamps=timestamps)
        (hypothesis,) = say(both.ours, both.encoded[:1], wish)
        assert hypothesis.ended
        assert both.ours.split_text(hypothesis.tokens) == []


def test_what_is_given_leaves_room_for_an_answer(both: Both) -> None:
    long = tuple(range(200, 900))
    batch = both.ours.new_decode_batch()
    batch.join([0], both.encoded[:1], [DecodeOptions("en", prompt=long, prefix=long)])
    window = batch.rows[0].window
    assert window.options.prompt == long[-223:]
    assert window.opening[1:] == long[:112]
    # Tokens 0 to 447 have a place; the last one that is said needs none.
    assert window.token_limit - window.num_given == 449 - (1 + 223 + 3 + 113)


# The guard


def test_a_window_in_a_loop_ends_long_before_its_limit(both: Both) -> None:
    """Weights that say the same two tokens for ever, alone, in a beam and beside a sound one."""
    checkpoint = both.ours.checkpoint
    decoder = checkpoint.weights.decoder
    embedding_VD = torch.zeros_like(decoder.embedding_VD)
    embedding_VD[1000, 0] = 1.0
    looping = replace(decoder, embedding_VD=embedding_VD, logits=Dense(embedding_VD, None))
    looping = replace(
        looping, norm=replace(decoder.norm, weight=torch.zeros(128), bias=torch.eye(128)[0] * 9)
    )
    model = Whisper(replace(checkpoint, weights=replace(checkpoint.weights, decoder=looping)))
    wishes = [
        DecodeOptions("en", timestamps=False),
        DecodeOptions("en", timestamps=False, beam_size=3),
        DecodeOptions("en", timestamps=False, temperature=0.2),
    ]
    for guarded in (True, False):
        batch = model.new_decode_batch()
        batch.guarded = guarded
        batch.join(range(3), [both.encoded[0]] * 3, wishes)
        for hypothesis in finish(batch, 3):
            assert not hypothesis.ended
            assert set(hypothesis.tokens) == {1000}
            assert len(hypothesis.tokens) == (32 if guarded else 224)


def test_the_guard_changes_nothing_of_a_window_that_is_sound(both: Both) -> None:
    wish = DecodeOptions("en", timestamps=False)
    said = []
    for guarded in (True, False):
        batch = both.ours.new_decode_batch()
        batch.guarded = guarded
        batch.token_limit = 48
        batch.join([0], both.encoded[:1], [wish])
        said += finish(batch, 1)
    assert len(said[0].tokens) > 32
    assert said[0] == said[1]


# Text to tokens


@pytest.mark.parametrize(
    "text", [" Glory be to Winnow, 1984!", " Grüße, naïve café 北京 🙂", "  two  spaces\n", ""]
)
def test_text_is_split_as_openai_whisper_splits_it(both: Both, text: str) -> None:
    assert list(both.ours.encode_text(text)) == openai_tokenizer(True).encode(text)


def test_a_text_cannot_spell_special_tokens(both: Both) -> None:
    tokens = both.ours.encode_text(" one<|endoftext|><|0.00|> two<|nospeech|>")
    assert both.ours.checkpoint.vocabulary.decode(tokens) == " one two"
    assert max(tokens) < both.ours.checkpoint.vocabulary.eot
