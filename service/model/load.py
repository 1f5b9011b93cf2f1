"""The model that a name means."""

from __future__ import annotations

from pathlib import Path

from service.model.checkpoint import load_checkpoint
from service.model.fake import FakeModel
from service.model.protocol import SpeechModel
from service.model.whisper import Whisper


def load_model(
    name: str, device: str = "auto", dtype: str = "auto", cache_dir: Path | None = None
) -> SpeechModel:
    """`fake`, or anything that `load_checkpoint` takes; raises what that raises."""
    if name == "fake":
        return FakeModel()
    return Whisper(load_checkpoint(name, device, dtype, cache_dir))
