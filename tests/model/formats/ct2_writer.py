"""Writes hub folders as CTranslate2 folders, by the layout that `ct2_binary` reads."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
Variables = dict[str, Tensor]


def string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def raw(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).reshape(-1).numpy().data)


def variable(name: str, tensor: Tensor) -> bytes:
    values = raw(tensor.reshape(1)) if tensor.dim() == 0 else raw(tensor)
    head = struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape)
    size = struct.pack("<BI", TYPES.index(tensor.dtype), len(values))
    return string(name) + head + size + values


def binary(
    variables: Variables,
    aliases: dict[str, str],
    version: int = 6,
    spec: str = "WhisperSpec",
    revision: int = 3,
) -> bytes:
    parts = [struct.pack("<I", version), string(spec), struct.pack("<II", revision, len(variables))]
    parts += [variable(name, tensor) for name, tensor in sorted(variables.items())]
    parts += [struct.pack("<I", len(aliases))]
    parts += [string(alias) + string(name) for alias, name in aliases.items()]
    return b"".join(parts)


def variables_of(folder: Path) -> Variables:
    """The hub folder's parameters under CTranslate2's names."""
    state = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    found: Variables = {}

    def norm(theirs: str, ours: str) -> None:
        found[f"{theirs}/gamma"] = state[f"model.{ours}.weight"]
        found[f"{theirs}/beta"] = state[f"model.{ours}.bias"]

    def linear(theirs: str, *ours: str) -> None:
        weights = [state[f"model.{name}.weight"] for name in ours]
        biases = [
            state.get(f"model.{name}.bias", torch.zeros(len(weight), dtype=weight.dtype))
            for name, weight in zip(ours, weights, strict=True)
        ]
        found[f"{theirs}/weight"], found[f"{theirs}/bias"] = torch.cat(weights), torch.cat(biases)

    for conv in ("conv1", "conv2"):
        linear(f"encoder/{conv}", f"encoder.{conv}")
    for side in ("encoder", "decoder"):
        heads = config[f"{side}_attention_heads"]
        found[f"{side}/num_heads"] = torch.tensor(heads, dtype=torch.int16)
        found[f"{side}/position_encodings/encodings"] = state[
            f"model.{side}.embed_positions.weight"
        ]
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for n in range(config[f"{side}_layers"]):
            theirs, ours = f"{side}/layer_{n}", f"{side}.layers.{n}"
            own = f"{ours}.self_attn"
            norm(f"{theirs}/self_attention/layer_norm", f"{own}_layer_norm")
            linear(f"{theirs}/self_attention/linear_0", *(f"{own}.{part}_proj" for part in "qkv"))
            linear(f"{theirs}/self_attention/linear_1", f"{own}.out_proj")
            if side == "decoder":
                cross = f"{ours}.encoder_attn"
                norm(f"{theirs}/attention/layer_norm", f"{cross}_layer_norm")
                linear(f"{theirs}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{theirs}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{theirs}/attention/linear_2", f"{cross}.out_proj")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            linear(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            linear(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
    found["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    return found


def quantised(variables: Variables, others: torch.dtype) -> tuple[Variables, Variables]:
    """int8 with a scale for each row, as CTranslate2 does; and what that stands for."""
    stored, meant = {}, {}
    for name, tensor in variables.items():
        if name.endswith("/weight") and tensor.is_floating_point() and "conv" not in name:
            most = tensor.float().abs().amax(dim=1)
            scale = 127.0 / torch.where(most == 0, 127.0, most)
            stored[name] = torch.round(tensor.float() * scale[:, None]).to(torch.int8)
            stored[f"{name}_scale"] = scale
            meant[name] = stored[name].float() / scale[:, None]
        else:
            stored[name] = tensor.to(others) if tensor.is_floating_point() else tensor
            meant[name] = stored[name]
    return stored, meant


def write_ct2(
    folder: Path, hub: Path, variables: Variables | None = None, tokenizer: bool = True
) -> Path:
    """`variables` are the hub folder's own where none are given."""
    folder.mkdir()
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    data = binary(variables_of(hub) if variables is None else variables, aliases)
    (folder / "model.bin").write_bytes(data)
    generation = json.loads((hub / "generation_config.json").read_text())
    config = {
        "alignment_heads": [[1, 0], [1, 1]],
        "suppress_ids": generation["suppress_tokens"],
        "suppress_ids_begin": generation["begin_suppress_tokens"],
        # As in the public tiny.en's: of the multilingual vocabulary, where there is no language.
        "lang_ids": sorted(generation.get("lang_to_id", {"": 50259}).values()),
    }
    (folder / "config.json").write_text(json.dumps(config))
    if tokenizer:
        shutil.copy(hub / "tokenizer.json", folder)
    return folder


def vocabulary_of(hub: Path) -> list[str]:
    """Token strings in the order of their ids."""
    ids = json.loads((hub / "vocab.json").read_text())
    ids |= json.loads((hub / "added_tokens.json").read_text())
    return sorted(ids, key=ids.__getitem__)
