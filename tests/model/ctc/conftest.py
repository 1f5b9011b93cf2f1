"""A folder of random weights of each shape, and the model in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.families.ctc import CtcModel
from tests.ctc_checkpoints import SHAPES, load_plain_ctc, write_ctc


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By shape. To be read only."""
    return {shape: write_ctc(tmp_path_factory.mktemp(shape), shape) for shape in SHAPES}


@pytest.fixture(scope="session")
def models(folders: dict[str, Path]) -> dict[str, CtcModel]:
    return {shape: load_plain_ctc(folder) for shape, folder in folders.items()}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(folders: dict[str, Path], shape: str) -> Path:
    return folders[shape]


@pytest.fixture
def model(models: dict[str, CtcModel], shape: str) -> CtcModel:
    return models[shape]
