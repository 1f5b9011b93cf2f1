"""One model's weights in the formats that the contestants read, made once in a folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import torch

from bench.contest.ggml import write_ggml
from service.errors import ConfigError
from service.model.formats.find import find_model
from service.model.formats.hub_folder import SAFETENSORS
from service.model.formats.source import Source
from tests.checkpoints import to_openai_whisper

FORMATS = ("hub", "ct2", "pt", "ggml")


class Weights:
    """Paths of a model by format; what is not there yet is written first.

    `model` is whatever `winnow serve` takes. `peers_python` runs CTranslate2's own converter.
    """

    def __init__(self, model: str, work: Path, peers_python: Path) -> None:
        self._work = work / Path(model).name
        self._work.mkdir(parents=True, exist_ok=True)
        self._peers_python = peers_python
        self._source = find_model(model).source
        self._hub = _hub_folder(self._source)

    def path(self, form: str) -> Path:
        """The folder or file of one of `FORMATS`."""
        match form:
            case "hub":
                return self._whole_hub()
            case "ct2":
                return self._once("ct2", self._to_ct2)
            case "pt":
                return self._once("model.pt", self._to_pt)
            case "ggml":
                return self._once("model.ggml", self._to_ggml)
        raise ConfigError(f"format {form!r}: use one of {', '.join(FORMATS)}")

    def _once(self, name: str, write: object) -> Path:
        target = self._work / name
        if not target.exists():
            part = self._work / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
            assert callable(write)
            write(part)
            part.rename(target)
        return target

    def _whole_hub(self) -> Path:
        """With everything that transformers' own classes ask for."""

        def write(part: Path) -> None:
            from transformers import WhisperFeatureExtractor, WhisperTokenizerFast

            shutil.copytree(self._hub, part)
            num_mels = self._source.dims.num_mels
            WhisperFeatureExtractor(feature_size=num_mels).save_pretrained(part)
            tokenizer = WhisperTokenizerFast(tokenizer_file=str(part / "tokenizer.json"))
            tokenizer.save_pretrained(part)

        return self._once("hub", write)

    def _to_ct2(self, part: Path) -> None:
        subprocess.run(
            [
                *(self._peers_python, "-m", "ctranslate2.converters.transformers"),
                *("--model", self._whole_hub(), "--output_dir", part),
                *("--quantization", "float16", "--copy_files"),
                *("tokenizer.json", "preprocessor_config.json"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def _to_pt(self, part: Path) -> None:
        model = to_openai_whisper(self._hub)
        torch.save({"dims": vars(model.dims), "model_state_dict": model.state_dict()}, part)

    def _to_ggml(self, part: Path) -> None:
        with part.open("wb") as file:
            write_ggml(self._source, file)


def _hub_folder(source: Source) -> Path:
    folder = Path(source.place)
    if not (folder / SAFETENSORS).is_file():
        raise ConfigError(f"{source.place}: not one {SAFETENSORS}, which the converters start from")
    return folder
