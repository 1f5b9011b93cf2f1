"""Gates: open they change nothing, closed they are the model without those modules, and nobody
beside a gated window notices."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from service.decode.kept import Kept
from service.decode.packed import empty_cache
from service.errors import CheckpointError, ConfigError, EngineError
from service.families.whisper import Whisper
from service.model import decoder
from service.model.checkpoint import Checkpoint
from service.model.gates import (
    LANGUAGES,
    MANIFEST,
    WEIGHTS,
    Gates,
    check_fits,
    constant,
    context,
    deciding,
    event,
    read_gates,
    write_gates,
)
from service.model.operators.products import Product
from service.model.weights import CrossAttention, DecoderLayer, EncoderLayer, Mlp, SelfAttention
from service.profiles import Profile
from service.types import DecodeOptions, Encoded, Hypothesis, OpenModules
from tests.checkpoints import load_plain
from tests.windows import finish, noise

PROFILES = (
    Profile("dense"),
    Profile("pairs", layer=1, sparsity=0.5, pool="mean", late=0.25),
    Profile("attended", layer=2, sparsity=0.5),
    Profile("alike", layer=2, sparsity=0.5, pool="alike"),
    Profile("clips", padding=8),
    Profile("near", layer=2, sparsity=0.5, pool="mean", padding=8, reach=200),
)
BY_NAME = {profile.name: profile for profile in PROFILES}
FRAMES = (1500, 400)
EVERY = OpenModules(((True, True),) * 2, ((True, True, True),) * 2)
NONE = OpenModules(((False, False),) * 2, ((False, False, False),) * 2)
SOME = OpenModules(((True, False), (False, True)), ((False, True, True), (True, False, False)))
OTHERS = (
    EVERY,
    SOME,
    OpenModules(((True, True), (True, True)), ((True, False, True), (False, True, True))),
    NONE,
    OpenModules(((False, True), (True, False)), ((True, True, False), (True, True, True))),
)
OPTIONS = (
    DecodeOptions("en"),
    DecodeOptions("de", timestamps=False, prefix=(500, 600)),
    DecodeOptions(None),
    DecodeOptions("en", beam_size=3),
    DecodeOptions("en", beam_size=2, prompt=(400, 11, 1000)),
)


class Gated(Whisper):
    """Every window is decided by the same gates."""

    def __init__(self, checkpoint: Checkpoint, gates: Gates | None) -> None:
        super().__init__(checkpoint, {} if gates is None else {0.3: gates})

    def _gates_of(self, profile: Profile) -> Gates | None:
        return self.gates.get(0.3)


@pytest.fixture(scope="module")
def checkpoint(mini_folder: Path) -> Checkpoint:
    return load_plain(str(mini_folder))


@pytest.fixture(scope="module")
def mel() -> Tensor:
    mel_BFT = noise(5, seed=1)
    mel_BFT[1, :, 2 * FRAMES[1] :] = mel_BFT[1].min()
    return mel_BFT


def gated(checkpoint: Checkpoint, modules: OpenModules | None) -> Gated:
    dims = checkpoint.weights.dims
    return Gated(checkpoint, constant(checkpoint.name, dims, modules) if modules else None)


class Nothing:
    """A product that gives zeros: what is added to a residual stream by a module that is not."""

    def __init__(self, product: Product) -> None:
        self.shape, self.nbytes = product.shape, 0

    def __call__(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.shape[0])


def without(checkpoint: Checkpoint, modules: OpenModules) -> Checkpoint:
    """A model in which what is off adds nothing to anything."""

    def attention(part: SelfAttention, runs: bool) -> SelfAttention:
        return part if runs else replace(part, out=Nothing(part.out))

    def across(part: CrossAttention, runs: bool) -> CrossAttention:
        return part if runs else replace(part, out=Nothing(part.out))

    def feed(part: Mlp, runs: bool) -> Mlp:
        return part if runs else replace(part, down=Nothing(part.down))

    weights = checkpoint.weights
    encoder = [
        EncoderLayer(attention(layer.attention, runs[0]), feed(layer.mlp, runs[1]))
        for layer, runs in zip(weights.encoder.layers, modules.encoder, strict=True)
    ]
    layers = [
        DecoderLayer(
            attention(layer.attention, runs[0]),
            across(layer.cross, runs[1]),
            feed(layer.mlp, runs[2]),
        )
        for layer, runs in zip(weights.decoder.layers, modules.decoder, strict=True)
    ]
    return replace(
        checkpoint,
        weights=replace(
            weights,
            encoder=replace(weights.encoder, layers=tuple(encoder)),
            decoder=replace(weights.decoder, layers=tuple(layers)),
        ),
    )


def decode(
    model: Whisper, encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
) -> list[Hypothesis]:
    batch = model.new_decode_batch()
    batch.token_limit = 12
    batch.join(range(len(encoded)), encoded, options)
    return finish(batch, len(encoded))


def same(found: Sequence[Encoded], right: Sequence[Encoded]) -> None:
    for one, other in zip(found, right, strict=True):
        assert torch.equal(one.states_TD, other.states_TD)
        assert torch.equal(one.positions_T, other.positions_T)


@pytest.mark.parametrize("name", BY_NAME)
def test_open_gates_are_dense_bit_for_bit(checkpoint: Checkpoint, mel: Tensor, name: str) -> None:
    profiles, options = [BY_NAME[name]] * 2, DecodeOptions("en", word_times=True)
    dense, opened = gated(checkpoint, None), gated(checkpoint, EVERY)
    right, found = (model.encode(mel[:2], profiles, FRAMES) for model in (dense, opened))
    assert [window.gates for window in right] == [None, None]
    assert [window.gates for window in found] == [EVERY, EVERY]
    same(found, right)
    said = decode(dense, right, [options] * 2)
    assert decode(opened, found, [options] * 2) == said
    for window, other, hypothesis in zip(found, right, said, strict=True):
        words = dense.find_words(other, hypothesis, options)
        assert opened.find_words(window, hypothesis, options) == words


@pytest.mark.parametrize("name", BY_NAME)
def test_closed_gates_are_a_model_without_the_modules(
    checkpoint: Checkpoint, mel: Tensor, name: str
) -> None:
    profile = BY_NAME[name]
    model = gated(checkpoint, SOME)
    found = model.encode(mel[:2], [profile] * 2, FRAMES)
    ran = found[0].gates
    assert ran is not None
    assert ran.decoder == SOME.decoder
    # What chooses frames runs.
    chooses = name in ("attended", "alike")
    assert ran.encoder == (SOME.encoder[0], (chooses, True))
    bare = Whisper(without(checkpoint, ran))
    right = bare.encode(mel[:2], [profile] * 2, FRAMES)
    same(found, right)
    said = decode(bare, right, OPTIONS[:2])
    assert decode(model, found, OPTIONS[:2]) == said
    options = OPTIONS[0]
    words = bare.find_words(right[0], said[0], options)
    assert words
    assert model.find_words(found[0], said[0], options) == words


def test_nothing_at_all_may_run(checkpoint: Checkpoint, mel: Tensor) -> None:
    model, bare = gated(checkpoint, NONE), Whisper(without(checkpoint, NONE))
    found, right = (one.encode(mel[:1], [PROFILES[0]]) for one in (model, bare))
    same(found, right)
    assert decode(model, found, OPTIONS[:1]) == decode(bare, right, OPTIONS[:1])


def test_rows_of_different_gates_are_what_each_is_alone(
    checkpoint: Checkpoint, mel: Tensor
) -> None:
    """Whatever options each has; one window beside them has no gates."""
    models = [gated(checkpoint, modules) for modules in OTHERS]
    encoded = [
        model.encode(mel[number : number + 1], [PROFILES[number]], [1500])[0]
        for number, model in enumerate(models)
    ]
    encoded[0] = replace(encoded[0], gates=None)
    together = decode(models[0], encoded, OPTIONS)
    for number, (window, options) in enumerate(zip(encoded, OPTIONS, strict=True)):
        (alone,) = decode(models[0], [window], [options])
        assert together[number].tokens == alone.tokens
        assert together[number].avg_logprob == pytest.approx(alone.avg_logprob, abs=1e-4)
        bare = Whisper(without(checkpoint, OTHERS[number]))
        (right,) = decode(bare, [replace(window, gates=None)], [options])
        assert alone.tokens == right.tokens
        assert alone.language == right.language
        assert alone.avg_logprob == pytest.approx(right.avg_logprob, abs=1e-4)


@torch.inference_mode()
def test_each_step_of_rows_at_different_lengths(checkpoint: Checkpoint, mel: Tensor) -> None:
    """Against whole sequences without a cache; rows leave and join between steps."""
    weights = checkpoint.weights.decoder
    encoded = [
        gated(checkpoint, modules).encode(mel[:1], [PROFILES[0]])[0] for modules in OTHERS[1:]
    ]
    tokens = [[50258, 7, 9, 11], [50258, 3], [50258, 5, 8, 13, 21], [50258, 2, 4]]
    cache = empty_cache(weights)
    rows: list[int] = []
    for number, window in enumerate(encoded):
        decoder.join(weights, cache, window.states_TD[None], gates=[window.gates])
        given = torch.tensor([tokens[number]])
        found = decoder.step(weights, given, cache, first_row=number)[0]
        assert_close(found, _whole(checkpoint, window, tokens[number]), atol=1e-4, rtol=0)
        rows.append(number)
    for leaving in (None, 1, 0):
        if leaving is not None:
            cache.remove(leaving)
            rows[leaving] = rows[-1]
            rows.pop()
        found = decoder.step(weights, torch.full((len(rows), 1), 17), cache)
        for row, number in enumerate(rows):
            tokens[number].append(17)
            whole = _whole(checkpoint, encoded[number], tokens[number])[-1]
            assert_close(found[row, -1], whole, atol=1e-4, rtol=0)


def _whole(checkpoint: Checkpoint, window: Encoded, tokens: Sequence[int]) -> Tensor:
    assert window.gates is not None
    bare = without(checkpoint, window.gates).weights.decoder
    return decoder.forward(bare, torch.tensor([list(tokens)]), window.states_TD[None])[0]


def test_without_gates_a_reading_is_of_every_row(checkpoint: Checkpoint, mel: Tensor) -> None:
    weights = checkpoint.weights.decoder
    (window,) = gated(checkpoint, None).encode(mel[:1], [PROFILES[0]])
    cache = empty_cache(weights)
    decoder.join(weights, cache, window.states_TD[None].expand(2, -1, -1))
    reading = cache.reading(0, 1)
    assert all(reading.among(layer, module) is reading for layer in (0, 1) for module in (0, 1, 2))


@torch.inference_mode()
def test_keys_that_nobody_reads_are_not_made(checkpoint: Checkpoint) -> None:
    """And what an earlier window left where they would be is not read either."""
    weights = checkpoint.weights.decoder
    kept, width = Kept(weights), weights.positions_TD.shape[1]
    states_TD = torch.randn(70, width, generator=torch.Generator().manual_seed(0))
    made: list[int] = []

    def counted(number: int, cross: CrossAttention) -> CrossAttention:
        def key(x: Tensor, product: Product = cross.key) -> Tensor:
            made.append(number)
            return product(x)

        return replace(cross, key=key)  # type: ignore[arg-type]

    crosses = [counted(number, layer.cross) for number, layer in enumerate(weights.layers)]
    poisoned = kept.take(crosses, states_TD * torch.nan, None)
    stays = kept.take(crosses, states_TD, None)
    kept.leave(poisoned)
    made.clear()
    window = kept.take(crosses, states_TD, None, SOME)
    assert made == [0]
    assert sorted(window.blocks) == sorted(poisoned.blocks)
    query_BHNK = torch.randn(2, weights.heads, 1, width // weights.heads)
    assert kept.attend(0, query_BHNK, kept.queries([stays, window])).isfinite().all()


def test_decisions_go_by_what_is_heard_and_known(checkpoint: Checkpoint, mel: Tensor) -> None:
    """Of the frames that hear the recording alone: the padding behind them says nothing."""
    dims = checkpoint.weights.dims
    gates = replace(constant("", dims, EVERY), contexts=("event",))
    states = torch.randn(1, 1500, dims.d_model, generator=torch.Generator().manual_seed(3))
    heard = states[:, :400]
    seen: list[Tensor] = []

    def predictor(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.tensor([1.0, -1.0])

    gates = replace(gates, encoder=(predictor, predictor))  # type: ignore[arg-type]
    asked = deciding(gates, mel[1:2], FRAMES[1], "en")
    assert asked.layer(states, torch.arange(1500)) == (True, False)
    assert asked.layer(states[:, ::2], torch.arange(0, 1500, 2), needs_attention=True) == (
        True,
        False,
    )
    width = dims.d_model
    assert_close(seen[0][:width], heard[0].mean(0))
    assert_close(seen[1][:width], heard[0, ::2].mean(0))
    assert_close(seen[0][width:], event(mel[1:2], 400))


def test_what_a_context_says(mel: Tensor) -> None:
    def language(code: str | None) -> str:
        found = context(("language",), mel[:1], 1500, code)
        assert found.sum() == 1
        return LANGUAGES[int(found.argmax())]

    codes = ("en", "de", "nl", "fr", None)
    assert [language(code) for code in codes] == ["en", "de", "nl", "other", "unknown"]
    assert len(context((), mel[:1], 1500, "en")) == 0
    quiet = torch.full((1, 80, 3000), -1.5)
    loud = quiet.clone()
    loud[:, :, :500] = 1.0
    tone = quiet.clone()
    tone[:, 40] = 1.0
    assert event(quiet, 1500).tolist() == pytest.approx([-1.5, 0, 0, 0, 1])
    assert float(event(loud, 500)[2]) == pytest.approx(0.5)
    assert float(event(loud, 750)[4]) == pytest.approx(0.5)
    assert float(event(tone, 1500)[3]) > float(event(loud, 1500)[3])


def test_gates_of_another_model_are_refused(checkpoint: Checkpoint) -> None:
    weights = checkpoint.weights
    dims = weights.dims
    with pytest.raises(CheckpointError, match="trained for whisper-base, and not for"):
        Whisper(checkpoint, {0.3: constant("whisper-base", dims, EVERY)})
    with pytest.raises(CheckpointError, match="of other dimensions"):
        check_fits(constant("m", replace(dims, max_tokens=99), EVERY), "m", weights)
    of_m = replace(constant("m", dims, EVERY), norm_D=weights.encoder.norm.weight.bfloat16())
    check_fits(of_m, "m", weights)
    encoder = weights.encoder
    trained = replace(encoder, norm=replace(encoder.norm, weight=encoder.norm.weight + 0.1))
    with pytest.raises(CheckpointError, match="for a m of other weights"):
        check_fits(of_m, "m", replace(weights, encoder=trained))


def test_a_folder_says_by_which_weights_its_model_is_known(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    norm_D = torch.randn(checkpoint.weights.dims.d_model)
    gates = constant("m", checkpoint.weights.dims, EVERY)
    write_gates(gates, tmp_path)
    assert read_gates(tmp_path).norm_D is None
    write_gates(replace(gates, norm_D=norm_D), tmp_path)
    found = read_gates(tmp_path).norm_D
    assert found is not None
    assert torch.equal(found, norm_D)


def test_pages_and_graphs_refuse_gates(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seats = pytest.importorskip("service.decode.seats")
    weights = checkpoint.weights.decoder
    cache, states = seats.SeatCache(weights), torch.zeros(1, 70, weights.positions_TD.shape[1])
    with pytest.raises(EngineError, match="not served on a GPU"):
        decoder.join(weights, cache, states, gates=[SOME])
    assert cache.num_rows == 0
    monkeypatch.setattr("service.families.whisper.graphs_for", lambda *_: lambda: None)
    with pytest.raises(ConfigError, match="use device cpu"):
        gated(checkpoint, SOME)


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    gates = replace(
        constant(checkpoint.name, checkpoint.weights.dims, SOME, 0.3), trained={"epochs": 2}
    )
    write_gates(gates, tmp_path)
    return tmp_path


def test_what_is_written_is_read(folder: Path, checkpoint: Checkpoint, mel: Tensor) -> None:
    gates = read_gates(folder)
    assert (gates.model, gates.target, gates.contexts) == (checkpoint.name, 0.3, ())
    assert gates.dims == checkpoint.weights.dims
    assert gates.trained == {"epochs": 2}
    assert Gated(checkpoint, gates).encode(mel[:1], [PROFILES[0]])[0].gates == SOME


def _manifest(folder: Path, **changes: object) -> None:
    about = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**about, **changes}))


def _tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    import hashlib

    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    _manifest(folder, sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())


def _cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-7])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "no gates.json; give a folder that"),
    "no json": (lambda f: (f / MANIFEST).write_text("{"), "cannot be read"),
    "another's": (lambda f: (f / MANIFEST).write_text("{}"), "not the manifest of gates"),
    "later": (lambda f: _manifest(f, format=2), "format 2; this version reads 1"),
    "no dims": (lambda f: _manifest(f, dims={}), "not the manifest of gates"),
    "target": (lambda f: _manifest(f, target=1.5), "target is 1.5; it must be"),
    "context": (lambda f: _manifest(f, contexts=["mood"]), "unknown context mood; there are"),
    "contexts": (lambda f: _manifest(f, contexts=[["event"]]), "contexts are names"),
    "dims": (
        lambda f: _manifest(f, dims={**asdict(read_gates(f).dims), "d_model": "64"}),
        "dims are whole numbers",
    ),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "cannot be read"),
    "cut off": (_cut, "cannot be read"),
    "other weights": (lambda f: _manifest(f, sha256="0" * 64), "is not what gates.json was"),
    "missing": (lambda f: _tensors(f, lambda t: t.pop("decoder.up")), "'decoder.up' is missing"),
    "more": (
        lambda f: _tensors(f, lambda t: t.update({"encoder.7.up": torch.zeros(1)})),
        "encoder.7.up is none of its model's",
    ),
    "shape": (
        lambda f: _tensors(f, lambda t: t.update({"encoder.1.down_bias": torch.zeros(3)})),
        r"encoder.1.down_bias is \(3,\) of torch.float32, not \(2,\)",
    ),
    "type": (
        lambda f: _tensors(f, lambda t: t.update({"decoder.up_bias": torch.zeros(1).half()})),
        "decoder.up_bias is .* of torch.float16",
    ),
    "nan": (
        lambda f: _tensors(f, lambda t: t["decoder.up"].fill_(torch.nan)),
        "decoder.up has values that are not numbers",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_folder_is_refused(folder: Path, damage: str) -> None:
    breaks, sentence = DAMAGE[damage]
    breaks(folder)
    with pytest.raises(CheckpointError, match=sentence):
        read_gates(folder)
