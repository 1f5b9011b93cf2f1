"""Low rank: full rank is dense, the rank rule is the published one, and what is written serves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from service.cli import FAILED, OK, USAGE, main
from service.errors import CheckpointError
from service.families.whisper import Whisper
from service.lab.compress import low_rank
from service.lab.compress.low_rank import ATTENTION, MLP, THETAS, Spread, factor, pays, rank_of
from service.model import encoder
from service.model.formats.names import LOW_RANK
from service.model.formats.packages import DATA_PACKAGES, find_files
from service.model.operators.factors import Factored, SideBySide
from service.profiles import Profile
from tests.checkpoints import load_plain
from tests.lab.recordings import corpus

DENSE = Profile("dense")
HALF = 0.5  # of the variance: random weights need most of their directions


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def mel() -> Tensor:
    return drawn(1, 80, 3000)


def spread_of(rows: Tensor) -> Spread:
    spread = Spread()
    for some in torch.split(rows, 7):
        spread.add(some)
    return spread


def test_full_rank_is_the_product_itself() -> None:
    x, weight, bias = drawn(200, 48), drawn(32, 48, seed=1), drawn(32, seed=2)
    outputs = x @ weight.T + bias
    mean, directions, shares = spread_of(outputs).principal()
    made = low_rank.project(weight, bias, mean, directions, float(shares[-1]))
    assert made.kept == pytest.approx(1)
    assert_close(x @ made.weight1 @ made.weight2 + made.bias, outputs, atol=1e-4, rtol=0)


def test_what_varies_in_few_directions_needs_no_more() -> None:
    few, many = drawn(300, 16), drawn(16, 64, seed=1)
    weight = drawn(64, 64, seed=2)
    weight = weight @ torch.linalg.pinv(many) @ many  # a product of rank 16
    bias = drawn(64, seed=3)
    x = few @ drawn(16, 64, seed=4)
    outputs = x @ weight.T + bias
    made = factor(weight, bias, spread_of(outputs), 0.999)
    assert made is not None
    assert made.rank == 16
    assert_close(x @ made.weight1 @ made.weight2 + made.bias, outputs, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("shares", "theta", "rank"),
    [
        ([0.5] + [1.0] * 63, 0.9, 16),
        ([0.1] * 15 + [0.5] + [1.0] * 48, 0.4, 16),
        ([0.1] * 16 + [1.0] * 48, 0.9, 32),
        ([0.9] * 16 + [1.0] * 48, 0.9, 32),  # as much is not more
        ([0.5] * 63 + [1.0], 0.99, 64),
    ],
)
def test_the_rank_is_the_smallest_multiple_of_16_that_holds_more(
    shares: list[float], theta: float, rank: int
) -> None:
    assert rank_of(torch.tensor(shares), theta) == rank


def test_a_rank_that_saves_nothing_leaves_the_product_as_it_is() -> None:
    assert pays(255, 512, 512)
    assert not pays(256, 512, 512)
    weight = drawn(32, 32)
    assert factor(weight, None, spread_of(drawn(500, 32) @ weight.T), 0.999) is None


def test_thetas_are_the_published_ones() -> None:
    asked = {name: (theta.of("q_proj"), theta.of("fc2")) for name, theta in THETAS.items()}
    assert asked == {
        "accurate": (0.999, 0.999),
        "balanced": (0.99, 0.999),
        "fast": (0.99, 0.995),
    }


def test_padding_is_left_out(mini_folder: Path, mel: Tensor) -> None:
    weights = load_plain(str(mini_folder)).weights.encoder
    seen = low_rank.spreads(weights, [(mel, 300), (mel, 20)])
    assert [set(products) for products in seen] == [{*ATTENTION, *MLP}] * 2
    assert {spread.count for products in seen for spread in products.values()} == {320}
    # The first layer's queries by hand: of the frames that hear something, twice the first 20.
    layer = weights.layers[0]
    states = torch.nn.functional.layer_norm(
        encoder.embed(weights, mel)[0],
        (128,),
        layer.attention.norm.weight,
        layer.attention.norm.bias,
    )
    queries = layer.attention.query_key_value(states)[:, :128].double()
    expected = queries[:300].sum(0) + queries[:20].sum(0)
    assert_close(seen[0]["q_proj"].sums, expected, atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def compressed(mini_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compressed")
    out = folder / "mini-low-rank"
    recordings = corpus(folder / "corpus")
    command = ["compress", "low-rank", "--model", str(mini_folder), "--corpus", str(recordings)]
    command += ["--domains", "read", "--split", "all", "--limit", "2", "--theta", str(HALF)]
    assert main([*command, "--out", str(out)]) == OK
    return out


def dense_again(folder: Path, out: Path) -> Path:
    """A plain Whisper whose weights are what the factors multiply to."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    state = load_file(out / "model.safetensors")
    for layer, ranks in enumerate(config.pop("low_rank_config")):
        for name in ranks:
            place = low_rank.parameter(layer, name)
            inner, outer = state.pop(f"{place}.weight1"), state.pop(f"{place}.weight2")
            state[f"{place}.weight"] = (inner @ outer).T.contiguous()
    (out / "config.json").write_text(json.dumps({**config, "model_type": "whisper"}))
    save_file(state, out / "model.safetensors")
    return out


