"""Speaks Home Assistant's Wyoming protocol to `wyoming-openai` in front of a Winnow server.

Both packages need Python 3.12 or later, in an environment of their own:

    pip install wyoming-openai soundfile
    scripts/serve &
    python -m wyoming_openai --uri tcp://127.0.0.1:10300 \
        --stt-openai-url http://127.0.0.1:8000/v1 --stt-openai-key none \
        --stt-models whisper-1 --stt-streaming-models gpt-4o-transcribe \
        --stt-realtime-models gpt-live-transcribe &
    python tests/clients/wyoming_check.py --uri tcp://127.0.0.1:10300

For every model that the bridge offers it says the repository's sample, prints what came back, and
exits with 1 where that is not what is said in it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path

import soundfile
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.info import Describe, Info

SAMPLE = Path(__file__).parents[2] / "docs" / "samples" / "ljspeech.flac"
SAID = "may be considered as the art of making books by means of movable types"
CHUNK_S = 0.064  # what a satellite sends
PATIENCE_S = 60.0


async def models(uri: str) -> list[tuple[str, str]]:
    """The bridge's programs and their models."""
    async with AsyncClient.from_uri(uri) as client:
        await client.write_event(Describe().event())
        while (event := await client.read_event()) is not None:
            if Info.is_type(event.type):
                programs = Info.from_event(event).asr
                return [(one.name, model.name) for one in programs for model in one.models]
    raise ConnectionError("the bridge says nothing of itself")


async def transcribe(uri: str, model: str, path: Path) -> tuple[str, int]:
    """The text of a recording, and in how many chunks it came before it was whole."""
    samples, rate = soundfile.read(path, dtype="int16")
    form = {"rate": rate, "width": 2, "channels": 1}
    step = round(CHUNK_S * rate)
    async with AsyncClient.from_uri(uri) as client:
        await client.write_event(Transcribe(name=model, language="en").event())
        await client.write_event(AudioStart(**form).event())
        for at in range(0, len(samples), step):
            audio = samples[at : at + step].tobytes()
            await client.write_event(AudioChunk(audio=audio, **form).event())
        await client.write_event(AudioStop().event())
        num_chunks = 0
        while (event := await client.read_event()) is not None:
            if TranscriptChunk.is_type(event.type):
                num_chunks += 1
            elif Transcript.is_type(event.type):
                return Transcript.from_event(event).text, num_chunks
            elif Error.is_type(event.type):
                raise ConnectionError(Error.from_event(event).text)
    raise ConnectionError("the bridge closed the connection without a transcript")


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))


async def check(uri: str) -> bool:
    """Whether every model heard what is said."""
    right = True
    for program, model in await models(uri):
        async with asyncio.timeout(PATIENCE_S):
            try:
                text, num_chunks = await transcribe(uri, model, SAMPLE)
            except ConnectionError as error:
                text, num_chunks = f"failed: {error}", 0
        right = right and SAID in plain(text)
        print(f"{program} {model}: {num_chunks} chunks: {text.strip()}", flush=True)
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--uri", default="tcp://127.0.0.1:10300", help="(%(default)s)")
    sys.exit(0 if asyncio.run(check(parser.parse_args().uri)) else 1)
