"""Ours against transformers: the same weights, float32, every kind of model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

from service.families.ctc import CtcModel
from service.model.ctc import encoder
from service.model.ctc.weights import from_state_dict
from service.model.formats.ctc_folder import PREFIXES, _dims, _tensors
from service.model.operators.choose import plain_operators
from service.profiles import BUILT_IN, Profile
from tests.ctc_checkpoints import CLASSES, load_plain_ctc, load_theirs, with_old_names, write_ctc

from .sounds import encode_one, said, sounds, text_of

DENSE = BUILT_IN["dense"]
ODD = 37_123  # samples: no whole number of frames

# As published: the hub's config.json of each, as far as it says other than transformers' defaults.
LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "conv_bias": True,
}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "facebook/wav2vec2-base-960h": ("wav2vec2", {}),
    "facebook/wav2vec2-large-960h-lv60-self": (
        "wav2vec2",
        LARGE | {"do_stable_layer_norm": True},
    ),
    "facebook/hubert-large-ls960-ft": (
        "hubert",
        LARGE | {"do_stable_layer_norm": True},
    ),
    "facebook/wav2vec2-conformer-rel-pos-large-960h-ft": (
        "wav2vec2-conformer",
        LARGE | {"hidden_act": "swish"},
    ),
    "facebook/wav2vec2-conformer-rope-large-960h-ft": (
        "wav2vec2-conformer",
        LARGE | {"hidden_act": "swish", "position_embeddings_type": "rotary"},
    ),
}


@torch.inference_mode()
def test_logits_and_text(folder: Path, model: CtcModel) -> None:
    theirs = load_theirs(folder)
    samples = sounds(ODD)[0, 0]
    values = Wav2Vec2FeatureExtractor.from_pretrained(folder)(
        samples.numpy(), sampling_rate=16_000, return_tensors="pt"
    ).input_values
    encoded = encode_one(model, samples, DENSE)
    logits = theirs(values).logits[0]
    assert_close(model.checkpoint.weights.head(encoded.states_TD), logits, atol=1e-4, rtol=0)
    assert logits.std() > 0.5  # or equal logits would prove little
    assert encoded.positions_T.tolist() == list(range(len(logits)))
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(folder)
    # Skipped by it, blanks would be gone before equal neighbours become one.
    text = re.sub(r"<\w+>|</s>", "", tokenizer.decode(logits.argmax(-1)))
    heard = text_of(model, said(model, [encoded])[0])
    # Theirs has two spaces where a delimiter is said twice.
    assert heard.split() == text.split()
    assert len(set(heard)) > 3


@torch.inference_mode()
def test_float16_as_stored_is_read_as_it_is(tmp_path: Path, shape: str) -> None:
    folder = write_ctc(tmp_path / "half", shape, dtype=torch.float16)
    model, theirs = load_plain_ctc(folder), load_theirs(folder)
    if shape == "conformer-rotary":
        # It stores what it could work out, and reads it back rounded: ours is worked out.
        turns = theirs.wav2vec2_conformer.encoder.embed_positions
        turns.inv_freq = 1 / 10_000 ** (torch.arange(0, 12, 2) / 12)
    samples = sounds(ODD)[0, 0]
    encoded = encode_one(model, samples, DENSE)
    logits = theirs(encoder.normalise(samples[None])).logits[0]
    assert_close(model.checkpoint.weights.head(encoded.states_TD), logits, atol=1e-4, rtol=0)


def test_a_normed_weight_is_read_by_either_of_its_names(tmp_path: Path) -> None:
    folder = write_ctc(tmp_path / "model")
    new = load_plain_ctc(folder).checkpoint.weights.position_conv
    old = load_plain_ctc(with_old_names(folder)).checkpoint.weights.position_conv
    assert new is not None
    assert old is not None
    assert torch.equal(new.weight, old.weight)


@pytest.mark.parametrize("shape", ["wav2vec2", "wav2vec2-stable", "hubert"], indirect=True)
@torch.inference_mode()
def test_frames_dropped_are_those_of_the_paper(folder: Path, model: CtcModel) -> None:
    """Transformers' own layers, thinned between two of them by their own attention."""
    theirs, profile = load_theirs(folder), Profile("eas", layer=2, sparsity=0.5)
    samples = sounds(ODD)[0, 0]
    inner = getattr(theirs, theirs.base_model_prefix)
    found = inner(
        encoder.normalise(samples[None]), output_attentions=True, output_hidden_states=True
    )
    importance = found.attentions[1][0].mean(dim=(0, 1))
    kept = importance.topk(round(len(importance) / 2)).indices.sort().values
    states = found.hidden_states[2][:, kept]
    for layer in inner.encoder.layers[2:]:
        states = layer(states)
        states = states[0] if isinstance(states, tuple) else states
    if theirs.config.do_stable_layer_norm:
        states = inner.encoder.layer_norm(states)
    encoded = encode_one(model, samples, profile)
    assert encoded.positions_T.tolist() == kept.tolist()
    assert_close(encoded.states_TD, states[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shapes_of_published_models_are_read_to_the_last_parameter(name: str) -> None:
    """As transformers makes them, without memory for their numbers."""
    kind, more = PUBLISHED[name]
    config_class, model_class = CLASSES[kind]
    with torch.device("meta"):
        theirs = model_class(config_class(vocab_size=32, **more))
    prefix = PREFIXES[kind]
    state = {key.removeprefix(prefix): tensor for key, tensor in theirs.state_dict().items()}
    dims = _dims(kind, {"model_type": kind, **more})
    weights = from_state_dict(state, dims, plain_operators(torch.float16))
    left = {key.split(".")[-1] for key in state if "pos_conv_embed" not in key}
    assert left <= {"masked_spec_embed", "num_batches_tracked", "inv_freq"}
    assert len(weights.layers) == dims.layers
    assert dims.num_frames(480_000) == 1499
    assert (dims.frame_samples, dims.least_samples) == (320, 400)


def test_what_is_not_used_is_not_read(folders: dict[str, Path]) -> None:
    names = {name for name, _ in _tensors(folders["conformer-rotary"], "wav2vec2_conformer.")}
    assert "lm_head.weight" in names
    assert not any("num_batches" in name or "masked" in name for name in names)
