"""Training: what learns, what stays, and that a kill costs nothing but time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from service.cli import FAILED, OK, USAGE, main
from service.errors import ConfigError
from service.families.whisper import Whisper
from service.lab.gates.fixed import alone, greedy, loss_of, opened, trials
from service.lab.gates.forward import gated, hard
from service.lab.gates.state import FILE
from service.lab.gates.training import Settings, Training, threshold
from service.lab.gates.windows import Said, heard
from service.lab.packing import Item
from service.model import decoder
from service.model.gates import (
    WEIGHTS,
    Gates,
    Predictor,
    constant,
    num_modules,
    read_gates,
    tensors_of,
    write_gates,
)
from service.profiles import Profile
from service.requests import fallback
from service.requests import windows as work
from service.requests.fallback import Attempt, Verdict
from service.types import SAMPLE_RATE, OpenModules
from tests.checkpoints import load_plain
from tests.lab.recordings import corpus
from tests.speech import SAID, SAMPLE

HOW = Settings(0.3, epochs=2, bfloat16=False, hidden=4, rate=1e-2, bias_rate=0.2)
SOME = OpenModules(((True, False), (False, True)), ((False, True, True), (True, False, False)))
MODULES = 10  # of a model of two layers each side


@pytest.fixture(scope="module")
def model(mini_folder: Path) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


@pytest.fixture(scope="module")
def said() -> list[Said]:
    """Noise of several lengths, and tokens that might have been said of it."""
    rng = np.random.default_rng(0)
    return [
        Said(
            Item(
                str(number),
                (rng.standard_normal((2 + number) * SAMPLE_RATE) * 3000).astype(np.int16),
                "",
                ("en", "de")[number % 2],
            ),
            tuple(range(100 * number + 1, 100 * number + 6)),
        )
        for number in range(5)
    ]


def training(model: Whisper, said: list[Said], how: Settings = HOW) -> Training:
    return Training(model, said[:4], said[4:], how, list(range(MODULES)))


def learnt(trained: Training) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trained.parameters.items()}


def run(trained: Training, folder: Path, done: Callable[[], object] = lambda: None) -> None:
    for _ in trained.run(folder, "data", done):
        pass


def test_gates_learn_and_the_model_does_not(
    model: Whisper, said: list[Said], tmp_path: Path
) -> None:
    weights = model.checkpoint.weights
    every = _tensors(weights)
    assert sum(tensor.numel() for tensor in every) > 1_000_000
    copies = [tensor.clone() for tensor in every]
    trained = training(model, said)
    started = learnt(trained)
    run(trained, tmp_path)
    assert all(torch.equal(one, copy) for one, copy in zip(every, copies, strict=True))
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in every)
    found = learnt(trained)
    assert all(not torch.equal(found[name], tensor) for name, tensor in started.items())
    assert [line["number"] for line in trained.progress.epochs] == [1, 2]


def _tensors(part: object) -> list[Tensor]:
    if isinstance(part, Tensor):
        return [part]
    if isinstance(part, tuple):
        return [tensor for one in part for tensor in _tensors(one)]
    names = getattr(part, "__slots__", ())
    return [tensor for name in names for tensor in _tensors(getattr(part, name))]


def test_the_task_alone_reaches_every_predictor(model: Whisper, said: list[Said]) -> None:
    trained = training(model, said)
    example = said[0].example(model)
    drawn = torch.Generator().manual_seed(0)

    def draw(logits_M: Tensor) -> Tensor:
        soft_M = (logits_M + torch.randn(len(logits_M), generator=drawn)).sigmoid()
        return (soft_M > 0.5).float() + (soft_M - soft_M.detach())

    loss, _ = gated(
        model.checkpoint.weights, trained.gates, example, trained._context(example, 0), draw
    )
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in trained.parameters.items():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


class Killed(Exception):
    pass


@pytest.mark.parametrize("steps", [3, 4, 6])
def test_who_goes_on_after_a_kill_gets_the_same_gates(
    model: Whisper,
    said: list[Said],
    tmp_path: Path,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within an epoch, at its end, after it; what was done since the last save is done again."""
    monkeypatch.setattr("service.lab.gates.training.SAVE_EVERY", 3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    right = training(model, said)
    run(right, whole)
    left = steps + 1

    def kill() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed

    with pytest.raises(Killed):
        run(training(model, said), killed, kill)
    again = training(model, said)
    again.resume(killed, "data")
    assert 0 < again.progress.step <= steps
    run(again, killed)
    found = learnt(again)
    assert all(torch.equal(found[name], tensor) for name, tensor in learnt(right).items())
    assert again.progress == right.progress


def test_another_trainings_state_is_refused(
    model: Whisper, said: list[Said], tmp_path: Path
) -> None:
    trained = training(model, said)
    trained.save(tmp_path, "data")
    with pytest.raises(ConfigError, match=r"its target is 0.3, and not 0.2; name another --out"):
        training(model, said, replace(HOW, target=0.2)).resume(tmp_path, "data")
    with pytest.raises(ConfigError, match="its data is 'data', and not 'other'"):
        training(model, said).resume(tmp_path, "other")
    (tmp_path / FILE).write_bytes(b"half")
    with pytest.raises(ConfigError, match="cannot be read"):
        trained.resume(tmp_path, "data")


def test_finished_gates_leave_out_the_targets_share(
    model: Whisper, said: list[Said], tmp_path: Path
) -> None:
    trained = training(model, said)
    run(trained, tmp_path)
    gates = trained.finished(trained.train)
    share = trained.measure(trained.train, gates)[1]
    assert share == pytest.approx(0.3, abs=0.03)  # of 40 decisions 12


def test_the_share_is_found_where_a_gate_that_opens_opens_others(
    model: Whisper, said: list[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits far from 0 on both sides, of which ever more change sides as biases move."""
    trained = training(model, said)
    start = float(trained.gates.decoder.down_bias[0].detach())

    def decided(self: Training, one: Said, gates: Gates) -> Tensor:
        by = float(gates.decoder.down_bias[0]) - start
        off = round(100 * min(1.0, max(0.0, 0.53 - 0.2 * by)))
        return torch.cat([torch.full((off,), by - 4.0), torch.full((100 - off,), by + 4.0)])

    monkeypatch.setattr(Training, "_decided", decided)
    gates = trained.finished(trained.train)
    moved = float(gates.decoder.down_bias[0]) - start
    assert 0.53 - 0.2 * moved == pytest.approx(HOW.target, abs=0.02)


@torch.no_grad()
def test_training_computes_what_is_served(model: Whisper, said: list[Said]) -> None:
    """Closed modules and all: its loss is that of the served states and gates."""
    weights = model.checkpoint.weights
    gates = constant(model.info.name, weights.dims, SOME)

    class Gated(Whisper):
        def _gates_of(self, profile: Profile) -> object:  # type: ignore[override]
            return self.gates[0.3]

    for one in said[:2]:
        example = one.example(model)
        loss, logits = gated(weights, gates, example, torch.zeros(0), hard)
        served = Gated(model.checkpoint, {0.3: gates})
        (window,) = served.encode(example.mel_1FT, [Profile("dense")], [example.frames])
        tokens = example.tokens_1N
        found, _ = decoder.forward_watched(
            weights.decoder, tokens, window.states_TD[None], (), None, window.gates
        )
        first = tokens.shape[1] - example.said
        right = torch.nn.functional.cross_entropy(found[0, first - 1 : -1], tokens[0, first:])
        assert float(loss) == pytest.approx(float(right), rel=1e-5)
        assert (logits > 0).tolist() == [
            runs for layer in (*SOME.encoder, *SOME.decoder) for runs in layer
        ]


def test_a_fixed_choice_takes_what_costs_least_beside_the_others() -> None:
    costs = {(): 0.0, (0,): 1.0, (1,): 2.0, (2,): 3.0, (0, 1): 9.0, (0, 2): 4.0}
    asked: list[tuple[int, ...]] = []

    def loss(off: object) -> float:
        asked.append(tuple(off))  # type: ignore[arg-type]
        return costs[asked[-1]]

    assert greedy(loss, 3, 2, lambda: None) == [(0, 1.0), (2, 4.0)]
    assert len(asked) == trials(3, 2)


def test_what_is_off_is_what_the_loss_is_without(
    model: Whisper, said: list[Said], tmp_path: Path
) -> None:
    weights = model.checkpoint.weights
    examples = [one.example(model) for one in said[:2]]
    loss = loss_of(weights, examples, bfloat16=False)
    off = (1, 4, 9)
    gates = constant("", weights.dims, opened(weights.dims, off))
    with torch.no_grad():
        right = [float(gated(weights, gates, e, torch.zeros(0), hard)[0]) for e in examples]
    assert loss(off) == pytest.approx(sum(right) / 2)
    found = alone(weights, examples, tmp_path, {"model": "a"}, lambda: None, bfloat16=False)
    assert found[4] == pytest.approx(loss([4]))
    assert alone(weights, examples, tmp_path, {"model": "a"}, pytest.fail) == found
    asked: list[None] = []
    alone(weights, examples, tmp_path, {"model": "b"}, lambda: asked.append(None), bfloat16=False)
    assert len(asked) == MODULES
    assert len(found) == num_modules(weights.dims) == MODULES


def test_what_was_heard_is_not_heard_again(
    mini_folder: Path, said: list[Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [one.item for one in said[:2]]
    first = heard(str(mini_folder), items, tmp_path)
    monkeypatch.setattr("service.lab.gates.windows._decoded", pytest.fail)
    assert heard(str(mini_folder), items, tmp_path) == first


@pytest.fixture(scope="module")
def ending(mini_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its texts early: the end weighs more."""
    folder = tmp_path_factory.mktemp("ending") / "mini-ending"
    shutil.copytree(mini_folder, folder)
    state = load_file(folder / "model.safetensors")
    end = json.loads((folder / "config.json").read_text())["eos_token_id"]
    state["model.decoder.embed_tokens.weight"][end] *= 4
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_from_recordings_to_figures(
    ending: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--corpus", str(corpus(tmp_path / "corpus")), "--domains", "read", "--split", "all"]
    given += ["--model", str(ending), "--threads", "1"]
    out = tmp_path / "gates"
    train = ["train", "gates", *given, "--target", "0.2", "--steps", "2", "--out", str(out)]
    assert main(train) == OK
    gates = read_gates(out)
    assert gates.contexts == ("language", "event")
    assert gates.trained["epochs"][0]["number"] == 1
    assert len(tensors_of(gates)) == 3 * len(Predictor.__slots__)
    assert not (tmp_path / "gates.training").exists()
    assert main(train) == USAGE  # it is there
    fixed = ["train", "fixed", *given, "--limit", "2", "--targets", "0.1,0.2"]
    assert main([*fixed, "--out", str(tmp_path / "fixed")]) == OK
    assert (tmp_path / "fixed" / "0.2" / WEIGHTS).exists()
    measure = ["train", "measure", *given, "--raw", "--limit", "2", "--dtype", "float32"]
    measure += ["--gates", str(out), "--gates", str(tmp_path / "fixed" / "0.2")]
    capsys.readouterr()
    assert main(measure) == OK
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("| fixed-0.2")]
    assert "| 20.0% |" in row
    assert "| 0 of 10 | 1 in 2 |" in row


def test_a_text_of_gates_that_is_refused_is_read_again_with_every_module(
    ending: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Whisper(load_plain(str(ending)))
    dims = model.checkpoint.weights.dims
    folder = tmp_path / "few"
    folder.mkdir()
    write_gates(constant(model.info.name, dims, opened(dims, [3, 4]), 0.2), folder)
    tried: list[bool] = []

    def judge(attempt: Attempt, *more: object) -> Verdict:
        tried.append(attempt.profile.is_dense)
        verdict: Verdict = fallback.judge(attempt, *more)  # type: ignore[arg-type]
        return verdict

    monkeypatch.setattr(work, "judge", judge)
    told = tmp_path / "told.tsv"
    told.write_text(f"path\ttranscript\n{SAMPLE.resolve()}\t{SAID}\n")
    given = ["--manifest", str(told), "--model", str(ending), "--threads", "1"]
    given += ["--dtype", "float32", "--gates", str(folder)]
    assert main(["train", "measure", *given]) == OK
    assert not all(tried)
    assert tried[-1]
    given = ["--corpus", str(corpus(tmp_path / "corpus")), "--domains", "read", "--split", "all"]
    given += ["--model", str(ending), "--limit", "1", "--gates", str(folder)]
    assert main(["train", "measure", *given]) == OK  # nobody speaks


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        ("0.2,0.20", "one of them is there twice"),
        ("0.01,0.2", "0.01 of 10 modules is none; use 0.1 or more"),
        ("0,0.2", "use numbers between 0 and 1"),
    ],
)
def test_targets_that_mean_nothing_are_refused(
    ending: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    targets: str,
    sentence: str,
) -> None:
    command = ["train", "fixed", "--model", str(ending), "--out", str(tmp_path / "out")]
    command += ["--corpus", str(corpus(tmp_path / "corpus")), "--domains", "read", "--split", "all"]
    assert main([*command, "--limit", "1", "--targets", targets]) == USAGE
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("target", "between"), [(0.5, 2.5), (0.0, 0.0), (0.9999, 5.0)])
def test_the_threshold_of_a_share(target: float, between: float) -> None:
    assert threshold(torch.tensor([4.0, 1.0, 3.0, 2.0]), target) == between


@pytest.mark.parametrize(
    ("more", "status", "sentence"),
    [
        (["--target", "1.5"], USAGE, "--target 1.5: use a number between 0 and 1"),
        (["--target", "0.3", "--context", "mood"], USAGE, "--context mood: use language, event"),
        (["--target", "0.3", "--limit", "1"], FAILED, "which are too few"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    mini_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    status: int,
    sentence: str,
) -> None:
    command = ["train", "gates", "--model", str(mini_folder), "--out", str(tmp_path / "out")]
    command += ["--corpus", str(corpus(tmp_path / "corpus")), "--domains", "read"]
    assert main([*command, *more]) == status
    assert sentence in capsys.readouterr().err
