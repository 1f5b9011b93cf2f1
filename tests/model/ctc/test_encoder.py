"""Winnowed windows: what is kept, where it stands, and what does not depend on what."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from service.errors import ConfigError
from service.families.ctc import CtcModel
from service.families.load import load_ctc, load_model
from service.model.ctc import conformer, encoder, places
from service.model.ctc.places import Places
from service.model.ctc.weights import ConformerLayer, CtcWeights
from service.model.operators.attention import fused
from service.model.protocol import WindowsFailedError
from service.model.sparsify import num_kept
from service.profiles import BUILT_IN, Profile
from service.types import DecodeOptions, Encoded
from tests.ctc_checkpoints import load_plain_ctc, write_ctc

from .sounds import encode_one, said, sounds, text_of

DENSE = BUILT_IN["dense"]
PROFILES = (
    Profile("attention", layer=2, sparsity=0.5),
    Profile("near", layer=1, sparsity=0.4, within=10, aggregation="max"),
    Profile("stride", layer=2, sparsity=0.5, selection="stride"),
    Profile("energy", layer=2, sparsity=0.5, selection="energy"),
    Profile("random", layer=3, sparsity=0.7, selection="random"),
    Profile("mean", layer=1, sparsity=0.5, pool="mean"),
    Profile("first", layer=0, sparsity=0.6, pool="mean"),
    Profile("alike", layer=2, sparsity=0.5, pool="alike"),
    Profile("late", late=0.5, pool="mean"),
    Profile("both", layer=2, sparsity=0.3, late=0.3),
)
LENGTHS = (16_000, 24_123, 16_000, 399, 30_000)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_profile_keeps_its_share_at_its_places(model: CtcModel, profile: Profile) -> None:
    wave_S = sounds(40_000)[0, 0]
    dense, kept = encode_one(model, wave_S, DENSE), encode_one(model, wave_S, profile)
    total = len(dense.states_TD)
    assert (total, kept.total_frames) == (124, 124)
    num = num_kept(num_kept(total, profile.sparsity), profile.late)
    assert kept.states_TD.shape == (num, dense.states_TD.shape[1])
    positions = kept.positions_T.tolist()
    assert positions == sorted(set(positions))
    assert 0 <= positions[0] <= positions[-1] < total
    assert kept.pooled is (profile.pool != "drop")
    assert kept.states_TD.isfinite().all()
    (hypothesis,) = said(model, [kept])
    assert (hypothesis.kept_frames, hypothesis.total_frames) == (num, total)
    assert text_of(model, hypothesis).strip()


def test_with_nothing_to_drop_it_is_dense_bit_for_bit(model: CtcModel) -> None:
    wave_S = sounds(20_000)[0, 0]
    dense = encode_one(model, wave_S, DENSE)
    for profile in (
        Profile("none", sparsity=0.0, layer=2),
        Profile("pad", padding=8),
        Profile("reach", reach=16),
        Profile("few", layer=2, sparsity=0.001, selection="stride"),  # rounds to every frame
        Profile("few-means", layer=2, sparsity=0.001, pool="mean"),
    ):
        assert torch.equal(encode_one(model, wave_S, profile).states_TD, dense.states_TD)


def test_a_window_is_the_same_beside_others(model: CtcModel) -> None:
    waves_B1S = sounds(*LENGTHS)
    profiles = [PROFILES[0], PROFILES[5], DENSE, PROFILES[0], PROFILES[7]]
    together = model.encode(waves_B1S, profiles, LENGTHS)
    hypotheses = said(model, together)
    for number, (length, profile) in enumerate(zip(LENGTHS, profiles, strict=True)):
        alone = encode_one(model, waves_B1S[number, 0, :length], profile)
        assert torch.equal(together[number].states_TD, alone.states_TD)
        assert torch.equal(together[number].positions_T, alone.positions_T)
        assert hypotheses[number] == said(model, [alone])[0]


@torch.inference_mode()
def test_windows_of_one_length_are_the_same_in_one_batch(model: CtcModel) -> None:
    """As a GPU takes them."""
    weights = model.checkpoint.weights
    wave_BS = encoder.normalise(sounds(20_000, 20_000, 20_000)[:, 0])
    for profile in PROFILES:
        if profile.pool == "alike":
            continue
        states_BTD, at = encoder.encode(weights, wave_BS, profile)
        for number in range(3):
            single_1TD, alone = encoder.encode(weights, wave_BS[number : number + 1], profile)
            assert torch.equal(at.positions_BT[number], alone.positions_BT[0])
            assert_close(states_BTD[number], single_1TD[0], atol=1e-4, rtol=0)


def test_times_are_in_order_and_on_the_windows_clock(model: CtcModel) -> None:
    wave_S = sounds(60_001)[0, 0]
    duration_s = len(wave_S) / 16_000
    num_quiet = 0
    for profile in (DENSE, *PROFILES):
        encoded = encode_one(model, wave_S, profile)
        (hypothesis,) = said(model, [encoded])
        words = model.find_words(encoded, hypothesis, DecodeOptions())
        if not words:
            num_quiet += not hypothesis.tokens
            continue
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= duration_s
        assert all(word.end > word.start for word in words)
        pieces = model.split_text(hypothesis.tokens)
        assert "".join(word.text for word in words) == "".join(piece.text for piece in pieces)
        assert pieces[0].start_s == pytest.approx(times[0], abs=1e-3)
        assert pieces[-1].end_s == pytest.approx(times[-1], abs=1e-3)
        assert len(hypothesis.tokens) == len(hypothesis.token_logprobs)
    assert num_quiet <= 1  # random weights may say nothing


def test_a_window_that_is_no_number_fails_alone(model: CtcModel) -> None:
    encoded = [encode_one(model, wave_1S[0], DENSE) for wave_1S in sounds(8_000, 8_000)]
    broken = replace(encoded[0], states_TD=encoded[0].states_TD * math.nan)
    batch = model.new_decode_batch()
    batch.join([7, 8, 9], [encoded[0], broken, encoded[1]], [DecodeOptions()] * 3)
    batch.drop([9])
    with pytest.raises(WindowsFailedError) as failed:
        batch.step()
    assert failed.value.keys == (8,)
    assert len(batch) == 1
    assert list(batch.step()) == [7]
    assert len(batch) == 0


def test_what_is_explained_is_what_was_kept(model: CtcModel) -> None:
    wave_1S = sounds(20_000)[0]
    for profile in (DENSE, PROFILES[0], PROFILES[5]):
        (encoded,) = model.encode(wave_1S[None], [profile])
        kept = model.explain(wave_1S[None], profile, encoded)
        assert kept.positions.tolist() == encoded.positions_T.tolist()
        assert len(kept.importance) == encoded.total_frames
        assert kept.importance.mean() == pytest.approx(1 / encoded.total_frames, rel=1e-3)
        assert kept.frame_s == 0.02
        assert int(kept.sizes.sum()) == (len(kept.positions) if profile is PROFILES[0] else 62)
    chosen = model.explain(
        wave_1S[None], PROFILES[0], model.encode(wave_1S[None], [PROFILES[0]])[0]
    )
    assert chosen.chosen_by_it
    best = torch.from_numpy(chosen.importance).topk(31).indices.sort().values
    assert best.tolist() == chosen.positions.tolist()


# Places: of 10 frames those left, one by one or as means.
FEW = Places(torch.tensor([[1, 2, 6, 9]]), 10)
MEANS = Places(torch.tensor([[0, 2, 4, 7]]), 10, pooled=True)


def test_who_stands_for_whom() -> None:
    assert places.owners(FEW).tolist() == [[0, 0, 1, 1, 1, 2, 2, 2, 3, 3]]
    assert places.owners(MEANS).tolist() == [[0, 0, 1, 1, 2, 2, 2, 3, 3, 3]]
    assert places.twice_centres(MEANS).tolist() == [[1, 5, 10, 16]]
    assert places.twice_centres(FEW).tolist() == [[2, 4, 12, 18]]


@pytest.mark.parametrize("at", [FEW, MEANS])
def test_distances_are_those_of_the_recording(at: Places) -> None:
    apart = places.distances(at)
    centres = (places.twice_centres(at)[0] / 2).tolist()
    for query, mine in enumerate(centres):
        for key, theirs in enumerate(centres):
            assert apart.frames_R[apart.index_BTT[0, query, key]] == mine - theirs
    frames = apart.frames_R.tolist()
    assert frames == sorted(set(frames))


@torch.inference_mode()
def test_relative_positions_of_kept_frames_are_their_own(models: dict[str, CtcModel]) -> None:
    weights = models["conformer-relative"].checkpoint.weights
    layer = weights.layers[0]
    assert isinstance(layer, ConformerLayer)
    states = torch.randn(1, 10, 48, generator=torch.Generator().manual_seed(0))
    around = conformer.look_around(weights, places.whole(states), states)
    query, key, _, bias = conformer.project(states, layer.attention, around, 4)
    kept = FEW.positions_BT[0]
    near = conformer.look_around(weights, FEW, states)
    query_k, key_k, _, bias_k = conformer.project(states[:, kept], layer.attention, near, 4)
    assert bias is not None
    assert bias_k is not None
    assert_close(query_k, query[:, :, kept])
    assert_close(key_k, key[:, :, kept])
    assert_close(bias_k, bias[:, :, kept][..., kept])
    assert bias_k.std() > 0.05


@torch.inference_mode()
def test_turned_frames_are_turned_by_where_they_were(models: dict[str, CtcModel]) -> None:
    weights = models["conformer-rotary"].checkpoint.weights
    layer = weights.layers[0]
    assert isinstance(layer, ConformerLayer)
    states = torch.randn(1, 10, 48, generator=torch.Generator().manual_seed(0))
    kept = FEW.positions_BT[0]
    around, near = (
        conformer.look_around(weights, at, states) for at in (places.whole(states), FEW)
    )
    every = conformer.project(states, layer.attention, around, 4)[:3]
    some = conformer.project(states[:, kept], layer.attention, near, 4)[:3]
    for whole, part in zip(every, some, strict=True):
        assert_close(part, whole[:, :, kept])


@pytest.mark.parametrize("at", [FEW, MEANS])
@torch.inference_mode()
def test_the_convolution_reads_every_frame(models: dict[str, CtcModel], at: Places) -> None:
    """Where the frames that went were as those that stand for them, nothing changes."""
    weights = models["conformer-plain"].checkpoint.weights
    layer = weights.layers[0]
    assert isinstance(layer, ConformerLayer)
    states = torch.randn(1, 4, 48, generator=torch.Generator().manual_seed(0))
    every = places.spread(states, places.owners(at))
    near = conformer.look_around(weights, at, states)
    around = conformer.look_around(weights, places.whole(every), every)
    whole = _mixed(every, layer, around, weights)
    kept = places.gather(whole, at, at.positions_BT[0])
    assert_close(_mixed(states, layer, near, weights), kept)


def _mixed(
    states: Tensor, layer: ConformerLayer, around: conformer.Surroundings, weights: CtcWeights
) -> Tensor:
    """What the convolution gives before its activation, which is not of sums alone."""
    seen: list[Tensor] = []

    def watch(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    conformer.convolve(states, layer.convolution, around, replace(weights, activation=watch))
    return seen[0]


def test_attention_is_what_was_chosen(models: dict[str, CtcModel]) -> None:
    """A conformer of relative positions has its own; the others ask for the processor's."""
    calls: list[int] = []

    def attend(*parts: torch.Tensor | None) -> torch.Tensor:
        calls.append(1)
        return fused(*parts)  # type: ignore[arg-type]

    for shape, expected in (("wav2vec2", 4), ("conformer-rotary", 4), ("conformer-relative", 0)):
        checkpoint = models[shape].checkpoint
        watched = replace(checkpoint, weights=replace(checkpoint.weights, attend=attend))
        calls.clear()
        encode_one(CtcModel(watched), sounds(8_000)[0, 0], DENSE)
        assert len(calls) == expected


