"""Files and folders -> transcripts, on standard output or in a folder of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from service.config import ServerConfig
from service.engine.engine import Engine
from service.errors import ConfigError, WinnowError
from service.metrics import Metrics
from service.model.protocol import SpeechModel
from service.pipeline import Pipeline
from service.profiles import load_profiles
from service.text.formats import FORMATS, SUBTITLES, to_format, to_json
from service.text.subtitles import Layout
from service.types import DecodeOptions, TranscribeRequest, Transcript

# What is looked for in a folder. A file that is named is tried whatever its suffix.
AUDIO_SUFFIXES = (
    *(".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp3", ".mp4"),
    *(".mpeg", ".mpga", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma"),
)
OUTPUT_SUFFIXES = {name: f".{name}" for name in FORMATS} | {
    "text": ".txt",
    "verbose_json": ".verbose.json",
}
ONE_LINE = ("text", "json")  # formats of which several may be printed, a line each
LOAD_TIMEOUT_S = 1800.0  # a large checkpoint on a slow disk, or its first download
FILE_TIMEOUT_S = 7 * 24 * 3600.0  # nobody waits for an answer: a file may take its time


@dataclass(frozen=True, slots=True)
class FilesRequest:
    """What is asked of files and folders. `form` is one of `FORMATS`; `out` None prints."""

    paths: tuple[Path, ...]
    profile: str | None = None
    language: str | None = None
    task: str = "transcribe"
    form: str = "text"
    layout: Layout = field(default_factory=Layout)
    split_channels: bool = False
    out: Path | None = None
    vad: bool = True
    overwrite: bool = False


def transcribe_files(
    config: ServerConfig, load: Callable[[], SpeechModel], asked: FilesRequest
) -> int:
    """Transcribes what it can and returns how many files or folders it could not.

    Each failure is a line on standard error. Raises ConfigError, CheckpointError or
    InvalidRequest for what concerns all of them.
    """
    _check_layout(asked)
    recordings, missing = _find(asked.paths)
    for path in missing:
        print(f"winnow: {path}: no such file, or a folder without audio", file=sys.stderr)
    if asked.out is None and asked.form not in ONE_LINE and len(recordings) > 1:
        raise ConfigError(f"{asked.form} of several recordings needs --out DIR")
    todo = _not_yet_done(recordings, asked.out, asked) if asked.out else recordings
    if not todo:
        return len(missing)
    # What goes wrong is said once, by file; the engine's log is for a server.
    logging.getLogger("service").addHandler(logging.NullHandler())
    metrics = Metrics()
    engine = Engine(load, config, metrics)
    pipeline = Pipeline(engine, config, metrics, load_profiles(config.profiles_file, config.model))
    pipeline.start()
    engine.start()
    try:
        engine.wait_ready(LOAD_TIMEOUT_S)
        pipeline.check_model()
        run = _Run(pipeline, asked, todo, num_workers=2 * config.max_batch_windows)
        return len(missing) + asyncio.run(run.all())
    finally:
        pipeline.close()
        engine.stop()


def _check_layout(asked: FilesRequest) -> None:
    if asked.layout != Layout() and asked.form not in SUBTITLES:
        raise ConfigError("line lengths are for --format srt and vtt")
    asked.layout.check()


@dataclass(frozen=True, slots=True)
class _Recording:
    """A file to transcribe; `relative` is what its output is named after."""

    path: Path
    relative: Path


def _find(paths: Sequence[Path]) -> tuple[list[_Recording], list[Path]]:
    """The recordings of files and folders, each once, and the paths that gave none."""
    found: dict[Path, _Recording] = {}
    missing: list[Path] = []
    for path in paths:
        alone = path.exists() and not path.is_dir()
        inside = [_Recording(path, Path(path.name))] if alone else list(_in_folder(path))
        if not inside:
            missing.append(path)
        for recording in inside:
            found.setdefault(Path(os.path.abspath(recording.path)), recording)
    return list(found.values()), missing


def _in_folder(folder: Path) -> Iterator[_Recording]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            yield _Recording(path, path.relative_to(folder))


def _target(recording: _Recording, out: Path, form: str) -> Path:
    relative = recording.relative
    return out / relative.with_name(relative.name + OUTPUT_SUFFIXES[form])


def _not_yet_done(recordings: list[_Recording], out: Path, asked: FilesRequest) -> list[_Recording]:
    """Raises ConfigError if two recordings would be written to one file."""
    targets: dict[Path, _Recording] = {}
    for recording in recordings:
        target = _target(recording, out, asked.form)
        other = targets.setdefault(target, recording)
        if other is not recording:
            raise ConfigError(
                f"{other.path} and {recording.path} would both be written to {target}; "
                "name a folder that holds both instead"
            )
    if asked.overwrite:
        return recordings
    todo = [recording for target, recording in targets.items() if not target.exists()]
    if skipped := len(recordings) - len(todo):
        print(
            f"winnow: skipped {skipped} of {len(recordings)} that are in {out} already",
            file=sys.stderr,
        )
    return todo


@dataclass(slots=True)
class _Run:
    """Transcribes recordings, several at once so that batches fill, printing in their order."""

    pipeline: Pipeline
    asked: FilesRequest
    recordings: list[_Recording]
    num_workers: int
    waiting: dict[int, Transcript | None] = field(default_factory=dict)  # to be printed
    num_printed: int = 0
    num_failed: int = 0
    audio_s: float = 0.0

    async def all(self) -> int:
        """How many failed."""
        asked = self.asked
        options = DecodeOptions(
            language=self.pipeline.resolve_language(asked.language), task=asked.task
        )
        profile = self.pipeline.resolve_profile(asked.profile)
        request = TranscribeRequest(
            profile,
            options,
            asked.vad,
            FILE_TIMEOUT_S,
            split_channels=asked.split_channels,
            # What fills the queue is the other files: it empties again.
            wait_for_room=True,
        )
        queue = iter(enumerate(self.recordings))
        # disable=None: no bar where standard error is not a terminal.
        with tqdm(total=len(self.recordings), unit="file", disable=None) as bar:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.num_workers, len(self.recordings))):
                        group.create_task(self._worker(queue, request, bar))
            except ExceptionGroup as failed:
                # Most likely nobody reads what is printed: raised plain, the caller can tell.
                raise failed.exceptions[0] from None
        return self.num_failed

    async def _worker(
        self,
        queue: Iterator[tuple[int, _Recording]],
        request: TranscribeRequest,
        bar: tqdm[NoReturn],
    ) -> None:
        for index, recording in queue:
            answer = await self._answer(recording, request)
            if answer is None:
                self.num_failed += 1
            else:
                self.audio_s += answer.duration
                bar.set_postfix_str(f"{self.audio_s:.0f} s of audio", refresh=False)
            bar.update()
            if self.asked.out is None:
                self.waiting[index] = answer
                self._print_ready()

    async def _answer(self, recording: _Recording, request: TranscribeRequest) -> Transcript | None:
        """The transcript, written if there is an --out; None, said on stderr, where it failed."""
        try:
            with recording.path.open("rb") as source:
                answer = await self.pipeline.transcribe(source, request)
            if self.asked.out is not None:
                _write(_target(recording, self.asked.out, self.asked.form), self._whole(answer))
        except (WinnowError, OSError) as error:
            tqdm.write(f"winnow: {recording.path}: {error}", file=sys.stderr)
            return None
        return answer

    def _print_ready(self) -> None:
        """Prints the answers that are next in the order of the recordings."""
        while self.num_printed in self.waiting:
            answer = self.waiting.pop(self.num_printed)
            recording = self.recordings[self.num_printed]
            self.num_printed += 1
            if answer is not None:
                tqdm.write(self._printed(recording, answer), file=sys.stdout)

    def _printed(self, recording: _Recording, answer: Transcript) -> str:
        several = len(self.recordings) > 1
        if self.asked.form == "json":
            named = {"file": str(recording.path)} if several else {}
            return json.dumps(named | to_json(answer), ensure_ascii=False)
        if self.asked.form == "text":
            return f"{recording.path}: {answer.text}" if several else answer.text
        return self._whole(answer).removesuffix("\n")

    def _whole(self, answer: Transcript) -> str:
        """The content of a file."""
        content = to_format(answer, self.asked.form, self.asked.task, self.asked.layout)
        if isinstance(content, dict):
            return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        return content


def _write(target: Path, content: str) -> None:
    """Writes the whole file or nothing: an interrupted run leaves no half of one to skip."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
