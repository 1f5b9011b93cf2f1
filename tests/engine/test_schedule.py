from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from service.config import ServerConfig
from service.engine import budget
from service.engine.budget import Budget
from service.engine.queue import FairQueue
from service.engine.schedule import Load, Wait, next_batch
from service.families.fake import FakeModel
from service.profiles import Profile
from service.types import Batch, DecodeOptions, Job

from .jobs import make_job, make_jobs

CONFIG = ServerConfig(max_batch_windows=8, max_decode_windows=32, batch_wait_ms=5)
IDLE = Load({})


def waiting(*requests: list[Job]) -> FairQueue:
    queue = FairQueue(1000)
    for jobs in requests:
        queue.put(jobs)
    return queue


def counts(decision: Batch | Wait) -> Counter[str]:
    assert isinstance(decision, Batch)
    return Counter(job.request_id for job in decision.jobs)


def test_nothing_to_do() -> None:
    assert next_batch(FairQueue(9), IDLE, 0.0, CONFIG) == Wait(None)


def test_idle_it_waits_for_company_from_the_oldest_submission_on() -> None:
    queue = waiting(make_jobs("a", 1, submitted=10.0), make_jobs("b", 1, submitted=10.004))
    decision = next_batch(queue, IDLE, 10.004, CONFIG)
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(0.001)
    assert len(queue) == 2
    assert counts(next_batch(queue, IDLE, 10.0051, CONFIG)) == {"a": 1, "b": 1}


def test_a_full_batch_does_not_wait() -> None:
    queue = waiting(*(make_jobs(str(r), 1, submitted=10.0) for r in range(8)))
    assert counts(next_batch(queue, IDLE, 10.0, CONFIG)).total() == 8


def test_it_never_waits_while_decoding() -> None:
    queue = waiting(make_jobs("a", 1, submitted=10.0))
    assert counts(next_batch(queue, Load({"b": 1}), 10.0, CONFIG)) == {"a": 1}


def test_profiles_share_a_batch() -> None:
    queue = waiting([make_job("a", profile="fast")], [make_job("b", profile="balanced")])
    decision = next_batch(queue, IDLE, 1.0, CONFIG)
    assert isinstance(decision, Batch)
    assert [job.profile.name for job in decision.jobs] == ["fast", "balanced"]


def test_a_batch_holds_no_more_than_the_free_slots() -> None:
    queue = waiting(*(make_jobs(str(r), 1) for r in range(8)))
    held = {"x": 15, "y": 14}
    assert counts(next_batch(queue, Load(held), 1.0, CONFIG)).total() == 3
    full = {"x": 16, "y": 16}
    assert next_batch(queue, Load(full), 1.0, CONFIG) == Wait(None)


def test_a_batch_holds_no_more_than_its_limit() -> None:
    queue = waiting(*(make_jobs(str(r), 1) for r in range(20)))
    assert counts(next_batch(queue, IDLE, 1.0, CONFIG)).total() == 8


def test_one_request_gives_a_quarter_of_a_batch() -> None:
    queue = waiting(make_jobs("file", 40))
    assert counts(next_batch(queue, IDLE, 1.0, CONFIG)) == {"file": 2}
    assert counts(next_batch(queue, Load({"file": 2}), 1.0, CONFIG)) == {"file": 2}


def test_one_request_holds_half_of_the_slots() -> None:
    queue = waiting(make_jobs("file", 40))
    assert counts(next_batch(queue, Load({"file": 15}), 1.0, CONFIG)) == {"file": 1}
    assert next_batch(queue, Load({"file": 16}), 1.0, CONFIG) == Wait(None)


def test_a_newcomer_is_encoded_without_the_file() -> None:
    queue = waiting(make_jobs("file", 40), make_jobs("clip", 1))
    assert counts(next_batch(queue, Load({"file": 4}), 1.0, CONFIG)) == {"clip": 1}


def test_while_requests_share_decode_it_gets_twice_the_time_of_encode() -> None:
    queue = waiting(make_jobs("file", 40))
    shared = {"file": 4, "clip": 1}
    due = Load(shared, encode_s=1.0, decode_s=1.9)
    assert next_batch(queue, due, 1.0, CONFIG) == Wait(None)
    had = Load(shared, encode_s=1.0, decode_s=2.0)
    assert counts(next_batch(queue, had, 1.0, CONFIG)) == {"file": 2}
    alone = Load({"file": 4}, encode_s=1.0, decode_s=0.0)
    assert counts(next_batch(queue, alone, 1.0, CONFIG)) == {"file": 2}


def test_a_newcomer_waits_until_decode_has_had_half_the_time_of_encode() -> None:
    queue = waiting(make_jobs("file", 40), make_jobs("late", 1))
    for held in ({"file": 4}, {"file": 4, "clip": 1}):
        early = Load(held, encode_s=1.0, decode_s=0.4)
        assert next_batch(queue, early, 1.0, CONFIG) == Wait(None)  # nor does the file go before it
    due = Load({"file": 4, "clip": 1}, encode_s=1.0, decode_s=0.5)
    assert counts(next_batch(queue, due, 1.0, CONFIG)) == {"late": 1}


