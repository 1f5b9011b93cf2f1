"""Gates: small predictors that decide, for each window, which modules of each layer run.

A predictor looks at the mean of the window's states, and at what is known of the window besides,
and has a number for each module: above 0 it runs. An encoder layer's modules are decided by the
states before it, all of the decoder's once, by the encoder's last. Source: context-driven dynamic
pruning (arXiv 2505.18860). What trains them is `lab/gates`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from service.errors import CheckpointError
from service.model.weights import Dims, Weights, alike
from service.profiles import canonical_name
from service.types import OpenModules

FORMAT, KIND = 1, "winnow-gates"
NORM = "norm"  # of the model that they are for
MANIFEST, WEIGHTS = "gates.json", "model.safetensors"
ENCODER_MODULES, DECODER_MODULES = 2, 3  # of a layer: attention, MLP; cross-attention between
LANGUAGES = ("en", "de", "nl", "other", "unknown")
EVENT = 5  # numbers that say how a window sounds
CONTEXTS = {"language": len(LANGUAGES), "event": EVENT}
FARTHEST = 5.0  # standard deviations: what is farther off counts as that
LOUD = 0.5  # above a window's quietest frame, of log-mel: two decades of power
PARTS = ("centre", "scale", "up", "up_bias", "down", "down_bias")


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """`down(gelu(up((x - centre) / scale)))`: what is known of a window (I,) -> a logit for each
    module (M,). `up`: (H, I), `down`: (M, H); float32."""

    centre: Tensor
    scale: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor

    def __call__(self, seen_I: Tensor) -> Tensor:
        x_I = ((seen_I - self.centre) / self.scale).clamp(-FARTHEST, FARTHEST)
        return F.linear(F.gelu(F.linear(x_I, self.up, self.up_bias)), self.down, self.down_bias)


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """The predictors of one model, `model`, by its name: one for each encoder layer, and one for
    the decoder, whose logits are its layers' one after the other.

    `target`: the share of the modules that they were trained to leave out. `contexts`: what is
    known of a window beside its states, of `CONTEXTS` and in their order. `trained`: how. `norm_D`:
    the weights of that model's last norm of the encoder, by which it is known; None: by its name.
    """

    model: str
    dims: Dims
    target: float
    contexts: tuple[str, ...]
    encoder: tuple[Predictor, ...]
    decoder: Predictor
    trained: Mapping[str, Any] = field(default_factory=dict)
    norm_D: Tensor | None = None


@dataclass(slots=True, eq=False)
class Deciding:
    """One window being encoded: what was decided of the encoder's layers so far.

    `frames`: how many of the window's frames hear the recording.
    """

    gates: Gates
    context_C: Tensor
    frames: int
    encoder: list[tuple[bool, bool]] = field(default_factory=list)

    def layer(
        self, states_1TD: Tensor, positions_T: Tensor, *, needs_attention: bool = False
    ) -> tuple[bool, bool]:
        """Whether attention and MLP of the next encoder layer run, by the states before it.

        `needs_attention`: it chooses the frames that stay, and runs whatever the gate says.
        """
        predictor = self.gates.encoder[len(self.encoder)]
        attention, mlp = (self._seen(predictor, states_1TD, positions_T) > 0).tolist()
        self.encoder.append((attention or needs_attention, mlp))
        return self.encoder[-1]

    def modules(self, states_1TD: Tensor, positions_T: Tensor) -> OpenModules:
        """Everything that was decided, with the decoder's modules, by the encoder's states."""
        logits = self._seen(self.gates.decoder, states_1TD, positions_T)
        return OpenModules(tuple(self.encoder), by_layer(logits > 0))

    def _seen(self, predictor: Predictor, states_1TD: Tensor, positions_T: Tensor) -> Tensor:
        hearing = int((positions_T < self.frames).sum())
        return predictor(seen(states_1TD, hearing, self.context_C))


def by_layer(runs_M: Tensor) -> tuple[tuple[bool, ...], ...]:
    """The decoder's decisions, a layer each."""
    each = runs_M.view(-1, DECODER_MODULES).tolist()
    return tuple((bool(attention), bool(cross), bool(mlp)) for attention, cross, mlp in each)


