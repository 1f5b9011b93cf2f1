"""`winnow bench stages`: where Winnow's time goes, beside what each stage should cost."""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

from bench.command import OK, stem
from bench.costs import Rates, Work
from bench.progress import Planned, Progress, say
from bench.rates import copy_rate, matrix_rate
from bench.record import Record
from bench.shapes import checkpoint_of
from bench.stages import measure
from bench.stages.operators import costliest
from bench.stages.report import Found, as_json, plot, tables
from service.audio.mel import log_mel
from service.decode.kept import FRAMES
from service.errors import ConfigError
from service.families.load import load_model
from service.families.whisper import Whisper
from service.profiles import Profile, check_depth, load_profiles
from service.types import WINDOW_SAMPLES, Samples

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


def run(args: argparse.Namespace) -> int:
    """Prints a table of the stages, and one of the parts of a step."""
    torch.set_num_threads(args.threads)
    record = Record(stem(args, "stages"), args.arguments, args.threads)
    model, profile = _model(args), _profile(args)
    check_depth({profile.name: profile}, model.info.num_encoder_layers)
    clips = _clips(args.batch)
    say("measuring the machine's rates")
    dtype = model.checkpoint.dtype
    rates = Rates(matrix_rate(torch.device("cpu"), dtype), copy_rate(torch.device("cpu")))
    encoded = model.encode(log_mel(clips, model.info.num_mels), [profile] * args.batch)
    work = Work(
        dims=model.checkpoint.weights.dims,
        profile=profile,
        windows=args.batch,
        kept=len(encoded[0].positions_T),
        prompt=len(model.checkpoint.vocabulary.prompt(measure.OPTIONS)),
        tokens=args.tokens,
        weight=BYTES[model.info.weight_dtype],
        state=BYTES[model.info.dtype],
        cross=model.checkpoint.weights.decoder.cross.row_bytes(FRAMES) / FRAMES,
    )
    found = Found(model.info, work, rates, [])
    progress = Progress([Planned("", 1.0)] * (args.rounds + 1))
    for number in range(args.rounds + 1):
        with progress.turn(f"round {number} of {args.rounds}" if number else "warm-up"):
            took = measure.stages(model, clips, profile, args.tokens)
            parts = measure.step_parts(model, encoded, args.tokens)
        if number:
            found = replace(found, rounds=[*found.rounds, (took, parts)])
            record.write(as_json(found))
    more = [costliest(model, clips, profile, args.tokens, args.operators)] if args.operators else []
    record.finish("\n\n".join([*tables(found), *more]), lambda path: plot(found, path))
    return OK


def _model(args: argparse.Namespace) -> Whisper:
    if args.shape:
        return measure.endless(Whisper(checkpoint_of(args.shape, "cpu", args.dtype)))
    model = load_model(args.model, "cpu", args.dtype)
    if not isinstance(model, Whisper):
        raise ConfigError(f"model {args.model!r} has no stages")
    return measure.endless(model)


def _profile(args: argparse.Namespace) -> Profile:
    known = load_profiles(None, args.model)
    if args.profile not in known:
        raise ConfigError(f"unknown profile {args.profile!r}; use {', '.join(known)}")
    return known[args.profile]


def _clips(count: int) -> list[Samples]:
    hiss = np.random.default_rng(0).normal(0, 0.03, (count, WINDOW_SAMPLES))
    return list(hiss.astype(np.float32))
