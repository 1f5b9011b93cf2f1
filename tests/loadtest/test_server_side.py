from __future__ import annotations

import pytest

from loadtest.scrape import parse
from loadtest.server_side import Memory, Reading, memory_marks, server_side

TEXT = """\
# TYPE winnow_queue_windows gauge
winnow_queue_windows {queue}
# TYPE winnow_frames_total counter
winnow_frames_total{{profile="fast",outcome="kept"}} {kept}
winnow_frames_total{{profile="fast",outcome="dropped"}} {dropped}
winnow_frames_total{{profile="dense",outcome="kept"}} {queue}00.0
# TYPE winnow_stage_seconds histogram
winnow_stage_seconds_bucket{{le="+Inf",profile="fast",stage="queue"}} {count}
winnow_stage_seconds_count{{profile="fast",stage="queue"}} {count}
winnow_stage_seconds_sum{{profile="fast",stage="queue"}} {seconds}
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total {cpu}
"""


def test_a_step_is_what_grew_in_it() -> None:
    before = parse(TEXT.format(queue=1, kept=600, dropped=900, count=2, seconds=4.0, cpu=10))
    after = parse(TEXT.format(queue=2, kept=1200, dropped=1800, count=6, seconds=6.0, cpu=25))
    readings = [Reading(0.0, 0, 0, 1e8), Reading(1.0, 6, 3, 1.5e8)]
    found = server_side("fast", before, after, readings, wall_s=10.0, memory_every_s=60)
    assert found.frames_kept_share == pytest.approx(0.4)
    assert found.stage_s["queue"] == pytest.approx(0.5)
    assert found.stage_s["encode"] is None
    assert found.cpu_cores == pytest.approx(1.5)
    assert (found.queue_before, found.queue_after) == (1, 2)
    assert (found.queue_mean, found.queue_peak, found.decoding_peak) == (3, 6, 3)
    assert found.memory == (Memory(0.0, 100.0), Memory(0.02, 150.0))


def test_memory_is_told_at_the_start_at_every_mark_and_at_the_end() -> None:
    readings = [Reading(float(s), 0, 0, 1e6 * (100 + s)) for s in range(0, 1201, 7)]
    marks = memory_marks(readings, every_s=300.0)
    assert [round(m.minutes) for m in marks] == [0, 5, 10, 15, 20]
    assert [m.megabytes for m in marks[:2]] == [100.0, 401.0]
    assert marks[-1].megabytes == 100 + readings[-1].at_s


def test_a_gap_in_the_readings_makes_no_mark_twice() -> None:
    readings = [Reading(s, 0, 0, 1e6) for s in (0.0, 700.0, 701.0, 905.0)]
    assert [m.minutes for m in memory_marks(readings, 300.0)] == [0.0, 11.67, 15.08]


def test_a_server_that_does_not_tell_has_no_memory() -> None:
    assert memory_marks([Reading(0.0, 0, 0, 0.0)], 300.0) == ()
    assert memory_marks([], 300.0) == ()
