"""The hostile drill, against the service and against servers that do all that is a fault."""

from __future__ import annotations

import itertools
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.hostile.__main__ import FAILED, OK, main
from loadtest.hostile.answers import Outcome
from loadtest.hostile.drill import Asking, drill, trial
from loadtest.hostile.ordinary import Asked
from loadtest.hostile.process import Footprint, footprint, listener, settled_footprint
from loadtest.hostile.trials import Target
from loadtest.hostile.verdict import Limits, Run, Verdict, judge
from loadtest.own_service import ServiceFailed, own_service

UNHURRIED = ("--hang", "5m", "--slower", "5m")  # a busy machine is no fault
BEFORE = 3  # ordinary requests before the trials: the first, and those that are the measure
ERROR = b'{"error": {"message": "no", "type": "t", "param": null, "code": "c"}}'


def test_a_share_of_the_trials_does_the_service_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WINNOW_MODEL", "fake")
    monkeypatch.setenv("WINNOW_THREADS", "1")
    limits = (*UNHURRIED, "--memory-mb", "300", "--peak-mb", "1000")
    with own_service() as url:
        status = main([url, "--seed", "6", "--number", "150", "--save", str(tmp_path), *limits])
    assert status == OK, [path.read_text() for path in tmp_path.glob("*.json")]


# Servers that misbehave

Misdeed = Callable[[socket.socket], None]