@torch.inference_mode()
def test_what_is_written_computes_what_its_factors_multiply_to(
    compressed: Path, tmp_path: Path, mel: Tensor
) -> None:
    facts = json.loads((compressed / LOW_RANK).read_text())
    ranks = json.loads((compressed / "config.json").read_text())["low_rank_config"]
    assert [
        {name: one["rank"] for name, one in layer.items()} for layer in facts["products"]
    ] == ranks
    assert all(one["kept"] > HALF for layer in facts["products"] for one in layer.values())
    assert facts["parameters"]["after"] < facts["parameters"]["before"]
    factors, whole = (
        load_plain(str(compressed)),
        load_plain(str(dense_again(compressed, tmp_path / "d"))),
    )
    layers = factors.weights.encoder.layers
    made = [
        (layer.attention.query_key_value, layer.attention.out, *layer.mlp.__slots__)
        for layer in layers
    ]
    assert any(isinstance(one, Factored | SideBySide) for products in made for one in products)
    for profile in (DENSE, Profile("half", layer=1, sparsity=0.5, pool="mean")):
        found, right = (
            encoder.encode(one.weights.encoder, mel, profile)[0] for one in (factors, whole)
        )
        assert_close(found, right, atol=2e-4, rtol=0)


@torch.inference_mode()
def test_keys_have_a_bias_then(compressed: Path) -> None:
    """Whisper's have none; that of the mean of the others' directions is not zero."""
    state = load_file(compressed / "model.safetensors")
    ranks = json.loads((compressed / "config.json").read_text())["low_rank_config"]
    biases = [
        state[f"{low_rank.parameter(layer, 'k_proj')}.bias"]
        for layer, names in enumerate(ranks)
        if "k_proj" in names
    ]
    assert biases
    assert all(bias.abs().max() > 0 for bias in biases)


def test_a_folder_without_a_vocabulary_has_the_one_of_its_size(
    compressed: Path, tmp_path: Path
) -> None:
    """As LiteASR's are published."""
    if find_files(DATA_PACKAGES["whisper-base"]) is None:
        pytest.skip("whisper-base is not installed")
    bare = tmp_path / "bare"
    shutil.copytree(compressed, bare)
    for file in ("tokenizer.json", "generation_config.json"):
        (bare / file).unlink()
    theirs, ours = Whisper(load_plain(str(compressed))), Whisper(load_plain(str(bare)))
    assert ours.checkpoint.tokenizer is not None
    said = ours.checkpoint.tokenizer.encode("hello there", add_special_tokens=False).ids
    assert theirs.checkpoint.tokenizer is not None
    assert said == theirs.checkpoint.tokenizer.encode("hello there", add_special_tokens=False).ids
    assert ours.info.languages == theirs.info.languages


@pytest.mark.parametrize("wrong", ["weight1", "weight2"])
def test_factors_of_another_model_are_refused(compressed: Path, tmp_path: Path, wrong: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(compressed, damaged)
    state = load_file(damaged / "model.safetensors")
    place = next(key.removesuffix(".weight1") for key in state if key.endswith("_proj.weight1"))
    rank = state[f"{place}.weight1"].shape[1]
    state[f"{place}.{wrong}"] = drawn(*((3, rank) if wrong == "weight1" else (rank, 3)))
    save_file(state, damaged / "model.safetensors")
    with pytest.raises(CheckpointError, match=place.removeprefix("model.")):
        load_plain(str(damaged))


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--theta", "1.5"], USAGE, "--theta 1.5: use accurate, balanced, fast, or a number"),
        (["--theta", "slow"], USAGE, "--theta slow: use accurate"),
        (["--out", "."], USAGE, "--out .: is there already"),
        (["--out", "no/where"], USAGE, "--out no/where: there is no folder to write it in"),
        (["--theta", "0.999999"], FAILED, "nothing was written: to keep 0.999999"),
        (["--model", "none"], FAILED, "model 'none'"),
        (["--domains", ""], USAGE, "nothing to evaluate on"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    mini_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    recordings = corpus(tmp_path / "corpus")
    usual = ["--model", str(mini_folder), "--corpus", str(recordings), "--domains", "read"]
    usual += ["--split", "all", "--limit", "1", "--out", "out"]
    assert main(["compress", "low-rank", *usual, *arguments]) == status
    assert sentence in capsys.readouterr().err
    assert not Path("out").exists()


def test_factors_are_not_factored_again(
    compressed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", "low-rank", "--model", str(compressed), "--out", str(tmp_path / "again")]
    assert main(command) == USAGE
    assert "its products are factors already" in capsys.readouterr().err
