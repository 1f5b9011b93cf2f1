"""What the two papers claim or leave open, and what these figures say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.lab.reproduce.bits.rounding import ATTENTION, FEED_FORWARD
from service.lab.reproduce.claim import LEAST_ITEMS, Claim, Verdict, at_most, in_points
from service.lab.reproduce.ctc.model import Thinning
from service.lab.reproduce.ctc.rounding import KINDS, MODULE, WIDTHS, Bits
from service.lab.reproduce.ctc.study import (
    APART,
    BETWEEN,
    CHOICES,
    HALF,
    PLAIN,
    PUBLISHED,
    STRIDE,
    Heard,
    Moved,
    choice_of,
)
from service.lab.statistics import HIGH, LOW, RESAMPLES, Estimate, difference, error_rate

EAS, FEW_BITS = "2506.15912, left open", "2311.02772, supposed"
Dropped = Mapping[Thinning, Mapping[str, Heard]]


@dataclass(frozen=True, slots=True)
class Encoder:
    """What was found of one. `dropped`: on the windows to report on, by way of dealing with
    positions, `tuned`: the same on those of the speakers held back; `rounded`: on the former;
    `sizes`: weights by kind."""

    name: str
    kernel: int
    steps: int
    dense: Heard
    dropped: Dropped
    tuned: Dropped
    rounded: Mapping[Bits, tuple[Moved, Heard]]
    sizes: Mapping[str, int]

    @property
    def has_convolution(self) -> bool:
        return self.kernel > 1


def claims(encoders: Sequence[Encoder]) -> list[Claim]:
    made = []
    for encoder in encoders:
        made += [_bears(encoder, choice) for choice in CHOICES]
        made += [_loses_doubles(encoder), _mended_by_lines(encoder), _mended_by_blanks(encoder)]
        if encoder.has_convolution:
            made += [_mended_by_taps(encoder, taps) for taps in ("held", "apart")]
    pairs = [(a, b) for a in encoders for b in encoders if a.kernel < b.kernel]
    for plain, convolved in pairs:
        made += [_bears_less(plain, convolved), _bits_cost_more(plain, convolved)]
    for encoder in encoders:
        made += [_passes_on(encoder, other, width) for width in WIDTHS for other in _PAIRS]
        made.append(_more_than_without(encoder))
    return made + [_more_than_in(plain, convolved) for plain, convolved in pairs]


_PAIRS = ((MODULE, ATTENTION), (ATTENTION, FEED_FORWARD))


def best(encoder: Encoder, choice: str) -> Thinning:
    """Half of the frames, after the layer that costs the held-back speakers fewest errors."""
    halves = [
        thinning
        for thinning in encoder.tuned
        if thinning.sparsity == HALF and thinning.taps == "kept" and choice_of(thinning) == choice
    ]
    return min(halves, key=lambda thinning: sum(encoder.tuned[thinning][PLAIN].word_errors))


def best_of_all(encoder: Encoder) -> Thinning:
    every = [best(encoder, choice) for choice in CHOICES]
    return min(every, key=lambda thinning: sum(encoder.tuned[thinning][PLAIN].word_errors))


def blank_way(encoder: Encoder, thinning: Thinning) -> str:
    """From how many frames on a blank is assumed: what the held-back speakers like best."""
    found = encoder.tuned[thinning]
    ways = [f"a blank from {apart} frames" for apart in APART]
    return min(ways, key=lambda way: sum(found[way].word_errors))


def loss(found: Heard, dense: Heard) -> Estimate:
    """Word error rate less dense's, in points."""
    return points(difference(found.word_errors, dense.word_errors, dense.words))


def loss_of_letters(found: Heard, dense: Heard) -> Estimate:
    return points(difference(found.letter_errors, dense.letter_errors, dense.letters))


def points(share: Estimate) -> Estimate:
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high)


def divergence(moved: Moved) -> Estimate:
    """Nats a frame."""
    return error_rate(moved.divergence, moved.frames)


def beyond(encoder: Encoder, kinds: tuple[str, ...], width: int) -> tuple[list[float], list[float]]:
    """By window: the divergence of both kinds rounded less the sum of each alone, and that sum."""
    both = encoder.rounded[Bits(kinds, width)][0].divergence
    parts = [encoder.rounded[Bits((kind,), width)][0].divergence for kind in kinds]
    sums = [sum(each) for each in zip(*parts, strict=True)]
    return [whole - apart for whole, apart in zip(both, sums, strict=True)], sums


