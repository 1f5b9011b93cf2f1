"""A whole run: a service, its steps, the table as it grows, the report, the exit status."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from datetime import UTC, datetime

import gevent
from gevent.event import Event

from loadtest import audio, campaign, scrape
from loadtest.drive import Load, allow_many_connections, run_step
from loadtest.find_max import Search
from loadtest.machine import is_here, this_machine
from loadtest.options import Options
from loadtest.own_service import check_ready, own_service
from loadtest.report import Report, Setting, closing, head, line
from loadtest.results import Step, StepResult
from loadtest.thresholds import Limits, problems

OK, FAILED, INTERRUPTED = 0, 1, 130


def run(options: Options, command: str) -> int:
    """Runs every step that was asked for, reports, and returns the exit status.

    A signal ends the step that runs; the report then has what there is. Raises ConfigError for a
    manifest that cannot be used, and ServiceFailed where no service is ready.
    """
    allow_many_connections()
    if options.manifest:
        recordings = audio.read_manifest(options.manifest, options.recordings, options.seed)
        mix = f"{options.manifest.name}: {audio.describe(recordings)}"
    else:
        recordings = audio.built_in()
        mix = f"{audio.BUILT_IN_MIX}; in all {audio.describe(recordings)}"
    with ExitStack() as stack:
        host = options.host or stack.enter_context(own_service())
        check_ready(host)
        report = Report(_setting(options, command, host, mix))
        print(f"{host}: {report.setting.model.get('name', 'model not known')}\nsends {mix}")
        print(head(), flush=True)
        try:
            _take_steps(_Runs(host, _load(options, recordings), report), options)
        except _Interrupted:
            report.interrupted = True
    report.problems = problems(report.steps, report.maxima, report.word_errors(), _limits(options))
    report.write(options.out)
    print(closing(report))
    print(f"written: {options.out}/report.json, {options.out}/report.png")
    if report.interrupted:
        return INTERRUPTED
    return FAILED if report.problems else OK


class _Interrupted(Exception):
    """A signal ended the run: what was measured until then counts."""


class _Runs:
    """Runs steps against a host, prints each when it is done, and keeps it in the report."""

    def __init__(self, host: str, load: Load, report: Report) -> None:
        self.report = report
        self._host = host
        self._load = load
        self._stop = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._stop.set)

    def __call__(self, step: Step) -> StepResult:
        if self._stop.is_set():
            raise _Interrupted
        result = run_step(self._host, step, self._load, self._stop)
        self.report.steps.append(result)
        print(line(result), flush=True)
        if result.interrupted:
            raise _Interrupted
        return result


def _take_steps(runs: _Runs, options: Options) -> None:
    profiles, seed, seconds = options.profiles, options.seed, options.duration
    if options.rate:
        campaign.at_rates(profiles, options.rate, seconds, options.rounds, seed, runs)
        return
    if options.find_max:
        search = Search(start=options.start_rate, tolerance=options.tolerance)
        maxima = campaign.find_maxima(profiles, search, seconds, seed, runs)
    else:
        rates = options.maximum * (len(profiles) // len(options.maximum))
        known = dict(zip(profiles, rates, strict=True))
        maxima = campaign.at_maxima(known, seconds, seed, runs)
    report = runs.report
    report.maxima = {profile: best.step.rate if best else None for profile, best in maxima.items()}
    if options.soak:
        campaign.soak(maxima, options.soak_share, options.soak, seed, runs)
    if options.overload:
        for one in campaign.overload(maxima, options.overload_factor, options.overload, seed, runs):
            report.overloads.append(one)


def _load(options: Options, recordings: tuple[audio.Recording, ...]) -> Load:
    return Load(
        recordings=recordings,
        law=options.arrivals,
        language=options.language,
        timeout_s=options.timeout,
        obey_share=options.obey_retry_after,
        p95_s=options.p95,
        max_errors=options.max_errors,
        max_late_s=options.max_lateness,
        memory_every_s=options.memory_every,
    )


def _limits(options: Options) -> Limits:
    return Limits(
        p95_s=options.p95,
        max_errors=options.max_errors,
        max_wer=options.max_wer,
        min_rate=options.min_rate,
        min_rtfx=options.min_rtfx,
    )


def _setting(options: Options, command: str, host: str, mix: str) -> Setting:
    try:
        model = scrape.fetch(host).labels("winnow_model_info")
    except (OSError, ValueError):
        model = {}
    return Setting(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        host=host,
        shares_machine=is_here(host),
        model=model,
        mix=mix,
        arrivals=options.arrivals,
        seed=options.seed,
        timeout_s=options.timeout,
        p95_limit_s=options.p95,
    )
