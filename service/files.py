"""Files and folders -> transcripts, on standard output or in a folder of their own."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, NoReturn

from tqdm import tqdm

from service.audio.reader import AudioReader
from service.config import ServerConfig
from service.engine.engine import LOAD_TIMEOUT_S, Engine
from service.errors import ConfigError, WinnowError
from service.families.fitting import fitted
from service.find_files import OUTPUT_SUFFIXES, STDIN, Found, Source, find, spooled
from service.memory import give_back
from service.metrics import Metrics
from service.model.formats.find import shipped_as
from service.model.protocol import SpeechModel
from service.params.decoding import decoding
from service.pipeline import Pipeline
from service.profiles import load_profiles
from service.text.formats import SUBTITLES, to_format, to_json
from service.text.subtitles import Layout
from service.types import TranscribeRequest, Transcript

ONE_LINE = ("text", "json")  # formats of which several may be printed, a line each
FILE_TIMEOUT_S = 7 * 24 * 3600.0  # nobody waits for an answer: a file may take its time
NUM_SUFFIXES_NAMED = 5
# What one file's text cannot be written for, none's can: the run ends instead of going on in vain.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True, slots=True)
class FilesRequest:
    """What is asked of files and folders; the path `-` is standard input.

    `form` is one of `FORMATS`; `out` None prints. `decoding`: parameters of `params.decoding`, as
    they were typed. `strict`: a recording of which a part cannot be read fails.
    """

    paths: tuple[Path, ...]
    profile: str | None = None
    language: str | None = None
    task: str = "transcribe"
    decoding: Mapping[str, str] = field(default_factory=dict)
    word_times: bool = False
    strict: bool = False
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

    Each failure, and each loss of what was transcribed, is a line on standard error. Raises
    ConfigError, CheckpointError or InvalidRequest for what concerns all of them, DiskError where
    the disk takes no more texts.
    """
    _check_layout(asked)
    if asked.out is not None and asked.out.exists() and not asked.out.is_dir():
        raise ConfigError(f"--out {asked.out} is a file: texts are written to a folder")
    found = find(asked.paths)
    _say_what_is_left_out(found)
    sources = list(found.sources)
    if asked.out is None and asked.form not in ONE_LINE and len(sources) > 1:
        raise ConfigError(f"{asked.form} of several recordings needs --out DIR")
    todo = _not_yet_done(sources, asked.out, asked) if asked.out else sources
    if not todo:
        return len(found.problems)
    with ExitStack() as stack:
        streams = {one: stack.enter_context(spooled(one)) for one in todo if one.is_stream}
        return len(found.problems) + _transcribed(config, load, asked, todo, streams)


def _transcribed(
    config: ServerConfig,
    load: Callable[[], SpeechModel],
    asked: FilesRequest,
    todo: list[Source],
    streams: Mapping[Source, BinaryIO],
) -> int:
    # What goes wrong is said once, by file; the engine's log is for a server.
    logging.getLogger("service").addHandler(logging.NullHandler())
    metrics = Metrics()
    reader = AudioReader(config.audio_threads, config.max_audio_seconds, metrics)

    def load_ready() -> SpeechModel:
        model = load()
        fit = fitted(model, profile, config.adapters)
        pipeline.use({**profiles, profile.name: fit})
        give_back()  # what other weights were made from
        return model

    engine = Engine(load_ready, config, metrics.of(config.model))
    profiles = load_profiles(config.profiles_file, shipped_as(config.model))
    pipeline = Pipeline(engine, config, metrics.of(config.model), profiles, reader)
    profile = pipeline.resolve_profile(asked.profile)
    reader.start()
    engine.start()
    try:
        engine.wait_ready(LOAD_TIMEOUT_S)
        request = _request(asked, pipeline, engine.model)
        run = _Run(pipeline, asked, request, todo, streams, 2 * config.max_batch_windows)
        return asyncio.run(run.all())
    finally:
        reader.close()
        engine.stop()


def _request(asked: FilesRequest, pipeline: Pipeline, model: SpeechModel) -> TranscribeRequest:
    how = decoding({name: (value,) for name, value in asked.decoding.items()}, model)
    return TranscribeRequest(
        pipeline.resolve_profile(asked.profile),
        replace(
            how.options,
            language=pipeline.resolve_language(asked.language),
            task=asked.task,
            word_times=asked.word_times,
        ),
        asked.vad,
        FILE_TIMEOUT_S,
        thresholds=how.thresholds,
        temperatures=how.temperatures,
        split_channels=asked.split_channels,
        strict=asked.strict,
        # What fills the queue is the other files: it empties again.
        wait_for_room=True,
    )


def _check_layout(asked: FilesRequest) -> None:
    if asked.layout != Layout() and asked.form not in SUBTITLES:
        raise ConfigError("line lengths are for --format srt and vtt")
    asked.layout.check()


