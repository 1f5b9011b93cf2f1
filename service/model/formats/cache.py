"""Models of data packages, converted once into folders of the hub's format."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from service.errors import CheckpointError
from service.model.formats.hub_folder import SAFETENSORS, read_hub_folder
from service.model.formats.source import Source

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# Of what is written below: an entry of another layout is another entry.
LAYOUT = 2

_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/winnow`, by default `~/.cache/winnow`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "winnow"
    except (
        RuntimeError
    ):  # a user without a home: where nobody else can put a model, or none is kept
        return Path("/var/cache/winnow")


def read_cached(entry: Path) -> Source | None:
    """The model of an entry, None where there is none or it is not what was written."""
    try:
        manifest = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
        sound = all(_sha256(entry / name) == digest for name, digest in manifest.items())
        return read_hub_folder(entry) if sound and SAFETENSORS in manifest else None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError, CheckpointError):
        return None


def through_cache(entry: Path, read: Callable[[], Source]) -> Source:
    """The model of an entry, which is written first where it is missing or damaged.

    Where the entry cannot be written the model is what `read` gives. Two processes that write at
    once do no harm: each writes a folder of its own, and the first to rename it wins.
    """
    if (cached := read_cached(entry)) is not None:
        return cached
    source = read()
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{entry.name}.", dir=entry.parent) as work:
            written = Path(work) / "new"
            write_hub_folder(source, written)
            if entry.exists() and read_cached(entry) is None:
                entry.rename(Path(work) / "damaged")
            try:
                written.rename(entry)
            except OSError:
                if read_cached(entry) is None:
                    raise
    except OSError as error:
        logger.info("the model is not kept converted: %s", error)
        return source
    return read_cached(entry) or source


def write_hub_folder(source: Source, folder: Path, more: Mapping[str, object] = {}) -> None:
    """A new folder in hub format that holds what `source` gives, and the digests of its files.

    `more`: of config.json. Raises CheckpointError for a model that does not say how text is split.
    """
    folder.mkdir()
    dims, settings, ids = source.dims, dict(source.settings), source.ids
    end = ids["<|endoftext|>"]
    special = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": ids["<|startoftranscript|>"],
    }
    config = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "vocab_size": dims.vocab_size,
        "num_mel_bins": dims.num_mels,
        "d_model": dims.d_model,
        "encoder_layers": dims.encoder_layers,
        "decoder_layers": dims.decoder_layers,
        "encoder_attention_heads": dims.encoder_heads,
        "decoder_attention_heads": dims.decoder_heads,
        "encoder_ffn_dim": 4 * dims.d_model,
        "decoder_ffn_dim": 4 * dims.d_model,
        "max_source_positions": dims.num_frames,
        "max_target_positions": dims.max_tokens,
        **special,
        **more,
    }
    generation = {
        **settings,
        **special,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids.get("<|startofprev|>"),
        "max_length": dims.max_tokens,
    }
    if settings.get("is_multilingual"):
        tasks = ("transcribe", "translate")
        generation["task_to_id"] = {task: ids[f"<|{task}|>"] for task in tasks}
    if source.tokenizer is None:
        raise CheckpointError(f"{source.place} has no tokenizer.json")
    files = {
        "config.json": json.dumps(config),
        "generation_config.json": json.dumps(generation),
        "preprocessor_config.json": json.dumps({"feature_size": dims.num_mels}),
        "tokenizer.json": source.tokenizer.to_str(),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_safetensors(folder / SAFETENSORS, dict(source.tensors()))
    manifest = {name: _sha256(folder / name) for name in (*files, SAFETENSORS)}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """One tensor after the other, so that no second copy of them all is made.

    u64 length of a JSON header, which is filled up with spaces to a multiple of 8; the header, with
    type, shape and bounds of each; the values (https://github.com/huggingface/safetensors).
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().view(torch.uint8).reshape(-1).numpy().data)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
