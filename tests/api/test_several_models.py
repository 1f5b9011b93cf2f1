"""Several models in one service: asked for by name, loaded, listed, unloaded, let go for others."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from service.api.app import create_app
from service.config import ServerConfig
from service.engine.budget import MIB
from service.errors import CheckpointError, ConfigError
from service.families.fake import FakeModel
from service.families.whisper import Whisper
from service.model.protocol import ModelInfo, SpeechModel
from tests.checkpoints import load_plain
from tests.speech import SAID, SAMPLE, normalised

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, Running, refused, silence, voice
from .live_client import live, talk
from .realtime_client import Client, at_24k, openai_realtime

pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")


class HeavyModel(FakeModel):
    """The fake model, as one whose weights take a megabyte presents itself."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, weight_bytes=MIB)


@dataclass(slots=True)
class Shelf:
    """Makes models by name, and remembers which: `load_named` of a server.

    `failing`: raised for a name, once; `gates`: of the devices of models; `held`: loading waits for
    it to be set.
    """

    failing: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    held: dict[str, threading.Event] = field(default_factory=dict)
    loads: Counter[str] = field(default_factory=Counter)
    made: dict[str, weakref.ref[SpeechModel]] = field(default_factory=dict)

    def __call__(self, name: str) -> SpeechModel:
        self.loads[name] += 1
        if name in self.held:
            assert self.held[name].wait(PATIENCE_S)
        if name in self.failing:
            raise self.failing.pop(name)
        model = HeavyModel(name=name, fail_encode_when=self.gates.get(name))
        self.made[name] = weakref.ref(model)
        return model


def start(server: StartServer, shelf: Shelf, *further: str, **settings: Any) -> Running:
    """The models `first` and those named, of which two fit."""
    fitting = {"models_memory_mb": 2, **settings}
    return server(load_named=shelf, model="first", models=further, **fitting)


def listed(one: Running) -> dict[str, bool]:
    """Whether each model is loaded."""
    known, data = one.services.models.known, one.client.get("/v1/models").json()["data"]
    return {entry["id"]: entry["loaded"] for entry in data if entry["id"] in known}


def model_of(one: Running, **asked: str) -> str:
    """Which model answers."""
    answer = one.transcribe(voice(1), **asked)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["model"])


def test_a_model_is_loaded_when_it_is_asked_for(server: StartServer) -> None:
    shelf = Shelf()
    one = start(server, shelf, "second")
    assert listed(one) == {"first": True, "second": False}
    assert one.client.get("/v1/models/second").json()["loaded"] is False
    assert model_of(one) == "first"
    assert shelf.loads == {"first": 1}
    assert model_of(one, model="second") == "second"
    assert model_of(one, model="second", profile="fast") == "second"
    assert shelf.loads == {"first": 1, "second": 1}
    assert listed(one) == {"first": True, "second": True}
    assert one.client.get("/v1/models/second").json()["dtype"] == "float32"
    assert one.client.get("/api/ps").json() == {"models": ["second", "first"]}


@pytest.mark.parametrize("path", ["/transcribe", "/detect-language", "/explain"])
def test_each_route_takes_a_model(server: StartServer, path: str) -> None:
    shelf = Shelf()
    one = start(server, shelf, "second", explain=True)
    given = {"files": {"file": voice(1)}, "data": {"model": "second"}}
    assert one.client.post(path, **given).status_code == 200  # type: ignore[arg-type]
    assert shelf.loads["second"] == 1
    answer = one.client.post(path, files={"file": voice(1)}, params={"model": "third"})
    assert "Served: first, " in refused(answer, 404, "model_not_found", "model")
    assert shelf.loads["third"] == 0


def test_openai_s_routes_take_a_model_and_its_profile(server: StartServer) -> None:
    name = "openai/whisper-tiny"
    one = start(server, Shelf(), name)
    for asked_for in ("whisper-tiny", "tiny", f"{name}@fast", "Systran/faster-whisper-tiny"):
        answer = one.client.post(
            "/v1/audio/transcriptions",
            files={"file": voice(1)},
            data={"model": asked_for, "stream": "true"},
        )
        assert "transcript.text.done" in answer.text
    asked = {"endpoint": "/v1/audio/transcriptions", "status": "200", "model": name}
    one.eventually(lambda: one.metric("winnow_requests_total", profile="fast", **asked) == 1)
    one.eventually(lambda: one.metric("winnow_requests_total", profile="dense", **asked) == 3)
    # OpenAI's own names are the first model's.
    told = one.client.post(
        "/v1/audio/transcriptions", files={"file": voice(1)}, data={"model": "whisper-1"}
    )
    assert told.status_code == 200
    assert one.metric("winnow_windows_total", model="first", profile="dense") == 1