def share_beyond(encoder: Encoder, kinds: tuple[str, ...], width: int) -> Estimate:
    """Of the sum of each alone, in per cent."""
    more, sums = beyond(encoder, kinds, width)
    return points(error_rate(more, sums))


def apart(
    first: tuple[list[float], list[float]], second: tuple[list[float], list[float]]
) -> Estimate:
    """How much larger one share is than another of the same windows, in points; each is a sum of
    numerators over one of denominators, and windows are drawn for both alike."""
    (a, b), (c, d) = (map(np.asarray, pair) for pair in (first, second))
    chosen = np.random.default_rng(0).integers(len(a), size=(RESAMPLES, len(a)))
    every = a[chosen].sum(1) / b[chosen].sum(1) - c[chosen].sum(1) / d[chosen].sum(1)
    low, high = np.percentile(every, [LOW, HIGH])
    value = a.sum() / b.sum() - c.sum() / d.sum()
    return points(Estimate(float(value), float(low), float(high)))


def by_sign(found: Estimate, num_items: int, above: Verdict, below: Verdict) -> Verdict:
    """Of a difference whose interval lies on one side of 0."""
    if num_items < LEAST_ITEMS or not (found.low > 0 or found.high < 0):
        return Verdict.OPEN
    return above if found.low > 0 else below


def _if_above(found: Estimate, num_items: int) -> Verdict:
    return by_sign(found, num_items, Verdict.HOLDS, Verdict.FAILS)


def _if_below(found: Estimate, num_items: int) -> Verdict:
    return by_sign(found, num_items, Verdict.FAILS, Verdict.HOLDS)


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def lost_share(found: Heard) -> Estimate:
    return error_rate(found.lost, found.doubles)


def _bears(encoder: Encoder, choice: str) -> Claim:
    thinning = best(encoder, choice)
    lost = loss(encoder.dropped[thinning][PLAIN], encoder.dense)
    published = choice == PUBLISHED
    return Claim(
        f"{encoder.name}: half of the frames by {choice} cost at most a point of word error rate",
        "2506.15912, of Whisper" if published else "the same, chosen otherwise",
        at_most(lost, 1.0, len(encoder.dense.words)),
        f"{in_points(lost)} points after layer {thinning.layer}, the best on speakers held back",
    )


def _loses_doubles(encoder: Encoder) -> Claim:
    thinning = best(encoder, STRIDE)
    found, dense = encoder.dropped[thinning][PLAIN], encoder.dense
    more = points(difference(found.lost, dense.lost, dense.doubles))
    return Claim(
        f"{encoder.name}: where every second frame is dropped, CTC loses double letters",
        EAS,
        _if_above(more, len(dense.words)),
        f"of {sum(dense.doubles)}, one letter is missing of {percent(lost_share(dense).value)} "
        f"with all frames and of {percent(lost_share(found).value)} after layer {thinning.layer}; "
        f"{in_points(more)} points",
    )


def _mended_by_lines(encoder: Encoder) -> Claim:
    thinning = best(encoder, STRIDE)
    mended, plain = (encoder.dropped[thinning][way] for way in (BETWEEN, PLAIN))
    less = loss(mended, plain)
    return Claim(
        f"{encoder.name}: log-probabilities in a line between kept frames mend some of it",
        EAS,
        _if_below(less, len(plain.words)),
        f"every second after layer {thinning.layer}: {in_points(less)} points of word error rate; "
        f"to all frames {in_points(loss(plain, encoder.dense))} without, "
        f"{in_points(loss(mended, encoder.dense))} with it",
    )


def _mended_by_blanks(encoder: Encoder) -> Claim:
    thinning = best(encoder, PUBLISHED)
    way = blank_way(encoder, thinning)
    mended, plain = (encoder.dropped[thinning][one] for one in (way, PLAIN))
    less = loss(mended, plain)
    return Claim(
        f"{encoder.name}: a blank assumed where kept frames are apart mends what attention drops",
        EAS,
        _if_below(less, len(plain.words)),
        f"{way}, after layer {thinning.layer}: {in_points(less)} points of word error rate; double "
        f"letters lost {percent(lost_share(plain).value)} without, "
        f"{percent(lost_share(mended).value)} with it",
    )


