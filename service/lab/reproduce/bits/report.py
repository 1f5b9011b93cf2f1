"""What the study says, as one page and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.lab.outcomes import Figures
from service.lab.reproduce.bits.rounding import (
    ATTENTION,
    FEED_FORWARD,
    KINDS,
    STEM,
    Bits,
)
from service.lab.reproduce.bits.study import ALL, Moved
from service.lab.reproduce.claim import LEAST_ITEMS, Claim, Verdict, at_most, in_points
from service.lab.reproduce.page import Page, Section, Table, to_html
from service.lab.statistics import Estimate, difference, error_rate

PAPER = (
    "Attention or Convolution (arXiv 2311.02772) compares encoders of attention alone with those "
    "of convolution and attention: attention alone takes few-bit weights better, and the authors "
    "suppose that errors pass on between rounded convolutions and rounded attention."
)
HOW = (
    "Weights are rounded to the nearest step, symmetric, a scale for each row (of a convolution: "
    "of each output channel) or for each 64 values of a row; nothing is trained. The divergence is "
    "Kullback and Leibler's, of the next token's distribution from that of the model as it is, "
    "while it reads what the model as it is says (in thousandths of a nat a token, with 95% "
    "intervals over windows). Whisper's only convolutions are the two of its stem; an encoder with "
    "a convolution in every layer was not tried."
)
AS_FREE = 0.2  # points of word error rate


@dataclass(frozen=True, slots=True)
class Found:
    """`moved`: by variant, of the same windows; `read`: words, the model as it is first."""

    moved: Mapping[Bits, Moved]
    read: Sequence[Figures]
    sizes: Mapping[str, int]


def claims(found: Found) -> list[Claim]:
    four = [_fewer_errors(found, 4, 0), _fewer_errors(found, 4, 64)]
    passes_on = [_passes_on(found, (STEM, ATTENTION), width) for width in (8, 4)]
    without = _passes_on(found, (ATTENTION, FEED_FORWARD), 4, by="the same, without a convolution")
    return [*four, *passes_on, without, *_words(found)]


def _fewer_errors(found: Found, width: int, group: int) -> Claim:
    attention, stem = (found.moved[Bits((kind,), width, group)] for kind in (ATTENTION, STEM))
    less = difference(attention.divergence, stem.divergence, stem.tokens)
    sizes = found.sizes
    return Claim(
        f"Attention's weights bear {width} bits{f' in {group}s' if group else ''} better than "
        "convolutions'",
        "2311.02772, of other encoders",
        _by_sign(less, len(stem.tokens), above=Verdict.FAILS, below=Verdict.HOLDS),
        f"attention {_thousandths(_of(attention))}, the stem {_thousandths(_of(stem))}; the "
        f"difference {_thousandths(less)}, with {sizes[ATTENTION] / sizes[STEM]:.0f} times as many "
        "weights in attention",
    )


def _passes_on(found: Found, kinds: tuple[str, str], width: int, by: str = "") -> Claim:
    both = found.moved[Bits(kinds, width)]
    parts = [found.moved[Bits((kind,), width)] for kind in kinds]
    apart = [sum(each) for each in zip(*(part.divergence for part in parts), strict=True)]
    more = difference(both.divergence, apart, both.tokens)
    together = " and ".join(kinds)
    return Claim(
        f"Rounding {together} to {width} bits costs more than each of them added up",
        by or "2311.02772, supposed",
        _by_sign(more, len(both.tokens), above=Verdict.HOLDS, below=Verdict.FAILS),
        f"both {_thousandths(_of(both))}; beyond the sum of each alone {_thousandths(more)}",
    )


def _words(found: Found) -> list[Claim]:
    by_name = {figures.profile: figures for figures in found.read}
    made = []
    for bits in (Bits(ALL, 8), Bits(ALL, 8, activations=8)):
        figures = by_name.get(bits.name)
        if figures is None or figures.difference is None:
            continue
        points = _points(figures.difference)
        made.append(
            Claim(
                f"8 bits everywhere{', activations too,' if bits.activations else ''} cost at "
                f"most {AS_FREE} points of word error rate",
                "usual",
                at_most(points, AS_FREE, len(figures.items)),
                f"{in_points(points)} points on {len(figures.items)} recordings",
            )
        )
    return made


def _by_sign(apart: Estimate, num_items: int, above: Verdict, below: Verdict) -> Verdict:
    """Of a difference whose interval lies on one side of 0."""
    if num_items < LEAST_ITEMS or apart.low <= 0 <= apart.high:
        return Verdict.OPEN
    return above if apart.low > 0 else below


def _of(moved: Moved) -> Estimate:
    return error_rate(moved.divergence, moved.tokens)


def _thousandths(estimate: Estimate) -> str:
    value, low, high = (f"{1000 * one:.2f}" for one in asdict(estimate).values())
    return f"{value} ({low} to {high})".replace("-", "\N{MINUS SIGN}")


def write(folder: Path, found: Found, about: Mapping[str, Any]) -> list[Claim]:
    """`report.html` and `report.json`; the claims."""
    made = claims(found)
    page = Page(
        f"Few bits by kind of module, on {about['model']['name']}",
        (PAPER, HOW),
        tuple(made),
        (_moved_section(found), _read_section(found)),
        tuple((name, str(value)) for name, value in about.items()),
    )
    (folder / "report.html").write_text(to_html(page), encoding="utf-8")
    whole = {
        "claims": [asdict(claim) for claim in made],
        "moved": {bits.name: asdict(moved) for bits, moved in found.moved.items()},
        "read": [
            {
                "variant": one.profile,
                "wer": asdict(one.wer),
                "difference": one.difference and asdict(one.difference),
                "recordings": len(one.items),
            }
            for one in found.read
        ],
        "weights": dict(found.sizes),
        "about": dict(about),
    }
    (folder / "report.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    return made


def moved_table(found: Found) -> Table:
    rows = [
        (
            bits.name,
            _thousandths(_of(moved)),
            f"{100 * sum(moved.flips) / sum(moved.tokens):.1f}%",
        )
        for bits, moved in found.moved.items()
    ]
    return Table(("rounded", "divergence, thousandths", "another token"), tuple(rows))


def read_table(found: Found) -> Table:
    rows = []
    for one in found.read:
        apart = "" if one.difference is None else in_points(_points(one.difference))
        rows.append((one.profile, f"{100 * one.wer.value:.2f}%", apart))
    return Table(("rounded", "word error rate", "points to the model as it is"), tuple(rows))


def _points(share: Estimate) -> Estimate:
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high)


def _moved_section(found: Found) -> Section:
    windows = len(next(iter(found.moved.values())).tokens)
    sizes = ", ".join(f"{kind} {found.sizes[kind] / 1e6:.1f}" for kind in KINDS)
    said = f"{windows} windows. Millions of weights: {sizes}."
    return Section("How far the next token moves", (said,), tables=(moved_table(found),))


def _read_section(found: Found) -> Section:
    said = f"{len(found.read[0].items)} recordings, through the path that the service takes."
    return Section("Words", (said,), tables=(read_table(found),))
