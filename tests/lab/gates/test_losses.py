"""Straight-through decisions, and the pull to a target."""

from __future__ import annotations

import pytest
import torch

from service.lab.gates.losses import annealed, logistic, pull, share_off, straight_through
from service.lab.gates.training import starts, threshold


def test_a_decision_is_hard_and_its_gradient_soft() -> None:
    logits = torch.tensor([-2.0, -0.1, 0.1, 2.0], requires_grad=True)
    found = straight_through(logits, torch.zeros(4), 0.5)
    assert found.tolist() == [0.0, 0.0, 1.0, 1.0]
    found.sum().backward()  # type: ignore[no-untyped-call]
    soft = (logits.detach() / 0.5).sigmoid()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx((soft * (1 - soft) / 0.5).tolist())


def test_noise_is_that_of_two_gumbel_variables_and_comes_again() -> None:
    drawn = logistic(20_000, seed=1, step=2)
    assert torch.equal(drawn, logistic(20_000, seed=1, step=2))
    assert not torch.equal(drawn, logistic(20_000, seed=1, step=3))
    assert float((drawn + 1 > 0).float().mean()) == pytest.approx(
        float(torch.tensor(1.0).sigmoid()), abs=0.01
    )


def test_the_pull_takes_decisions_to_the_target() -> None:
    """Many windows, each with its own wishes, which go against it."""
    wishes = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)).abs()
    bias = torch.full((20,), 2.0, requires_grad=True)
    optimizer = torch.optim.Adam([bias], lr=0.05)
    running, multiplier, target = 0.0, 0.0, 0.3
    for step in range(1500):
        logits = bias + wishes[step % 50] - 1
        share = share_off(logits, 0.5)
        running = 0.9 * running + 0.1 * share.item()
        kept = straight_through(logits, torch.zeros(20), 0.5)
        loss = (1 - kept).mean()  # whoever is off is missed
        cost = loss + pull(share, running, target, multiplier, weight=50.0)
        optimizer.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        multiplier += 0.05 * (target - running)
    off = (bias.detach() + wishes - 1 <= 0).float().mean()
    assert float(off) == pytest.approx(target, abs=0.02)


def test_the_pull_has_the_value_of_all_and_the_gradient_of_one() -> None:
    share = torch.tensor(0.5, requires_grad=True)
    cost = pull(share, 0.1, 0.3, multiplier=2.0, weight=10.0)
    cost.backward()  # type: ignore[no-untyped-call]
    assert cost.item() == pytest.approx(2 * 0.2 + 10 * 0.04)
    assert float(share.grad or 0) == pytest.approx(-2 - 2 * 10 * 0.2)


def test_temperatures_fall_by_equal_factors() -> None:
    assert [annealed(1.0, 0.25, done) for done in (0, 0.5, 1, 2)] == pytest.approx(
        [1.0, 0.5, 0.25, 0.25]
    )


def test_a_threshold_leaves_out_the_targets_share() -> None:
    logits = torch.randn(200, generator=torch.Generator().manual_seed(0))
    for target in (0.1, 0.295):
        assert float((logits <= threshold(logits, target)).float().mean()) == pytest.approx(target)
    assert not bool((logits <= threshold(logits, 0.001)).any())


def test_what_is_missed_least_starts_nearest_to_being_left_out() -> None:
    found = starts([3.0, 1.0, 9.0, 2.0], (0.5, 3.5))
    assert found.tolist() == pytest.approx([2.5, 0.5, 3.5, 1.5])
