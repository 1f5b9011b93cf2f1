"""Writes complete hub-format folders of Whisper's family, with random weights and no network.

The vocabularies, language list and non-speech tokens are those that openai-whisper carries.
"""

from __future__ import annotations

import json
import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from whisper.model import ModelDimensions, Whisper
from whisper.tokenizer import Tokenizer as WhisperTokenizer
from whisper.tokenizer import get_tokenizer

from service.model.checkpoint import Checkpoint, load_checkpoint
from service.model.operators.choose import plain_operators

# d_model, heads, layers of encoder and decoder, after the model cards.
SHAPES = {
    "mini": (128, 2, 2, 2),
    "tiny": (384, 6, 4, 4),
    "base": (512, 8, 6, 6),
    "small": (768, 12, 12, 12),
    "medium": (1024, 16, 24, 24),
    "large": (1280, 20, 32, 32),
    "turbo": (1280, 20, 32, 4),
    "distil": (1280, 20, 32, 2),
}


def write_checkpoint(
    folder: Path,
    *,
    shape: str = "tiny",
    num_mels: int = 80,
    multilingual: bool = True,
    layers: tuple[int, int] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "50GB",
) -> Path:
    """Writes and returns `folder`. `layers`: of encoder and decoder, instead of the shape's.

    128 mels come with the 100 languages of large-v3, 80 with 99. Weights are scaled up from the
    usual initialisation so that greedy tokens vary with the audio and from step to step.
    """
    d_model, heads, encoder_layers, decoder_layers = SHAPES[shape]
    encoder_layers, decoder_layers = layers or (encoder_layers, decoder_layers)
    num_languages = 100 if num_mels == 128 else 99
    tokenizer = openai_tokenizer(multilingual, num_languages)
    begin_suppress = [*tokenizer.encode(" "), tokenizer.eot]
    config = WhisperConfig(
        vocab_size=tokenizer.encoding.n_vocab,
        num_mel_bins=num_mels,
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * d_model,
        decoder_ffn_dim=4 * d_model,
        decoder_start_token_id=tokenizer.sot,
        bos_token_id=tokenizer.eot,
        eos_token_id=tokenizer.eot,
        pad_token_id=tokenizer.eot,
        begin_suppress_tokens=begin_suppress,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WhisperForConditionalGeneration(config)
        _spread(model)
    model.generation_config = _generation_config(tokenizer, begin_suppress)
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    WhisperFeatureExtractor(feature_size=num_mels).save_pretrained(folder)
    for name, text in _tokenizer_files(multilingual, num_languages).items():
        (folder / name).write_text(text)
    return folder


def load_plain(name: str) -> Checkpoint:
    """In float32 on the CPU by torch's own operators. What is packed sums in another order, and
    weights drawn at random make much of that."""
    return load_checkpoint(name, device="cpu", operators=plain_operators(torch.float32))


def _spread(model: WhisperForConditionalGeneration) -> None:
    """Peaked attention, biases that are not 0, positions that matter, an end now and then."""
    gains = {"q_proj": 4.0, "k_proj": 4.0, "encoder_attn.v_proj": 4.0, "encoder_attn.out_proj": 4.0}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == "model.encoder.embed_positions.weight":
                continue  # sinusoids
            if "layer_norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "embed_tokens" in name:
                weight.normal_(std=0.05)
                weight[model.config.eos_token_id] *= 2.0
            elif name.endswith("bias") or "embed_positions" in name:
                weight.normal_(std=0.1)
            else:
                gain = next((g for part, g in gains.items() if part in name), 1.0)
                weight.normal_(std=gain * weight[0].numel() ** -0.5)


def _generation_config(tokenizer: WhisperTokenizer, begin_suppress: list[int]) -> GenerationConfig:
    multilingual = len(tokenizer.sot_sequence) > 1
    special = (
        tokenizer.sot,
        tokenizer.translate,
        tokenizer.transcribe,
        tokenizer.sot_lm,
        tokenizer.sot_prev,
        tokenizer.no_speech,
    )
    languages = {
        "lang_to_id": {
            f"<|{code}|>": token
            for code, token in zip(
                tokenizer.all_language_codes, tokenizer.all_language_tokens, strict=True
            )
        },
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
    }
    return GenerationConfig(
        begin_suppress_tokens=begin_suppress,
        bos_token_id=tokenizer.eot,
        decoder_start_token_id=tokenizer.sot,
        eos_token_id=tokenizer.eot,
        is_multilingual=multilingual,
        max_initial_timestamp_index=50,
        max_length=448,
        no_timestamps_token_id=tokenizer.no_timestamps,
        pad_token_id=tokenizer.eot,
        prev_sot_token_id=tokenizer.sot_prev,
        return_timestamps=False,
        suppress_tokens=sorted({*tokenizer.non_speech_tokens, *special}),
        **(languages if multilingual else {}),
    )


@cache
def openai_tokenizer(multilingual: bool, num_languages: int = 99) -> WhisperTokenizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its vocabulary file open
        return get_tokenizer(multilingual, num_languages=num_languages)


@cache
def _tokenizer_files(multilingual: bool, num_languages: int) -> dict[str, str]:
    """tokenizer.json, and the vocab.json, merges.txt and added_tokens.json that say the same."""
    tokenizer = openai_tokenizer(multilingual, num_languages)
    vocab, merges = _bpe(multilingual)
    fast = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    special = sorted(tokenizer.special_tokens.items(), key=lambda item: item[1])
    fast.add_tokens(
        [
            AddedToken(token, special=number < tokenizer.timestamp_begin, normalized=False)
            for token, number in special
        ]
    )
    end = "<|endoftext|>"
    settings = {
        "tokenizer_class": "WhisperTokenizer",
        "bos_token": end,
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
        "add_prefix_space": False,
        "model_max_length": 1024,
    }
    return {
        "tokenizer.json": fast.to_str(),
        "vocab.json": json.dumps(vocab),
        "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
        "added_tokens.json": json.dumps(dict(special)),
        "tokenizer_config.json": json.dumps(settings),
    }


@cache
def _bpe(multilingual: bool) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """tiktoken's ranks as the vocabulary and merges of a byte-level BPE.

    A token's merge is the pair that is left when it is built from its bytes by lower ranks.
    """
    ranks = openai_tokenizer(multilingual).encoding._mergeable_ranks
    merges = []
    for token in ranks:
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
            best = pairs.index(min(pairs))
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append((_printable(parts[0]), _printable(parts[1])))
    return {_printable(token): rank for token, rank in ranks.items()}, merges


@cache
def _alphabet() -> list[str]:
    """GPT-2's printable character for each byte."""
    shown = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in shown else next(others)) for byte in range(256)]


