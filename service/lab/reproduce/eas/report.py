"""All of a run as one page, its plots, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.lab.breakdown import DENSE
from service.lab.reproduce.claim import Claim, in_points
from service.lab.reproduce.eas import plots
from service.lab.reproduce.eas.checks import checks
from service.lab.reproduce.eas.claims import claims, times, where
from service.lab.reproduce.eas.data import FULL, Gathered, Recordings, Role
from service.lab.reproduce.eas.experiments import summary
from service.lab.reproduce.eas.plan import ATTENTION, MEANS, SPARSITY, Cell, setting
from service.lab.reproduce.eas.results import Results
from service.lab.reproduce.page import Page, Section, Table, to_html
from service.lab.statistics import Estimate

PAPER = (
    "Early Attentive Sparsification (arXiv 2506.15912) keeps the frames that receive most "
    "attention in an early encoder layer, without training. Its abstract: a search over layer and "
    "sparsity finds that the best solutions within 1% of accuracy drop 40 to 60% early, and are up "
    "to 1.6 times as fast in English on NVIDIA GPUs."
)
HOW = (
    "Where it does not say, this is how it was read: 1% of accuracy is one point of word error "
    "rate after Whisper's normaliser; importance is the mean over heads and queries of the "
    "attention that a frame receives; windows are padded to 30 s. Its search is here made on "
    "recordings apart, raw (greedy, no fallback); its runtime is shown by part, half the frames "
    "after layer 2; and what the search chose is taken to other recordings. A claim holds, or "
    "does not, where a 95% interval says so (paired, 10,000 resamples of recordings; of speed: "
    "the range of rounds taken in turns); else it is not decided. The paper's tables by model, its "
    "batch and its type are not published: its figures are for GPUs, these for the machine below."
)


def write(
    folder: Path, results: Results, gathered: Gathered, about: Mapping[str, Any]
) -> list[Claim]:
    """`report.html`, `report.json` and a PNG for each experiment; the claims."""
    found = [*claims(results), *checks(results)]
    sections = tuple(_sections(results))
    for number, section in enumerate(sections, start=1):
        if section.png is not None:
            name = section.heading.split(":")[0].lower().replace(" ", "-")
            (folder / f"{number}-{name}.png").write_bytes(section.png)
    whole = to_json(results, gathered, found, about)
    (folder / "report.json").write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
    name = about["model"]["name"]
    page = Page(
        f"Early Attentive Sparsification, tried again on {name}",
        (PAPER, HOW, *gathered.notes),
        tuple(found),
        sections,
        tuple(_about(results, about)),
    )
    (folder / "report.html").write_text(to_html(page))
    return found


def _sections(results: Results) -> Iterator[Section]:
    at = setting(ATTENTION, results.size.layer, SPARSITY)
    yield Section(
        "Search: every layer with every sparsity",
        ("Attention as published. The dashed line is one point.",),
        plots.search(results),
        tuple(_grid(results, of) for of in results.of(Role.SEARCH)),
    )
    yield Section(
        "Runtime: where the time goes",
        (
            f"Dense, and {where(at)}; the least of the rounds. Scoring is what the layer that "
            "scores takes above the same layer in dense, with choosing and gathering.",
        ),
        plots.breakdown(results),
        (_parts(results),),
    )
    yield Section("Batch: windows at once", (), plots.batches(results), (_batches(results),))
    if held := results.of(Role.HELD):
        yield Section(
            "Rivals: ways to keep as many frames",
            (f"{where(at).capitalize()}.",),
            plots.rivals(results),
            tuple(_texts(results, of) for of in held),
        )
    for of in held:
        if results.has(of, setting(ATTENTION, results.size.layer, SPARSITY, "max")):
            said = (f"{of.name}, raw.",)
            yield Section("Aggregation: over heads", said, plots.aggregations(results, of))
            yield Section("Repetition: by sparsity", said, plots.repetition(results, of))
    if png := plots.elsewhere(results):
        sets = [*results.of(Role.NOISE), *results.of(Role.OTHER)]
        tables = tuple(_texts(results, of) for of in sets)
        yield Section("Elsewhere: noise and other recordings", (), png, tables)


def _grid(results: Results, of: Recordings) -> Table:
    """Points lost by layer and sparsity, and how fast."""
    size = results.size
    rows = []
    for layer in size.layers:
        profiles = [setting(ATTENTION, layer, share) for share in size.sparsities]
        rows.append((f"layer {layer}", *(in_points(results.loss(of, p)) for p in profiles)))
        speeds = [results.speedup(profile) for profile in profiles]
        rows.append(("", *(f"{speed.value:.2f}x" for speed in speeds)))
    dense = f"{of.kind}, dense {results.wer(of, DENSE).value:.1f}%"
    return Table((dense, *(f"{share:.0%}" for share in size.sparsities)), tuple(rows))


def _parts(results: Results) -> Table:
    at = setting(ATTENTION, results.size.layer, SPARSITY)
    rows = []
    for batch in results.size.cut_batches:
        for profile in (DENSE, at):
            parts = results.parts(profile, batch)
            name = f"batch {batch}, {'dense' if profile.is_dense else ATTENTION}"
            cells = [f"{value:.1f}" for value in (*parts.values(), sum(parts.values()))]
            rows.append((name, *cells))
    return Table(("ms a window", *results.parts(DENSE, 1), "all"), tuple(rows))


def _batches(results: Results) -> Table:
    ways = {way: setting(way, results.size.layer, SPARSITY) for way in (ATTENTION, MEANS)}
    rows = [
        (str(batch), *(times(results.speedup(profile, batch)) for profile in ways.values()))
        for batch in results.size.batches
    ]
    return Table(("windows at once", *ways), tuple(rows))


def _texts(results: Results, of: Recordings) -> Table:
    """Every profile that was run on a set."""
    rows = []
    for cell, outcomes in results.texts.items():
        if cell.set_name != of.name:
            continue
        counts = summary(outcomes)
        path = "raw" if cell.raw else "served"
        loss = (
            "" if cell.profile.is_dense else in_points(results.loss(of, cell.profile, raw=cell.raw))
        )
        rows.append(
            (
                cell.profile.name,
                path,
                f"{results.wer(of, cell.profile, raw=cell.raw).value:.1f}%",
                "" if cell.profile.is_dense else loss,
                f"{counts['substitutions']} / {counts['deletions']} / {counts['insertions']}",
                str(counts["looped"]),
                str(counts["broke_off"]),
            )
        )
    head = ("", "", "WER", "against dense", "sub / del / ins", "looped", "broke off")
    head = (of.name, *head[1:])
    return Table(head, tuple(rows), texts=2)


def _about(results: Results, about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, machine = about["model"], about["machine"]
    yield "command", about["command"]
    yield "winnow", f"{about['winnow']}, commit {about['commit']}, {about['date']}"
    yield "model", f"{model['name']}, {model['parameters']:,} parameters"
    yield "computed", f"in {model['dtype']}, weights in {model['weight_dtype']}, {model['device']}"
    gpu = f", {machine['gpu']}" if "gpu" in machine else ""
    threads = f"{machine['threads']} threads"
    yield "machine", f"{machine['cpu']}, {machine['cores']} cores, {threads}{gpu}"
    for of in results.sets:
        seconds = sum(item.seconds for item in of.items)
        yield of.name, f"{len(of.items)} recordings, {seconds / 60:.1f} minutes"
    rounds, tokens = results.size.rounds, results.size.num_tokens
    yield "times", f"{rounds} rounds in turns on {FULL} where there are some, {tokens} tokens each"


def to_json(
    results: Results, gathered: Gathered, found: Sequence[Claim], about: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures: those of each recording are in the record beside it."""
    sets = {one.name: one for one in results.sets}
    return {
        **about,
        "notes": gathered.notes,
        "size": asdict(results.size),
        "claims": [asdict(claim) for claim in found],
        "recordings": [
            {
                "name": one.name,
                "role": one.role,
                "kind": one.kind,
                "recordings": len(one.items),
                "seconds": round(sum(item.seconds for item in one.items), 3),
            }
            for one in results.sets
        ],
        "texts": [_text(results, cell, sets[cell.set_name]) for cell in results.texts],
        "times": [asdict(one) for one in results.timed.values()],
        "speedups": [
            {
                "profile": profile.name,
                "layer": profile.layer,
                "sparsity": profile.sparsity,
                "times_dense": _estimate(results.speedup(profile)),
            }
            for profile in results.size.grid
        ],
    }


def _text(results: Results, cell: Cell, of: Recordings) -> dict[str, Any]:
    return {
        "recordings": cell.set_name,
        "raw": cell.raw,
        "profile": asdict(cell.profile),
        "wer_percent": _estimate(results.wer(of, cell.profile, raw=cell.raw)),
        "loss_points": _estimate(results.loss(of, cell.profile, raw=cell.raw)),
        **summary(results.texts[cell]),
    }


def _estimate(estimate: Estimate) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(estimate).items()}
