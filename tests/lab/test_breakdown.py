from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from service.decode.packed import DecodeCache
from service.errors import ConfigError
from service.families.fake import FakeModel
from service.families.whisper import Whisper
from service.lab.breakdown import DENSE, PIECES, Job, Stopwatch, timeable
from service.profiles import Profile
from tests.checkpoints import load_plain

HALF = Profile("half", layer=1, sparsity=0.5)


@pytest.fixture(scope="module")
def model(mini_folder: Path) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0))


def watch(model: Whisper, mel: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each layer of each window saw from now on, in order."""
    from service.model import encoder

    seen: list[int] = []
    for name in ("attend_keyed", "attend_scored"):
        real = getattr(encoder, name)

        def noted(states_BTD: torch.Tensor, *rest: object, real: object = real) -> object:
            seen.append(states_BTD.shape[1])
            return real(states_BTD, *rest)  # type: ignore[operator]

        monkeypatch.setattr(encoder, name, noted)
    return seen


@pytest.mark.parametrize(
    ("piece", "profile", "frames"),
    [
        ("stem", HALF, []),
        ("before", HALF, [1500]),
        ("drop", HALF, [1500]),
        ("encode", HALF, [1500, 750]),
        ("encode", DENSE, [1500, 1500]),
    ],
)
def test_an_encoder_is_cut_where_the_piece_ends(
    model: Whisper,
    mel: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    piece: str,
    profile: Profile,
    frames: list[int],
) -> None:
    seen = watch(model, mel, monkeypatch)
    (timed,) = Stopwatch(model, mel, 3).times([Job(piece, profile, 2)], 1)
    assert seen == frames * 2
    assert timed.least == timed.seconds[0] > 0


def test_what_scores_is_timed_with_the_drop_alone(
    model: Whisper, mel: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.model import encoder

    scored: list[str] = []
    real = encoder.attend_scored

    def noted(*given: Any) -> Any:
        scored.append("scored")
        return real(*given)

    monkeypatch.setattr(encoder, "attend_scored", noted)
    stopwatch = Stopwatch(model, mel, 3)
    stopwatch.times([Job("before", HALF)], 1)
    assert scored == []
    stopwatch.times([Job("drop", HALF)], 1)
    assert scored == ["scored"]


@pytest.mark.parametrize(("profile", "kept"), [(DENSE, 1500), (HALF, 750)])
def test_the_decoder_reads_what_is_kept_and_says_so_many_tokens(
    model: Whisper,
    mel: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    profile: Profile,
    kept: int,
) -> None:
    from service.model import decoder

    steps: list[tuple[tuple[int, ...], list[int]]] = []
    real = decoder.step

    def noted(weights: object, tokens_BN: torch.Tensor, cache: DecodeCache) -> torch.Tensor:
        read = [int(window.bias_W.isfinite().sum()) for window in cache.windows]
        steps.append((tuple(tokens_BN.shape), read))
        return real(weights, tokens_BN, cache)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder, "step", noted)
    jobs = [Job("cross", profile, 2), Job("steps", profile, 2)]
    cross, said = Stopwatch(model, mel, 5).times(jobs, 1)
    assert steps == [((2, 1), [kept] * 2)] * 5
    assert (cross.piece, said.piece) == ("cross", "steps")


def test_jobs_take_turns(model: Whisper, mel: torch.Tensor) -> None:
    count: list[None] = []
    jobs = [Job(piece, HALF) for piece in PIECES]
    found = Stopwatch(model, mel, 1).times(jobs, 3, lambda: count.append(None))
    assert [len(timed.seconds) for timed in found] == [3] * 6
    assert len(count) == 18
    assert len({job.name for job in jobs}) == 6


def test_what_cannot_be_timed(model: Whisper, mel: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="unknown piece 'tea'; use stem, before"):
        Stopwatch(model, mel, 1).times([Job("tea", HALF)], 1)
    with pytest.raises(ConfigError, match="no layers to time"):
        timeable(FakeModel())
    assert timeable(model) is model