def test_a_window_that_is_decoded_again_goes_before_newcomers() -> None:
    queue = waiting(make_jobs("late", 8))
    queue.put([make_job("begun", index=3, resumed=True)])
    assert counts(next_batch(queue, Load({"begun": 4}), 1.0, CONFIG)) == {"begun": 1, "late": 2}
    full = Load({"begun": 16})  # half of the places are its own, also for what is decoded again
    queue.put([make_job("begun", index=4, resumed=True)])
    assert counts(next_batch(queue, full, 1.0, CONFIG)) == {"late": 2}


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("windows", [1, 2, 3])
def test_the_smallest_limits_still_serve(slots: int, windows: int) -> None:
    config = ServerConfig(max_batch_windows=windows, max_decode_windows=slots)
    queue = waiting(make_jobs("file", 4))
    assert counts(next_batch(queue, IDLE, 1.0, config)) == {"file": 1}


# A dense window takes 1,000 + 1,500 bytes, a beam of eight 8,000 + 1,500.
BUDGET = Budget(total=10_000, row_bytes=1000, frame_bytes=1, num_frames=1500)


def beam(request: str, number: int, beam_size: int = 8) -> list[Job]:
    options = DecodeOptions(beam_size=beam_size)
    return [replace(job, options=options) for job in make_jobs(request, number)]


def test_what_a_job_takes() -> None:
    (job,) = make_jobs("a", 1)
    assert BUDGET.cost(job) == 2500
    assert BUDGET.cost(replace(job, profile=Profile("half", layer=1, sparsity=0.5))) == 1750
    assert BUDGET.cost(replace(job, profile=Profile("late", late=0.5))) == 1750
    assert BUDGET.cost(beam("a", 1)[0]) == 9500
    by_block = replace(BUDGET, block_frames=64)  # of 1,500 and 750 frames: 24 and 12
    assert by_block.cost(job) == 1000 + 24 * 64
    assert by_block.cost(replace(job, profile=Profile("half", layer=1, sparsity=0.5))) == 1768
    sampled = DecodeOptions(beam_size=8, temperature=0.5)  # which has no beam
    assert BUDGET.cost(replace(job, options=sampled)) == 2500


def test_windows_are_taken_while_the_budget_holds_them() -> None:
    queue = waiting(*(make_jobs(str(r), 1) for r in range(8)))
    assert counts(next_batch(queue, Load({}, budget=BUDGET), 10.0, CONFIG)).total() == 4
    full = Load({"x": 4}, held=10_000, budget=BUDGET)
    assert next_batch(queue, full, 10.0, CONFIG) == Wait()
    some = Load({"x": 2}, held=5000, budget=BUDGET)
    assert counts(next_batch(queue, some, 10.0, CONFIG)).total() == 2
    assert counts(next_batch(queue, Load({}), 10.0, CONFIG)).total() == 2


def test_one_request_has_half_of_the_budget() -> None:
    queue = waiting(make_jobs("file", 20))
    assert counts(next_batch(queue, Load({}, budget=BUDGET), 10.0, CONFIG)) == {"file": 2}
    load = Load({"file": 2}, held=5000, budget=BUDGET)
    assert next_batch(queue, load, 10.0, CONFIG) == Wait()


def test_what_does_not_fit_waits_and_is_not_overtaken() -> None:
    queue = waiting(beam("beams", 1), make_jobs("clip", 1))
    busy = Load({"x": 1}, held=2500, budget=BUDGET)
    assert next_batch(queue, busy, 10.0, CONFIG) == Wait()
    assert counts(next_batch(queue, Load({}, budget=BUDGET), 10.0, CONFIG)) == {"beams": 1}
    held = Load({"beams": 1}, held=9500, budget=BUDGET)
    assert next_batch(queue, held, 10.0, CONFIG) == Wait()
    assert counts(next_batch(queue, Load({}, budget=BUDGET), 10.0, CONFIG)) == {"clip": 1}


@pytest.mark.parametrize(
    ("usable", "held", "total"), [(3000, 1000, 1000), (1000, 1000, 1), (1000, 3000, 1), (0, 9, 0)]
)
def test_where_nothing_is_free_the_budget_is_not_without_a_limit(
    usable: int, held: int, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "usable_memory", lambda: usable)
    monkeypatch.setattr(budget, "held_memory", lambda: held)
    assert budget.budget_for(FakeModel().info, CONFIG).total == total


def test_what_would_never_fit_goes_alone() -> None:
    queue = waiting(beam("wide", 2, beam_size=50))
    assert counts(next_batch(queue, Load({}, budget=BUDGET), 10.0, CONFIG)) == {"wide": 1}
    assert next_batch(queue, Load({"wide": 1}, held=51_500, budget=BUDGET), 10.0, CONFIG) == Wait()
