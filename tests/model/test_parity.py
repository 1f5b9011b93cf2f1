"""Ours against transformers and openai-whisper: the same weights, float32, tiny's shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import whisper
from torch import Tensor
from torch.testing import assert_close
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from whisper.model import Whisper as OpenAIWhisper

from service.decode.batch import WindowDecoder
from service.decode.rules import make_rules
from service.families.whisper import Whisper
from service.model import decoder, encoder
from service.model.checkpoint import Checkpoint
from service.model.tokens import Vocabulary
from service.profiles import BUILT_IN
from service.types import DecodeOptions, Encoded, Hypothesis
from tests.checkpoints import load_plain, to_openai_whisper
from tests.windows import finish, noise

DENSE = BUILT_IN["dense"]
LANGUAGES = ("en", "de", "fr")
NUM_TOKENS = 32


@dataclass(frozen=True)
class Models:
    """One checkpoint, loaded three ways."""

    ours: Checkpoint
    hub: WhisperForConditionalGeneration
    openai: OpenAIWhisper


def load_all(folder: Path) -> Models:
    return Models(
        # What is packed sums in another order, which weights drawn at random make much of.
        load_plain(str(folder)),
        WhisperForConditionalGeneration.from_pretrained(folder).eval(),
        to_openai_whisper(folder),
    )


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Models:
    return load_all(tiny_folder)


@pytest.fixture(scope="module")
def tiny_128(tiny_128_folder: Path) -> Models:
    return load_all(tiny_128_folder)


@pytest.fixture(params=["tiny", "tiny_128"])
def models(request: pytest.FixtureRequest) -> Models:
    loaded: Models = request.getfixturevalue(request.param)
    return loaded


@pytest.fixture(scope="module")
def encoded(tiny: Models) -> list[Encoded]:
    """Three windows of noise."""
    return Whisper(tiny.ours).encode(noise(3), [DENSE] * 3)


@torch.inference_mode()
def test_encoder_states(models: Models) -> None:
    mel = noise(1, models.ours.weights.dims.num_mels)
    states, positions = encoder.encode(models.ours.weights.encoder, mel, DENSE)
    assert_close(states, models.hub.model.encoder(mel).last_hidden_state, atol=1e-4, rtol=0)
    assert_close(states, models.openai.encoder(mel), atol=1e-4, rtol=0)
    assert positions.tolist() == [list(range(1500))]


@torch.inference_mode()
def test_decoder_logits(models: Models) -> None:
    source = torch.Generator().manual_seed(3)
    states = torch.randn(2, 1500, 384, generator=source)
    tokens = torch.randint(0, models.ours.weights.dims.vocab_size, (2, 24), generator=source)
    logits = decoder.forward(models.ours.weights.decoder, tokens, states)
    theirs = models.hub(encoder_outputs=(states,), decoder_input_ids=tokens).logits
    assert_close(logits, theirs, atol=1e-4, rtol=0)
    assert_close(logits, models.openai.decoder(tokens, states), atol=1e-4, rtol=0)
    assert theirs.std() > 0.5  # or equal logits would prove little


@pytest.mark.parametrize("timestamps", [True, False])
def test_greedy_tokens_are_those_of_generate(
    tiny: Models, encoded: list[Encoded], timestamps: bool
) -> None:
    vocabulary = tiny.ours.vocabulary
    theirs = tiny.hub.generate(
        encoder_outputs=BaseModelOutput(stacked(encoded)),
        language=list(LANGUAGES),
        task="transcribe",
        return_timestamps=timestamps,
        max_new_tokens=NUM_TOKENS,
        force_unique_generate_call=True,
        # Untrained weights would say times unasked, which ours never do.
        suppress_tokens=[*vocabulary.suppress_tokens, *(() if timestamps else times(vocabulary))],
    )
    prompts = [vocabulary.prompt(DecodeOptions(c, timestamps=timestamps)) for c in LANGUAGES]
    expected = [
        row[len(prompt) :] if tuple(row[: len(prompt)]) == prompt else row
        for row, prompt in zip(theirs.tolist(), prompts, strict=True)
    ]
    ours = [list(h.tokens) for h in hypotheses(tiny.ours, encoded, timestamps, LANGUAGES)]
    assert ours == [until(vocabulary.eot, row) for row in expected]
    assert (
        len({token for row in ours for token in row}) > NUM_TOKENS // 2
    )  # and not one over and over


@pytest.mark.parametrize("timestamps", [True, False])
def test_greedy_tokens_and_scores_are_those_of_openai_whisper(
    tiny: Models, encoded: list[Encoded], timestamps: bool
) -> None:
    vocabulary = tiny.ours.vocabulary
    options = whisper.DecodingOptions(
        language="en",
        temperature=0,
        fp16=False,
        sample_len=NUM_TOKENS,
        without_timestamps=not timestamps,
        suppress_tokens=[-1, *(() if timestamps else times(vocabulary))],
    )
    theirs = whisper.decode(tiny.openai, stacked(encoded), options)
    ours = hypotheses(tiny.ours, encoded, timestamps, ("en",) * 3)
    for hypothesis, result in zip(ours, theirs, strict=True):
        assert list(hypothesis.tokens) == result.tokens
        assert hypothesis.avg_logprob == pytest.approx(result.avg_logprob, abs=1e-4)
        assert hypothesis.no_speech_prob == pytest.approx(result.no_speech_prob, abs=1e-6)
        text = vocabulary.decode(hypothesis.tokens)
        assert text.strip() == result.text.replace("\ufffd", "")


def test_the_language_detected_is_that_of_openai_whisper(
    tiny: Models, encoded: list[Encoded]
) -> None:
    _, theirs = tiny.openai.detect_language(stacked(encoded))
    model = Whisper(tiny.ours)
    batch = model.new_decode_batch()
    batch.join(range(3), encoded, [DecodeOptions(language_only=True)] * 3)
    detected = finish(batch, 3)
    for hypothesis, probs in zip(detected, theirs, strict=True):
        assert dict(hypothesis.language_probs) == pytest.approx(probs, abs=1e-5)
        shares = [share for _, share in hypothesis.language_probs]
        assert shares == sorted(shares, reverse=True)
        assert hypothesis.language == max(probs, key=probs.__getitem__)
    assert len({hypothesis.language for hypothesis in detected}) > 1


def hypotheses(
    checkpoint: Checkpoint, encoded: list[Encoded], timestamps: bool, languages: tuple[str, ...]
) -> list[Hypothesis]:
    """At most NUM_TOKENS of each window."""
    options = [DecodeOptions(language, timestamps=timestamps) for language in languages]
    rules = make_rules(checkpoint.vocabulary, checkpoint.device)
    batch = WindowDecoder(
        checkpoint.weights.decoder,
        checkpoint.vocabulary,
        rules,
        max_tokens=2 * NUM_TOKENS,
    )
    batch.join(range(len(encoded)), encoded, options)
    return finish(batch, len(encoded))


def stacked(encoded: list[Encoded]) -> Tensor:
    return torch.stack([window.states_TD for window in encoded]).clone()


def times(vocabulary: Vocabulary) -> range:
    return range(vocabulary.timestamp_begin, vocabulary.size)


def until(token: int, tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(token)] if token in tokens else tokens
