"""One model's weights in the formats that the contestants read, made once in a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from bench.contest.ggml import write_ggml
from service.errors import ConfigError
from service.model.formats.find import find_model
from service.model.formats.hub_folder import SAFETENSORS
from service.model.formats.source import Source
from tests.checkpoints import to_openai_whisper

NAMES = {
    "hub": "hub",
    "ct2": "ct2",
    "pt": "model.pt",
    "ggml": "model.ggml",
    "openvino": "openvino-int8",
}


class Weights:
    """Paths of a model by format; what is not there yet is written first.

    `model` is whatever `winnow serve` takes. `peers_python` runs the converters of CTranslate2 and
    OpenVINO; `say` is told what is being written, which may take minutes.
    """

    def __init__(
        self, model: str, work: Path, peers_python: Path, say: Callable[[str], None]
    ) -> None:
        """Raises CheckpointError for a model that is not there, ConfigError for one in pieces."""
        self._source = find_model(model).source
        self._hub = _hub_folder(self._source)
        self.model = str(Path(model).resolve()) if Path(model).exists() else model
        # A folder of the same name may hold other weights.
        self._work = work / f"{Path(model).name}-{_mark(self._hub / SAFETENSORS)}"
        self._peers_python, self._say = peers_python, say

    def path(self, form: str) -> Path:
        """The folder or file of one of `NAMES`. Raises ChildProcessError where a converter
        fails, or there is none."""
        target = self._work / NAMES[form]
        if not target.exists():
            self._say(f"writing the weights for {NAMES[form]}")
            self._work.mkdir(parents=True, exist_ok=True)
            part = self._work / f"{NAMES[form]}.part"
            _remove(part)
            try:
                self._write(form, part)
            except (OSError, subprocess.CalledProcessError) as error:
                raise ChildProcessError(f"no weights for {NAMES[form]}: {_why(error)}") from error
            part.rename(target)
        return target

    def _write(self, form: str, part: Path) -> None:
        match form:
            case "hub":
                self._write_hub(part)
            case "ct2":
                self._convert(
                    *("ctranslate2.converters.transformers", "--model", self.path("hub")),
                    *("--output_dir", part, "--quantization", "float16", "--copy_files"),
                    *("tokenizer.json", "preprocessor_config.json"),
                )
            case "openvino":
                self._convert(
                    *("optimum.commands.optimum_cli", "export", "openvino"),
                    *("--model", self.path("hub"), "--library", "transformers"),
                    *("--task", "automatic-speech-recognition-with-past"),
                    *("--weight-format", "int8", part),
                )
            case "pt":
                model = to_openai_whisper(self._hub)
                state = model.state_dict()
                torch.save({"dims": vars(model.dims), "model_state_dict": state}, part)
            case "ggml":
                with part.open("wb") as file:
                    write_ggml(self._source, file)

    def _write_hub(self, part: Path) -> None:
        """With everything that transformers' own classes ask for."""
        from transformers import WhisperFeatureExtractor, WhisperTokenizerFast

        shutil.copytree(self._hub, part, ignore=shutil.ignore_patterns(SAFETENSORS))
        _link(self._hub / SAFETENSORS, part / SAFETENSORS)
        num_mels = self._source.dims.num_mels
        WhisperFeatureExtractor(feature_size=num_mels).save_pretrained(part)
        tokenizer = WhisperTokenizerFast(tokenizer_file=str(part / "tokenizer.json"))
        tokenizer.save_pretrained(part)

    def _convert(self, module: str, *options: str | Path) -> None:
        subprocess.run(
            [self._peers_python, "-m", module, *options],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )


def _hub_folder(source: Source) -> Path:
    folder = Path(source.place)
    if not (folder / SAFETENSORS).is_file():
        raise ConfigError(f"{source.place}: not one {SAFETENSORS}, which the converters start from")
    return folder


def _mark(path: Path) -> str:
    """Eight characters that change when the file does."""
    there = path.stat()
    known = f"{path.resolve()} {there.st_size} {there.st_mtime_ns}"
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def _link(source: Path, target: Path) -> None:
    """Gigabytes that nobody writes to are there once, where that can be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _why(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return (str(error.stderr).strip().splitlines() or [str(error)])[-1]
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not there; scripts/peers makes the peers' environment"
    return str(error)