def _printable(token: bytes) -> str:
    return "".join(_alphabet()[byte] for byte in token)


def to_openai_whisper(folder: Path) -> Whisper:
    """The same weights in openai-whisper's own model. Needs `model.safetensors` in the folder."""
    config = json.loads((folder / "config.json").read_text())
    model = Whisper(
        ModelDimensions(
            n_mels=config["num_mel_bins"],
            n_audio_ctx=config["max_source_positions"],
            n_audio_state=config["d_model"],
            n_audio_head=config["encoder_attention_heads"],
            n_audio_layer=config["encoder_layers"],
            n_vocab=config["vocab_size"],
            n_text_ctx=config["max_target_positions"],
            n_text_state=config["d_model"],
            n_text_head=config["decoder_attention_heads"],
            n_text_layer=config["decoder_layers"],
        )
    )
    state = load_file(folder / "model.safetensors")
    model.load_state_dict(
        {openai_name(key): value.float() for key, value in state.items() if "proj_out" not in key}
    )
    return model.eval()


_OPENAI_NAMES = (
    ("model.", ""),
    ("layers.", "blocks."),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder_attn", "cross_attn"),
    ("self_attn", "attn"),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("encoder.embed_positions.weight", "encoder.positional_embedding"),
    ("decoder.embed_positions.weight", "decoder.positional_embedding"),
    ("embed_tokens", "token_embedding"),
)


def openai_name(key: str) -> str:
    for ours, theirs in _OPENAI_NAMES:
        key = key.replace(ours, theirs)
    return key
