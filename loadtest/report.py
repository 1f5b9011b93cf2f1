"""What a run found, as a table, as JSON and as a picture. Pure, but for the files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadtest.accuracy import WordErrors, together
from loadtest.campaign import Overload
from loadtest.machine import Machine
from loadtest.outcomes import plain
from loadtest.results import SOAK, StepResult
from loadtest.server_side import ServerSide

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run's figures mean nothing without."""

    command: str
    date: str
    machine: Machine
    host: str
    shares_machine: bool
    model: dict[str, str]
    mix: str
    arrivals: str
    seed: int
    timeout_s: float
    p95_limit_s: float | None


@dataclass(slots=True)
class Report:
    """Grows as the run goes on, and can be written at any time."""

    setting: Setting
    steps: list[StepResult] = field(default_factory=list)
    maxima: dict[str, float | None] = field(default_factory=dict)
    overloads: list[Overload] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False

    def word_errors(self) -> dict[str, WordErrors]:
        """Of all answers of the run, by profile."""
        profiles = dict.fromkeys(r.step.profile for r in self.steps)
        return {p: together(r.words for r in self.steps if r.step.profile == p) for p in profiles}

    def to_json(self) -> dict[str, Any]:
        """Everything, as report.json has it."""
        content: dict[str, Any] = plain(
            {
                **asdict(self.setting),
                "num_requests": sum(r.locust["num_requests"] for r in self.steps),
                "interrupted": self.interrupted,
                "problems": self.problems,
                "generator_limited_steps": sum(r.generator.limited for r in self.steps),
                "maxima": self.maxima,
                "overloads": [asdict(overload) for overload in self.overloads],
                "word_errors": {
                    profile: {**asdict(words), "wer": words.wer}
                    for profile, words in self.word_errors().items()
                },
            }
        )
        return content | {"steps": [result.to_json() for result in self.steps]}

    def write(self, folder: Path) -> None:
        """Writes report.json and, once there is a step, report.png."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_json(), indent=1) + "\n")
        if self.steps:
            picture(self).savefig(folder / "report.png", dpi=110)


COLUMNS: tuple[tuple[str, int, Callable[[StepResult], str]], ...] = (
    ("step", -8, lambda r: r.step.kind),
    ("profile", -10, lambda r: r.step.profile),
    ("rate/s", 7, lambda r: f"{r.step.rate:.2f}"),
    ("sent", 6, lambda r: str(r.summary.num_requests)),
    ("p50 s", 7, lambda r: number(r.summary.p50_s, ".2f")),
    ("p95 s", 7, lambda r: number(r.summary.p95_s, ".2f")),
    ("p99 s", 7, lambda r: number(r.summary.p99_s, ".2f")),
    ("errors", 7, lambda r: f"{r.summary.error_share:.1%}"),
    ("429", 7, lambda r: f"{r.summary.refused_share:.1%}"),
    ("good/s", 7, lambda r: f"{r.summary.goodput_rps:.2f}"),
    ("RTFx", 7, lambda r: f"{r.summary.rtfx:.1f}"),
    ("RTF", 7, lambda r: of_server(r, lambda s: s.real_time_factor, ".3f")),
    ("queued", 7, lambda r: of_server(r, lambda s: s.stage_s["queue"], ".2f")),
    ("batch", 6, lambda r: of_server(r, lambda s: s.batch_windows, ".1f")),
    ("WER", 7, lambda r: number(r.words.wer, ".1%")),
    ("late ms", 8, lambda r: f"{1000 * r.generator.late_p99_s:.1f}"),
    ("", 8, lambda r: "" if r.held else "not held"),
)
LEGEND = (
    "latency from the moment a request was due; good/s and RTFx: requests, and seconds of audio, "
    "answered a second\nof the step; RTF, queued (s, mean), batch (windows, mean): the server's "
    "own; late: p99 of the generator's sends"
)


def head() -> str:
    """The table's first line."""
    return " ".join(_column(name, width) for name, width, _ in COLUMNS).rstrip()


def line(result: StepResult) -> str:
    """A step's line of the table."""
    return " ".join(_column(show(result), width) for _, width, show in COLUMNS).rstrip()


def number(value: float | None, form: str) -> str:
    """The number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def of_server(result: StepResult, get: Callable[[ServerSide], float | None], form: str) -> str:
    """A figure of the server's own, or a dash."""
    return number(get(result.server) if result.server else None, form)


