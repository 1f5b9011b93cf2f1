"""Trained parameters -> a checkpoint folder in hub format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import WhisperConfig

from service.lab.vocabulary import TIMESTAMPS, token_id, write_vocabulary
from service.model.weights import Dims

NAME = "winnow-nano"

# Sure words with unsure times: a token in three is one of 1,501 times, and averages -1 to -3.
LOGPROB_THRESHOLD = -3.5


def export(
    params: Mapping[str, Tensor], tokenizer: Tokenizer, dims: Dims, limits: str, folder: Path
) -> None:
    """Writes config, generation config, vocabulary, float16 weights and winnow.json to `folder`.

    `limits`: a sentence on what the model is not for.

    The CTC head and any other parameter outside `model.` served training only and stays behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(tokenizer, folder)
    end, start = token_id(tokenizer, "endoftext"), token_id(tokenizer, "startoftranscript")
    config = WhisperConfig(
        vocab_size=dims.vocab_size,
        num_mel_bins=dims.num_mels,
        d_model=dims.d_model,
        encoder_layers=dims.encoder_layers,
        decoder_layers=dims.decoder_layers,
        encoder_attention_heads=dims.encoder_heads,
        decoder_attention_heads=dims.decoder_heads,
        encoder_ffn_dim=4 * dims.d_model,
        decoder_ffn_dim=4 * dims.d_model,
        max_source_positions=dims.num_frames,
        max_target_positions=dims.max_tokens,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        architectures=["WhisperForConditionalGeneration"],
    )
    (folder / "config.json").write_text(config.to_json_string())
    never_said = ("startoftranscript", "en", "translate", "transcribe", "startoflm")
    suppressed = [token_id(tokenizer, t) for t in (*never_said, "startofprev", "nospeech")]
    generation = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
        "max_length": dims.max_tokens,
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": token_id(tokenizer, "en")},
        "task_to_id": {"transcribe": token_id(tokenizer, "transcribe")},
        "no_timestamps_token_id": token_id(tokenizer, "notimestamps"),
        "max_initial_timestamp_index": len(TIMESTAMPS) - 1,
        "suppress_tokens": sorted(suppressed),
        "return_timestamps": False,
        # The heads that training told to look at the word being said, and in this way: with its
        # times around it.
        "alignment_heads": [[layer, 0] for layer in range(dims.decoder_layers)],
        "alignment_timed": True,
    }
    _write_json(folder / "generation_config.json", generation)
    card = {"name": NAME, "limits": limits, "logprob_threshold": LOGPROB_THRESHOLD}
    _write_json(folder / "winnow.json", card)
    state = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in params.items()
        if name.startswith("model.")
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
