"""Every claim with figures on both sides of it, and with figures that decide nothing."""

from __future__ import annotations

import pytest

from service.lab import statistics
from service.lab.breakdown import Job
from service.lab.reproduce.claim import Claim, Verdict, all_of, any_of, at_most, counted, in_points
from service.lab.reproduce.eas.checks import (
    beats_equal_k,
    checks,
    holds_elsewhere,
    mean_is_best,
    repeats_itself,
)
from service.lab.reproduce.eas.claims import (
    claims,
    faster,
    keeps_its_words,
    late_layers_give_little,
    scoring_pays,
    there_is_a_solution,
    where_the_best_is,
)
from service.lab.reproduce.eas.data import Recordings, Role
from service.lab.reproduce.eas.plan import ATTENTION, LAYER, SPARSITY, setting
from service.lab.reproduce.eas.results import Results
from service.lab.statistics import Estimate
from service.profiles import Profile
from tests.lab.reproduce.invented import by_frames, results


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invented figures are plain: intervals are the same with few."""
    monkeypatch.setattr(statistics, "RESAMPLES", 200)


HOLDS, FAILS, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN
PUBLISHED = setting(ATTENTION, LAYER, SPARSITY)


def attentive(profile: Profile) -> bool:
    """EAS as published, at any layer and sparsity."""
    chooses = (profile.selection, profile.pool, profile.within) == ("attention", "drop", 0)
    return chooses and profile.aggregation == "mean" and not profile.is_dense


def loses(points: float) -> Results:
    return results(lambda of, profile, raw, n: points if attentive(profile) else 0)


def in_doubt() -> Results:
    """A point on average, 0 or 2 by recording: the interval lies on both sides of it."""
    return results(lambda of, profile, raw, n: 2 * (n % 2) if attentive(profile) else 0)


def first(found: Results, role: Role = Role.SEARCH) -> Recordings:
    return found.of(role)[0]


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (loses(0), HOLDS, "6 of 6 such settings are within a point for certain"),
        (loses(40), FAILS, "0 of 6 such settings are within a point for certain and 6 certainly"),
        (in_doubt(), OPEN, "0 of 6 such settings are within a point for certain and 0 certainly"),
        (results(num_items=4), OPEN, "On 4 full windows"),
    ],
)
def test_there_is_a_solution(found: Results, verdict: Verdict, said: str) -> None:
    claim = there_is_a_solution(found, first(found))
    assert claim.verdict == verdict
    assert said in claim.found
    paths = [tried for tried in claim.tried if "the published example" in tried]
    assert ["raw decoder" in path for path in paths] == [True, False]
    assert any("the max over heads" in tried for tried in claim.tried)
    assert any("within pairs" in tried for tried in claim.tried)


def test_the_figures_are_in_the_sentence() -> None:
    for points in (0, 7):
        found = loses(points)
        claim = there_is_a_solution(found, first(found))
        assert "dense has 5.0% WER" in claim.found
        assert f"loses +{points}.0 (+{points}.0 to +{points}.0) points" in claim.found


def test_where_the_best_is() -> None:
    deep = results(lambda of, profile, raw, n: 40 if profile.sparsity > 0.6 else 0)
    claim = where_the_best_is(deep, first(deep))
    assert (claim.verdict, "60% after layer 1" in claim.found) == (HOLDS, True)
    shallow = results(lambda of, profile, raw, n: 40 if profile.sparsity > 0.2 else 0)
    claim = where_the_best_is(shallow, first(shallow))
    assert (claim.verdict, "20% after layer 1" in claim.found) == (FAILS, True)
    late = results(lambda of, profile, raw, n: 40 if profile.layer < 4 else 0)
    assert where_the_best_is(late, first(late)).verdict == FAILS
    poor = loses(40)
    none = where_the_best_is(poor, first(poor))
    assert (none.verdict, "0 of 15 settings lose at most a point" in none.found) == (FAILS, True)
    few = results(num_items=4)
    assert where_the_best_is(few, first(few)).verdict == OPEN


def test_faster() -> None:
    deep = results(lambda of, profile, raw, n: 40 if profile.sparsity > 0.6 else 0)
    claim = faster(deep)
    # Encoder 10/6 + 0.4 * 50/6 and decoder 0.4 + 2.4, for 10 + 1 + 3.
    assert (claim.verdict, "1.79 (1.79 to 1.79) times" in claim.found) == (HOLDS, True)
    shallow = results(lambda of, profile, raw, n: 40 if profile.sparsity > 0.2 else 0)
    assert faster(shallow).verdict == FAILS
    none = faster(loses(40))
    assert (none.verdict, none.found.count("no setting is within a point")) == (FAILS, 2)
    assert faster(results(num_items=4)).verdict == OPEN

    def wavers(job: Job, number: int) -> float:
        return by_frames(job, number) * (1 if job.profile.is_dense else (0.9, 1.3, 1.4)[number])

    doubtful = results(
        lambda of, profile, raw, n: 40 if profile.sparsity > 0.6 else 0, seconds=wavers
    )
    assert faster(doubtful).verdict == OPEN
    assert len([tried for tried in claim.tried if "at batch" in tried]) == 2


def test_keeps_its_words_elsewhere() -> None:
    kept = results()
    assert keeps_its_words(kept, first(kept, Role.HELD)).verdict == HOLDS
    lucky = results(lambda of, profile, raw, n: 3 if of.role == Role.HELD and raw else 0)
    claim = keeps_its_words(lucky, first(lucky, Role.HELD))
    assert claim.verdict == FAILS
    assert claim.tried == (
        "the same, 80% after layer 1, full, held, through the service: +0.0 (+0.0 to +0.0) "
        "from 5.0%",
    )
    none = loses(40)
    assert keeps_its_words(none, first(none, Role.HELD)).verdict == OPEN


def test_scoring_pays() -> None:
    cheap = scoring_pays(results())
    assert cheap.verdict == HOLDS
    assert "Scoring takes 200.0 to 200.0 ms of a window, at most 1% of dense's time" in cheap.found

    def dear(job: Job, number: int) -> float:
        scores = job.piece in ("drop", "encode") and job.profile.sparsity > 0
        return by_frames(job, number) + 20 * scores

    assert scoring_pays(results(seconds=dear)).verdict == FAILS

    def dear_at_once(job: Job, number: int) -> float:
        return dear(job, number) if job.batch > 1 else by_frames(job, number)

    assert scoring_pays(results(seconds=dear_at_once)).verdict == FAILS


def test_late_layers() -> None:
    assert late_layers_give_little(results()).verdict == HOLDS

    def backwards(job: Job, number: int) -> float:
        return by_frames(job, number) - job.profile.layer

    assert late_layers_give_little(results(seconds=backwards)).verdict == FAILS


@pytest.mark.parametrize(
    ("attention", "others", "verdict"), [(0, 9, HOLDS), (9, 0, FAILS), (9, 9, OPEN), (9, 20, HOLDS)]
)
def test_against_equal_k(attention: int, others: int, verdict: Verdict) -> None:
    found = results(lambda of, profile, raw, n: attention if attentive(profile) else others)
    claim = beats_equal_k(found, first(found, Role.HELD))
    assert claim.verdict == verdict
    assert f"{attention - others:+d}.0".replace("-", "\N{MINUS SIGN}") in claim.found
    assert sum("through the service" in tried for tried in claim.tried) == 4


def test_one_rival_that_is_ahead_suffices() -> None:
    def averaging_wins(of: Recordings, profile: Profile, raw: bool, n: int) -> float:
        return 0 if profile.pool == "mean" else 5 if attentive(profile) else 9

    found = results(averaging_wins)
    assert beats_equal_k(found, first(found, Role.HELD)).verdict == FAILS


@pytest.mark.parametrize(("best", "verdict"), [("mean", HOLDS), ("max", FAILS), ("none", OPEN)])
def test_aggregation(best: str, verdict: Verdict) -> None:
    found = results(lambda of, profile, raw, n: 2 if profile.aggregation == best else 8)
    claim = mean_is_best(found, first(found, Role.HELD))
    assert claim.verdict == verdict
    if best != "none":
        assert f"{best} loses least" in claim.found


def test_repetition() -> None:
    def deep(of: Recordings, profile: Profile) -> int:
        return 7 if profile.sparsity > 0.8 else 1 if profile.is_dense else 0

    endless = results(lambda of, p, raw, n: 90 if p.sparsity > 0.8 else 0, looped=deep)
    claim = repeats_itself(endless, first(endless, Role.HELD))
    assert claim.verdict == HOLDS
    assert "7 of 20 texts repeat themselves (dense: 1)" in claim.found
    assert "from 90% on (7)" in claim.found
    good = results()
    fine = repeats_itself(good, first(good, Role.HELD))
    assert fine.verdict == FAILS
    assert "at no sparsity" in fine.found
    cut_short = results(looped=deep)  # repeats itself, and is ended before it says too much
    assert repeats_itself(cut_short, first(cut_short, Role.HELD)).verdict == HOLDS
    hardly = results(looped=lambda of, profile: int(profile.sparsity > 0.8))
    assert repeats_itself(hardly, first(hardly, Role.HELD)).verdict == OPEN


def test_elsewhere() -> None:
    def only_in_noise(of: Recordings, profile: Profile, raw: bool, n: int) -> float:
        return 12 if of.role == Role.NOISE else 0

    found = results(only_in_noise)
    assert holds_elsewhere(found, first(found, Role.NOISE)).verdict == FAILS
    assert holds_elsewhere(found, first(found, Role.OTHER)).verdict == HOLDS


def test_all_are_made_whatever_there_is() -> None:
    found = results()
    every = [*claims(found), *checks(found)]
    assert len({claim.said for claim in every}) == len(every) == 15
    by = [sum(claim.verdict == verdict for claim in every) for verdict in (HOLDS, FAILS, OPEN)]
    assert counted(every) == (
        f"Of 15 claims {by[0]} hold, {by[1]} do not, and {by[2]} are not decided by these "
        "recordings."
    )
    assert all(isinstance(claim, Claim) and claim.found.endswith(".") for claim in every)


def test_verdicts_together() -> None:
    assert at_most(Estimate(0.5, 0.1, 1.0), 1, 5) == HOLDS
    assert at_most(Estimate(0.5, 0.1, 1.1), 1, 5) == OPEN
    assert at_most(Estimate(1.5, 1.1, 1.9), 1, 5) == FAILS
    assert at_most(Estimate(1.5, 1.1, 1.9), 1, 4) == OPEN
    assert [any_of([HOLDS, FAILS]), any_of([FAILS, FAILS]), any_of([FAILS, OPEN]), any_of([])] == [
        *(HOLDS, FAILS, OPEN, OPEN)
    ]
    assert [all_of([HOLDS, FAILS]), all_of([HOLDS, HOLDS]), all_of([HOLDS, OPEN]), all_of([])] == [
        *(FAILS, HOLDS, OPEN, OPEN)
    ]
    assert in_points(Estimate(-0.04, -0.05, 0.04)) == "+0.0 (\N{MINUS SIGN}0.1 to +0.0)"
    assert in_points(Estimate(-0.16, -1, 2)) == ("\N{MINUS SIGN}0.2 (\N{MINUS SIGN}1.0 to +2.0)")
