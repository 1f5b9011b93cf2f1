"""Fixtures that more than one room's tests share: checkpoints of random weights, real ones, a
pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if not torch.cuda.is_available():
    # Kernels for a GPU are interpreted. It is read once, when Triton is imported.
    os.environ["TRITON_INTERPRET"] = "1"

from service.families.whisper import Whisper
from service.model.formats.find import find_model
from service.model.formats.packages import DATA_PACKAGES, find_files
from tests.checkpoints import load_plain, write_checkpoint

if TYPE_CHECKING:  # what a GPU has to show needs nothing of the service's
    from tests.harness import Service


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Small tensors: on a busy machine a second thread waits longer than it computes. Again for
    every test, because a command that loads a model takes all."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny's shape in full, multilingual, 80 mels. To be read only."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_128_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny's shape with the 128 mels and 100 languages of large-v3. To be read only."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny-128"), num_mels=128, seed=1)


@pytest.fixture(scope="session")
def mini_en_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers each side, English-only. To be read only."""
    folder = tmp_path_factory.mktemp("mini-en")
    return write_checkpoint(folder, shape="mini", multilingual=False)


@pytest.fixture(scope="session")
def mini_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers each side, multilingual, 80 mels. To be read only."""
    return write_checkpoint(tmp_path_factory.mktemp("mini"), shape="mini")


@pytest.fixture(scope="session")
def tiny_en() -> Whisper:
    """OpenAI's tiny.en, for what needs English words. Tests leave it as it was."""
    return _real("whisper-tiny.en")


@pytest.fixture(scope="session")
def base() -> Whisper:
    """OpenAI's base, for what needs languages, at three times the cost."""
    return _real("whisper-base")


@pytest.fixture(scope="session")
def tiny_en_folder(tiny_en: Whisper) -> Path:
    """tiny.en in hub format, for reference implementations. To be read only."""
    return _folder(tiny_en)


@pytest.fixture(scope="session")
def base_folder(base: Whisper) -> Path:
    """base in hub format. To be read only."""
    return _folder(base)


def _real(name: str) -> Whisper:
    if find_files(DATA_PACKAGES[name]) is None:
        pytest.skip(f"the data package of {name} is not installed; scripts/test installs it")
    return Whisper(load_plain(name))


def _folder(model: Whisper) -> Path:
    folder = Path(find_model(model.info.name).source.place)
    assert (folder / "model.safetensors").exists(), "the cache cannot be written"
    return folder


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A pipeline that is ready; tests leave it as it was."""
    from tests.harness import running

    with running() as started:
        yield started
