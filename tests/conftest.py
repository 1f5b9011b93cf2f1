"""Fixtures that more than one room's tests share: checkpoints of random weights, a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.checkpoints import write_checkpoint
from tests.harness import Service, running

# Small tensors: on a busy machine a second thread waits longer than it computes.
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


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A pipeline that is ready; tests leave it as it was."""
    with running() as started:
        yield started
