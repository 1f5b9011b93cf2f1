from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.queue import FairQueue
from service.errors import TooLarge
from service.types import Job

from .jobs import make_job, make_jobs


def names(jobs: tuple[Job, ...]) -> list[str]:
    return [f"{job.request_id}{job.window.index}" for job in jobs]


def unlimited(_: str) -> int:
    return 10**6


def test_requests_take_turns() -> None:
    queue = FairQueue(100)
    queue.put(make_jobs("a", 3))
    queue.put(make_jobs("b", 2))
    assert names(queue.take(4, unlimited)) == ["a0", "b0", "a1", "b1"]
    assert names(queue.take(4, unlimited)) == ["a2"]
    assert len(queue) == 0


def test_turns_go_on_from_one_batch_to_the_next() -> None:
    queue = FairQueue(100)
    queue.put(make_jobs("a", 3))
    queue.put(make_jobs("b", 2))
    assert [*names(queue.take(1, unlimited)), *names(queue.take(4, unlimited))] == [
        *("a0", "a1", "b0", "b1", "a2")
    ]


def test_a_turn_is_two_windows() -> None:
    queue = FairQueue(100)
    queue.put(make_jobs("a", 4))
    queue.put(make_jobs("b", 3))
    queue.put(make_jobs("c", 1))
    one_by_one = [name for _ in range(8) for name in names(queue.take(1, unlimited))]
    assert one_by_one == ["a0", "a1", "b0", "b1", "c0", "a2", "a3", "b2"]


def test_a_turn_that_was_cut_short_is_not_remembered() -> None:
    queue = FairQueue(100)
    queue.put(make_jobs("a", 2))
    queue.take(1, unlimited)
    queue.clear()
    queue.put(make_jobs("a", 3))
    queue.put(make_jobs("b", 1))
    assert [name for _ in range(3) for name in names(queue.take(1, unlimited))] == [
        *("a0", "a1", "b0")
    ]


def test_a_window_that_is_decoded_again_has_had_its_turn() -> None:
    queue = FairQueue(100)
    queue.put(make_jobs("a", 3))
    queue.put(make_jobs("b", 1))
    queue.put([make_job("c", index=7, resumed=True)])
    queue.put([make_job("a", index=8, resumed=True)])
    one_by_one = [name for _ in range(6) for name in names(queue.take(1, unlimited))]
    assert one_by_one == ["a8", "a0", "c7", "b0", "a1", "a2"]


def test_a_newcomer_waits_for_two_windows_of_each_request_at_most() -> None:
    queue = FairQueue(1000)
    queue.put(make_jobs("hour", 120))
    queue.put(make_jobs("file", 40))
    queue.take(7, unlimited)
    queue.put(make_jobs("clip", 1))
    assert "clip0" in [name for _ in range(5) for name in names(queue.take(1, unlimited))]


def test_a_request_passed_over_keeps_its_place() -> None:
    queue = FairQueue(100)
    queue.put(make_jobs("a", 2))
    queue.put(make_jobs("b", 2))
    assert names(queue.take(4, {"a": 0, "b": 1}.__getitem__)) == ["b0"]
    assert names(queue.take(4, unlimited)) == ["a0", "b1", "a1"]


def test_it_says_how_many_it_lacks_room_for() -> None:
    queue = FairQueue(5)
    queue.put(make_jobs("a", 3))
    assert [queue.lacking(number) for number in (0, 2, 3, 5)] == [0, 0, 1, 3]
    queue.take(1, unlimited)
    assert queue.lacking(3) == 0


def test_a_request_that_could_never_fit_is_too_large() -> None:
    queue = FairQueue(5)
    with pytest.raises(TooLarge, match="6 windows, the queue holds 5"):
        queue.lacking(6)


def test_cancelled_jobs_are_passed_over_and_make_room() -> None:
    queue = FairQueue(3)
    jobs = make_jobs("a", 3)
    queue.put(jobs)
    jobs[0].reply.cancel()
    jobs[2].reply.cancel()
    assert queue.lacking(2) == 0
    queue.put(make_jobs("b", 2))
    assert names(queue.take(9, unlimited)) == ["a1", "b0", "b1"]


def test_jobs_cancelled_after_they_were_put_are_not_taken() -> None:
    queue = FairQueue(3)
    jobs = make_jobs("a", 2)
    queue.put([*jobs, make_job("b")])
    for job in jobs:
        job.reply.cancel()
    assert names(queue.take(9, unlimited)) == ["b0"]
    assert len(queue) == 0


def test_expired_jobs_are_handed_back_once() -> None:
    queue = FairQueue(9)
    queue.put([make_job("a", index=i, deadline=10.0 + i) for i in range(3)])
    assert queue.expire(9.9) == ()
    assert names(queue.expire(11.0)) == ["a0", "a1"]
    assert queue.expire(11.0) == ()
    assert names(queue.take(9, unlimited)) == ["a2"]


def test_a_later_request_may_expire_earlier() -> None:
    queue = FairQueue(9)
    queue.put([make_job("a", deadline=50.0)])
    queue.put([make_job("b", deadline=20.0)])
    assert names(queue.expire(30.0)) == ["b0"]
    assert names(queue.expire(50.0)) == ["a0"]


def test_the_rest_still_expire_after_some_have() -> None:
    queue = FairQueue(9)
    queue.put([make_job("a", index=i, deadline=10.0 * i) for i in (1, 2, 3)])
    assert [names(queue.expire(now)) for now in (10.0, 20.0, 30.0)] == [["a1"], ["a2"], ["a3"]]


def test_the_oldest_is_found_behind_younger_ones() -> None:
    queue = FairQueue(9)
    queue.put(make_jobs("a", 1, submitted=5.0))
    queue.put(make_jobs("b", 1, submitted=3.0))
    assert queue.oldest_submitted == 3.0


@settings(deadline=None)  # a busy machine is not a slow queue
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 4), st.integers(1, 6)),
            st.tuples(st.just("take"), st.integers(1, 5), st.integers(1, 3)),
        ),
        max_size=40,
    )
)
def test_every_job_leaves_once_in_its_requests_order(
    actions: list[tuple[str, int, int]],
) -> None:
    queue = FairQueue(10**6)
    put: defaultdict[str, list[Job]] = defaultdict(list)
    left: defaultdict[str, list[Job]] = defaultdict(list)
    for action, first, second in actions:
        if action == "put":
            jobs = make_jobs(str(first), second)
            put[str(first)] += jobs
            queue.put(jobs)
        else:
            taken = queue.take(first, lambda _, most=second: most)  # type: ignore[misc]
            for job in taken:
                left[job.request_id].append(job)
            counts = [sum(j.request_id == r for j in taken) for r in put]
            assert len(taken) <= first
            assert max(counts, default=0) <= second
    for job in queue.take(10**6, unlimited):
        left[job.request_id].append(job)
    assert left == {r: jobs for r, jobs in put.items() if jobs}
    assert len(queue) == 0