def _say_what_is_left_out(found: Found) -> None:
    for problem in found.problems:
        print(f"winnow: {problem}", file=sys.stderr)
    if number := found.passed_over.total():
        kinds = [suffix for suffix, _ in found.passed_over.most_common()]
        named = ", ".join(kinds[:NUM_SUFFIXES_NAMED])
        more = ", ..." if len(kinds) > NUM_SUFFIXES_NAMED else ""
        files = "file that is" if number == 1 else "files that are"
        print(
            f"winnow: passed over {number} {files} not audio by name ({named}{more}): name one to "
            "have it tried",
            file=sys.stderr,
        )


def _target(source: Source, out: Path, form: str) -> Path:
    relative = source.relative
    return out / relative.with_name(relative.name + OUTPUT_SUFFIXES[form])


def _not_yet_done(sources: list[Source], out: Path, asked: FilesRequest) -> list[Source]:
    """Raises ConfigError if two recordings would be written to one file."""
    targets: dict[Path, Source] = {}
    for source in sources:
        target = _target(source, out, asked.form)
        other = targets.setdefault(target, source)
        if other is not source:
            raise ConfigError(
                f"{other.name} and {source.name} would both be written to {target}; "
                "name a folder that holds both instead"
            )
        if source.path == STDIN and target.exists() and not asked.overwrite:
            # A file's name says that it is the same recording. Of what is piped in nothing does.
            raise ConfigError(
                f"{target} is there already, maybe of another recording: move it, or add "
                "--overwrite"
            )
    if asked.overwrite:
        return sources
    todo = [source for target, source in targets.items() if not target.exists()]
    if skipped := len(sources) - len(todo):
        print(
            f"winnow: skipped {skipped} of {len(sources)} that are in {out} already",
            file=sys.stderr,
        )
    return todo


class DiskError(WinnowError):
    """The folder for the texts takes no more."""


@dataclass(slots=True)
class _Run:
    """Transcribes recordings, several at once so that batches fill, printing in their order."""

    pipeline: Pipeline
    asked: FilesRequest
    request: TranscribeRequest
    sources: list[Source]
    streams: Mapping[Source, BinaryIO]
    num_workers: int
    waiting: dict[int, Transcript | None] = field(default_factory=dict)  # to be printed
    num_printed: int = 0
    num_failed: int = 0
    audio_s: float = 0.0

    async def all(self) -> int:
        """How many failed."""
        queue = iter(enumerate(self.sources))
        # disable=None: no bar where standard error is not a terminal.
        with tqdm(total=len(self.sources), unit="file", disable=None) as bar:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.num_workers, len(self.sources))):
                        group.create_task(self._worker(queue, bar))
            except ExceptionGroup as failed:
                # Most likely nobody reads what is printed: raised plain, the caller can tell.
                raise failed.exceptions[0] from None
        return self.num_failed

    async def _worker(self, queue: Iterator[tuple[int, Source]], bar: tqdm[NoReturn]) -> None:
        for index, source in queue:
            answer = await self._answer(source)
            if answer is None:
                self.num_failed += 1
            else:
                self.audio_s += answer.duration
                bar.set_postfix_str(f"{self.audio_s:.0f} s of audio", refresh=False)
            bar.update()
            if self.asked.out is None:
                self.waiting[index] = answer
                self._print_ready()

    async def _answer(self, source: Source) -> Transcript | None:
        """The transcript, written if there is an --out; None, said on stderr, where it failed."""
        try:
            held = self.streams.get(source)
            with source.path.open("rb") if held is None else nullcontext(held) as audio:
                answer = await self.pipeline.transcribe(audio, self.request)
            if self.asked.out is not None:
                _write(_target(source, self.asked.out, self.asked.form), self._whole(answer))
        except DiskError:
            raise
        except (WinnowError, OSError) as error:
            _say(source, getattr(error, "strerror", None) or str(error))
            return None
        for loss in answer.warnings:
            _say(source, loss.message)
        return answer

    def _print_ready(self) -> None:
        """Prints the answers that are next in the order of the recordings."""
        while self.num_printed in self.waiting:
            answer = self.waiting.pop(self.num_printed)
            source = self.sources[self.num_printed]
            self.num_printed += 1
            if answer is not None:
                tqdm.write(self._printed(source, answer), file=sys.stdout)

    def _printed(self, source: Source, answer: Transcript) -> str:
        several = len(self.sources) > 1
        if self.asked.form == "json":
            named = {"file": source.name} if several else {}
            return json.dumps(named | to_json(answer), ensure_ascii=False)
        if self.asked.form == "text":
            return f"{source.name}: {answer.text}" if several else answer.text
        return self._whole(answer).removesuffix("\n")

    def _whole(self, answer: Transcript) -> str:
        """The content of a file."""
        content = to_format(answer, self.asked.form, self.asked.task, self.asked.layout)
        if isinstance(content, dict):
            return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        return content


def _say(source: Source, sentence: str) -> None:
    tqdm.write(f"winnow: {source.name}: {sentence}", file=sys.stderr)


def _write(target: Path, content: str) -> None:
    """Writes the whole file or nothing: an interrupted run leaves no half of one to skip.

    Raises DiskError where no text can be written any more, OSError where this one cannot.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(content, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise DiskError(
            f"{target}: {error.strerror}; what is written stays, and the same command goes on there"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
