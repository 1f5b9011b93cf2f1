"""The command line, on the drill model: in-process, and as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from service import __version__
from service.cli import DECODING_OPTIONS, FAILED, INTERRUPTED, OK, PIPE_CLOSED, USAGE, main
from service.params.decoding import PROPERTIES
from service.types import SAMPLE_RATE

ROOT = Path(__file__).parents[1]
PROCESS_S = 300.0  # a busy machine imports torch slowly


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests are none of the tests'."""
    for name in [name for name in os.environ if name.startswith("WINNOW_")]:
        monkeypatch.delenv(name)


def record(path: Path, hertz: float = 300.0, seconds: float = 2.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times_s = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * times_s), SAMPLE_RATE)
    return path


def transcribe(*arguments: str | Path) -> int:
    # Tones are no speech, so the whole file is transcribed.
    return main(["transcribe", "--model", "fake", "--no-vad", *map(str, arguments)])


def exit_status(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    return exited.value.code


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("--version") == OK
    assert capsys.readouterr().out == f"winnow {__version__}\n"


@pytest.mark.parametrize("command", ["serve", "transcribe", "evaluate"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(command, "--help") == OK
    assert f"usage: winnow {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["transcribe"],
        ["transcribe", "a.wav", "--format", "docx"],
        ["transcribe", "a.wav", "--resume"],
        ["transcribe", ""],
        ["transcribe", "a.wav", "--out", ""],
        ["serve", "--port", "many"],
    ],
)
def test_bad_usage_is_status_2(arguments: list[str]) -> None:
    assert exit_status(*arguments) == USAGE


# To standard output


def test_one_file_prints_its_text_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe(record(tmp_path / "a.wav")) == OK
    words = capsys.readouterr().out.split()
    assert len(words) == 2
    assert words[0] == words[1]


def test_several_files_are_named_and_printed_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first is the last to be done.
    lengths = {"c.wav": 50.0, "a.wav": 1.0, "b.wav": 2.0}
    files = [record(tmp_path / name, seconds=seconds) for name, seconds in lengths.items()]
    assert transcribe(*files) == OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(file) for file in files]


def test_json_is_the_answer_of_the_api(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = record(tmp_path / "a.wav")
    assert transcribe("--format", "json", "--profile", "fast", "--language", "German", file) == OK
    answer = json.loads(capsys.readouterr().out)
    assert (answer["model"], answer["profile"], answer["language"]) == ("fake", "fast", "de")
    assert answer["frames"] == {"total": 1500, "kept": 750}


def test_json_of_several_files_is_one_line_each_with_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [record(tmp_path / "a.wav"), record(tmp_path / "b.wav")]
    assert transcribe("--format", "json", *files) == OK
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["file"] for answer in answers] == [str(file) for file in files]


@pytest.mark.parametrize("form", ["srt", "vtt", "tsv", "verbose_json"])
def test_a_file_in_every_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    file, out = record(tmp_path / "a.wav", seconds=3), tmp_path / "out"
    assert transcribe("--format", form, file) == OK
    printed = capsys.readouterr().out
    assert transcribe("--format", form, file, "--out", out) == OK
    (written,) = files_in(out)
    assert written.name == f"a.wav.{form.replace('_json', '.json')}"
    assert written.read_text() == printed != ""
    assert transcribe(file) == OK
    assert capsys.readouterr().out.strip() in printed


def test_subtitles_of_a_chosen_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = record(tmp_path / "a.wav", seconds=4)
    assert transcribe("--format", "srt", "--max-words-per-line", "1", file) == OK
    assert capsys.readouterr().out.count("-->") == 4


