from __future__ import annotations

import pytest

from loadtest.options import parse


def test_defaults_are_what_the_help_says() -> None:
    options = parse(["--rate", "1,2.5"])
    assert options.profiles == ("dense", "balanced", "fast")
    assert options.rate == (1.0, 2.5)
    assert (options.duration, options.timeout, options.max_errors) == (30.0, 60.0, 0.01)
    assert options.host is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("2s", 2.0), ("20m", 1200.0), ("1h", 3600.0), ("3", 3.0)]
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert parse(["--rate", "1", "--duration", text]).duration == seconds


@pytest.mark.parametrize("text", ["5%", "0.05"])
def test_shares_are_percent_or_parts(text: str) -> None:
    assert parse(["--rate", "1", "--max-wer", text]).max_wer == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "one of the arguments --rate --find-max --maximum is required"),
        ("--rate 1 --find-max", "not allowed with"),
        ("--rate 0", "above 0"),
        ("--rate nan", "above 0"),
        ("--rate 1 --duration 5x", "write 500ms, 2s, 20m or 1h"),
        ("--rate 1 --duration 0s", "write 500ms, 2s, 20m or 1h"),
        ("--rate 1 --max-wer 120%", "write a share"),
        ("--rate 1 --profiles dense,", "write profiles like"),
        ("--rate 1 --rounds 0", "whole number above 0"),
        ("--rate 1 --arrivals uniform", "invalid choice"),
        ("--find-max", "--p95 2s"),
        ("--maximum 1,2", "one for each of 3 profiles"),
        ("--rate 1 --soak 5m", "add --find-max or --maximum"),
        ("--rate 1 --overload 5m", "add --find-max or --maximum"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(line.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help_tells_what_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    assert "8 of 2.5-4 s, 6 of 6-10 s, 4 of 20-28 s, 2 of 50-60 s" in capsys.readouterr().out