def test_profiles_are_those_of_the_model(server: StartServer) -> None:
    one = start(server, Shelf(), "whisper-base", "whisper-tiny.en")
    mine = {
        name: {p["name"]: p for p in one.client.get("/profiles", params=asked).json()["profiles"]}
        for name, asked in (
            ("first", {}),
            *((name, {"model": name}) for name in ("base", "tiny.en")),
        )
    }
    assert mine["first"]["balanced"]["evidence"] is None
    assert mine["base"]["balanced"]["evidence"] != mine["tiny.en"]["balanced"]["evidence"]
    assert mine["base"]["balanced"]["evidence"]
    answer = one.client.get("/profiles", params={"model": "none"})
    refused(answer, 404, "model_not_found", "model")


def test_who_asks_together_waits_for_one_load(server: StartServer) -> None:
    shelf = Shelf(held={"second": threading.Event()})
    one = start(server, shelf, "second")
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(model_of, one, model="second") for _ in range(4)]
        one.eventually(lambda: shelf.loads["second"] == 1)
        assert model_of(one) == "first"  # nobody else waits
        shelf.held["second"].set()
        assert [one.result(PATIENCE_S) for one in asked] == ["second"] * 4
    assert shelf.loads["second"] == 1


def test_a_model_outlives_the_client_that_asked_for_it(server: StartServer) -> None:
    shelf = Shelf(held={"second": threading.Event()})
    one = start(server, shelf, "second")
    with pytest.raises(Exception, match="timed out"):
        one.client.post(
            "/transcribe", files={"file": voice(1)}, data={"model": "second"}, timeout=0.5
        )
    shelf.held["second"].set()
    one.eventually(lambda: listed(one)["second"])
    assert model_of(one, model="second") == "second"
    assert shelf.loads["second"] == 1


def test_a_wait_for_a_model_ends(server: StartServer) -> None:
    shelf = Shelf(held={"second": threading.Event()})
    one = start(server, shelf, "second", deadline_seconds=1)
    told = refused(one.transcribe(voice(1), model="second"), 503, "not_ready")
    shelf.held["second"].set()
    assert told == "the model second is still loading"


def test_loaded_and_unloaded_by_hand(server: StartServer) -> None:
    shelf = Shelf()
    one = start(server, shelf, "second")
    for _ in range(2):
        answer = one.client.post("/api/ps/second")
        assert (answer.status_code, answer.json()["status"]) == (201, "loaded")
    assert one.metric("winnow_ready", model="second") == 1
    assert one.client.delete("/api/ps/second").status_code == 204
    assert listed(one) == {"first": True, "second": False}
    gc.collect()
    assert shelf.made["second"]() is None, "somebody still holds the model"
    # What was true of it while it was there is not told any more; what was counted is.
    text = one.client.get("/metrics").text
    assert 'winnow_ready{model="second"}' not in text
    refused(one.client.delete("/api/ps/second"), 404, "not_found")
    refused(one.client.delete("/api/ps/third"), 404, "model_not_found", "model")
    refused(one.client.post("/api/ps/third"), 404, "model_not_found", "model")
    assert "stays" in refused(one.client.delete("/api/ps/first"), 400, "invalid_request", "model")
    assert model_of(one, model="second") == "second"
    assert shelf.loads["second"] == 2


def test_what_was_accepted_is_answered_before_a_model_goes(server: StartServer) -> None:
    gate = Gate()
    shelf = Shelf(gates={"second": gate})
    one = start(server, shelf, "second")
    with ThreadPoolExecutor(3) as pool:
        asked = pool.submit(model_of, one, model="second")
        assert gate.reached.wait(PATIENCE_S)
        going = pool.submit(one.client.delete, "/api/ps/second")
        one.eventually(lambda: not listed(one)["second"])
        back = pool.submit(model_of, one, model="second")
        time.sleep(0.1)
        assert not going.done()
        gate.opened.set()
        assert asked.result(PATIENCE_S) == "second"
        assert going.result(PATIENCE_S).status_code == 204
        assert back.result(PATIENCE_S) == "second"  # loaded again
    assert shelf.loads["second"] == 2