def test_the_channels_of_a_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "call.wav"
    times_s = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    tones = [0.3 * np.sin(2 * np.pi * hertz * times_s) for hertz in (300, 4000)]
    soundfile.write(file, np.stack(tones, axis=1), SAMPLE_RATE)
    assert transcribe("--channels", "split", file) == OK
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Channel 1: ")
    assert second.startswith("Channel 2: ")
    assert first.split()[2:] != second.split()[2:]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-line-width", "40"], "srt and vtt"),
        (["--format", "srt", "--max-line-width", "4"], "10 to 1000"),
        (["--format", "vtt", "--max-line-count", "2"], "needs max_line_width"),
    ],
)
def test_line_lengths_that_would_do_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert transcribe(*options, record(tmp_path / "a.wav")) == USAGE
    assert said in capsys.readouterr().err


def test_subtitles_of_several_files_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [record(tmp_path / "a.wav"), record(tmp_path / "b.wav")]
    assert transcribe("--format", "srt", *files) == USAGE
    assert "needs --out" in capsys.readouterr().err


def test_a_translation_is_not_a_transcription(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record(tmp_path / "a.wav")
    assert transcribe(file) == OK
    text = capsys.readouterr().out
    assert transcribe("--task", "translate", file) == OK
    assert capsys.readouterr().out == text.upper()


# To a folder


def test_a_folder_is_transcribed_into_its_own_shape(tmp_path: Path) -> None:
    record(tmp_path / "in/a.wav")
    record(tmp_path / "in/deep/er/b.flac")
    (tmp_path / "in/notes.txt").write_text("not audio")
    assert transcribe(tmp_path / "in", "--out", tmp_path / "out") == OK
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in files_in(tmp_path / "out"))
    assert written == ["a.wav.txt", "deep/er/b.flac.txt"]
    assert len((tmp_path / "out/a.wav.txt").read_text().split()) == 2


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_there_is_skipped_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "in/a.wav")
    record(tmp_path / "in/b.wav")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.wav.txt").write_text("from before")
    assert transcribe(tmp_path / "in", "--out", out) == OK
    assert "skipped 1 of 2" in capsys.readouterr().err
    assert (out / "a.wav.txt").read_text() == "from before"
    assert (out / "b.wav.txt").exists()


def test_a_folder_for_texts_that_is_a_file_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "texts"
    out.write_text("")
    assert transcribe(record(tmp_path / "a.wav"), "--out", out) == USAGE
    assert f"--out {out} is a file" in capsys.readouterr().err


def test_overwrite_does_it_again(tmp_path: Path) -> None:
    file, out = record(tmp_path / "a.wav"), tmp_path / "out"
    out.mkdir()
    (out / "a.wav.txt").write_text("from before")
    assert transcribe(file, "--out", out, "--overwrite") == OK
    assert "from before" not in (out / "a.wav.txt").read_text()


def test_a_file_named_twice_is_done_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record(tmp_path / "in/a.wav")
    assert transcribe(file, tmp_path / "in") == OK
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_two_recordings_for_one_output_are_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [record(tmp_path / "x/a.wav"), record(tmp_path / "y/a.wav")]
    assert transcribe(*files, "--out", tmp_path / "out") == USAGE
    assert "both be written to" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Piped in


@contextmanager
def piped(source: Path | int) -> Iterator[None]:
    """Standard input is that file."""
    with open(source) as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stream)
        yield


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_standard_input_is_a_recording_of_any_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    file = record(tmp_path / f"a.{suffix}")
    assert transcribe(file) == OK
    text = capsys.readouterr().out
    with piped(file):
        assert transcribe("-") == OK
    assert capsys.readouterr().out == text


def test_standard_input_beside_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record(tmp_path / "a.wav")
    with piped(file):
        assert transcribe("--format", "json", "-", file, "-") == OK
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["file"] for answer in answers] == ["<stdin>", str(file)]
    assert answers[0]["text"] == answers[1]["text"]


def test_standard_input_is_written_to_a_file_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = record(tmp_path / "a.wav"), tmp_path / "out"
    for options, status in (((), OK), ((), USAGE), (("--overwrite",), OK)):
        with piped(file):
            assert transcribe("-", "--out", out, *options) == status
    assert [path.name for path in files_in(out)] == ["stdin.txt"]
    assert "maybe of another recording" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b"no sound at all" * 50, "not an audio file")]
)
def test_what_is_wrong_with_standard_input_is_said_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    (tmp_path / "given").write_bytes(content)
    with piped(tmp_path / "given"):
        assert transcribe("-") == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("winnow: <stdin>: ")
    assert said in line