@pytest.mark.parametrize("dtype", ["auto", "int8", "bfloat16", "float16"])
def test_in_every_type_that_a_processor_computes_in(folder: Path, dtype: str) -> None:
    """Random weights make much of little: near is not equal, but far from anything else."""
    wave_S = sounds(30_000)[0, 0]
    exact, rounded = load_plain_ctc(folder), load_ctc(folder, device="cpu", dtype=dtype)
    for profile in (DENSE, PROFILES[5]):
        right, found = (encode_one(one, wave_S, profile).states_TD for one in (exact, rounded))
        assert found.dtype == rounded.checkpoint.dtype
        off = (found.float() - right).norm() / right.norm()
        assert off < 0.2
        assert said(rounded, [encode_one(rounded, wave_S, profile)])[0].tokens


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_hears_what_a_processor_hears(folder: Path, model: CtcModel) -> None:
    there = load_ctc(folder, device="cuda", dtype="float32")
    half = load_ctc(folder, device="cuda", dtype="float16")
    lengths = (20_000, 20_000, 30_001, 399)
    waves_B1S = sounds(*lengths)
    for profile in (DENSE, *PROFILES):
        right = model.encode(waves_B1S, [profile] * 4, lengths)
        found = there.encode(waves_B1S.cuda(), [profile] * 4, lengths)
        for ours, theirs in zip(right, found, strict=True):
            assert ours.positions_T.tolist() == theirs.positions_T.tolist()
            assert_close(theirs.states_TD.cpu(), ours.states_TD, atol=1e-3, rtol=0)
        assert [one.tokens for one in said(there, found)] == [
            one.tokens for one in said(model, right)
        ]
        rounded = half.encode(waves_B1S.cuda(), [profile] * 4, lengths)
        assert all(one.states_TD.isfinite().all() for one in rounded)


def test_info(model: CtcModel) -> None:
    info = model.info
    assert (info.features, info.frame_by_frame, info.num_mels) == ("waveform", True, 0)
    assert (info.num_frames, info.num_encoder_layers) == (1499, 4)
    assert (info.languages, info.max_prompt_tokens) == ({"en": "english"}, 0)
    assert not info.knows_several
    assert info.weight_bytes > 0
    assert info.num_parameters > 0


def test_kept_states_do_not_hold_the_batch(models: dict[str, CtcModel]) -> None:
    encoded: list[Encoded] = models["hubert"].encode(sounds(8_000, 8_000), [DENSE] * 2)
    sizes = [len(one.states_TD.untyped_storage()) for one in encoded]
    assert sizes == [one.states_TD.nbytes for one in encoded]
    assert all(b > a for a, b in pairwise(encoded[0].positions_T.tolist()))


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    model = load_model(str(write_ctc(tmp_path / "ctc", "wav2vec2")), "cpu", "float32")
    model.prepare([Profile("half", sparsity=0.5)])
    with pytest.raises(ConfigError, match="profile few: no low_rank, bits or gates here: ctc is a"):
        model.prepare([Profile("few", bits=4)])
