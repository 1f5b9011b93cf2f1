from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import WhisperConfig, WhisperForConditionalGeneration

from service.errors import CheckpointError, ConfigError
from service.families.fake import FakeModel
from service.families.load import load_model
from service.families.whisper import Whisper
from service.model import checkpoint as loading
from service.model import decoder
from service.model.checkpoint import Checkpoint, load_checkpoint
from service.model.formats.hub_folder import read_hub_folder
from service.model.weights import Dims
from tests.checkpoints import load_plain, write_checkpoint


@pytest.fixture
def copy(mini_folder: Path, tmp_path: Path) -> Path:
    """A folder to be broken."""
    return Path(shutil.copytree(mini_folder, tmp_path / "copy"))


def logits(checkpoint: Checkpoint) -> torch.Tensor:
    """The decoder's of six tokens and five states, both made up."""
    dims = checkpoint.weights.dims
    states = torch.linspace(-1, 1, 5 * dims.d_model).view(1, 5, -1)
    return decoder.forward(checkpoint.weights.decoder, TOKENS, states)


def logits_of_hub(folder: Path) -> torch.Tensor:
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    states = torch.linspace(-1, 1, 5 * model.config.d_model).view(1, 5, -1)
    found: torch.Tensor = model(encoder_outputs=(states,), decoder_input_ids=TOKENS).logits
    return found


TOKENS = torch.tensor([[50258, 11, 7000, 24000, 50257, 3]])

