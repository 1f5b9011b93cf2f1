"""The recordings of a search, in its order, and what makes it another search."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from service.families.whisper import Whisper
from service.lab.material import NOISE, Domain, Material
from service.lab.runs import How, Service
from service.lab.search.halving import in_order
from service.lab.search.space import Space, choices_of
from service.lab.search.splits import TEST, TRAIN, parted
from service.lab.search.state import Identity, digest
from service.lab.search.steady import computed_by
from service.lab.search.trials import Place
from service.model import gates
from service.model.formats.cache import MANIFEST
from service.model.protocol import SpeechModel
from service.model.weights import Norm

Places = Mapping[str, list[Place]]


def places_of(material: Material, domains: Sequence[Domain], seed: int) -> Places:
    """What is chosen on and what is reported on. Raises what `Material.items` and `parted` do."""
    # What noise is taken from is parted where it is mixed in (`noise.halves`).
    spoken = {domain.folder for domain in domains} - {NOISE}
    asked = {name: rows for name, rows in material.folders.items() if name in spoken}
    folders = {**material.folders, **parted(asked, seed)}
    found = {}
    for split in (TRAIN, TEST):
        side = replace(material, folders=folders, split=split)
        found[split] = [
            Place(split, domain.name, number, item)
            for domain in domains
            for number, item in enumerate(in_order(side.items(domain), seed))
        ]
    return found


def data_said(places: Places) -> dict[str, str]:
    """`librispeech-packed (112 recordings, 0.78 h)`, by split."""
    said = {}
    for split, some in places.items():
        domains = dict.fromkeys(place.domain for place in some)
        parts = []
        for domain in domains:
            items = [place.item for place in some if place.domain == domain]
            hours = sum(item.seconds for item in items) / 3600
            parts.append(f"{domain} ({len(items)} recordings, {hours:.2g} h)")
        said[split] = f"the {split} split: {', '.join(parts)}"
    return said


def identity_of(service: Service, places: Places, space: Space, how: How, seed: int) -> Identity:
    info = service.info
    every = [place for some in places.values() for place in some]
    data = digest(
        *(
            part
            for place in every
            for part in (place.key, place.item.text, place.item.language, place.item.pcm.tobytes())
        )
    )
    candidates = json.dumps([[p.name, choices_of(p)] for p in space.candidates])
    return Identity(
        model=f"{Path(info.name).name} {_weights(service.model)}, {computed_by(info)}",
        dtype=info.weight_dtype,
        data=data,
        space=digest(candidates, *_contents(service.adapters)),
        how=f"{'raw' if how.raw else 'served'}, language {'detected' if how.detect else 'given'}",
        seed=seed,
    )


def _contents(adapters: Sequence[str]) -> Iterator[bytes]:
    """What adapters say of themselves, digests of what they hold among it."""
    for folder in map(Path, adapters):
        for name in (MANIFEST, gates.MANIFEST):
            if (folder / name).is_file():
                yield (folder / name).read_bytes()


def _weights(model: SpeechModel) -> str:
    """A digest of what training changes and nothing packs: the stem, positions, every norm."""
    if not isinstance(model, Whisper):
        return "-"
    encoder, decoder = model.checkpoint.weights.encoder, model.checkpoint.weights.decoder
    norms: list[Norm] = [encoder.norm, decoder.norm]
    norms += [norm for one in encoder.layers for norm in (one.attention.norm, one.mlp.norm)]
    norms += [
        norm
        for one in decoder.layers
        for norm in (one.attention.norm, one.cross.norm, one.mlp.norm)
    ]
    tensors = [encoder.conv1.weight, encoder.positions_TD, decoder.positions_TD]
    tensors += [tensor for norm in norms for tensor in (norm.weight, norm.bias)]
    return digest(*(tensor.to("cpu", torch.float32).numpy().tobytes() for tensor in tensors))