def test_the_least_recently_used_makes_room(server: StartServer) -> None:
    shelf = Shelf()
    one = start(server, shelf, "second", "third", "fourth", models_memory_mb=3)
    for name in ("second", "third", "second"):
        assert model_of(one, model=name) == name
    assert listed(one)["third"]  # looking is not using
    assert one.client.get("/v1/models/third").json()["loaded"]
    assert model_of(one, model="fourth") == "fourth"
    assert listed(one) == {"first": True, "second": True, "third": False, "fourth": True}
    assert model_of(one, model="third") == "third"
    assert listed(one) == {"first": True, "second": False, "third": True, "fourth": True}


def test_a_model_that_is_busy_stays(server: StartServer) -> None:
    gate = Gate()
    shelf = Shelf(gates={"second": gate})
    one = start(server, shelf, "second", "third")
    model_of(one, model="third")  # so that it is known how large it is
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(model_of, one, model="second")
        assert gate.reached.wait(PATIENCE_S)
        answer = one.transcribe(voice(1), model="third")
        message = refused(answer, 503, "not_ready")
        assert message == "no room for the model third beside first, second"
        assert int(answer.headers["retry-after"]) >= 1
        gate.opened.set()
        assert asked.result(PATIENCE_S) == "second"
    assert model_of(one, model="third") == "third"


def test_a_model_that_never_fits_is_said_so_each_time(server: StartServer) -> None:
    shelf = Shelf()
    one = start(server, shelf, "second", models_memory_mb=1)
    for _ in range(2):
        told = refused(one.transcribe(voice(1), model="second"), 500, "engine_error")
        assert "takes 1 MB, and 1 are for all (models_memory_mb), 1 of them taken by first" in told
    assert shelf.loads["second"] == 1
    gc.collect()
    assert shelf.made["second"]() is None
    assert model_of(one) == "first"


def test_a_model_in_conversation_stays(server: StartServer) -> None:
    shelf = Shelf()
    one = start(server, shelf, "second", "third")
    model_of(one, model="third")
    with live(one, model="second") as client:
        assert client.messages[0]["model"] == "second"
        refused(one.transcribe(voice(1), model="third"), 503, "not_ready")
        client.send_audio(talk(1))
        client.send(type="stop")
        client.until("done")
    one.eventually(lambda: one.transcribe(voice(1), model="third").status_code == 200)
    assert one.metric("winnow_audio_seconds_total", model="second", profile="dense") > 0


def test_where_memory_runs_out_another_goes(server: StartServer) -> None:
    shelf = Shelf()
    one = start(server, shelf, "second", "third", models_memory_mb=100)
    model_of(one, model="second")
    shelf.failing["third"] = torch.OutOfMemoryError("CUDA out of memory")
    assert model_of(one, model="third") == "third"
    assert shelf.loads["third"] == 2
    assert listed(one) == {"first": True, "second": False, "third": True}


def test_a_model_that_cannot_be_loaded_harms_nobody(server: StartServer) -> None:
    shelf = Shelf(failing={"second": CheckpointError("model 'second': no such folder")})
    one = start(server, shelf, "second")
    told = refused(one.transcribe(voice(1), model="second"), 500, "engine_error")
    assert "the model second cannot be loaded: model 'second': no such folder" in told
    assert one.client.get("/readyz").status_code == 200
    assert not one.services.models.failed_for_good
    assert model_of(one) == "first"
    assert model_of(one, model="second") == "second"  # it is there now


