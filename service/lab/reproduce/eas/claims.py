"""The paper's claims against the figures. Every sentence is worked out from them."""

from __future__ import annotations

from service.lab.breakdown import DENSE
from service.lab.reproduce.claim import (
    LEAST_ITEMS,
    Claim,
    Verdict,
    all_of,
    any_of,
    at_most,
    in_points,
)
from service.lab.reproduce.eas.data import Recordings, Role
from service.lab.reproduce.eas.plan import (
    ATTENTION,
    BEST_SPARSITIES,
    BOUND_POINTS,
    EARLY_LAYERS,
    NEAR,
    SPARSITY,
    SPEEDUP,
    setting,
)
from service.lab.reproduce.eas.results import Results
from service.lab.statistics import Estimate
from service.profiles import Profile

PAPER, READERS = "the paper", "its readers"
RAW, SERVED = "raw decoder", "through the service"


def claims(results: Results) -> list[Claim]:
    """Those of the abstract, and of what is known of the text."""
    found = []
    for of in results.of(Role.SEARCH):
        found += [there_is_a_solution(results, of), where_the_best_is(results, of)]
    found.append(faster(results))
    found += [keeps_its_words(results, of) for of in results.of(Role.HELD)]
    found += [scoring_pays(results), late_layers_give_little(results)]
    return found


def there_is_a_solution(results: Results, of: Recordings) -> Claim:
    """40 to 60% dropped after one of the first three layers loses at most a point."""
    early = [profile for profile in results.size.grid if is_where_the_paper_says(profile)]
    losses = {profile.name: results.loss(of, profile) for profile in early}
    verdicts = [at_most(loss, BOUND_POINTS, len(of.items)) for loss in losses.values()]
    best = min(early, key=lambda profile: losses[profile.name].value)
    surely_not = verdicts.count(Verdict.FAILS)
    return Claim(
        f"40 to 60% of the frames can go after one of the first {EARLY_LAYERS} layers for at most "
        f"{BOUND_POINTS:g} point ({of.kind})",
        PAPER,
        any_of(verdicts),
        f"On {len(of.items)} {of.kind}, where dense has {results.wer(of, DENSE).value:.1f}% WER, "
        f"{verdicts.count(Verdict.HOLDS)} of {len(early)} such settings are within a point for "
        f"certain and {surely_not} certainly are not; the best, {where(best)}, loses "
        f"{in_points(losses[best.name])} points.",
        _other_settings(results, of),
    )


def _other_settings(results: Results, of: Recordings) -> tuple[str, ...]:
    """What the rest of the grid loses, and other ways at the published setting."""
    said = []
    rest = [p for p in results.size.grid if not is_where_the_paper_says(p)]
    if rest:
        best = min(rest, key=lambda profile: results.loss(of, profile).value)
        said.append(
            f"other layers and sparsities: the best of {len(rest)}, {where(best)}, loses "
            f"{in_points(results.loss(of, best))}"
        )
    at = (results.size.layer, SPARSITY)
    for held in results.of(Role.HELD, of.full):
        said += both_paths(results, held, setting(ATTENTION, *at), "the published example")
        said += both_paths(results, held, setting(NEAR, *at), "the loudest head, within pairs")
        for how in ("max", "min", "median"):
            other = setting(ATTENTION, *at, how)
            if results.has(held, other):
                loss = in_points(results.loss(held, other))
                said.append(f"the {how} over heads, {where(other)}, {held.name}: {loss}")
    return tuple(said)


def where_the_best_is(results: Results, of: Recordings) -> Claim:
    """The fastest setting that loses at most a point is one of those."""
    solutions = results.solutions(of)
    said = f"The fastest setting within {BOUND_POINTS:g} point drops 40 to 60% early ({of.kind})"
    count = f"{len(solutions)} of {len(results.size.grid)} settings lose at most a point"
    if not solutions:
        verdict = Verdict.FAILS if len(of.items) >= LEAST_ITEMS else Verdict.OPEN
        best = min(results.size.grid, key=lambda profile: results.loss(of, profile).value)
        loss = in_points(results.loss(of, best))
        found = f"{count}; the one that loses least, {where(best)}, loses {loss} points."
        return Claim(said, PAPER, verdict, found)
    best = solutions[0]
    verdict = Verdict.HOLDS if is_where_the_paper_says(best) else Verdict.FAILS
    found = (
        f"{count}; the fastest of them is {where(best)}, {times(results.speedup(best))} as fast as "
        f"dense, for {in_points(results.loss(of, best))} points."
    )
    return Claim(said, PAPER, verdict if len(of.items) >= LEAST_ITEMS else Verdict.OPEN, found)