def closing(report: Report) -> str:
    """What is said below the table."""
    said = [LEGEND]
    for profile, rate in report.maxima.items():
        found = "no rate held" if rate is None else f"{rate:.2f} requests/s"
        said.append(f"maximum of {profile}: {found}")
    for result in report.steps:
        if result.step.kind == SOAK and result.server:
            marks = ", ".join(
                f"{m.minutes:.0f} min {m.megabytes:.0f} MB" for m in result.server.memory
            )
            said.append(f"memory of the server, {result.step.profile}: {marks}")
    said += [_overloaded(overload) for overload in report.overloads]
    said += [
        f"word errors of {profile}: {words.errors} of {words.words}, {words.wer:.1%}"
        for profile, words in report.word_errors().items()
        if words.wer is not None
    ]
    said += _warnings(report)
    said += [f"FAILED: {problem}" for problem in report.problems]
    return "\n".join(said)


def _overloaded(o: Overload) -> str:
    back = "none came back"
    if o.returned_accepted_share is not None:
        back = f"{o.returned} came back as told, {o.returned_accepted_share:.1%} were accepted"
    return (
        f"{o.profile} at {o.factor:g} times its maximum: goodput {o.goodput_requests:.0%} "
        f"(requests) and {o.goodput_audio:.0%} (audio) of that at the maximum, "
        f"{o.refused_share:.1%} refused with 429; {back}"
    )


def _warnings(report: Report) -> list[str]:
    said = []
    limited = [r for r in report.steps if r.generator.limited]
    if limited:
        worst = max(r.generator.late_p99_s for r in limited)
        busiest = max(r.generator.cpu_cores for r in limited)
        said.append(
            f"THE GENERATOR WAS THE BOTTLENECK in {len(limited)} of {len(report.steps)} steps "
            f"(p99 of lateness up to {1000 * worst:.0f} ms, up to {busiest:.0%} of its core): "
            "what these steps say about the server is not to be trusted"
        )
    if report.setting.shares_machine:
        said.append(
            f"generator and server shared this machine of {report.setting.machine.cores} cores "
            f"({report.setting.machine.cores_allowed} allowed)"
        )
    if any(r.server is None for r in report.steps):
        said.append("the server's own series could not be read at /metrics")
    if report.interrupted:
        said.append("INTERRUPTED: the last step was cut short")
    return said


def _column(text: str, width: int) -> str:
    return f"{text:<{-width}}" if width < 0 else f"{text:>{width}}"


def picture(report: Report) -> Figure:
    """Latency, throughput and errors against rate, and word errors, by profile."""
    from matplotlib.figure import Figure  # takes a second, and a run begins without it

    figure = Figure(figsize=(12, 8), layout="constrained")
    latency, speed, errors, words = figure.subplots(2, 2).flat
    profiles = list(report.word_errors())
    for i, profile in enumerate(profiles):
        results = sorted(
            (r for r in report.steps if r.step.profile == profile), key=lambda r: r.step.rate
        )
        rates = [r.step.rate for r in results]
        for style, q in (("-", "p50_s"), ("--", "p95_s"), (":", "p99_s")):
            seconds = [_or_nan(getattr(r.summary, q)) for r in results]
            _line(latency, rates, seconds, f"{profile} {q[:3]}", i, style)
        _line(speed, rates, [r.summary.rtfx for r in results], profile, i)
        _line(errors, rates, [100 * r.summary.error_share for r in results], profile, i)
        words.bar(profile, 100 * (report.word_errors()[profile].wer or 0), color=f"C{i}")
    if report.setting.p95_limit_s:
        latency.axhline(report.setting.p95_limit_s, color="grey", linewidth=0.8)
    latency.set_yscale("log")
    worst = max((100 * r.summary.error_share for r in report.steps), default=0)
    errors.set_ylim(0, 1.05 * max(1, worst))
    for axes, title in (
        (latency, "latency (s)"),
        (speed, "RTFx: seconds of audio answered a second"),
        (errors, "requests without an answer (%)"),
    ):
        _label(axes, title, "requests due a second")
    _label(words, "word error rate (%)", "profile")
    model = report.setting.model.get("name", "model not known")
    figure.suptitle(f"{model}, {report.setting.machine.cpu}, {report.setting.date}", fontsize=10)
    return figure


def _line(
    axes: Axes, x: Sequence[float], y: Sequence[float], label: str, color: int, style: str = "-"
) -> None:
    axes.plot(x, y, style, marker="o", markersize=3, label=label, color=f"C{color}")


def _label(axes: Axes, title: str, below: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(below)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, ncols=3)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