def test_models_take_turns_on_the_device(server: StartServer) -> None:
    """No two encode at once, and under load none waits until another has nothing left to do."""
    order: list[str] = []
    inside: list[str] = []

    def encoding(name: str) -> Callable[[torch.Tensor], bool]:
        def note(mel_FT: torch.Tensor) -> bool:
            if float(mel_FT.max() - mel_FT.min()) > 0:
                inside.append(name)
                time.sleep(0.02)
                assert inside == [name]
                inside.pop()
                order.append(name)
            return False

        return note

    def load(name: str) -> SpeechModel:
        return FakeModel(name=name, fail_encode_when=encoding(name))

    one = server(load_named=load, model="first", models=("second",), max_batch_windows=1)
    one.client.post("/api/ps/second")
    with ThreadPoolExecutor(12) as pool:
        names = ["first", "second"] * 6
        assert list(pool.map(lambda name: model_of(one, model=name), names)) == names
    assert {"first", "second"} == {*order[4:7]} == {*order[-7:-4]}


def test_all_of_them_are_drained(server: StartServer) -> None:
    gate = Gate()
    shelf = Shelf(gates={"second": gate})
    one = start(server, shelf, "second", "third")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(model_of, one, model="second")
        assert gate.reached.wait(PATIENCE_S)
        one.server.handle_exit(signal.SIGTERM, None)
        one.eventually(lambda: one.engine.state == "draining")
        refused(one.transcribe(voice(1), model="third"), 503, "not_ready")
        gate.opened.set()
        assert asked.result(PATIENCE_S) == "second"
    one.eventually(lambda: one.engine.state == "stopped")
    assert shelf.loads["third"] == 0


def test_a_realtime_session_takes_its_model_before_its_audio(server: StartServer) -> None:
    one = start(server, Shelf(), "second")
    with openai_realtime(one) as client:
        client.update(transcription={"model": "second"}, turn_detection=None)
        client.append(at_24k(talk(1)))
        client.commit()
        client.until("conversation.item.input_audio_transcription.completed")
        counted = {"model": "second", "profile": "dense"}
        one.eventually(lambda: one.metric("winnow_audio_seconds_total", **counted) > 0)
        told = complaint(client, "first")
        assert "cannot be changed" in told.message


def complaint(client: Client, model: str) -> Any:
    """Why a session cannot go on with a model."""
    transcription: Any = {"model": model}
    client.connection.session.update(
        session={"type": "transcription", "audio": {"input": {"transcription": transcription}}}
    )
    return client.until("error").error


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "whisper-base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    config = ServerConfig(model="base", models=(str(folder),))
    with pytest.raises(ConfigError, match="are both whisper-base"):
        create_app(config, lambda _: FakeModel())


def test_what_is_silent_needs_no_model(server: StartServer) -> None:
    one = start(server, Shelf(), "second")
    answer = one.transcribe(silence(1), model="second").json()
    assert (answer["text"], answer["model"]) == ("", "second")


def test_real_models_beside_each_other(
    server: StartServer, tiny_en: Whisper, tiny_folder: Path
) -> None:
    random = str(tiny_folder)
    models = {"tiny.en": tiny_en, random: Whisper(load_plain(random))}
    one = server(load_named=models.__getitem__, model="tiny.en", models=(random,))
    sound = SAMPLE.read_bytes()
    with ThreadPoolExecutor(3) as pool:
        texts = [
            pool.submit(one.transcribe, sound, **asked) for asked in ({}, {"model": "tiny.en"})
        ]
        asked = {"files": {"file": sound}, "data": {"model": tiny_folder.name}}
        heard = pool.submit(one.client.post, "/detect-language", **asked)  # type: ignore[arg-type]
    for text in texts:
        assert normalised(text.result().json()["text"]) == normalised(SAID)
    assert heard.result().json()["model"] == tiny_folder.name


def test_the_page_offers_each_model_with_its_profiles(server: StartServer) -> None:
    one = start(server, Shelf(), "whisper-base", "whisper-tiny.en", explain=True)
    for path in ("/", "/explain"):
        page = one.client.get(path).text
        assert '<option value="first">first</option><option value="whisper-base">' in page
        theirs = page.partition('<template id="of whisper-tiny.en">')[2].partition("</template>")[0]
        assert theirs.count("<option") == len(one.services.models.known["whisper-tiny.en"].profiles)
        assert "LibriSpeech" in theirs
    assert '-F model=<span id="model">first</span> -F profile=' in one.client.get("/").text
    alone = server(model="fake").client.get("/").text
    assert 'name="model"' not in alone
    assert "-F model=" not in alone