def faster(results: Results) -> Claim:
    """Up to 1.6 times as fast, end to end, within a point."""
    found, tried = [], []
    best: Estimate | None = None
    for of in results.of(Role.SEARCH):
        chosen = results.chosen(of)
        if chosen is None:
            found.append(f"on {of.kind} no setting is within a point")
            continue
        speedup = results.speedup(chosen)
        found.append(f"on {of.kind} {times(speedup)}, {where(chosen)}")
        if best is None or speedup.value > best.value:
            best = speedup
    at = setting(ATTENTION, results.size.layer, SPARSITY)
    for batch in results.size.batches:
        there = times(results.speedup(at, batch))
        tried.append(f"{where(at)}, whatever it loses, at batch {batch}: {there}")
    fastest = max(results.size.grid, key=lambda profile: results.speedup(profile).value)
    tried.append(
        f"the fastest of the whole grid, whatever it loses, {where(fastest)}: "
        f"{times(results.speedup(fastest))}"
    )
    said = f"Up to {SPEEDUP:g} times as fast from end to end for at most a point"
    sentence = f"From log-mel to {results.size.num_tokens} tokens: {'; '.join(found)}."
    few = any(len(of.items) < LEAST_ITEMS for of in results.of(Role.SEARCH))
    return Claim(said, PAPER, Verdict.OPEN if few else _fast_enough(best), sentence, tuple(tried))


def _fast_enough(speedup: Estimate | None) -> Verdict:
    if speedup is None or speedup.high < SPEEDUP:
        return Verdict.FAILS
    return Verdict.HOLDS if speedup.value >= SPEEDUP else Verdict.OPEN


def keeps_its_words(results: Results, of: Recordings) -> Claim:
    """What was chosen loses at most a point on recordings it was not chosen on."""
    said = f"What the search chooses loses at most a point on other recordings ({of.kind})"
    searched = results.of(Role.SEARCH, of.full)
    chosen = results.chosen(searched[0]) if searched else None
    if chosen is None:
        return Claim(said, PAPER, Verdict.OPEN, "The search chose nothing: no setting was within.")
    loss = results.loss(of, chosen)
    found = (
        f"{where(chosen).capitalize()} loses {in_points(loss)} points on {len(of.items)} "
        f"{of.kind}, where dense has {results.wer(of, DENSE).value:.1f}% WER."
    )
    tried = both_paths(results, of, chosen, "the same")[1:]
    return Claim(said, PAPER, at_most(loss, BOUND_POINTS, len(of.items)), found, tuple(tried))


def scoring_pays(results: Results) -> Claim:
    """Scoring is a constant overhead, and the frames that go are worth more, at every batch."""
    at = setting(ATTENTION, results.size.layer, SPARSITY)
    speedups = {batch: results.speedup(at, batch) for batch in results.size.batches}
    scoring = {b: results.parts(at, b)["scoring"] for b in results.size.cut_batches}
    total = {b: sum(results.parts(DENSE, b).values()) for b in scoring}
    by_batch = ", ".join(f"{b}: {times(speedup)}" for b, speedup in speedups.items())
    low, high = min(scoring.values()), max(scoring.values())
    share = 100 * max(scoring[b] / total[b] for b in scoring)
    return Claim(
        "Scoring costs the same whatever the batch, and less than what it saves",
        PAPER,
        all_of(_pays(speedup) for speedup in speedups.values()),
        f"Scoring takes {low:.1f} to {high:.1f} ms of a window, at most {share:.0f}% of dense's "
        f"time; with it, {where(at)}, by batch: {by_batch} dense's speed.",
    )


def _pays(speedup: Estimate) -> Verdict:
    if speedup.low > 1:
        return Verdict.HOLDS
    return Verdict.FAILS if speedup.high <= 1 else Verdict.OPEN


def late_layers_give_little(results: Results) -> Claim:
    """The later the drop, the less there is to save."""
    share = min(results.size.sparsities, key=lambda one: abs(one - SPARSITY))
    layers = results.size.layers
    gains = {layer: results.speedup(setting(ATTENTION, layer, share)) for layer in layers}
    first, last = gains[layers[0]], gains[layers[-1]]
    verdict = Verdict.OPEN
    if len(layers) > 1:
        verdict = Verdict.HOLDS if last.high < first.low else Verdict.OPEN
        verdict = Verdict.FAILS if last.low >= first.high else verdict
    by_layer = ", ".join(f"{layer}: {times(gain)}" for layer, gain in gains.items())
    return Claim(
        "A drop after a late layer gives little speed",
        PAPER,
        verdict,
        f"With {share:.0%} dropped, by layer: {by_layer} dense's speed.",
    )


def both_paths(results: Results, of: Recordings, profile: Profile, what: str) -> list[str]:
    """What a profile loses on a set, raw and served, where it was run."""
    return [
        f"{what}, {where(profile)}, {of.name}, {path}: "
        f"{in_points(results.loss(of, profile, raw=raw))} from "
        f"{results.wer(of, DENSE, raw=raw).value:.1f}%"
        for raw, path in ((True, RAW), (False, SERVED))
        if results.has(of, profile, raw=raw)
    ]


def is_where_the_paper_says(profile: Profile) -> bool:
    low, high = BEST_SPARSITIES
    return profile.layer <= EARLY_LAYERS and low <= profile.sparsity <= high


def where(profile: Profile) -> str:
    return f"{profile.sparsity:.0%} after layer {profile.layer}"


def times(speedup: Estimate) -> str:
    """`1.42 (1.39 to 1.44) times`: the median and the range of rounds."""
    return f"{speedup.value:.2f} ({speedup.low:.2f} to {speedup.high:.2f}) times"
