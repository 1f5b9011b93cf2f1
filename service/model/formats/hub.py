"""A hub id to a folder on this machine: only what is needed of it, or what the cache has."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub  # which imports what is asked of it when that is asked
from huggingface_hub import constants

from service.errors import CheckpointError
from service.model.formats.ct2_folder import BINARY, VOCABULARIES
from service.model.formats.hub_folder import INDEX, PICKLE, SAFETENSORS

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    *VOCABULARIES,
)
WEIGHTS = (SAFETENSORS, INDEX, "model-*-of-*.safetensors", BINARY)


def download(hub_id: str, weights: tuple[str, ...] = WEIGHTS) -> Path:
    """Raises CheckpointError with one line of why it is not to be had."""
    try:
        folder = Path(
            huggingface_hub.snapshot_download(hub_id, allow_patterns=[*SMALL_FILES, *weights])
        )
        if weights and not any((folder / file).exists() for file in (SAFETENSORS, INDEX, BINARY)):
            huggingface_hub.snapshot_download(hub_id, allow_patterns=[PICKLE])
    except Exception as error:  # which HTTP library lies beneath differs by version
        raise CheckpointError(
            f"{hub_id} could not be fetched from the hub: {_why(error)}"
        ) from error
    return folder


def _why(error: Exception) -> str:
    """The first sentence: the hub's library writes paragraphs."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = lines[0].split(". ")[0].rstrip(".").removeprefix("Got: ")
    if not isinstance(error, LocalEntryNotFoundError):
        return said
    if constants.HF_HUB_OFFLINE:
        return "it is not in the cache, and HF_HUB_OFFLINE is set"
    return f"it is not in the cache, and the hub does not answer ({said})"
