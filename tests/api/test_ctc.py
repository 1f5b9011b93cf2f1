"""A CTC model of random weights behind the same routes: its texts mean nothing, their form does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.families.load import load_model
from tests.ctc_checkpoints import write_ctc

from .harness import Running, refused, running, silence, voice, wav
from .live_client import pcm, whole

# Whatever it says stands.
ANY = {
    "logprob_threshold": "-100",
    "no_speech_threshold": "1",
    "compression_ratio_threshold": "1000",
}


@pytest.fixture(scope="module", params=["wav2vec2", "conformer-relative"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = write_ctc(tmp_path_factory.mktemp("served") / "tiny-ctc", request.param)
    load = partial(load_model, str(folder), "cpu", "float32")
    with running(load, model=str(folder), explain=True) as one:
        yield one


def good(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("profile", ["dense", "balanced", "turbo", "eas-published", "clips"])
def test_a_recording(served: Running, profile: str) -> None:
    found = good(
        served.transcribe(voice(5), profile=profile, word_timestamps="true", vad="false", **ANY)
    )
    assert found["text"].strip()
    assert found["language"] == "en"
    segments = found["segments"]
    times = [time for segment in segments for time in (segment["start"], segment["end"])]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 5
    for segment in segments:
        words = segment["words"]
        assert "".join(word["word"] for word in words).split() == segment["text"].split()
        inside = [time for word in words for time in (word["start"], word["end"])]
        assert inside == sorted(inside)
        assert segment["start"] <= inside[0] <= inside[-1] <= segment["end"]
    assert "".join(segment["text"] for segment in segments).strip() == found["text"].strip()


def test_frames_go(served: Running) -> None:
    def kept(profile: str) -> float:
        found = good(served.transcribe(voice(3), profile=profile, vad="false", **ANY))
        assert found["frames"]["total"] == 149
        return float(found["frames"]["kept"])

    assert [kept(name) for name in ("dense", "clips", "balanced")] == [149, 149, 74]


def test_windows_of_a_long_recording(served: Running) -> None:
    found = good(served.transcribe(voice(70), vad="false", **ANY))
    ends = [segment["end"] for segment in found["segments"]]
    assert ends == sorted(ends)
    assert 60 < ends[-1] <= 70


def test_a_recording_shorter_than_a_frame(served: Running) -> None:
    found = good(served.transcribe(wav(np.full(100, 0.1)), vad="false", **ANY))
    assert found["duration"] < 0.01


def test_silence_is_no_text(served: Running) -> None:
    assert good(served.transcribe(silence(3)))["text"] == ""


def test_streamed(served: Running) -> None:
    data = {"stream": "true", "vad": "false", **ANY}
    files = {"file": voice(4)}
    with served.client.stream("POST", "/transcribe", data=data, files=files) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line.startswith("data: {")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    deltas = "".join(event["delta"] for event in events if event["type"].endswith("delta"))
    assert deltas.strip() == events[-1]["text"].strip() != ""


def test_openai(served: Running) -> None:
    def post(path: str = "transcriptions", **fields: Any) -> httpx.Response:
        return served.client.post(
            f"/v1/audio/{path}", files={"file": voice(4)}, data={"model": "tiny-ctc", **fields}
        )

    plain = good(post(prompt="Dr Winnow", temperature="0.2"))
    assert {notice["param"] for notice in plain["warnings"]} == {"prompt", "temperature"}
    assert "warnings" not in good(post(temperature="0"))
    times = {"timestamp_granularities[]": "word"}
    verbose = good(post(response_format="verbose_json", **times))
    assert "words" in verbose
    assert verbose["language"] == "english"
    for form in ("text", "srt", "vtt"):
        assert post(response_format=form).status_code == 200
    told = good(post(**{"include[]": "logprobs"}))
    spelt = b"".join(bytes(one["bytes"]) for one in told["logprobs"])
    assert spelt.decode().split() == told["text"].split()
    message = refused(post("translations"), 400, "invalid_request", "model")
    assert "hears one language only" in message
    models = good(served.client.get("/v1/models"))
    assert "tiny-ctc" in [model["id"] for model in models["data"]]
    assert good(served.client.get("/v1/models/tiny-ctc"))["loaded"] is True


@pytest.mark.parametrize(
    ("param", "value", "why"),
    [
        ("temperature", "0.4", "frame by frame"),
        ("beam_size", "4", "frame by frame"),
        ("prefix", "HELLO", "takes no prefix"),
        ("suppress_tokens", "5", "frame by frame"),
        ("patience", "2", "frame by frame"),
        ("temperature", "0,0.4", "frame by frame"),
        ("temperature", "warm", "not a number"),
        ("seed", "3", "frame by frame"),
        ("prompt", "HELLO", "takes no prompt"),
        ("hotwords", "HELLO", "takes no hotwords"),
        ("task", "translate", "cannot translate"),
        ("language", "de", "unknown language 'de'"),
    ],
)
def test_what_means_nothing_to_it_is_refused(
    served: Running, param: str, value: str, why: str
) -> None:
    message = refused(served.transcribe(voice(1), **{param: value}), 400, "invalid_request", param)
    assert why in message


def test_what_happens_in_any_case_is_taken(served: Running) -> None:
    good(served.transcribe(voice(1), temperature="0", beam_size="1", language="en"))
    plain = {"temperature": "0.00", "seed": "0", "patience": "1", "length_penalty": "1.0"}
    good(served.transcribe(voice(1), **plain, suppress_tokens="-1"))


def test_nothing_is_drawn_where_nothing_can_be(served: Running) -> None:
    """In doubt of a thinned window it is read with every frame, and that stands."""
    doubtful = {**ANY, "logprob_threshold": "0"}
    found = good(served.transcribe(voice(3), profile="fast", vad="false", **doubtful))
    retries = [(each["profile"], each["retry"], each["temperature"]) for each in found["fallbacks"]]
    assert retries == [("fast", "dense", 0)]


def test_explained(served: Running) -> None:
    answer = served.client.post(
        "/explain", files={"file": voice(4)}, data={"profile": "fast", "vad": "false"}
    )
    assert answer.status_code == 200
    assert "199 frames" in answer.text


def test_the_language_is_not_to_be_detected(served: Running) -> None:
    answer = served.client.post("/detect-language", files={"file": voice(1)})
    assert "hears one language only" in refused(answer, 400, "invalid_request")


def test_live(served: Running) -> None:
    client = whole(served, pcm(voice(3.3)) + pcm(silence(1)), partials=False)
    assert [message["type"] for message in client.messages] == ["ready", "final", "done"]
    assert client.text.strip()


def test_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from service.cli import OK, main

    folder = write_ctc(tmp_path / "tiny-ctc", "hubert")
    (tmp_path / "a.wav").write_bytes(voice(3))
    options = ["--no-vad", "--logprob-threshold=-100", "--no-speech-threshold=1"]
    arguments = ["--model", str(folder), *options, str(tmp_path / "a.wav")]
    assert main(["transcribe", *arguments]) == OK
    assert capsys.readouterr().out.strip()


def test_evaluated(tmp_path: Path) -> None:
    from service.cli import OK, main

    folder = write_ctc(tmp_path / "tiny-ctc", "conformer-rotary")
    for number in range(2):
        (tmp_path / f"{number}.wav").write_bytes(voice(3 + number))
    rows = "".join(f"{number}.wav\ta word\n" for number in range(2))
    (tmp_path / "said.tsv").write_text(f"path\ttext\n{rows}")
    out = tmp_path / "out.json"
    arguments = ["--model", str(folder), "--profiles", "fast", "--raw", "--out", str(out)]
    status = main(["evaluate", *arguments, "--manifest", str(tmp_path / "said.tsv")])
    assert status == OK
    (domain,) = json.loads(out.read_text())["domains"]
    assert list(domain["profiles"]) == ["dense", "fast"]
    assert all(profile["words"] == 4 for profile in domain["profiles"].values())


def test_a_folder_called_as_one_of_whispers_has_none_of_its_profiles(
    tmp_path: Path, mini_folder: Path
) -> None:
    folder = write_ctc(tmp_path / "tiny.en", "wav2vec2")
    profiles = tmp_path / "profiles.toml"
    evidence = {"model": "tiny.en", "data": "talks", "machine": "m", "command": "c"}
    numbers = {"windows": 3, "wer_percent": 5.0, "dense_wer_percent": 4.0}
    numbers |= {"low_points": 0.5, "high_points": 1.5}
    told = [f"{key} = {json.dumps(value)}" for key, value in (evidence | numbers).items()]
    own = ["[late]", "late = 0.3", "[[late.evidence]]", *told, "date = 2026-11-26"]
    profiles.write_text("[few]\nbits = 4\n" + "\n".join(own))
    with running(
        load_named=lambda name: load_model(name, "cpu", "float32"),
        model=str(mini_folder),
        models=(str(folder),),
        profiles_file=profiles,
        model_aliases=(),
    ) as one:
        assert good(one.transcribe(voice(1), profile="few", vad="false"))["profile"] == "few"
        assert good(one.transcribe(voice(1), model="tiny.en", vad="false", **ANY))["text"]
        found = good(one.client.get("/profiles", params={"model": "tiny.en"}))["profiles"]
        said = {each["name"]: each for each in found}
        built_in = ["dense", "balanced", "fast", "turbo", "clips", "eas-published"]
        assert list(said) == [*built_in, "late"]
        assert all(said[name]["evidence"] is None for name in built_in)
        assert said["late"]["evidence"][0]["data"] == "talks"  # somebody's own, by its name
        assert said["clips"]["description"] == said["dense"]["description"]
        found = good(one.transcribe(voice(1), model="tiny.en", profile="clips", vad="false"))
        assert found["fallbacks"] == []
        answer = one.transcribe(voice(1), model="tiny.en", profile="few")
        assert refused(answer, 400, "invalid_request", "profile").startswith("unknown profile")
        assert one.transcribe(voice(1), model="openai/whisper-tiny.en").status_code == 404
