"""Word times against openai-whisper and transformers on the same weights; splitting; bounds."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from whisper import _ALIGNMENT_HEADS
from whisper.model import Whisper as OpenAIWhisper
from whisper.timing import WordTiming, add_word_timestamps, find_alignment
from whisper.tokenizer import Tokenizer

from service.audio.mel import log_mel
from service.errors import CheckpointError
from service.families.whisper import Whisper
from service.model import decoder
from service.model.alignment import Alignment, read_alignment
from service.model.checkpoint import Checkpoint
from service.profiles import BUILT_IN, Profile
from service.types import DecodeOptions, Encoded, Word
from service.words.find import find_words
from service.words.splitting import split_words
from service.words.timing import token_times
from tests.checkpoints import load_plain, openai_tokenizer, to_openai_whisper
from tests.speech import SAMPLE, samples_of
from tests.windows import finish, noise

DENSE = BUILT_IN["dense"]
FRAME_S = 0.02
SENTENCES = {
    "en": ' He said, "wait ... (until 5 o\'clock)!" And then - nothing. Was that all? It was.',
    "de": " Größe, Übermut und Äpfel: „süß“, sagte sie.",
    "zh": "今天天气很好，我们去公园吧！",  # noqa: RUF001 - as Chinese is written
    "ja": "東京タワーは高いですね。",
    "th": "สวัสดีครับ ยินดีต้อนรับ",
    "ru": " Привет, как дела? Хорошо.",
    "fr": " Ça va 🙂👍🏽 très bien — merci !",
}


@dataclass(frozen=True)
class Pair:
    """One checkpoint as ours and as openai-whisper's, with a window of sound."""

    folder: Path
    ours: Checkpoint
    openai: OpenAIWhisper
    mel: torch.Tensor
    encoded: Encoded


def load_pair(folder: Path, mel: torch.Tensor) -> Pair:
    ours = load_plain(str(folder))
    openai = to_openai_whisper(folder)
    mask = torch.zeros(openai.dims.n_text_layer, openai.dims.n_text_head, dtype=torch.bool)
    for layer, head in ours.alignment.heads:
        mask[layer, head] = True
    openai.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return Pair(folder, ours, openai, mel, Whisper(ours).encode(mel, [DENSE])[0])


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Pair:
    return load_pair(tiny_folder, noise(1))


@pytest.fixture(scope="module")
def real(tiny_en_folder: Path) -> Pair:
    """tiny.en, whose heads are known, and the sample."""
    return load_pair(tiny_en_folder, log_mel([samples_of(SAMPLE)], 80))


def tokenizer_of(language: str) -> Tokenizer:
    base = openai_tokenizer(multilingual=True)
    return Tokenizer(base.encoding, base.num_languages, language=language, task="transcribe")


def ours(pair: Pair, tokens: list[int], language: str, audio_frames: int) -> tuple[Word, ...]:
    return find_words(
        pair.ours.weights.decoder,
        pair.ours.vocabulary,
        pair.ours.alignment,
        replace(pair.encoded, audio_frames=audio_frames),
        DecodeOptions(language, timestamps=False, word_times=True),
        tokens,
    )


def assert_same(words: tuple[Word, ...], theirs: list[dict[str, Any]]) -> None:
    assert [word.text for word in words] == [word["word"] for word in theirs]
    for word, their in zip(words, theirs, strict=True):
        assert word.start == pytest.approx(their["start"], abs=FRAME_S)
        assert word.end == pytest.approx(their["end"], abs=FRAME_S)
        assert word.probability == pytest.approx(their["probability"], rel=1e-2, abs=1e-6)
    assert len({word.start for word in words}) > 2  # else equality proves little


def by_openai(
    pair: Pair, tokenizer: Tokenizer, tokens: list[int], audio_frames: int
) -> list[dict[str, Any]]:
    # Speech that ended long ago switches off what moves words to a segment's bounds.
    segments: list[dict[str, Any]] = [{"seek": 0, "start": 0.0, "end": 30.0, "tokens": tokens}]
    add_word_timestamps(
        segments=segments,
        model=pair.openai,
        tokenizer=tokenizer,
        mel=pair.mel[0],
        num_frames=2 * audio_frames,
        last_speech_timestamp=1e9,
    )
    words: list[dict[str, Any]] = segments[0]["words"]
    return words


