"""What windows have in common is done together, and each is what it is alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from service.families.whisper import Whisper
from service.model import encoder
from service.model.checkpoint import load_checkpoint
from service.model.layers import mlp
from service.model.plan import Plan, plan_of
from service.model.weights import EncoderWeights
from service.profiles import Profile
from tests.checkpoints import load_plain
from tests.windows import noise

DENSE = Profile("dense")
PAIRS = Profile("pairs", layer=1, sparsity=0.5, pool="mean")
LATER = replace(PAIRS, name="later", layer=2)
FIRST = replace(PAIRS, name="first", layer=0)
ALIKE = Profile("alike", layer=1, sparsity=0.5, pool="alike")
ATTENDED = Profile("attended", layer=2, sparsity=0.5)
STRIDE = Profile("stride", layer=2, sparsity=0.5, selection="stride")
ENERGY = Profile("energy", layer=1, sparsity=0.4, selection="energy", within=5, late=0.5)
NEAR = replace(LATER, name="near", reach=100)
CLIPS = Profile("clips", padding=8)
PADDED = replace(ALIKE, name="padded", padding=8, reach=200)
LATE = Profile("late", late=0.5)
PADDED_LATE = Profile("padded-late", padding=8, late=0.3, pool="mean")
# Each with the seconds that its window hears.
ASKED = [
    *((DENSE, 30.0), (PAIRS, 30.0), (LATER, 12.0), (FIRST, 30.0), (ALIKE, 30.0), (ALIKE, 20.0)),
    *((ATTENDED, 30.0), (STRIDE, 30.0), (ENERGY, 8.0), (NEAR, 30.0), (CLIPS, 6.0), (CLIPS, 6.2)),
    *((CLIPS, 30.0), (PADDED, 6.0), (PADDED, 11.0), (LATE, 30.0), (PADDED_LATE, 6.0)),
]
PLANS = [plan_of(profile, 1500, round(50 * seconds)) for profile, seconds in ASKED]


@pytest.fixture(scope="module")
def model(mini_folder: str) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


@pytest.fixture(scope="module")
def deep(model: Whisper) -> EncoderWeights:
    """Four layers, of which two are two again."""
    weights = model.checkpoint.weights.encoder
    assert len(weights.layers) == 2
    return replace(weights, layers=weights.layers * 2)


@pytest.fixture(scope="module")
def mel() -> Tensor:
    return noise(len(ASKED))


@torch.inference_mode()
def test_windows_of_all_plans_together_are_what_each_is_alone(
    deep: EncoderWeights, mel: Tensor
) -> None:
    together = encoder.encode_windows(deep, mel, PLANS)
    for window, (plan, found) in enumerate(zip(PLANS, together, strict=True)):
        (alone,) = encoder.encode_windows(deep, mel[window : window + 1], [plan])
        assert torch.equal(found.positions_T, alone.positions_T), ASKED[window]
        assert_close(found.states_TD, alone.states_TD, atol=1e-4, rtol=0)
        assert (found.log_weights_T is None) == (alone.log_weights_T is None)
        if found.log_weights_T is not None and alone.log_weights_T is not None:
            assert torch.equal(found.log_weights_T, alone.log_weights_T)


def batches(
    monkeypatch: pytest.MonkeyPatch, weights: EncoderWeights, plans: list[Plan], mel: Tensor
) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """How many windows the stem was given each time, and each layer, with their states."""
    stems: list[int] = []
    layers: list[tuple[Tensor, tuple[int, int]]] = []
    stem = encoder._stem

    def counted_stem(some: EncoderWeights, mel_BFT: Tensor) -> Tensor:
        stems.append(len(mel_BFT))
        return stem(some, mel_BFT)

    def counted_mlp(states_BTD: Tensor, some: object) -> Tensor:
        layers.append((some, (states_BTD.shape[0], states_BTD.shape[1])))  # type: ignore[arg-type]
        return mlp(states_BTD, some)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "_stem", counted_stem)
    monkeypatch.setattr(encoder, "mlp", counted_mlp)
    with torch.inference_mode():
        encoder.encode_windows(weights, mel[: len(plans)], plans)
    seen: list[list[tuple[int, int]]] = []
    before: object = None
    for some, shape in layers:
        if some is not before:
            seen.append([])
        seen[-1].append(shape)
        before = some
    return stems, [sorted(each) for each in seen]


def test_what_is_the_same_work_is_done_once(
    monkeypatch: pytest.MonkeyPatch, deep: EncoderWeights, mel: Tensor
) -> None:
    plans = [plan_of(profile, 1500) for profile in (DENSE, PAIRS, LATER, STRIDE, ATTENDED)]
    stems, layers = batches(monkeypatch, deep, plans, mel)
    assert stems == [5]
    assert layers == [
        [(5, 1500)],  # nobody has dropped anything yet
        [(1, 750), (1, 1500), (3, 1500)],  # one has to say what its frames receive
        [(1, 1500), (2, 750), (2, 750)],  # means, and frames that were chosen
        [(1, 1500), (2, 750), (2, 750)],
    ]


def test_windows_of_one_length_share_what_their_padding_leaves(
    monkeypatch: pytest.MonkeyPatch, deep: EncoderWeights, mel: Tensor
) -> None:
    seconds = (6.0, 6.2, 11.0, 30.0)
    plans = [plan_of(CLIPS, 1500, round(50 * each)) for each in seconds]
    plans.append(plan_of(DENSE, 1500, 300))
    stems, layers = batches(monkeypatch, deep, plans, mel)
    assert sorted(stems) == [1, 2, 2]
    assert layers[0] == [(1, 713), (2, 494), (2, 1500)]
    assert layers[1] == [(1, 657), (2, 422), (2, 1500)]


def test_a_model_encodes_them_so(model: Whisper, mel: Tensor) -> None:
    asked = [(profile, round(50 * seconds)) for profile, seconds in ASKED]
    with torch.inference_mode():
        together = model._encode_together(mel, asked)
    alone = model.encode(mel, [profile for profile, _ in asked], [heard for _, heard in asked])
    for one, other in zip(together, alone, strict=True):
        assert_close(one.states_TD, other.states_TD, atol=1e-4, rtol=0)
        assert torch.equal(one.positions_T, other.positions_T)
        assert (one.pooled, one.audio_frames) == (other.pooled, other.audio_frames)
        assert len(one.states_TD.untyped_storage()) == one.states_TD.nbytes


@pytest.mark.parametrize(
    ("profile", "heard", "pools"),
    [
        (DENSE, None, False),
        (CLIPS, 300, True),
        (CLIPS, None, False),  # it has no padding
        (PAIRS, None, True),
        (STRIDE, None, False),
        (LATE, None, False),
        (replace(LATE, pool="mean"), None, True),
    ],
)
def test_a_plan_says_what_states_stand_for(
    profile: Profile, heard: int | None, pools: bool
) -> None:
    assert plan_of(profile, 1500, heard).pools is pools


def test_names_make_no_difference() -> None:
    plan = plan_of(replace(STRIDE, aggregation="max"), 1500)
    other = plan_of(replace(STRIDE, name="other"), 1500)
    assert [plan.way(n) for n in range(5)] == [other.way(n) for n in range(5)]
    assert [plan.thinning(n) for n in range(5)] == [other.thinning(n) for n in range(5)]
    assert plan.layout is other.layout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_encodes_them_together_as_a_processor_does_alone(
    model: Whisper, mini_folder: str, mel: Tensor
) -> None:
    on_cuda = Whisper(load_checkpoint(str(mini_folder), device="cuda", dtype="float32"))
    profiles, heard = [p for p, _ in ASKED], [round(50 * seconds) for _, seconds in ASKED]
    together, alone = (one.encode(mel, profiles, heard) for one in (on_cuda, model))
    for (profile, _), one, other in zip(ASKED, together, alone, strict=True):
        assert len(one.states_TD) == len(other.states_TD)
        if profile.pool == "mean":  # what is chosen or joined by values may be another frame
            assert torch.equal(one.positions_T.cpu(), other.positions_T)
            assert_close(one.states_TD.cpu(), other.states_TD, atol=1e-2, rtol=0)
