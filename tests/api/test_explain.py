"""`/explain`: off unless it is set, a form, and a page for a recording."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from service.config import ApiKeys

from .conftest import StartServer
from .harness import Running, refused, running, silence, voice

BEARER = {"authorization": "Bearer sk-one"}


@pytest.fixture(scope="module")
def explaining() -> Iterator[Running]:
    with running(explain=True, max_audio_seconds=60) as one:
        yield one


def explain(one: Running, recording: bytes, **parameters: str) -> str:
    answer = one.client.post("/explain", files={"file": recording}, data=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


def test_off_it_names_the_setting(shared: Running) -> None:
    for method in ("GET", "POST"):
        answer = shared.client.request(method, "/explain")
        assert "WINNOW_EXPLAIN=true" in refused(answer, 404, "not_found")
    assert "explain" not in shared.client.get("/").text.partition("<script>")[0]


def test_a_page_of_what_was_kept(explaining: Running) -> None:
    page = explain(explaining, voice(4), profile="fast")
    assert "of 1,500 frames 1,500 merged into 750" in page.lower()
    assert "fast and dense say the same" in page
    assert "<script" not in page
    assert "audio/flac" not in page
    assert explaining.metric("winnow_windows_total", profile="fast") == 1
    assert explaining.metric("winnow_windows_total", profile="dense") == 1


def test_dense_is_read_once(explaining: Running) -> None:
    before = explaining.metric("winnow_windows_total", profile="dense")
    assert "all 1,500 frames are kept" in explain(explaining, voice(2)).lower()
    assert explaining.metric("winnow_windows_total", profile="dense") == before + 1


def test_the_recording_is_in_the_page_where_asked(explaining: Running) -> None:
    page = explain(explaining, voice(2), audio="true")
    assert "data:audio/flac;base64," in page


def test_silence_is_a_page_too(explaining: Running) -> None:
    assert "Nobody speaks" in explain(explaining, silence(2))


def test_what_cannot_be_explained(explaining: Running) -> None:
    post = explaining.client.post
    wrong = post("/explain", files={"file": voice(1)}, data={"profile": "made-up"})
    assert "use one of dense, balanced" in refused(wrong, 400, "invalid_request", "profile")
    wrong = post("/explain", files={"file": b"no sound at all"})
    refused(wrong, 400, "invalid_audio")
    wrong = post("/explain", files={"file": voice(1)}, data={"beam_size": "2"})
    assert "Valid parameters: model, profile" in refused(wrong, 400, "invalid_request", "beam_size")
    refused(post("/explain", files={"file": silence(61)}), 413, "payload_too_large")


def test_forms_for_people(explaining: Running) -> None:
    page = explaining.client.get("/explain").text
    assert 'action="explain"' in page
    assert '<option value="fast"' in page
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page)
    assert "$" not in page.partition("<script>")[0]
    assert 'formaction="explain"' in explaining.client.get("/").text


def test_the_form_is_open_and_what_is_posted_needs_a_key(server: StartServer) -> None:
    one = server(explain=True, api_keys=ApiKeys.of(["sk-one"]))
    assert 'id="key"' in one.client.get("/explain").text
    files = {"file": voice(1)}
    refused(one.client.post("/explain", files=files), 401, "invalid_api_key")
    assert one.client.post("/explain", files=files, headers=BEARER).status_code == 200
