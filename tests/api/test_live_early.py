"""An utterance of a live session is begun on before its pause ends it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from service.families.fake import FakeModel

from .conftest import StartServer
from .harness import silence, voice
from .live_client import live, pcm, whole


@dataclass
class Counted:
    """Counts the windows that a FakeModel encodes, as its `fail_encode_when`; none fails."""

    windows: int = 0

    def __call__(self, mel_FT: torch.Tensor) -> bool:
        self.windows += bool(mel_FT.max() > mel_FT.min())
        return False


def test_an_utterance_is_begun_on_before_its_pause_ends_it(server: StartServer) -> None:
    begun = Counted()
    one = server(lambda: FakeModel(fail_encode_when=begun))
    with live(one, partials=False) as client:
        client.send_audio(pcm(voice(1)) + pcm(silence(0.4)))
        one.eventually(lambda: begun.windows == 1)
        assert one.metric("winnow_live_final_seconds_count", profile="dense") == 0
        client.send_audio(pcm(silence(0.4)))
        early = client.until("final")
        assert begun.windows == 1
    with live(one, partials=False) as client:
        client.send_audio(pcm(voice(1)) + pcm(silence(0.8)), step=64_000)
        assert client.until("final") == early


def test_who_speaks_on_after_a_short_pause_is_heard_out(server: StartServer) -> None:
    begun = Counted()
    one = server(lambda: FakeModel(fail_encode_when=begun))
    audio = pcm(voice(1)) + pcm(silence(0.4)) + pcm(voice(1)) + pcm(silence(0.8))
    half = len(audio) * 14 // 32
    with live(one, partials=False) as client:
        client.send_audio(audio[:half])
        one.eventually(lambda: begun.windows == 1)
        client.send_audio(audio[half:])
        client.send(type="stop")
        client.until("done")
    assert begun.windows == 2
    (final,) = client.of("final")
    assert final["end"] > 2.3
    assert final["text"] == whole(server(), audio, partials=False).text