@pytest.mark.parametrize("audio_frames", [1500, 617])
@pytest.mark.parametrize("language", list(SENTENCES))
def test_words_are_those_of_openai_whisper(tiny: Pair, language: str, audio_frames: int) -> None:
    tokenizer = tokenizer_of(language)
    tokens = tokenizer.encode(SENTENCES[language])
    words = ours(tiny, tokens, language, audio_frames)
    assert_same(words, by_openai(tiny, tokenizer, tokens, audio_frames))
    assert max(word.end for word in words) <= audio_frames * FRAME_S


@pytest.mark.model
@pytest.mark.parametrize("audio_frames", [1500, 377])
def test_words_of_real_speech_are_those_of_openai_whisper(real: Pair, audio_frames: int) -> None:
    (heard,) = _say(real)
    tokenizer = openai_tokenizer(multilingual=False)
    words = ours(real, heard, "en", audio_frames)
    assert_same(words, by_openai(real, tokenizer, heard, audio_frames))
    alignment: list[WordTiming] = find_alignment(
        real.openai, tokenizer, heard, real.mel[0], 2 * audio_frames
    )
    assert [timing.word for timing in alignment][-2:] == [" types", "."]
    assert len(words) == 19


def _say(pair: Pair) -> list[list[int]]:
    """The text tokens of the pair's window."""
    model = Whisper(pair.ours)
    batch = model.new_decode_batch()
    batch.join([0], [pair.encoded], [DecodeOptions("en")])
    return [
        [token for token in said.tokens if token < pair.ours.vocabulary.eot]
        for said in finish(batch, 1)
    ]


def test_token_times_are_those_of_transformers(tiny: Pair) -> None:
    hub = WhisperForConditionalGeneration.from_pretrained(tiny.folder).eval()
    hub.generation_config.alignment_heads = [list(head) for head in tiny.ours.alignment.heads]
    answer = hub.generate(
        encoder_outputs=BaseModelOutput(tiny.encoded.states_TD[None].clone()),
        language="en",
        task="transcribe",
        return_timestamps=False,
        return_token_timestamps=True,
        return_dict_in_generate=True,
        max_new_tokens=24,
        force_unique_generate_call=True,
        suppress_tokens=list(range(tiny.ours.vocabulary.eot, tiny.ours.vocabulary.size)),
    )
    sequence, theirs = answer["sequences"][0].tolist(), answer["token_timestamps"][0].tolist()
    prompt = len(tiny.ours.vocabulary.prompt(DecodeOptions("en", timestamps=False)))
    _, watched = decoder.forward_watched(
        tiny.ours.weights.decoder,
        torch.tensor([sequence]),
        tiny.encoded.states_TD[None],
        tiny.ours.alignment.heads,
    )
    # It normalises over the rows of generated tokens alone.
    attention = torch.cat(watched)[:, prompt : len(sequence) - 1]
    rows = range(attention.shape[1])
    times = token_times(attention, tiny.encoded.positions_T, rows)
    expected = theirs[prompt : prompt + len(times.starts)]
    assert len(set(expected)) > len(expected) // 2
    assert (times.starts * FRAME_S).tolist() == pytest.approx(expected, abs=FRAME_S)


@pytest.mark.parametrize("language", list(SENTENCES))
def test_words_are_split_as_openai_whisper_splits_them(tiny: Pair, language: str) -> None:
    tokenizer = tokenizer_of(language)
    tokens = tokenizer.encode(SENTENCES[language])
    words = split_words(tiny.ours.vocabulary, tokens, language)
    texts, groups = tokenizer.split_to_word_tokens(tokens)
    assert [word.text for word in words] == texts
    assert [tokens[word.first : word.end] for word in words] == groups
    assert "".join(word.text for word in words) == SENTENCES[language]


def test_a_timestamp_parts_words_but_not_a_character(tiny: Pair) -> None:
    vocabulary = tiny.ours.vocabulary
    smile = tokenizer_of("en").encode("🙂")
    assert len(smile) > 1
    time = vocabulary.timestamp_begin + 50
    hello, lo = tokenizer_of("en").encode(" Hel"), tokenizer_of("en").encode("lo")
    parted = split_words(vocabulary, [time, *hello, time, time, *lo, time], "en")
    assert [(word.text, word.opens) for word in parted] == [(" Hel", True), ("lo", True)]
    whole = split_words(vocabulary, [time, *hello, smile[0], time, *smile[1:], *lo], "en")
    assert [word.text for word in whole] == [" Hel", "🙂lo"]
    assert split_words(vocabulary, [*hello, smile[0]], "en")[-1].text == " Hel"


