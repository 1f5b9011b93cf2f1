"""What the paper's readers asked for: rivals of equal k, aggregations, repetition, noise, other
languages. Every sentence is worked out from the figures."""

from __future__ import annotations

from service.lab.breakdown import DENSE
from service.lab.reproduce.claim import LEAST_ITEMS, Claim, Verdict, all_of, at_most, in_points
from service.lab.reproduce.eas.claims import PAPER, READERS, both_paths, where
from service.lab.reproduce.eas.data import Recordings, Role
from service.lab.reproduce.eas.plan import (
    ATTENTION,
    BOUND_POINTS,
    MEANS,
    NEAR,
    REPEATS_ABOVE,
    RIVALS,
    SPARSITY,
    STRIDE,
    setting,
)
from service.lab.reproduce.eas.results import Outcomes, Results
from service.lab.statistics import Estimate
from service.profiles import AGGREGATIONS


def checks(results: Results) -> list[Claim]:
    found = [beats_equal_k(results, of) for of in results.of(Role.HELD)]
    for of in _with_deeper(results):
        found += [mean_is_best(results, of), repeats_itself(results, of)]
    for role in (Role.NOISE, Role.OTHER):
        found += [holds_elsewhere(results, of) for of in results.of(role)]
    return found


def _with_deeper(results: Results) -> list[Recordings]:
    other = setting(ATTENTION, results.size.layer, SPARSITY, "max")
    return [of for of in results.of(Role.HELD) if results.has(of, other)]


def beats_equal_k(results: Results, of: Recordings) -> Claim:
    """What attention chooses keeps more words than as many frames that nothing chose."""
    at = (results.size.layer, SPARSITY)
    ours = setting(ATTENTION, *at)
    rivals = {way: setting(way, *at) for way in (STRIDE, MEANS)}
    gaps = {way: results.loss(of, ours, against=rival) for way, rival in rivals.items()}
    said = " and ".join(f"{in_points(gap)} points against {way}" for way, gap in gaps.items())
    tried = []
    for raw, path in ((True, "raw decoder"), (False, "through the service")):
        for way in (STRIDE, MEANS):
            for name in (ATTENTION, NEAR):
                if (name, raw) == (ATTENTION, True):
                    continue  # said above
                gap = results.loss(of, setting(name, *at), raw=raw, against=rivals[way])
                tried.append(f"{name} against {way}, {path}: {in_points(gap)}")
    tried += _chosen_against_rivals(results, of)
    return Claim(
        f"Attention chooses better than keeping as many frames without it ({of.kind})",
        READERS,
        all_of(_is_less(gap, len(of.items)) for gap in gaps.values()),
        f"{where(ours).capitalize()} on {len(of.items)} {of.kind}, attention loses {said}.",
        tuple(tried),
    )


def _chosen_against_rivals(results: Results, of: Recordings) -> list[str]:
    """The same where the search would have it."""
    chosen = results.all_chosen().get(of.full)
    if chosen is None or (chosen.layer, chosen.sparsity) == (results.size.layer, SPARSITY):
        return []
    said = []
    for way in (STRIDE, MEANS):
        rival = setting(way, chosen.layer, chosen.sparsity)
        gap = in_points(results.loss(of, chosen, against=rival))
        said.append(f"{where(chosen)}, as the search chose, against {way}: {gap}")
    return said


def _is_less(gap: Estimate, num_items: int) -> Verdict:
    if num_items < LEAST_ITEMS:
        return Verdict.OPEN
    if gap.high < 0:
        return Verdict.HOLDS
    return Verdict.FAILS if gap.low > 0 else Verdict.OPEN


def mean_is_best(results: Results, of: Recordings) -> Claim:
    """No other aggregation over heads loses less than the mean."""
    at = (results.size.layer, SPARSITY)
    mean = setting(ATTENTION, *at)
    others = {how: setting(ATTENTION, *at, how) for how in AGGREGATIONS if how != "mean"}
    gaps = {how: results.loss(of, mean, against=other) for how, other in others.items()}
    losses = {"mean": mean, **others}
    by_how = ", ".join(f"{how} {in_points(results.loss(of, p))}" for how, p in losses.items())
    best = min(losses, key=lambda how: results.loss(of, losses[how]).value)
    return Claim(
        f"The mean over heads is the aggregation to use ({of.kind})",
        READERS,
        all_of(_is_less(gap, len(of.items)) for gap in gaps.values()),
        f"{where(mean).capitalize()}, points lost by aggregation: {by_how}; {best} loses least.",
        tuple(f"mean against {how}, paired: {in_points(gap)}" for how, gap in gaps.items()),
    )


def repeats_itself(results: Results, of: Recordings) -> Claim:
    """Above 0.8 the text repeats itself, or does not end."""
    size = results.size
    deep = max(size.ladder)
    worst = setting(ATTENTION, size.layer, deep)
    extra, looping = results.too_much(of, worst), results.looping(of, worst)
    looped, before = (_looped(results.outcomes(of, one)) for one in (worst, DENSE))
    broke_off = sum(one.broke_off for one in results.outcomes(of, worst))
    verdict = Verdict.OPEN
    if len(of.items) >= LEAST_ITEMS and deep > REPEATS_ABOVE:
        if looping.low > 0 or extra.low > 0:
            verdict = Verdict.HOLDS
        elif looping.high <= 0 and extra.high <= 0:
            verdict = Verdict.FAILS
    return Claim(
        f"More than {REPEATS_ABOVE:.0%} dropped gives repetitive or endless text ({of.kind})",
        PAPER,
        verdict,
        f"With {deep:.0%} dropped after layer {size.layer}, {looped} of {len(of.items)} texts "
        f"repeat themselves (dense: {before}), {broke_off} break off, and there are "
        f"{in_points(extra)} more words too much per hundred than dense has, though a loop is "
        f"ended early; {_where_it_begins(results, of)}.",
        tuple(
            f"{way}, {deep:.0%} dropped: {_looped(results.outcomes(of, other))} repeat themselves"
            for way in (STRIDE, MEANS)
            for other in [setting(way, size.layer, deep)]
        ),
    )


def _where_it_begins(results: Results, of: Recordings) -> str:
    before = _looped(results.outcomes(of, DENSE))
    for share in sorted(results.size.ladder):
        one = setting(ATTENTION, results.size.layer, share)
        if (looped := _looped(results.outcomes(of, one))) > before:
            return f"more than dense's repeat themselves from {share:.0%} on ({looped})"
    return "at no sparsity do more repeat themselves than dense's"


def _looped(outcomes: Outcomes) -> int:
    return sum(one.looped for one in outcomes)


def holds_elsewhere(results: Results, of: Recordings) -> Claim:
    """The published setting loses at most a point here too."""
    at = (results.size.layer, SPARSITY)
    ours = setting(ATTENTION, *at)
    loss = results.loss(of, ours)
    others = [way for way in RIVALS if way != ATTENTION]
    return Claim(
        f"The published setting loses at most a point there too ({of.name})",
        READERS,
        at_most(loss, BOUND_POINTS, len(of.items)),
        f"{where(ours).capitalize()} loses {in_points(loss)} points on {len(of.items)} "
        f"{of.kind}, where dense has {results.wer(of, DENSE).value:.1f}% WER.",
        tuple(said for way in others for said in both_paths(results, of, setting(way, *at), way)),
    )
