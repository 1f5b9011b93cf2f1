"""What the study says, as one page, in Markdown too, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.lab.reproduce.claim import Claim, in_points
from service.lab.reproduce.ctc.claims import (
    Encoder,
    blank_way,
    claims,
    divergence,
    loss,
    loss_of_letters,
    lost_share,
    percent,
    points,
    share_beyond,
    thousandths,
)
from service.lab.reproduce.ctc.rounding import KINDS
from service.lab.reproduce.ctc.study import BETWEEN, PLAIN, Heard, Moved, choice_of
from service.lab.reproduce.page import Page, Section, Table, to_html, to_markdown
from service.lab.statistics import Estimate, error_rate

TAPS = {"kept": "", "held": ", convolutions over held states", "apart": ", taps apart"}
PAPERS = (
    "Early Attentive Sparsification (arXiv 2506.15912) leaves open what dropped frames do to "
    "encoders that are read by CTC, and to those with convolutions. Attention or Convolution "
    "(arXiv 2311.02772) says that encoders of attention alone take few-bit weights better, and "
    "supposes that errors pass on between rounded convolutions and rounded attention."
)
HOW = (
    "Whisper's encoder, in its upper layers a module between attention and the feed-forward part, "
    "and a head on letters, trained by CTC. The module is the Conformer's convolution with a layer "
    "norm in place of its batch norm; with a kernel of 1 it has all but the same weights and "
    "reaches over no neighbours, so that two encoders differ in nothing else: Whisper's stem, two "
    "convolutions, is in both. Read greedily, without a language model. Windows are as long as "
    "their audio. Words are counted after Whisper's normaliser, letters as they are spelled."
)
DROPPED = (
    "Points to the same encoder with all frames, with 95% intervals of paired differences. Lost: "
    "double letters of which one is said and one is not. Of positions: 'as they "
    "are' collapses the kept frames as if nothing had been between them; 'interpolated' collapses "
    "log-probabilities in a line from each kept frame to the next; 'a blank' assumes one between "
    "kept frames that are far apart, from how far on is chosen on speakers held back. To hold "
    "each kept state until the next only repeats what is collapsed, and changes nothing."
)
ROUNDED = (
    "Weights rounded to the nearest step, symmetric, a scale for each row, of taps for each "
    "channel (a kernel of 1 has one value to a channel, which any bits hold); stem and head are as "
    "they were, and all is computed in float32. The divergence is Kullback and Leibler's, of a "
    "frame's labels from those of the encoder as it is. Of several kinds: how much more it is than "
    "each kind's alone added up, of that sum."
)


def write(folder: Path, encoders: Sequence[Encoder], about: Mapping[str, Any]) -> list[Claim]:
    """`report.html`, the same as `README.md`, and `report.json`; the claims."""
    made = claims(encoders)
    sections = [_trained(encoders)]
    for encoder in encoders:
        sections += [_dropped(encoder), _rounded(encoder)]
    page = Page(
        f"CTC on the encoder of {about['model']['name']}: dropped frames and few bits",
        (PAPERS, HOW),
        tuple(made),
        tuple(sections),
        tuple((name, str(value)) for name, value in about.items()),
    )
    (folder / "report.html").write_text(to_html(page), encoding="utf-8")
    (folder / "README.md").write_text(to_markdown(page), encoding="utf-8")
    whole = {
        "claims": [asdict(claim) for claim in made],
        "encoders": [_to_json(encoder) for encoder in encoders],
        "about": dict(about),
    }
    (folder / "report.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    return made


def _to_json(encoder: Encoder) -> dict[str, Any]:
    dense = encoder.dense
    return {
        "name": encoder.name,
        "kernel": encoder.kernel,
        "steps": encoder.steps,
        "weights": dict(encoder.sizes),
        "dense": _rates(dense, dense),
        "dropped": [
            {
                "thinning": asdict(thinning),
                "ways": {way: _rates(one, dense) for way, one in ways.items()},
            }
            for thinning, ways in encoder.dropped.items()
        ],
        "rounded": [
            {
                "bits": bits.name,
                "divergence": asdict(divergence(moved)),
                "states": _state_error(moved),
                **_rates(said, dense),
            }
            for bits, (moved, said) in encoder.rounded.items()
        ],
    }


def _rates(found: Heard, dense: Heard) -> dict[str, Any]:
    """Shares of words and letters; differences to dense in points."""
    return {
        "wer": asdict(error_rate(found.word_errors, found.words)),
        "wer_points": asdict(loss(found, dense)),
        "cer": asdict(error_rate(found.letter_errors, found.letters)),
        "cer_points": asdict(loss_of_letters(found, dense)),
        "doubles_lost": lost_share(found).value,
    }


def _state_error(moved: Moved) -> float:
    """Squared distance of the last states to what they were, as a share of their square."""
    return sum(moved.distance) / sum(moved.square)


def trained_table(encoders: Sequence[Encoder]) -> Table:
    rows = []
    for encoder in encoders:
        wer, cer = (points(one) for one in _error_rates(encoder.dense))
        millions = [f"{encoder.sizes[kind] / 1e6:.2f}" for kind in KINDS]
        lost = percent(lost_share(encoder.dense).value)
        rows.append((encoder.name, str(encoder.kernel), *millions, _range(wer), _range(cer), lost))
    head = ("encoder", "kernel", *(f"{kind}, M" for kind in KINDS), "WER", "CER", "doubles lost")
    return Table(head, tuple(rows))


def dropped_table(encoder: Encoder) -> Table:
    rows = []
    for thinning, ways in encoder.dropped.items():
        blank = blank_way(encoder, thinning)
        plain = ways[PLAIN]
        rows.append(
            (
                f"{percent(thinning.sparsity)} after layer {thinning.layer}, {choice_of(thinning)}"
                f"{TAPS[thinning.taps]}",
                in_points(loss(plain, encoder.dense)),
                in_points(loss_of_letters(plain, encoder.dense)),
                percent(lost_share(plain).value),
                in_points(loss(ways[BETWEEN], encoder.dense)),
                in_points(loss(ways[blank], encoder.dense)),
                f"{percent(lost_share(ways[blank]).value)} ({blank.removeprefix('a blank ')})",
            )
        )
    head = (
        "dropped",
        "WER, as they are",
        "CER",
        "doubles lost",
        "WER, interpolated",
        "WER, a blank",
        "doubles lost",
    )
    return Table(head, tuple(rows))


def rounded_table(encoder: Encoder) -> Table:
    rows = []
    for bits, (moved, said) in encoder.rounded.items():
        beyond_sum = ""
        if len(bits.kinds) > 1:
            beyond_sum = in_points(share_beyond(encoder, bits.kinds, bits.width)) + "%"
        rows.append(
            (
                bits.name,
                thousandths(divergence(moved)),
                beyond_sum,
                f"{100 * _state_error(moved):.3f}%",
                in_points(loss(said, encoder.dense)),
            )
        )
    head = (
        "rounded",
        "divergence a frame",
        "beyond the sum of each alone",
        "error of states",
        "WER, points",
    )
    return Table(head, tuple(rows))


def _error_rates(found: Heard) -> tuple[Estimate, Estimate]:
    words = error_rate(found.word_errors, found.words)
    return words, error_rate(found.letter_errors, found.letters)


def _range(share: Estimate) -> str:
    return f"{share.value:.1f}% ({share.low:.1f} to {share.high:.1f})"


def _trained(encoders: Sequence[Encoder]) -> Section:
    dense = encoders[0].dense
    said = (
        f"{len(dense.words)} windows, {sum(dense.words)} words. Of modules, attention and the "
        "feed-forward part: millions of weights that are rounded below."
    )
    return Section("The encoders", (said,), tables=(trained_table(encoders),))


def _dropped(encoder: Encoder) -> Section:
    return Section(f"Dropped frames: {encoder.name}", (DROPPED,), tables=(dropped_table(encoder),))


def _rounded(encoder: Encoder) -> Section:
    return Section(f"Few bits: {encoder.name}", (ROUNDED,), tables=(rounded_table(encoder),))
