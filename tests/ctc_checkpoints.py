"""Writes complete hub-format folders of CTC models, with random weights and no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from service.families.ctc import CtcModel
from service.families.load import load_ctc
from service.model.ctc.encoder import normalise
from service.model.operators.choose import plain_operators

# As the published English models have it.
SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
_SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": len(SYMBOLS),
}
_STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_CONFORMER = {
    "feat_extract_norm": "layer",
    "conv_bias": True,
    "hidden_act": "swish",
    "conv_depthwise_kernel_size": 7,
}
# What sets each apart. `wav2vec2` and `hubert` norm over time, and behind.
SHAPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("wav2vec2", {}),
    "wav2vec2-stable": ("wav2vec2", _STABLE),
    "hubert": ("hubert", {"num_conv_pos_embeddings": 15}),
    "hubert-stable": ("hubert", _STABLE | {"feat_proj_layer_norm": False}),
    "conformer-relative": ("wav2vec2-conformer", _CONFORMER),
    "conformer-rotary": (
        "wav2vec2-conformer",
        _CONFORMER | {"position_embeddings_type": "rotary"},
    ),
    "conformer-plain": ("wav2vec2-conformer", _CONFORMER | {"position_embeddings_type": None}),
}
CLASSES = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2ForCTC),
    "hubert": (HubertConfig, HubertForCTC),
    "wav2vec2-conformer": (Wav2Vec2ConformerConfig, Wav2Vec2ConformerForCTC),
}


def write_ctc(
    folder: Path, shape: str = "wav2vec2", *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Path:
    """Writes and returns `folder`. Weights are such that symbols vary with the sound, and blanks
    and spaces are among them."""
    kind, more = SHAPES[shape]
    config_class, model_class = CLASSES[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(**{**_SMALL, **more}))
        _spread(model)
    model.to(dtype).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    words = folder / "vocab.json"
    words.write_text(json.dumps({symbol: number for number, symbol in enumerate(SYMBOLS)}))
    Wav2Vec2CTCTokenizer(str(words)).save_pretrained(folder)
    return folder


def load_plain_ctc(folder: Path) -> CtcModel:
    """In float32 on the CPU by torch's own operators."""
    return load_ctc(folder, device="cpu", operators=plain_operators(torch.float32))


def load_theirs(folder: Path) -> Any:
    """The same weights in transformers' own model, its attention written out."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = CLASSES[kind][1].from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def with_old_names(folder: Path) -> Path:
    """The weights as torch stored a normed one before 2.0, and published models still do."""
    file = folder / "model.safetensors"
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in load_file(file).items()
    }
    assert any(name.endswith("weight_g") for name in state)
    save_file(state, file, {"format": "pt"})
    return folder


def change(folder: Path, file: str, **values: Any) -> Path:
    """Values of a JSON object in the folder, and the folder."""
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


def _spread(model: Any) -> None:
    """Peaked attention, biases that are not 0, statistics as if trained."""
    gains = {"q_proj": 3.0, "k_proj": 3.0, "linear_q": 3.0, "linear_k": 3.0}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif name.endswith("bias") or "pos_bias" in name:
                weight.normal_(std=0.3)
            elif "original0" not in name:
                gain = next((g for part, g in gains.items() if part in name), 1.0)
                weight.normal_(std=gain * weight[0].numel() ** -0.5)
        for name, statistic in model.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_(std=0.2)
            elif name.endswith("running_var"):
                statistic.uniform_(0.5, 2.0)
        _speak(model)


def _speak(model: Any) -> None:
    """A head that says every symbol now and then, and the blank and the delimiter most."""
    heard = model.eval()(normalise(torch.cat([_hum(2.0), 2 * torch.randn(32_000)])[None])).logits[0]
    std, mean = torch.std_mean(heard, dim=0)
    model.lm_head.weight.mul_(2 / std[:, None])
    model.lm_head.bias.sub_(mean).mul_(2 / std)
    model.lm_head.bias[[SYMBOLS.index("<pad>"), SYMBOLS.index("|")]] += torch.tensor([3.0, 2.0])


def _hum(seconds: float) -> torch.Tensor:
    """(S,) samples of harmonics whose pitch glides and whose colour changes."""
    times = torch.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * torch.pi * (120 * times + torch.sin(4 * times))
    colour = 4 + 3 * torch.sin(13 * times)
    harmonics = (torch.sin(k * phase) / (1 + (k - colour) ** 2) for k in range(1, 20))
    return torch.stack(list(harmonics)).sum(0)