@pytest.mark.parametrize("profile", ["balanced", "fast"])
def test_sparse_times_lie_on_the_original_clock(tiny: Pair, profile: str) -> None:
    model = Whisper(tiny.ours)
    (encoded,) = model.encode(tiny.mel, [BUILT_IN[profile]])
    tokens = tokenizer_of("en").encode(SENTENCES["en"])
    options = DecodeOptions("en", timestamps=False, word_times=True)
    weights, vocabulary = tiny.ours.weights.decoder, tiny.ours.vocabulary

    def words(window: Encoded) -> tuple[Word, ...]:
        return find_words(weights, vocabulary, tiny.ours.alignment, window, options, tokens)

    # The same kept states, said to lie elsewhere: only the times may change, and by that much.
    shifted = replace(encoded, positions_T=encoded.positions_T + 100)
    compressed = replace(encoded, positions_T=torch.arange(len(encoded.positions_T)))
    here, later = words(encoded), words(shifted)
    assert [w.start + 2.0 for w in here] == pytest.approx([w.start for w in later])
    assert here[-1].end > words(compressed)[-1].end + 1.0
    starts = [word.start for word in here]
    assert starts == sorted(starts)


def test_averaged_frames_begin_where_the_last_ended(tiny: Pair) -> None:
    (encoded,) = Whisper(tiny.ours).encode(tiny.mel, [Profile("p", 2, 0.5, pool="mean")])
    tokens = tokenizer_of("en").encode(SENTENCES["en"])
    options = DecodeOptions("en", timestamps=False, word_times=True)
    weights, vocabulary = tiny.ours.weights.decoder, tiny.ours.vocabulary
    pooled, dropped = (
        find_words(weights, vocabulary, tiny.ours.alignment, window, options, tokens)
        for window in (encoded, replace(encoded, pooled=False))
    )
    # Had every second frame been dropped, a boundary would share it: half a frame earlier.
    assert pooled[-1].end == pytest.approx(dropped[-1].end + 0.01)
    assert (pooled[-1].end / 0.04) == pytest.approx(round(pooled[-1].end / 0.04))


@pytest.mark.parametrize("timestamps", [True, False])
def test_what_was_decoded_has_words_at_its_times(tiny: Pair, timestamps: bool) -> None:
    # Random weights may end at once: here they cannot.
    talkative = replace(tiny.ours.vocabulary, suppress_tokens=(tiny.ours.vocabulary.eot,))
    model = Whisper(replace(tiny.ours, vocabulary=talkative))
    batch = model.new_decode_batch()
    batch.token_limit = 20
    encoded = [replace(one, audio_frames=700) for one in model.encode(noise(1), [DENSE])]
    asked = DecodeOptions("en", timestamps=timestamps)
    batch.join([0], encoded, [asked])
    (said,) = finish(batch, 1)
    found = model.find_words(encoded[0], said, asked)
    assert "".join(w.text for w in found) == tiny.ours.vocabulary.decode(said.tokens)
    assert len(found) > 1
    assert all(0 <= w.start <= w.end <= 14.0 for w in found)
    assert all(0 < w.probability < 1 for w in found)


@pytest.mark.model
def test_heads_of_a_data_package_are_those_that_openai_whisper_has(tiny_en: Whisper) -> None:
    packed = np.frombuffer(gzip.decompress(base64.b85decode(_ALIGNMENT_HEADS["tiny.en"])), bool)
    layers, heads = np.nonzero(packed.reshape(4, 6))
    expected = tuple(zip(layers.tolist(), heads.tolist(), strict=True))
    assert tiny_en.checkpoint.alignment == Alignment(expected)


def test_heads_that_nobody_names_are_the_upper_half(tiny: Pair) -> None:
    upper_half = tuple((layer, head) for layer in (2, 3) for head in range(6))
    assert tiny.ours.alignment == Alignment(upper_half)


@pytest.mark.parametrize("heads", [[], [[4, 0]], [[0, 6]], [[0]], [[-1, 0]], 3, "[[0, 0]]"])
def test_heads_that_do_not_exist_are_refused(tiny: Pair, heads: object) -> None:
    with pytest.raises(CheckpointError, match=r"alignment_heads .* 4 layers of 6 heads"):
        read_alignment({"alignment_heads": heads}, tiny.ours.weights.dims)
