"""Other weights of the encoder, by profile: right, held once, and refused where they are not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from service.cli import OK, main
from service.errors import CheckpointError, ConfigError
from service.families.whisper import Whisper
from service.lab.reproduce.bits.rounding import round_rows
from service.model import adapters, encoder
from service.model.adapters import adapters_of, make_encoder
from service.model.checkpoint import load_checkpoint
from service.model.formats.names import LOW_RANK
from service.model.gates import MANIFEST, constant, deciding, write_gates
from service.model.operators.choose import cpu_operators
from service.model.operators.factors import Factored, SideBySide, num_weights
from service.model.operators.four_bits import FourBits, four_bits
from service.model.operators.products import Dense, EightBit, Product
from service.model.plan import plan_of
from service.model.weights import held_bytes, products_of
from service.profiles import Profile
from service.types import OpenModules
from tests.checkpoints import load_plain, write_checkpoint
from tests.lab.recordings import corpus

DENSE = Profile("dense")
THETA = "0.98"  # on random weights some products are factors then, and others are not
FACTORS = Profile("factors", low_rank=THETA)
PAIRS = Profile("pairs", layer=1, sparsity=0.5, pool="mean", low_rank=THETA)
FOUR, EIGHT = Profile("four", bits=4), Profile("eight", bits=8)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def mel() -> Tensor:
    return drawn(2, 80, 3000)


@pytest.fixture(scope="module")
def adapter(mini_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    recordings = corpus(folder / "corpus")
    command = ["compress", "low-rank", "--model", str(mini_folder), "--corpus", str(recordings)]
    command += ["--domains", "read", "--split", "all", "--limit", "2", "--theta", THETA]
    assert main([*command, "--out", str(folder / "low-rank")]) == OK
    return folder / "low-rank"


@pytest.fixture
def mini(mini_folder: Path) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


def products(model: Whisper, profile: Profile) -> list[Product]:
    return [one for layer in model.encoder_of(profile).layers for one in products_of(layer)]


def states(model: Whisper, mel_BFT: Tensor, *profiles: Profile) -> list[Tensor]:
    return [one.states_TD for one in model.encode(mel_BFT, profiles)]


def test_a_profile_by_factors_is_the_compressed_model(
    mini: Whisper, adapter: Path, mel: Tensor
) -> None:
    before = states(mini, mel[:1], DENSE)[0]
    mini.prepare([DENSE, FACTORS, PAIRS], [str(adapter)])
    compressed = Whisper(load_plain(str(adapter)))
    pairs = Profile("pairs", layer=1, sparsity=0.5, pool="mean")
    for ours, theirs in ((FACTORS, DENSE), (PAIRS, pairs)):
        found, right = states(mini, mel[:1], ours)[0], states(compressed, mel[:1], theirs)[0]
        assert_close(found, right, atol=0, rtol=0)
    assert not torch.equal(states(mini, mel[:1], FACTORS)[0], before)
    assert_close(states(mini, mel[:1], DENSE)[0], before, atol=0, rtol=0)


def test_windows_of_a_batch_go_by_the_weights_of_their_own(
    mini: Whisper, adapter: Path, mel: Tensor
) -> None:
    mini.prepare([FACTORS, FOUR], [str(adapter)])
    for profiles in ((FACTORS, FOUR), (FOUR, DENSE), (DENSE, FACTORS)):
        together = states(mini, mel, *profiles)
        for number, profile in enumerate(profiles):
            alone = states(mini, mel[number : number + 1], profile)[0]
            assert_close(together[number], alone, atol=0, rtol=0)


def test_only_factors_are_held_beside_the_model(mini: Whisper, adapter: Path) -> None:
    before = mini.info.weight_bytes
    mini.prepare([FACTORS, PAIRS], [str(adapter)])
    assert mini.encoder_of(FACTORS) is mini.encoder_of(PAIRS)
    made, held = products(mini, FACTORS), products(mini, DENSE)
    factors = [one for one in made if isinstance(one, Factored | SideBySide)]
    assert len(factors) > 0
    assert all(one is other for one, other in zip(made, held, strict=True) if one not in factors)
    assert mini.info.weight_bytes - before == sum(one.nbytes for one in factors)
    mini.prepare([FACTORS], [str(adapter)])
    assert mini.info.weight_bytes - before == sum(one.nbytes for one in factors)


def test_factors_are_counted_by_what_they_multiply() -> None:
    narrow = Factored(Dense(drawn(16, 64), None), Dense(drawn(32, 16), None))
    assert num_weights(narrow) == 16 * 64 + 32 * 16
    assert num_weights(SideBySide((narrow, Dense(drawn(8, 64), None)))) == 16 * 96 + 8 * 64


@pytest.mark.parametrize(("width", "group"), [(128, 64), (96, 32), (48, 16)])
def test_four_bits_are_the_rounded_weights(width: int, group: int) -> None:
    weight, bias, x = drawn(24, width), drawn(24, seed=1), drawn(5, width, seed=2)
    packed = four_bits(torch.float32)(weight, bias)
    assert isinstance(packed, FourBits)
    assert packed.shape == (24, width)
    assert packed.nbytes == 24 * width // 2 + 4 * 24 * width // group
    assert_close(packed.weight(), round_rows(weight, 4, group), atol=1e-6, rtol=0)
    right = x @ round_rows(weight, 4, group).T + bias
    assert_close(packed(x), right, atol=1e-5, rtol=0)
    in_half = four_bits(torch.bfloat16)(weight, bias)(x)
    assert in_half.dtype == x.dtype
    assert_close(in_half, right, atol=0.02 * float(right.abs().max()), rtol=0)


def test_a_row_that_is_no_whole_number_of_groups_stays_as_it_is() -> None:
    weight, x = drawn(8, 20), drawn(3, 20, seed=1)
    assert_close(four_bits(torch.float32)(weight, None)(x), x @ weight.T)


def off(made: Product, right: Product) -> float:
    """How far a product is from another, of the length of what that gives."""
    x = drawn(50, right.shape[1], seed=7)
    return float((made(x) - right(x)).norm() / right(x).norm())


def test_few_bits_are_near_the_model_and_small(mini: Whisper) -> None:
    mini.prepare([FOUR, EIGHT])
    four, eight = products(mini, FOUR), products(mini, EIGHT)
    assert all(isinstance(product, FourBits) for product in four)
    assert all(isinstance(product, EightBit) for product in eight)
    nbytes = [sum(product.nbytes for product in some) for some in (four, eight)]
    assert nbytes[0] == pytest.approx(nbytes[1] * 9 / 16)
    for some, near in ((four, 0.15), (eight, 0.02)):
        for made, product in zip(some, products(mini, DENSE), strict=True):
            assert 0 < off(made, product) < near


def test_eight_bits_of_a_model_in_8_bits_are_its_own(mini_folder: Path) -> None:
    if cpu_operators("int8") is None:
        pytest.skip("nothing multiplies 8 bits rightly on this processor")
    model = Whisper(load_checkpoint(str(mini_folder), "cpu", "int8"))
    before = model.info.weight_bytes
    model.prepare([EIGHT])
    assert model.encoder_of(EIGHT) is model.checkpoint.weights.encoder
    assert model.info.weight_bytes == before == held_bytes(model.checkpoint.weights)


def test_factors_in_few_bits_are_both(mini: Whisper, adapter: Path) -> None:
    both = Profile("both", low_rank=THETA, bits=4)
    mini.prepare([both, FACTORS], [str(adapter)])
    made = products(mini, both)
    parts = [
        part
        for product in made
        for part in (product.parts if isinstance(product, SideBySide) else (product,))
    ]
    assert {type(part) for part in parts} == {Factored, FourBits}
    assert any(isinstance(part, Factored) and isinstance(part.inner, FourBits) for part in parts)
    factors = [
        product for layer in mini.encoder_of(FACTORS).layers for product in products_of(layer)
    ]
    for few, product in zip(made, factors, strict=True):
        assert 0 < off(few, product) < 0.25


def test_what_there_is_not_is_refused_with_the_command_that_makes_it(
    mini: Whisper, adapter: Path
) -> None:
    with pytest.raises(ConfigError, match=r"low_rank '0.98' of .* \(there: none\); make one with"):
        mini.prepare([FACTORS])
    with pytest.raises(ConfigError, match=r"'fast' .*there: '0.98'.* --theta fast --out FOLDER"):
        mini.prepare([Profile("p", low_rank="fast")], [str(adapter)])


def test_folders_that_are_no_adapters_are_refused(
    mini: Whisper, mini_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"is neither {LOW_RANK} nor {MANIFEST}"):
        mini.prepare([DENSE], [str(mini_folder)])
    for folder in (str(tmp_path / "none"), "~nobody-of-that-name/x"):
        with pytest.raises(ConfigError, match="there is no folder"):
            mini.prepare([DENSE], [folder])
    again = shutil.copytree(adapter, tmp_path / "again")
    with pytest.raises(ConfigError, match=r"are both low_rank '0.98' of"):
        mini.prepare([DENSE], [str(adapter), str(again)])
    for said in ("{", "[]", "{}", '{"of": "mini", "theta": 3}'):
        (again / LOW_RANK).write_text(said)
        with pytest.raises(ConfigError, match=r"adapters: .*again"):
            mini.prepare([DENSE], [str(again)])


def test_what_is_of_another_model_is_not_looked_at(
    mini: Whisper, adapter: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(adapter, tmp_path / "other")
    facts = json.loads((other / LOW_RANK).read_text())
    (other / LOW_RANK).write_text(json.dumps({**facts, "of": "whisper-small"}))
    mini.prepare([DENSE], [str(other), str(adapter)])
    with pytest.raises(ConfigError, match="there: none"):
        mini.prepare([FACTORS], [str(other)])


@pytest.fixture
def half_off(mini: Whisper, tmp_path: Path) -> Path:
    """Gates that leave out every MLP of the encoder, and the decoder's cross-attention."""
    dims = mini.checkpoint.weights.dims
    modules = OpenModules(
        ((True, False),) * dims.encoder_layers, ((True, False, True),) * dims.decoder_layers
    )
    folder = tmp_path / "gates"
    folder.mkdir()
    write_gates(constant(mini.info.name, dims, modules, 0.4), folder)
    return folder