def deciding(
    gates: Gates, mel_1FT: Tensor, audio_frames: int | None, language: str | None
) -> Deciding:
    """For a window that is about to be encoded; `language`: its code, None where nobody said."""
    whole = mel_1FT.shape[-1] // 2
    frames = max(1, whole if audio_frames is None else min(audio_frames, whole))
    context_C = context(gates.contexts, mel_1FT, frames, language)
    return Deciding(gates, context_C.to(mel_1FT.device), frames)


def seen(states_1TD: Tensor, hearing: int, context_C: Tensor) -> Tensor:
    """What a predictor sees (D + C): the mean of the first `hearing` states, and the context."""
    return torch.cat([states_1TD[0, : max(1, hearing)].float().mean(0), context_C])


def context(contexts: Sequence[str], mel_1FT: Tensor, frames: int, language: str | None) -> Tensor:
    """What is known of a window beside its states, float32 (C,), C the sum of `CONTEXTS`."""
    found = {
        "language": lambda: _language(language),
        "event": lambda: event(mel_1FT, frames),
    }
    parts = [found[name]().cpu() for name in contexts]
    return torch.cat(parts) if parts else torch.zeros(0)


def _language(code: str | None) -> Tensor:
    """One of `LANGUAGES`."""
    name = "unknown" if code is None else code if code in LANGUAGES[:3] else "other"
    return torch.tensor([float(name == each) for each in LANGUAGES])


def event(mel_1FT: Tensor, frames: int) -> Tensor:
    """How the first `frames` of a window sound, (EVENT,): how loud in the mean, and how much that
    varies; the share of loud frames; how uneven the spectrum is, which a tone has and noise has
    not; and the share of the window that they are. All of its log-mel alone."""
    heard_FT = mel_1FT[0, :, : 2 * frames].float()
    level_T = heard_FT.mean(0)
    loud = (level_T > level_T.min() + LOUD).float().mean()
    uneven = heard_FT.std(0, correction=0).mean()
    share = level_T.new_tensor(2 * frames / mel_1FT.shape[-1])
    return torch.stack([level_T.mean(), level_T.std(correction=0), loud, uneven, share])


def num_modules(dims: Dims) -> int:
    return ENCODER_MODULES * dims.encoder_layers + DECODER_MODULES * dims.decoder_layers


def width(contexts: Sequence[str]) -> int:
    """How many numbers a context has."""
    return sum(CONTEXTS[name] for name in contexts)


def constant(model: str, dims: Dims, modules: OpenModules, target: float = 0.0) -> Gates:
    """Gates that decide the same of every window."""

    def always(opens: Sequence[bool]) -> Predictor:
        nothing = torch.zeros(dims.d_model)
        bias = torch.tensor([1.0 if one else -1.0 for one in opens])
        up, down = torch.zeros(1, dims.d_model), torch.zeros(len(bias), 1)
        return Predictor(nothing, nothing + 1, up, torch.zeros(1), down, bias)

    encoder = tuple(always(layer) for layer in modules.encoder)
    decoder = always([one for layer in modules.decoder for one in layer])
    return Gates(model, dims, target, (), encoder, decoder)


def tensors_of(gates: Gates) -> dict[str, Tensor]:
    """By the names under which a folder holds them."""
    named = dict(_named(gates.encoder, gates.decoder))
    return {
        f"{name}.{part}": getattr(predictor, part)
        for name, predictor in named.items()
        for part in PARTS
    }


def _named(encoder: Sequence[Predictor], decoder: Predictor) -> Iterator[tuple[str, Predictor]]:
    yield from ((f"encoder.{number}", predictor) for number, predictor in enumerate(encoder))
    yield "decoder", decoder


