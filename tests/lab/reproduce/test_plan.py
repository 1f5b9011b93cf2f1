from __future__ import annotations

from dataclasses import replace

import pytest

from service.lab.breakdown import DENSE
from service.lab.reproduce.eas.data import Role
from service.lab.reproduce.eas.plan import (
    ATTENTION,
    MEANS,
    NEAR,
    RIVALS,
    SPARSITY,
    STRIDE,
    Cost,
    check_cells,
    jobs,
    search_cells,
    setting,
    size_of,
    timing_share,
)
from tests.lab.reproduce.invented import SIZE, sets


@pytest.mark.parametrize(
    ("num_layers", "layers"),
    [
        (1, (1,)),
        (2, (1,)),
        (4, (1, 2, 3)),
        (6, (1, 2, 3, 4)),
        (12, (1, 2, 3, 6, 9)),
        (32, (1, 2, 3, 16, 24)),
    ],
)
def test_layers_of_any_model(num_layers: int, layers: tuple[int, ...]) -> None:
    size = size_of(num_layers)
    assert size.layers == layers
    assert size.layer == min(2, num_layers)
    assert size_of(num_layers, quick=True).layers == (size.layer,)


def test_ways_are_the_papers_and_its_rivals() -> None:
    published = setting(ATTENTION, 2, 0.5)
    assert (published.selection, published.aggregation, published.within, published.pool) == (
        *("attention", "mean", 0, "drop"),
    )
    assert setting(STRIDE, 2, 0.5).selection == "stride"
    assert setting(MEANS, 2, 0.5).pool == "mean"
    near = setting(NEAR, 2, 0.5)
    assert (near.selection, near.aggregation, near.within) == ("attention", "max", 2)
    assert setting(ATTENTION, 2, 0.5, "min").aggregation == "min"
    with pytest.raises(ValueError, match="unknown way"):
        setting("luck", 2, 0.5)


def test_what_is_searched_and_what_is_checked() -> None:
    gathered = sets(5)
    search = search_cells(SIZE, gathered)
    assert {cell.set_name for cell in search} == {"full", "single"}
    assert all(cell.raw for cell in search)
    assert len(search) == len(set(search)) == 2 * (1 + 3 * 5)
    chosen = {True: setting(ATTENTION, 1, 0.6), False: setting(ATTENTION, 2, SPARSITY)}
    checks = check_cells(SIZE, gathered, chosen)
    assert len(checks) == len(set(checks))
    assert {cell.set_name for cell in checks} == {
        one.name for one in gathered.sets if one.role != Role.SEARCH
    }
    run = {
        (name, raw): {c.profile for c in checks if (c.set_name, c.raw) == (name, raw)}
        for name in ("full, held", "single, held", "noise", "german")
        for raw in (True, False)
    }
    everywhere = {DENSE, *(setting(way, 2, 0.5) for way in RIVALS)}
    rivals_of_chosen = {setting(way, 1, 0.6) for way in (ATTENTION, STRIDE, MEANS)}
    assert everywhere | rivals_of_chosen <= run["full, held", True]
    assert run["full, held", False] == {*everywhere, chosen[True]}
    assert run["single, held", True] == run["single, held", False] == everywhere
    assert run["noise", True] == run["german", True] == everywhere
    assert run["noise", False] == run["german", False] == set()
    deep = [c.set_name for c in checks if c.profile == setting(ATTENTION, 2, 0.9)]
    assert deep == ["full, held"]


def test_where_no_window_is_full_single_utterances_are_looked_at_closer() -> None:
    gathered = sets(5)
    single = tuple(one for one in gathered.sets if not one.full)
    checks = check_cells(SIZE, type(gathered)(single, ()), {})
    deep = [c.set_name for c in checks if c.profile == setting(ATTENTION, 2, 0.9)]
    assert deep == ["single, held"]


def test_every_job_is_timed_once_and_dense_by_itself() -> None:
    wanted = jobs(SIZE)
    assert len({job.name for job in wanted}) == len(wanted)
    whole = {(job.profile.name, job.batch) for job in wanted if job.piece == "encode"}
    assert {("dense", 1), ("dense", 8), ("attention-4-0.8", 1)} <= whole
    pieces = {(job.piece, job.batch) for job in jobs(replace(SIZE, batches=(1, 2, 8)))}
    assert {batch for piece, batch in pieces if piece == "drop"} == {1, 8}
    assert timing_share(SIZE, 6) > SIZE.rounds * 2 * sum(SIZE.batches)


def test_a_budget_says_how_many_recordings() -> None:
    cost = Cost(per_text_s=2, timing_s=60)
    sizes = [50, 50, 10]
    assert cost.seconds(sizes) == 280
    assert cost.limit(280, sizes) == 50
    assert cost.limit(160, sizes) == 20
    assert cost.limit(60 + 2 * 3 * 9, sizes) == 9
    assert cost.limit(1, sizes) == 2
