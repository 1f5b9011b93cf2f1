"""What a window becomes does not depend on the windows it shares a batch with."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from service.decode.batch import WindowDecoder
from service.decode.kept import BLOCKS_ON_CPU, FRAMES
from service.decode.packed import DecodeCache, empty_cache
from service.families.whisper import Whisper
from service.model import decoder
from service.model.checkpoint import load_checkpoint
from service.model.protocol import WindowsFailedError
from service.profiles import BUILT_IN, Profile
from service.types import DecodeOptions, Encoded, Hypothesis
from tests.checkpoints import load_plain
from tests.windows import finish, noise

LOCAL = Profile("local", layer=1, sparsity=0.6, aggregation="max", within=5)
PROFILES = (
    BUILT_IN["dense"],
    LOCAL,
    Profile("pairs", layer=2, sparsity=0.5, pool="mean", late=0.25),
    LOCAL,
    Profile("every-third", layer=1, sparsity=2 / 3, selection="stride", late=0.2),
    BUILT_IN["dense"],
)
OPTIONS = (
    DecodeOptions("en"),
    DecodeOptions("de", timestamps=False, suppress=(11, 13), prefix=(500, 600)),
    DecodeOptions(None),
    DecodeOptions("fr", beam_size=5, task="translate"),
    DecodeOptions("en", temperature=0.7, seed=3),
    DecodeOptions(None, timestamps=False, beam_size=3, patience=1.5, prompt=(400, 11, 1000)),
)
SIX = range(6)


@pytest.fixture(scope="module")
def model(mini_folder: Path) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


@pytest.fixture(scope="module")
def mel() -> Tensor:
    """Six windows, some of them silent from somewhere on."""
    mel_BFT = noise(6, seed=1)
    for window, frames in enumerate((3000, 500, 1700, 2400, 3000, 900)):
        mel_BFT[window, :, frames:] = mel_BFT[window].min()
    return mel_BFT


@pytest.fixture(scope="module")
def encoded(model: Whisper, mel: Tensor) -> list[Encoded]:
    return model.encode(mel, PROFILES)


def new_batch(model: Whisper) -> WindowDecoder:
    """At most 24 tokens a window."""
    checkpoint, graphs = model.checkpoint, model.new_graphs and model.new_graphs()
    decoder_weights = checkpoint.weights.decoder
    return WindowDecoder(decoder_weights, checkpoint.vocabulary, model.rules, 48, graphs)


def packed(batch: WindowDecoder) -> DecodeCache:
    assert isinstance(batch.cache, DecodeCache)
    return batch.cache


@pytest.fixture(scope="module")
def alone(model: Whisper, encoded: list[Encoded]) -> list[Hypothesis]:
    hypotheses = []
    for window, wish in zip(encoded, OPTIONS, strict=True):
        batch = new_batch(model)
        batch.join([0], [window], [wish])
        hypotheses += finish(batch, 1)
    return hypotheses


def assert_same(ours: Sequence[Hypothesis], alone: Sequence[Hypothesis]) -> None:
    for together, single in zip(ours, alone, strict=True):
        assert [code for code, _ in together.language_probs][:1] == [
            code for code, _ in single.language_probs
        ][:1]
        assert together.token_logprobs == pytest.approx(single.token_logprobs, abs=1e-4)
        shares = dict(single.language_probs)
        assert dict(together.language_probs) == pytest.approx(shares, abs=1e-4)
        assert together.avg_logprob == pytest.approx(single.avg_logprob, abs=1e-4)
        assert together.no_speech_prob == pytest.approx(single.no_speech_prob, abs=1e-4)
        close = replace(
            together,
            avg_logprob=single.avg_logprob,
            no_speech_prob=single.no_speech_prob,
            language_probs=single.language_probs,
            token_logprobs=single.token_logprobs,
        )
        assert close == single


def test_windows_of_a_batch_are_encoded_as_alone(
    model: Whisper, mel: Tensor, encoded: list[Encoded]
) -> None:
    for window, profile in enumerate(PROFILES):
        (single,) = model.encode(mel[window : window + 1], [profile])
        assert torch.equal(encoded[window].positions_T, single.positions_T)
        assert_close(encoded[window].states_TD, single.states_TD, atol=1e-4, rtol=0)
    assert [window.pooled for window in encoded] == [False, False, True, False, False, False]
    assert [len(window.states_TD) for window in encoded] == [1500, 600, 562, 600, 400, 1500]


def test_six_windows_together_say_what_each_says_alone(
    model: Whisper, encoded: list[Encoded], alone: list[Hypothesis]
) -> None:
    batch = new_batch(model)
    batch.join(SIX, encoded, OPTIONS)
    assert_same(finish(batch, 6), alone)
    said = [hypothesis.tokens for hypothesis in alone]
    assert len(set(said)) == 6  # or agreement would prove little
    assert min(map(len, said)) < max(map(len, said))


@settings(max_examples=5, deadline=None)
@given(
    order=st.permutations(SIX),
    waits=st.lists(st.integers(0, 6), min_size=6, max_size=6),
    dropped=st.sets(st.integers(0, 5), max_size=3),
)
def test_windows_that_join_and_leave_at_any_step_say_what_they_say_alone(
    model: Whisper,
    encoded: list[Encoded],
    alone: list[Hypothesis],
    order: list[int],
    waits: list[int],
    dropped: set[int],
) -> None:
    batch = new_batch(model)
    done: dict[int, Hypothesis] = {}
    for window, wait in zip(order, waits, strict=True):
        batch.join([window], [encoded[window]], [OPTIONS[window]])
        for _ in range(wait):
            done |= batch.step()
    batch.drop(dropped)
    while len(batch):
        late = batch.step()
        assert not set(late) & dropped
        done |= late
    assert set(SIX) - dropped <= set(done)
    assert_same([done[window] for window in done], [alone[window] for window in done])


@torch.inference_mode()
def test_cached_steps_give_the_logits_of_the_whole_sequence(
    model: Whisper, encoded: list[Encoded]
) -> None:
    weights = model.checkpoint.weights.decoder
    tokens_BN = torch.randint(0, 50_000, (6, 12), generator=torch.Generator().manual_seed(1))
    cache = empty_cache(weights)
    for window in encoded:
        decoder.join(weights, cache, window.states_TD[None])
    steps = [decoder.step(weights, tokens_BN[:, :4], cache)]
    steps += [decoder.step(weights, tokens_BN[:, n : n + 1], cache) for n in range(4, 12)]
    together = torch.cat(steps, dim=1)
    for window, tokens_N, logits_NV in zip(encoded, tokens_BN, together, strict=True):
        whole = decoder.forward(weights, tokens_N[None], window.states_TD[None])[0]
        # Weights drawn at random make much of what is summed in another order.
        assert_close(logits_NV, whole, atol=2e-4, rtol=0)


@torch.inference_mode()
def test_a_row_keeps_nothing_of_the_windows_before(model: Whisper, encoded: list[Encoded]) -> None:
    weights = model.checkpoint.weights.decoder
    tokens_BN = torch.randint(0, 50_000, (3, 9), generator=torch.Generator().manual_seed(1))
    cache = empty_cache(weights)

    def join(window: int, num_tokens: int) -> None:
        decoder.join(weights, cache, encoded[window].states_TD[None])
        row = cache.num_rows - 1
        decoder.step(weights, tokens_BN[row : row + 1, :num_tokens], cache, row)

    def poison(row: int) -> None:
        cache.keys[:, row] = cache.values[:, row] = torch.nan

    for window, num_tokens in enumerate((8, 8, 2)):
        join(window, num_tokens)
    poison(1)
    cache.remove(1)  # the third row moves there
    poison(2)
    tokens_BN[1] = tokens_BN[2]
    join(3, 2)
    last_B1 = torch.stack([tokens_BN[0, 8], tokens_BN[1, 2], tokens_BN[2, 2]])[:, None]
    logits_BV = decoder.step(weights, last_B1, cache)[:, -1]
    for row, (window, length) in enumerate(((0, 9), (2, 3), (3, 3))):
        states_BTD = encoded[window].states_TD[None]
        whole = decoder.forward(weights, tokens_BN[row : row + 1, :length], states_BTD)[0, -1]
        assert_close(logits_BV[row], whole, atol=1e-4, rtol=0)


NOT_A_NUMBER = {
    "language": OPTIONS[0],
    "detected": OPTIONS[2],
    "nothing but the language": DecodeOptions(language_only=True),
    "sampled": replace(OPTIONS[0], temperature=0.8),
    "beam": replace(OPTIONS[0], beam_size=3),
}


@pytest.mark.parametrize("wish", NOT_A_NUMBER.values(), ids=NOT_A_NUMBER)
def test_a_window_that_is_not_a_number_fails_and_leaves_no_trace(
    model: Whisper, encoded: list[Encoded], alone: list[Hypothesis], wish: DecodeOptions
) -> None:
    states_TD = torch.full_like(encoded[0].states_TD, torch.nan)
    batch = new_batch(model)
    batch.join([0], encoded[:1], OPTIONS[:1])
    with pytest.raises(WindowsFailedError, match="not numbers") as failed:
        batch.join(
            [9, 1],
            [replace(encoded[0], states_TD=states_TD), encoded[1]],
            [wish, OPTIONS[1]],
        )
    assert failed.value.keys == (9,)
    assert_same(finish(batch, 2), alone[:2])


@pytest.mark.parametrize("beam_size", [1, 3])
@torch.inference_mode()
def test_a_window_that_ceases_to_be_a_number_fails_alone(
    model: Whisper, encoded: list[Encoded], alone: list[Hypothesis], beam_size: int
) -> None:
    batch = new_batch(model)
    wishes = [OPTIONS[0], replace(OPTIONS[0], beam_size=beam_size), OPTIONS[1]]
    batch.join([0, 9, 1], [encoded[0], encoded[0], encoded[1]], wishes)
    done = batch.step()
    for number, row in enumerate(batch.rows):
        if row.window.key == 9:
            packed(batch).keys[:, number] = torch.nan
    with pytest.raises(WindowsFailedError) as failed:
        batch.step()
    assert failed.value.keys == (9,)
    while len(batch):
        done |= batch.step()
    assert_same([done[0], done[1]], alone[:2])


def test_a_window_holds_no_memory_of_those_it_was_encoded_with(encoded: list[Encoded]) -> None:
    for window in encoded:
        assert window.states_TD.untyped_storage().nbytes() == window.states_TD.nbytes


def test_the_language_is_detected_with_the_keys_that_decode(
    model: Whisper, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, vocabulary = model.checkpoint.weights.decoder, model.checkpoint.vocabulary
    start_BN, states_BTD = torch.tensor([[vocabulary.sot]]), encoded[0].states_TD[None]
    logits_V = decoder.forward(weights, start_BN, states_BTD)[0, -1]
    computed: list[object] = []
    join = decoder.join

    def counted(*arguments: Any) -> None:
        computed.append(arguments)
        join(*arguments)

    monkeypatch.setattr(decoder, "join", counted)
    batch = new_batch(model)
    batch.join([0], encoded[:1], [DecodeOptions(None)])
    assert len(computed) == 1
    (hypothesis,) = finish(batch, 1)
    assert hypothesis.language == max(
        vocabulary.languages, key=lambda code: float(logits_V[vocabulary.languages[code]])
    )
    assert vocabulary.no_speech is not None
    expected = float(logits_V.softmax(-1)[vocabulary.no_speech])
    assert hypothesis.no_speech_prob == pytest.approx(expected, rel=1e-3)


def test_a_seed_says_the_same_again_and_another_seed_something_else(
    model: Whisper, encoded: list[Encoded]
) -> None:
    wishes = [DecodeOptions("en", temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    batch = new_batch(model)
    batch.join(range(3), [encoded[0]] * 3, wishes)
    first, again, other = finish(batch, 3)
    assert first.tokens == again.tokens != other.tokens


def test_ten_profiles_take_the_memory_of_one(model: Whisper) -> None:
    def bytes_alive() -> int:
        gc.collect()
        storages = {
            thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
            for thing in gc.get_objects()
            if type(thing) in (Tensor, torch.nn.Parameter) and thing.layout == torch.strided
        }
        return sum(storages.values())

    mel_BFT = noise(1)[..., :3000]
    weights = model.checkpoint.weights
    model.encode(mel_BFT, [BUILT_IN["dense"]])
    before = bytes_alive()
    assert before > weights.decoder.embedding_VD.nbytes
    for number in range(10):
        model.encode(mel_BFT, [Profile(f"p{number}", 1 + number % 2, number / 10)])
    model_bytes = 4 * model.info.num_parameters
    assert bytes_alive() - before <= 0.01 * model_bytes


@pytest.fixture(scope="module")
def on_cuda(mini_folder: Path) -> Whisper:
    loaded = load_checkpoint(str(mini_folder), device="cuda")
    assert loaded.dtype == torch.float16
    return Whisper(loaded)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
class TestOnCuda:
    """Float16 against float32 on the CPU: close, not equal."""

    def test_encoder_states(self, on_cuda: Whisper, mel: Tensor, encoded: list[Encoded]) -> None:
        (states,) = on_cuda.encode(mel[:1], PROFILES[:1])
        assert_close(states.states_TD.float().cpu(), encoded[0].states_TD, atol=0.1, rtol=0)

    def test_kept_frames(self, on_cuda: Whisper, mel: Tensor, encoded: list[Encoded]) -> None:
        for ours, single in zip(on_cuda.encode(mel, PROFILES), encoded, strict=True):
            ours_kept, kept = set(ours.positions_T.tolist()), set(single.positions_T.tolist())
            assert len(ours_kept) == len(kept)
            assert len(ours_kept & kept) >= 0.95 * len(kept)

    @torch.inference_mode()
    def test_decoder_logits(self, on_cuda: Whisper, model: Whisper, encoded: list[Encoded]) -> None:
        tokens_BN = torch.randint(0, 50_000, (1, 12), generator=torch.Generator().manual_seed(1))
        states_BTD = encoded[0].states_TD[None]
        theirs = decoder.forward(model.checkpoint.weights.decoder, tokens_BN, states_BTD)
        ours = decoder.forward(
            on_cuda.checkpoint.weights.decoder, tokens_BN.cuda(), states_BTD.half().cuda()
        )
        assert_close(ours.cpu(), theirs, atol=0.1, rtol=0)

    def test_windows_together_say_what_each_says_alone(self, on_cuda: Whisper, mel: Tensor) -> None:
        encoded = on_cuda.encode(mel, PROFILES)
        together = new_batch(on_cuda)
        together.join(SIX, encoded, OPTIONS)
        said = finish(together, 6)
        for window, hypothesis in enumerate(said):
            single = new_batch(on_cuda)
            single.join([0], [encoded[window]], [OPTIONS[window]])
            # Kernels differ by batch size in float16, so later tokens may part ways.
            assert finish(single, 1)[0].tokens[:3] == hypothesis.tokens[:3]


@torch.inference_mode()
def test_blocks_that_windows_leave_are_taken_by_the_next(
    model: Whisper, encoded: list[Encoded], alone: list[Hypothesis]
) -> None:
    """Tables grow with the windows and hold nothing once all have left, and every window says what
    it says alone."""
    batch = new_batch(model)
    kept, each = packed(batch).kept, -(-len(encoded[0].states_TD) // FRAMES)
    most = BLOCKS_ON_CPU // each + 2
    batch.join([100, *range(most - 1)], [encoded[0]] * most, [OPTIONS[0]] * most)
    held = kept.num_blocks
    assert most * each <= held <= 2 * most * each
    batch.drop([100])
    batch.join([most - 1], [encoded[0]], [OPTIONS[0]])
    assert kept.num_blocks == held
    assert_same(finish(batch, most), alone[:1] * most)
    assert kept.num_blocks == 0


@torch.inference_mode()
def test_the_rows_of_a_beam_read_one_copy(model: Whisper, encoded: list[Encoded]) -> None:
    batch = new_batch(model)
    wishes = [replace(OPTIONS[0], beam_size=size) for size in (5, 1, 4)]
    batch.join([0, 1, 2], [encoded[0], encoded[1], encoded[0]], wishes)
    batch.step()
    windows = packed(batch).windows
    assert len(windows) == batch.cache.num_rows == 10
    assert sorted(window.rows for window in windows) == [1, *[4] * 4, *[5] * 5]
    assert sorted(windows.count(window) for window in windows) == [1, *[4] * 4, *[5] * 5]


@torch.inference_mode()
def test_a_batch_takes_what_the_model_says_of_rows_and_frames(
    model: Whisper, encoded: list[Encoded]
) -> None:
    batch = model.new_decode_batch()
    batch.join([0, 1], [encoded[0]] * 2, [OPTIONS[0], replace(OPTIONS[0], beam_size=3)])
    batch.step()
    cache, info = packed(batch), model.info
    own = 2 * cache.keys[:, 0].nbytes / cache.keys.shape[3]
    assert info.row_bytes == own * model.checkpoint.weights.dims.max_tokens
    kept, width = encoded[0].states_TD.shape
    assert info.block_frames == FRAMES
    blocks = -(-kept // FRAMES)
    assert [len(window.blocks) for window in cache.windows] == [blocks] * 4
    read = cache.kept.nbytes // cache.kept.num_blocks / FRAMES
    assert info.frame_bytes == read + encoded[0].states_TD.nbytes / kept
    assert width == cache.keys.shape[2] * cache.keys.shape[4]