VARIANTS: dict[str, dict[str, Any]] = {
    "float16": {"dtype": torch.float16},
    "sharded": {"max_shard_size": "8MB"},
    "english-only": {"multilingual": False},
    "like-large-v3": {"num_mels": 128},
    "like-turbo": {"num_mels": 128, "layers": (6, 4)},
    "like-distil": {"layers": (6, 2)},
}


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_the_family_loads(tmp_path: Path, variant: str) -> None:
    choices = VARIANTS[variant]
    folder = write_checkpoint(tmp_path / variant, shape="mini", **choices)
    loaded = load_plain(str(folder))
    dims = loaded.weights.dims
    assert loaded.name == variant
    assert loaded.dtype == loaded.weights.decoder.dtype == torch.float32
    assert (dims.encoder_layers, dims.decoder_layers) == choices.get("layers", (2, 2))
    assert dims.num_mels == choices.get("num_mels", 80)
    assert loaded.vocabulary.multilingual == choices.get("multilingual", True)
    assert len(loaded.vocabulary.language_names) == {128: 100, 80: 99}[dims.num_mels] or (
        variant == "english-only"
    )
    assert (folder / "model.safetensors.index.json").exists() == (variant == "sharded")
    hub = WhisperForConditionalGeneration.from_pretrained(folder)
    assert loaded.num_parameters == hub.num_parameters()
    assert_close(logits(loaded), logits_of_hub(folder), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_folder_with_only_a_pickle_loads(copy: Path, mini_folder: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert torch.equal(
        logits(load_plain(str(copy))),
        logits(load_plain(str(mini_folder))),
    )


@torch.inference_mode()
def test_names_without_the_model_prefix_load(copy: Path, mini_folder: Path) -> None:
    state = load_file(copy / "model.safetensors")
    bare = {key.removeprefix("model."): value for key, value in state.items()}
    save_file(bare, copy / "model.safetensors")
    assert torch.equal(
        logits(load_plain(str(copy))),
        logits(load_plain(str(mini_folder))),
    )


def test_the_type_asked_for_is_the_type_loaded(mini_folder: Path) -> None:
    loaded = load_checkpoint(str(mini_folder), device="cpu", dtype="bfloat16")
    assert loaded.dtype == loaded.weights.encoder.conv1.weight.dtype == torch.bfloat16
    assert loaded.weight_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("published_in", "held_in"), [("float16", "float16"), ("float32", "float32")]
)
def test_what_tokens_are_read_by_is_held_as_narrow_as_it_is_exact(
    copy: Path, published_in: str, held_in: str
) -> None:
    """The hub has Whisper's weights, which are float16, in float32."""
    key = "model.decoder.embed_tokens.weight"
    state = load_file(copy / "model.safetensors")
    state[key] = state[key].to(getattr(torch, published_in)).float()
    save_file(state, copy / "model.safetensors")
    held = load_checkpoint(str(copy), device="cpu", dtype="int8").weights.decoder.embedding_VD
    assert held.dtype == getattr(torch, held_in)
    assert torch.equal(held.float(), state[key])


def test_weights_outlive_the_file(copy: Path) -> None:
    """A training run may rewrite a checkpoint that is being served."""
    loaded = load_plain(str(copy))
    before = loaded.weights.encoder.conv1.weight.clone()
    path = copy / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))
        file.seek(2_000)
        file.write(bytes(path.stat().st_size // 2))
    assert torch.equal(loaded.weights.encoder.conv1.weight, before)


def test_fake_is_the_fake_model_and_a_folder_is_whisper(mini_folder: Path) -> None:
    assert isinstance(load_model("fake"), FakeModel)
    model = load_model(str(mini_folder), device="cpu")
    assert isinstance(model, Whisper)
    assert (model.info.num_encoder_layers, model.info.num_frames) == (2, 1500)


def edit(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def truncate(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def reshape(key: str, change_tensor: Callable[[torch.Tensor], torch.Tensor] | None) -> Any:
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        tensor = state.pop(key)
        if change_tensor is not None:
            state[key] = change_tensor(tensor)
        save_file(state, folder / "model.safetensors")

    return change


def pickle_code(folder: Path) -> None:
    torch.save({"model.evil": Path}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def shard_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.encoder.conv1.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


FC1 = "model.encoder.layers.1.fc1.weight"


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (remove("config.json"), "config.json"),
        (truncate("config.json"), "cannot read"),
        (edit(model_type="wavlm"), "'wavlm'; only 'whisper'"),
        (edit(encoder_layers="two"), "encoder_layers"),
        (edit(activation_function="relu"), "activation_function must be 'gelu'"),
        (edit(scale_embedding=True), "scale_embedding must be False"),
        (edit(tie_word_embeddings=False), "tie_word_embeddings must be True"),
        (edit(encoder_layers=1), "1 encoder layers, the weights have more"),
        (edit(decoder_layers=3), r"parameter 'model\.decoder\.layers\.2.* is missing"),
        (edit(num_mel_bins=128), "config.json says"),
        (edit(max_source_positions=750), "config.json says"),
        (remove("model.safetensors"), "has no model.safetensors"),
        (truncate("model.safetensors"), "cannot be read"),
        (shard_is_missing, "cannot be read"),
        (pickle_code, "cannot be read"),
        (reshape(FC1, None), "is missing"),
        (reshape(FC1, lambda tensor: tensor.to(torch.int8)), "quantised"),
        (remove("tokenizer.json", "vocab.json"), "vocab.json"),
        (truncate("tokenizer.json"), "cannot read"),
        (truncate("generation_config.json"), "cannot read"),
    ],
)
def test_a_bad_folder_is_refused(copy: Path, breaks: Any, message: str) -> None:
    breaks(copy)
    with pytest.raises(CheckpointError, match=message):
        load_plain(str(copy))


def test_what_config_json_leaves_out_is_as_transformers_has_it(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "whisper"}')
    theirs = WhisperConfig()
    assert read_hub_folder(copy).dims == Dims(
        num_mels=theirs.num_mel_bins,
        num_frames=theirs.max_source_positions,
        d_model=theirs.d_model,
        encoder_heads=theirs.encoder_attention_heads,
        decoder_heads=theirs.decoder_attention_heads,
        encoder_layers=theirs.encoder_layers,
        decoder_layers=theirs.decoder_layers,
        vocab_size=theirs.vocab_size,
        max_tokens=theirs.max_target_positions,
    )


@pytest.mark.parametrize(("dtype", "rounds"), [("float32", False), ("float16", True)])
def test_float32_on_cuda_rounds_nothing(
    mini_folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, rounds: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(loading, "device_of", torch.device)
    monkeypatch.setattr(loading, "placed", lambda key, tensor, device, dtype: tensor.clone())
    load_checkpoint(str(mini_folder), device="cuda", dtype=dtype)
    assert torch.backends.cudnn.allow_tf32 is rounds


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nowhere"])
def test_a_folder_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_plain(name)


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("offline"), RuntimeError("client is closed")]
)
def test_a_hub_that_does_not_answer_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(hub_id: str, **_: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=f"nobody/nothing.*{error}"):
        load_plain("nobody/nothing")


def test_a_hub_id_fetches_what_is_needed_and_no_more(
    mini_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(hub_id: str, *, allow_patterns: list[str]) -> str:
        asked.extend([hub_id, *allow_patterns])
        return str(mini_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert load_checkpoint("openai/whisper-mini", device="cpu").name == "openai/whisper-mini"
    assert asked[0] == "openai/whisper-mini"
    assert {"config.json", "tokenizer.json", "model.safetensors"} < set(asked)
    assert "pytorch_model.bin" not in asked


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [("cuda:99", "auto", "CUDA"), ("abacus", "auto", "auto, cpu"), ("cpu", "int3", "float16")],
)
def test_a_device_or_type_that_is_not_there_is_refused(
    mini_folder: Path, device: str, dtype: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(str(mini_folder), device=device, dtype=dtype)