def _mended_by_taps(encoder: Encoder, taps: str) -> Claim:
    """On what the held-back speakers like best of the choices that were tried with other taps."""
    tried = [thinning for thinning in encoder.tuned if thinning.taps == taps]
    thinning = min(tried, key=lambda one: sum(encoder.tuned[one][PLAIN].word_errors))
    kept = replace(thinning, taps="kept")
    found, plain = (encoder.dropped[one][PLAIN] for one in (thinning, kept))
    less = loss(found, plain)
    meant = {"held": "over states held until the next", "apart": "at the distances learned"}[taps]
    return Claim(
        f"{encoder.name}: convolutions {meant} do better than over kept neighbours",
        EAS,
        _if_below(less, len(plain.words)),
        f"{choice_of(thinning)} after layer {thinning.layer}: {in_points(less)} points; to all "
        f"frames {in_points(loss(plain, encoder.dense))} without, "
        f"{in_points(loss(found, encoder.dense))} with it",
    )


def _bears_less(plain: Encoder, convolved: Encoder) -> Claim:
    """What the same choice of frames costs one more than the other, window by window."""
    chosen = best_of_all(plain)
    lost = [
        [
            a - b
            for a, b in zip(
                one.dropped[chosen][PLAIN].word_errors, one.dense.word_errors, strict=True
            )
        ]
        for one in (plain, convolved)
    ]
    more = points(difference(lost[1], lost[0], plain.dense.words))
    return Claim(
        f"Dropped frames cost {convolved.name} more than {plain.name}",
        EAS,
        _if_above(more, len(plain.dense.words)),
        f"half by {choice_of(chosen)} after layer {chosen.layer}: {in_points(more)} points more",
    )


def _bits_cost_more(plain: Encoder, convolved: Encoder) -> Claim:
    bits = Bits(KINDS, 4)
    moved = [one.rounded[bits][0] for one in (plain, convolved)]
    more = difference(moved[1].divergence, moved[0].divergence, moved[0].frames)
    said = [loss(one.rounded[bits][1], one.dense) for one in (plain, convolved)]
    return Claim(
        f"{plain.name} takes 4 bits better than {convolved.name}",
        "2311.02772",
        _if_above(more, len(moved[0].frames)),
        f"divergence {thousandths(divergence(moved[0]))} and {thousandths(divergence(moved[1]))}; "
        f"word error rate {in_points(said[0])} and {in_points(said[1])} points",
    )


def _passes_on(encoder: Encoder, kinds: tuple[str, str], width: int) -> Claim:
    more, _ = beyond(encoder, kinds, width)
    share = in_points(share_beyond(encoder, kinds, width))
    frames = encoder.rounded[Bits(kinds, width)][0].frames
    found = error_rate(more, frames)
    together = " and ".join(kind_name(encoder, kind) for kind in kinds)
    by = FEW_BITS if kinds == _PAIRS[0] and encoder.has_convolution else "for comparison"
    return Claim(
        f"{encoder.name}: rounding {together} to {width} bits costs more than each of them added "
        "up",
        by,
        _if_above(found, len(frames)),
        f"beyond the sum {thousandths(found)}, {share}% of it",
    )


def kind_name(encoder: Encoder, kind: str) -> str:
    return "convolution" if kind == MODULE and encoder.has_convolution else kind


def _more_than_without(encoder: Encoder) -> Claim:
    """Whether the pair with the module passes on a larger share than the pair without."""
    with_it, without = (beyond(encoder, kinds, 4) for kinds in _PAIRS)
    more = apart(with_it, without)
    module = kind_name(encoder, MODULE)
    shares = [share_beyond(encoder, kinds, 4).value for kinds in _PAIRS]
    return Claim(
        f"{encoder.name}: more passes on between {module} and {ATTENTION} than between {ATTENTION} "
        f"and {FEED_FORWARD}, at 4 bits",
        FEW_BITS if encoder.has_convolution else "for comparison",
        _if_above(more, len(with_it[0])),
        f"{shares[0]:.0f}% and {shares[1]:.0f}% beyond the sum; {in_points(more)} points",
    )


def _more_than_in(plain: Encoder, convolved: Encoder) -> Claim:
    pair = _PAIRS[0]
    more = apart(beyond(convolved, pair, 4), beyond(plain, pair, 4))
    return Claim(
        f"More passes on between {MODULE} and {ATTENTION} in {convolved.name} than in "
        f"{plain.name}, at 4 bits",
        FEW_BITS,
        _if_above(more, len(plain.dense.words)),
        f"{share_beyond(convolved, pair, 4).value:.0f}% and "
        f"{share_beyond(plain, pair, 4).value:.0f}% beyond the sum; {in_points(more)} points",
    )


def thousandths(estimate: Estimate) -> str:
    """Of a nat a frame."""
    one, low, high = (
        f"{1000 * each:.2f}" for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{one} ({low} to {high}) thousandths".replace("-", "\N{MINUS SIGN}")