def write_gates(gates: Gates, folder: Path) -> None:
    """Into a folder that is there."""
    tensors = {name: t.detach().contiguous().cpu() for name, t in tensors_of(gates).items()}
    if gates.norm_D is not None:
        tensors[NORM] = gates.norm_D.detach().float().cpu()
    data = save(tensors)
    about = {
        "kind": KIND,
        "format": FORMAT,
        "model": gates.model,
        "dims": asdict(gates.dims),
        "target": gates.target,
        "contexts": list(gates.contexts),
        "trained": dict(gates.trained),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (folder / WEIGHTS).write_bytes(data)
    (folder / MANIFEST).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_gates(folder: Path) -> Gates:
    """The gates of a folder, on the CPU. Raises CheckpointError for one that is none, is damaged,
    or was written by another version."""
    about = _manifest(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
        tensors = load(data)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise CheckpointError(f"{folder / WEIGHTS} is not what {MANIFEST} was written for")
    model, dims, contexts, target = _told(about, folder)
    if unknown := set(contexts) - set(CONTEXTS):
        raise CheckpointError(
            f"{folder / MANIFEST}: unknown context {', '.join(map(str, unknown))}; there are "
            f"{', '.join(CONTEXTS)}"
        )
    if not 0 <= target < 1:
        raise CheckpointError(f"{folder / MANIFEST}: target is {target}; it must be 0 <= t < 1")
    try:
        encoder = [
            _predictor(tensors, f"encoder.{number}", dims, contexts, ENCODER_MODULES)
            for number in range(dims.encoder_layers)
        ]
        modules = DECODER_MODULES * dims.decoder_layers
        decoder = _predictor(tensors, "decoder", dims, contexts, modules)
    except KeyError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {error} is missing") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {error}") from None
    norm_D = tensors.pop(NORM, None)
    if tensors:
        raise CheckpointError(f"{folder / WEIGHTS}: {min(tensors)} is none of its model's")
    trained = about.get("trained", {})
    return Gates(model, dims, target, contexts, tuple(encoder), decoder, trained, norm_D)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: no {MANIFEST}; give a folder that `winnow train gates` wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST} cannot be read: {error}") from error
    if not isinstance(about, dict) or about.get("kind") != KIND or "sha256" not in about:
        raise CheckpointError(f"{folder / MANIFEST}: not the manifest of gates")
    if about.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder / MANIFEST}: format {about.get('format')!r}; this version reads {FORMAT}"
        )
    return about


def _told(about: Mapping[str, Any], folder: Path) -> tuple[str, Dims, tuple[str, ...], float]:
    """Of which model, its dimensions, contexts and target."""
    try:
        dims, contexts = Dims(**about["dims"]), tuple(about["contexts"])
        if not all(isinstance(number, int) for number in about["dims"].values()):
            raise TypeError("dims are whole numbers")
        if not all(isinstance(one, str) for one in contexts):
            raise TypeError("contexts are names")
        return str(about["model"]), dims, contexts, float(about["target"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: not the manifest of gates ({error})") from None


def _predictor(
    tensors: dict[str, Tensor], name: str, dims: Dims, contexts: Sequence[str], modules: int
) -> Predictor:
    """Takes it out of `tensors`. Raises KeyError, and ValueError for another shape."""
    parts = {part: tensors.pop(f"{name}.{part}") for part in PARTS}
    inputs, hidden = dims.d_model + width(contexts), len(parts["up"])
    shapes = {
        "centre": (inputs,),
        "scale": (inputs,),
        "up": (hidden, inputs),
        "up_bias": (hidden,),
        "down": (modules, hidden),
        "down_bias": (modules,),
    }
    for part, shape in shapes.items():
        found = parts[part]
        if tuple(found.shape) != shape or found.dtype != torch.float32:
            raise ValueError(
                f"{name}.{part} is {tuple(found.shape)} of {found.dtype}, not {shape} of float32"
            )
        if not bool(found.isfinite().all()):
            raise ValueError(f"{name}.{part} has values that are not numbers")
    return Predictor(**parts)


def check_fits(gates: Gates, model: str, weights: Weights) -> None:
    """Raises CheckpointError where gates were trained for another model."""
    if canonical_name(gates.model) != canonical_name(model):
        raise CheckpointError(f"these gates were trained for {gates.model}, and not for {model}")
    if gates.dims != weights.dims:
        raise CheckpointError(f"these gates were trained for a {model} of other dimensions")
    if gates.norm_D is not None and not alike(gates.norm_D, weights.encoder.norm.weight):
        raise CheckpointError(f"these gates were trained for a {model} of other weights")


def on_device(gates: Gates, device: torch.device) -> Gates:
    """The same gates, where the model is."""

    def moved(predictor: Predictor) -> Predictor:
        return Predictor(*(getattr(predictor, part).to(device) for part in PARTS))

    return replace(gates, encoder=tuple(map(moved, gates.encoder)), decoder=moved(gates.decoder))