def test_a_terminal_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = os.openpty()
    with piped(theirs):
        assert transcribe("-") == USAGE
    os.close(ours)
    assert "standard input is a terminal" in capsys.readouterr().err


def test_no_standard_input_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert transcribe("-") == USAGE
    assert "standard input is closed" in capsys.readouterr().err


def test_a_pipe_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # As a shell's <(command) is one.
    file, pipe = record(tmp_path / "a.wav"), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()))
    writer.start()
    assert transcribe(pipe) == OK
    writer.join()
    assert len(capsys.readouterr().out.split()) == 2


# How to decode


def test_the_options_of_decoding_are_the_parameters_of_the_api() -> None:
    # Lists are OpenAI's way to say what has a name of its own here.
    assert set(DECODING_OPTIONS) == {name for name in PROPERTIES if not name.endswith("[]")}


def test_words_have_their_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = record(tmp_path / "a.wav", seconds=3)
    for option in ("--words", "--word-timestamps"):
        assert transcribe("--format", "json", option, file) == OK
        (segment,) = json.loads(capsys.readouterr().out)["segments"]
        assert len(segment["words"]) == 3
    assert transcribe("--format", "json", file) == OK
    assert "words" not in json.loads(capsys.readouterr().out)["segments"][0]


def test_a_temperature_reaches_the_decoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record(tmp_path / "a.wav")
    assert transcribe("--format", "json", "--temperature", "0.4", "--prompt", "", file) == OK
    assert json.loads(capsys.readouterr().out)["segments"][0]["temperature"] == 0.4


def test_thresholds_and_further_temperatures_reach_the_guard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = record(tmp_path / "a.wav")
    doubtful = ("--logprob-threshold", "0", "--temperature", "0,0.7")
    assert transcribe("--format", "json", *doubtful, file) == OK
    (fallback,) = json.loads(capsys.readouterr().out)["fallbacks"]
    assert (fallback["reason"], fallback["temperature"]) == ("doubt", 0.7)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--beam-size", "9", "1 to 8"),
        ("--temperature", "warm", "from 0 to 1"),
        ("--logprob-threshold", "0.5", "-100 to 0"),
        ("--suppress-tokens", "many", "suppress_tokens"),
    ],
)
def test_an_option_of_decoding_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    assert transcribe(record(tmp_path / "a.wav"), option, value) == USAGE
    assert said in capsys.readouterr().err


# What goes wrong


def test_a_bad_file_fails_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = record(tmp_path / "in/a.wav")
    bad = tmp_path / "in/broken.mp3"
    bad.write_bytes(b"this is no sound" * 50)
    absent = tmp_path / "absent.wav"
    out = tmp_path / "out"
    assert transcribe(tmp_path / "in", absent, "--out", out) == FAILED
    said = capsys.readouterr().err
    assert str(bad) in said
    assert str(absent) in said
    assert str(good) not in said
    assert [path.name for path in files_in(out)] == ["a.wav.txt"]


@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_a_named_file_is_tried_whatever_its_suffix(tmp_path: Path, suffix: str) -> None:
    odd = tmp_path / f"recording{suffix}"
    odd.write_bytes(record(tmp_path / "a.wav").read_bytes())
    assert transcribe(odd) == OK