def answer(line: socket.socket, status: int, body: bytes) -> None:
    line.sendall(b"HTTP/1.1 %d Any\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


@contextmanager
def serving(misdeed: Misdeed, text: Callable[[], str] = lambda: "hello") -> Iterator[str]:
    """A server that answers the ordinary request with `text()`, and all others by `misdeed`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                first = self.request.recv(65536)
                if b"Content-Type: audio/flac" in first:
                    answer(self.request, 200, json.dumps({"text": text()}).encode())
                elif first:
                    misdeed(self.request)
                # A socket that is closed with something unread takes the answer with it.
                self.request.shutdown(socket.SHUT_WR)
                while self.request.recv(65536):
                    pass
            except OSError:
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def limits(**given: float) -> Limits:
    never = {"hang_s": 300.0, "slower_s": 300.0, "memory_mb": 1e6, "peak_mb": 1e6}
    return Limits(**(never | given), descriptors=10)


def asking(
    url: str,
    judged: Limits,
    number: int = 20,
    kinds: tuple[str, ...] = ("file",),
    settle_s: float = 60.0,
    pid: int | None = None,
) -> Asking:
    """Two ordinary requests before, and an eye on `pid`, else on this process, in which the servers
    are."""
    return Asking(
        url=url,
        seed=1,
        numbers=range(number),
        kinds=kinds,
        concurrency=2,
        every_s=0.01,
        num_quiet=BEFORE - 1,
        limits=judged,
        settle_s=settle_s,
        pid=os.getpid() if pid is None else pid,
        save=None,
    )


def verdict(
    url: str,
    number: int = 20,
    kinds: tuple[str, ...] = ("file",),
    settle_s: float = 60.0,
    pid: int | None = None,
    **given: float,
) -> Verdict:
    judged = limits(**given)
    return judge(drill(asking(url, judged, number, kinds, settle_s, pid)), judged)


def refuse(line: socket.socket) -> None:
    answer(line, 400, ERROR)


def test_a_server_that_refuses_everything_in_good_form_does_nothing_wrong() -> None:
    with serving(refuse) as url:
        found = verdict(url, kinds=("file", "form", "connection"))
    assert found.faults == ()
    assert found.figures["answers"]["file"] == {"400": found.figures["trials"] - sum(
        sum(counts.values()) for kind, counts in found.figures["answers"].items() if kind != "file"
    )}  # fmt: skip


@pytest.mark.parametrize(
    ("misdeed", "said"),
    [
        (lambda line: answer(line, 500, ERROR), "answered 500"),
        (lambda line: answer(line, 400, b"Bad Request"), "no error"),
        (lambda line: line.shutdown(socket.SHUT_WR), "without a whole answer"),
        (
            lambda line: line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
            "whole answer",
        ),
    ],
    ids=["500", "no shape", "no answer", "half an answer"],
)
def test_every_wrong_answer_is_a_fault(misdeed: Misdeed, said: str) -> None:
    with serving(misdeed) as url:
        found = verdict(url)
    assert len(found.faults) == found.figures["trials"] > 0
    assert all(said in fault for fault in found.faults)


def test_a_hang_is_a_fault() -> None:
    with serving(lambda line: time.sleep(1)) as url:
        found = verdict(url, number=4, hang_s=0.2)
    assert any("no end after" in fault for fault in found.faults)


def test_an_ordinary_client_that_waits_is_a_fault_that_names_who_was_there() -> None:
    asks = itertools.count()

    def text() -> str:
        time.sleep(0.6 if next(asks) >= BEFORE else 0)
        return "hello"

    def slowly(line: socket.socket) -> None:
        time.sleep(0.2)
        refuse(line)

    with serving(slowly, text) as url:
        found = verdict(url, slower_s=0.1)
    assert any("an ordinary request took" in fault for fault in found.faults)
    assert any("beside trials" in fault for fault in found.faults)


def test_another_text_for_the_ordinary_client_is_a_fault() -> None:
    texts = iter(["hello"] * BEFORE)

    def slowly(line: socket.socket) -> None:
        time.sleep(0.1)
        refuse(line)

    with serving(slowly, lambda: next(texts, "goodbye")) as url:
        found = verdict(url)
    assert any("another text" in fault for fault in found.faults)


KEEPS_10_MB_A_LINE = """
import sys
kept = []
for line in sys.stdin:
    kept.append(bytes(range(250)) * 40_000)
    print(flush=True)
"""


@contextmanager
def hoarder() -> Iterator[tuple[int, Misdeed]]:
    """A process that takes 10 MB for every connection and gives nothing back, and the misdeed.

    It is not this process, whose heap may have room that was paid for by tests before."""
    turn = threading.Lock()
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS_10_MB_A_LINE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin
        assert process.stdout
        takes, says = process.stdin, process.stdout

        def keep(line: socket.socket) -> None:
            with turn:
                takes.write("\n")
                says.readline()
            refuse(line)

        yield process.pid, keep


def test_memory_that_stays_is_a_fault() -> None:
    with hoarder() as (pid, keep), serving(keep) as url:
        (fault,) = verdict(url, pid=pid, memory_mb=50, settle_s=0).faults
    assert fault.startswith("memory grew by ")


def test_memory_that_is_much_for_a_time_is_a_fault() -> None:
    with hoarder() as (pid, keep), serving(keep) as url:
        (fault,) = verdict(url, pid=pid, peak_mb=50).faults
    assert "higher for a time" in fault


def test_whoever_was_there_at_the_peak_is_named() -> None:
    asked = Asked(0.0, 0.1, "hello")
    trials = [
        Outcome(number, "file", "x", "400", 0.1, None, began=number, ended=number + 1.5)
        for number in range(5)
    ]
    small = Footprint(100.0, 9, 1)
    run = Run(0, trials, 0, [asked], [], small, small, peak_mb=900.0, peak_at=2.2, gone=False)
    (fault,) = judge(run, limits(peak_mb=500)).faults
    assert fault == "memory was 800 MB higher for a time, more than 500, beside trials 1, 2"


def test_descriptors_that_stay_open_are_a_fault() -> None:
    kept: list[int] = []

    def keep(line: socket.socket) -> None:
        kept.append(os.dup(line.fileno()))
        refuse(line)

    with serving(keep) as url:
        faults = verdict(url, number=60, settle_s=0).faults
    for one in kept:
        os.close(one)
    assert any("descriptors more than before" in fault for fault in faults)


def test_a_process_that_ends_is_a_fault() -> None:
    process = subprocess.Popen(["sleep", "600"])

    def kill(line: socket.socket) -> None:
        process.kill()
        process.wait()
        refuse(line)

    with serving(kill) as url:
        before_warm_up = footprint(process.pid)
        assert before_warm_up is not None
        judged = limits()
        run = replace(drill(asking(url, judged)), gone=footprint(process.pid) is None)
    assert "the service's process has ended" in judge(run, judged).faults


def test_the_run_ends_where_nobody_listens_any_more() -> None:
    asked: list[None] = []

    def text() -> str:
        asked.append(None)
        return "hello"

    with ExitStack() as stack:

        def leave(line: socket.socket) -> None:
            if len(asked) >= BEFORE:
                stack.close()

        found = verdict(stack.enter_context(serving(leave, text)), number=2000)
    assert found.figures["trials"] < 1000
    assert any("no connection" in fault for fault in found.faults)


# The command


def test_no_service_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert main([url, "--number", "1"]) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "fails before anything else" in line


@pytest.mark.parametrize(
    "arguments", [[], ["http://a", "--kinds", "poem"], ["http://a", "--number", "0"]]
)
def test_bad_usage_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ServiceFailed, match="http://HOST:PORT"):
        drill(asking("https://127.0.0.1:1", limits()))


def test_one_trial_alone_is_saved_as_it_was_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(refuse) as url:
        target = Target(url.removeprefix("http://"))
        number = next(n for n in range(99) if trial(2, n, target).kind == "file")
        more = ("--quiet", "1", "--save", str(tmp_path), "--json", str(tmp_path / "all.json"))
        assert main([url, "--seed", "2", "--only", str(number), *UNHURRIED, *more]) == OK
    one = trial(2, number, target)
    assert (tmp_path / f"{number}.bin").read_bytes() == one.content
    how = json.loads((tmp_path / f"{number}.json").read_text())
    assert (how["kind"], how["what"], how["status"]) == (one.kind, one.what, "400")
    written = json.loads((tmp_path / "all.json").read_text())
    assert [outcome["number"] for outcome in written["outcomes"]] == [number]
    assert written["faults"] == []
    assert one.what in capsys.readouterr().out


def test_a_fault_is_status_1_and_saved(tmp_path: Path) -> None:
    with serving(lambda line: answer(line, 500, ERROR)) as url:
        more = ("--quiet", "1", "--number", "6", "--save", str(tmp_path), "--kinds", "file,form")
        assert main([url, *UNHURRIED, *more]) == FAILED
    assert list(tmp_path.glob("*.bin"))


# What /proc tells


def test_who_listens_is_found() -> None:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        port = here.getsockname()[1]
        assert listener(port) is None
        here.listen()
        assert listener(port) == os.getpid()


def test_a_footprint_counts_children_memory_and_descriptors() -> None:
    before = footprint(os.getpid())
    held = bytes(range(250)) * 400_000
    with socket.socket(), subprocess.Popen(["sleep", "600"]) as child:
        now = footprint(os.getpid())
        child.kill()
    assert before is not None
    assert now is not None
    assert now.memory_mb - before.memory_mb > 0.9 * len(held) / 2**20
    assert now.descriptors > before.descriptors
    assert now.processes == before.processes + 1


def test_the_footprint_of_nobody_is_none() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert footprint(child.pid) is None
    assert settled_footprint(child.pid, lambda now: False, limit_s=60) is None