def test_gates_of_a_profile_decide_with_all_else(
    mini: Whisper, adapter: Path, half_off: Path, mel: Tensor
) -> None:
    gated = Profile("gated", gates=0.4)
    all_of_it = Profile("all", layer=1, sparsity=0.5, pool="mean", low_rank=THETA, gates=0.4)
    mini.prepare([gated, all_of_it], [str(adapter), str(half_off)])
    for profile in (gated, all_of_it):
        (encoded,) = mini.encode(mel[:1], [profile])
        assert encoded.gates is not None
        assert encoded.gates.encoder == ((True, False),) * 2
        assert encoded.gates.decoder == ((True, False, True),) * 2
    (right,) = encoder.encode_windows(
        mini.encoder_of(all_of_it),
        mel[:1],
        [plan_of(all_of_it, 1500)],
        deciding(mini.gates[0.4], mel[:1], None, None),
    )
    assert_close(states(mini, mel[:1], all_of_it)[0], right.states_TD, atol=0, rtol=0)
    assert mini.encode(mel[:1], [DENSE])[0].gates is None


def test_gates_that_are_not_there_are_refused(mini: Whisper, half_off: Path) -> None:
    wanted = Profile("gated", gates=0.3)
    with pytest.raises(ConfigError, match=r"gates 0.3 of .* \(there: 0.4\); train some with: winn"):
        mini.prepare([wanted], [str(half_off)])
    (half_off / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        mini.prepare([Profile("gated", gates=0.4)], [str(half_off)])


def test_what_a_gpu_does_not_do_is_refused(
    mini: Whisper, half_off: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(mini.checkpoint, device=torch.device("cuda"))
    with pytest.raises(ConfigError, match="profile four: bits is for a CPU; on cuda leave it out"):
        make_encoder(elsewhere, FOUR, adapters_of("mini", []))
    monkeypatch.setattr(mini, "new_graphs", lambda: None)  # as where steps are recorded
    with pytest.raises(ConfigError, match="profile gated: gates are not served on cpu"):
        mini.prepare([Profile("gated", gates=0.4)], [str(half_off)])


def test_factors_of_other_dimensions_are_refused(adapter: Path, tmp_path: Path) -> None:
    deeper = write_checkpoint(tmp_path / "mini", shape="mini", layers=(3, 2))
    model = Whisper(load_plain(str(deeper)))
    said = shutil.copytree(adapter, tmp_path / "said")
    facts = json.loads((said / LOW_RANK).read_text())
    (said / LOW_RANK).write_text(json.dumps({**facts, "of": "mini"}))
    with pytest.raises(CheckpointError, match="its dimensions are not mini's"):
        model.prepare([FACTORS], [str(said)])


def test_factors_of_other_weights_are_refused(adapter: Path, tmp_path: Path) -> None:
    """Those of a model that is called and shaped alike."""
    other = Whisper(load_plain(str(write_checkpoint(tmp_path / "mini", shape="mini", seed=7))))
    layers = other.checkpoint.weights.encoder.layers
    weight = layers[1].mlp.norm.weight
    weight.copy_(weight + 0.1)
    said = shutil.copytree(adapter, tmp_path / "said")
    facts = json.loads((said / LOW_RANK).read_text())
    (said / LOW_RANK).write_text(json.dumps({**facts, "of": "mini"}))
    with pytest.raises(CheckpointError, match="made from other weights than mini has"):
        other.prepare([FACTORS], [str(said)])


def test_what_is_one_is_counted_once(mini: Whisper) -> None:
    decoder = mini.checkpoint.weights.decoder
    assert held_bytes((decoder.embedding_VD, decoder.logits)) == decoder.embedding_VD.nbytes
    layer = mini.checkpoint.weights.encoder.layers[0]
    norm = layer.mlp.norm
    assert held_bytes((norm, norm)) == norm.weight.nbytes + norm.bias.nbytes


def test_float32_multiplies_few_bits_in_float32(
    mini: Whisper, mini_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "has_bfloat16", lambda: True)
    mini.prepare([FOUR])
    assert {product.dtype for product in products(mini, FOUR)} == {torch.float32}  # type: ignore[attr-defined]
    narrow = Whisper(load_checkpoint(str(mini_folder), "cpu", "bfloat16"))
    narrow.prepare([FOUR])
    assert {product.dtype for product in products(narrow, FOUR)} == {torch.bfloat16}  # type: ignore[attr-defined]


def test_a_model_of_factors_takes_no_others(adapter: Path) -> None:
    model = Whisper(load_plain(str(adapter)))
    with pytest.raises(ConfigError, match="whose products are factors already; leave it out"):
        model.prepare([FACTORS], [str(adapter)])