def test_a_folder_without_audio_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe(tmp_path) == FAILED
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--profile", "warp", "dense, balanced, fast"),
        ("--language", "klingon", "en, de, fr"),
        ("--device", "toaster", "auto, cpu, cuda"),
        ("--profiles", "absent.toml", "absent.toml"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    assert transcribe(record(tmp_path / "a.wav"), option, value) == USAGE
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
    assert lines[-1].startswith("winnow: ")


def test_a_queue_smaller_than_the_work_only_takes_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINNOW_MAX_QUEUE_WINDOWS", "2")
    files = [record(tmp_path / f"{number}.wav", seconds=45) for number in range(4)]
    assert transcribe(*files) == OK
    assert len(capsys.readouterr().out.splitlines()) == 4


def cut_off(path: Path) -> Path:
    """A recording whose end is missing."""
    whole = record(path, seconds=4).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def test_what_is_lost_of_a_recording_is_named_and_the_rest_transcribed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = cut_off(tmp_path / "a.wav")
    assert transcribe(file, record(tmp_path / "b.wav")) == OK
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    (line,) = err.splitlines()
    assert line.startswith(f"winnow: {file}: ")


def test_with_strict_a_recording_of_which_a_part_is_lost_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = cut_off(tmp_path / "a.wav"), tmp_path / "out"
    assert transcribe("--strict", file, record(tmp_path / "b.wav"), "--out", out) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"winnow: {file}: ")
    assert [path.name for path in files_in(out)] == ["b.wav.txt"]


def test_files_that_are_not_audio_are_mentioned_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "deep/b"):
        record(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.pdf").write_text("not audio")
    assert transcribe(tmp_path) == OK
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("winnow: passed over 2 files that are not audio by name (.pdf)")


def test_a_full_disk_ends_the_run_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for number in range(40):
        record(tmp_path / f"in/{number:02}.wav", seconds=1)
        # What is written first, under this name, goes to a device that is always full.
        (out / f".{number:02}.wav.txt.{os.getpid()}.part").symlink_to("/dev/full")
    assert transcribe(tmp_path / "in", "--out", out) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line
    assert str(out) in line
    assert [path for path in files_in(out) if path.suffix == ".txt"] == []


# As a process


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    # A shell has what it runs in the background ignore SIGINT, these tests and their children too.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; import sys; from service.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_model_that_is_not_there_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    file = record(tmp_path / "a.wav")
    with start("transcribe", "--model", tmp_path / "absent", file) as process:
        out, err = process.communicate(timeout=PROCESS_S)
    assert process.returncode == FAILED
    assert out == ""
    assert len(err.splitlines()) == 1
    assert str(tmp_path / "absent") in err


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["at the end", "on the way"])
def test_a_reader_who_has_enough_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    files = [record(tmp_path / f"{number}.wav") for number in range(4)]
    with start("transcribe", "--model", "fake", "--no-vad", *files) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(PROCESS_S)
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == PIPE_CLOSED
    assert "Traceback" not in err
    assert "Broken" not in err


def test_a_full_disk_behind_standard_output_is_one_sentence(tmp_path: Path) -> None:
    file = record(tmp_path / "a.wav")
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "service", "transcribe", "--model", "fake", "--no-vad", file],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PROCESS_S,
        )
    assert process.returncode == FAILED
    assert process.stderr == "winnow: cannot write: No space left on device\n"


def test_an_interrupted_run_keeps_what_is_done(tmp_path: Path) -> None:
    first, out = record(tmp_path / "in/0.wav", seconds=8), tmp_path / "out"
    for number in range(1, 600):
        os.link(first, tmp_path / f"in/{number}.wav")
    arguments = ("transcribe", "--model", "fake", "--no-vad", tmp_path / "in", "--out", out)
    with start(*arguments) as process:
        while not files_in(out) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PROCESS_S)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in err
    done = files_in(out)
    assert 0 < len(done) < 600
    assert all(len(path.read_text().split()) == 8 for path in done)


def test_readme_says_how_the_command_is_found() -> None:
    """What `scripts/serve` installs is found once its environment is activated."""
    activate = ". .venv/bin/activate"
    assert activate in (ROOT / "scripts/environment.sh").read_text().splitlines()
    for page in ("README.md", "docs/transcribe.md", "docs/evaluate.md", "docs/loadtest.md"):
        assert f"`{activate}`" in (ROOT / page).read_text(), page
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"winnow": "service.cli:main"}


def test_every_command_says_how_threads_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
        monkeypatch.delenv(name)
    assert main(["serve", "--dtype", "int4"]) == 2
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
