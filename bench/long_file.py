"""A long file of real speech at known places: is a word lost or doubled at a seam, do times drift?

    python -m bench.long_file --model whisper-base --corpus CORPUS --minutes 60 \\
        --profiles dense,balanced

Utterances of a corpus' folder, or of a manifest, stand in their order with pauses between them,
and begin again where the minutes are longer. Each profile transcribes the whole as one file, and
then the same audio in pieces of at most 30 s, cut in the middle of pauses. Both texts are compared
with what was said, by one alignment over the whole. A word of reference is taken to be where its
share of its utterance is, a word said where its share of its segment is; a seam is where the
service begins a new window, and near it means within 1.5 s.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from service.audio.segment import split
from service.config import ServerConfig
from service.families.load import load_served
from service.lab.manifest import read_manifest
from service.lab.material import Domain, Material, of_corpus
from service.lab.packing import Item, Pcm, to_float
from service.lab.runs import Answer, How, Service
from service.profiles import load_profiles
from service.text.wer import align, words_of
from service.types import SAMPLE_RATE, WINDOW_SAMPLES, Audio, Segment

NEAR_S = 1.5


@dataclass(frozen=True, slots=True)
class Placed:
    """An utterance at its place in the file, in samples."""

    first: int
    end: int
    item: Item


@dataclass(frozen=True, slots=True)
class LongFile:
    """A recording of many utterances, and where each one is."""

    pcm: Pcm
    placed: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word after the normaliser, and about when it is said. `opens`: first of its stretch."""

    text: str
    time_s: float
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """Errors of a text: where words were lost and where some were said too much, in seconds.

    `offsets`: of utterances whose first word opens a segment, when they were put and how much
    later the segment begins.
    """

    num_words: int
    num_wrong: int
    lost_s: tuple[float, ...]
    surplus_s: tuple[float, ...]
    offsets: tuple[tuple[float, float], ...]

    @property
    def wer(self) -> float:
        return (self.num_wrong + len(self.lost_s) + len(self.surplus_s)) / self.num_words


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="folder with manifest.tsv")
    parser.add_argument("--folder", default="librispeech", help="of the corpus (%(default)s)")
    parser.add_argument("--manifest", type=Path, help="instead of --corpus: a TSV or JSONL")
    parser.add_argument("--split", default="test", help="train, test or all (%(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="(%(default)s)")
    pause = (0.3, 2.0)
    parser.add_argument(
        "--pause", type=float, nargs=2, default=pause, help="s, from and to (0.3 2)"
    )
    parser.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    parser.add_argument("--profiles", default="dense", help="(%(default)s)")
    parser.add_argument("--profiles-file", type=Path, help="a TOML file of further profiles")
    parser.add_argument("--device", default="auto", help="(%(default)s)")
    parser.add_argument("--dtype", default="auto", help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="(as many as may be used)")
    parser.add_argument("--seed", type=int, default=0, help="of the pauses (%(default)s)")
    args = parser.parse_args()
    if not (args.corpus or args.manifest):
        parser.error("give --corpus or --manifest")
    profiles = load_profiles(args.profiles_file)
    made = long_file(_utterances(args), args.minutes * 60, tuple(args.pause), args.seed)
    seams = seams_of(made.pcm)
    cut = pieces(made)
    entire = Item("whole", made.pcm, "", made.placed[0].item.language)
    print(
        f"{len(made.pcm) / SAMPLE_RATE / 60:.1f} minutes, {len(made.placed)} utterances, "
        f"{len(seams)} seams, {len(cut)} pieces; {args.model}",
        flush=True,
    )
    config = ServerConfig(
        model=args.model, device=args.device, dtype=args.dtype, threads=args.threads
    )
    with Service(config, partial(load_served, config)) as service:
        names = args.profiles.split(",")
        service.prepare([profiles[name] for name in names])
        for name in names:
            whole = service.run([entire], profiles[name], How()).answers[0]
            apart = service.run([item for _, item in cut], profiles[name], How()).answers
            for way, said in (
                ("one file", words_said(whole.segments, cut[0][1].language)),
                ("in pieces", joined(cut, apart)),
            ):
                print(f"{name}, {way}: {described(compare(made, said), seams)}", flush=True)


def _utterances(args: argparse.Namespace) -> list[Item]:
    if args.manifest:
        folders, folder = {"own": read_manifest(args.manifest)}, "own"
    else:
        folders, folder = of_corpus(args.corpus), args.folder
    return Material(folders, args.split).items(Domain(folder))


def long_file(
    utterances: Sequence[Item], seconds: float, pause_s: tuple[float, float], seed: int = 0
) -> LongFile:
    """Utterances in order, again and again until `seconds` are full, pauses before each."""
    rng = np.random.default_rng(seed)
    parts: list[Pcm] = []
    placed: list[Placed] = []
    at = 0
    while True:
        item = utterances[len(placed) % len(utterances)]
        pause = round(rng.uniform(*pause_s) * SAMPLE_RATE)
        end = at + pause + len(item.pcm)
        if end > seconds * SAMPLE_RATE and placed:
            return LongFile(np.concatenate(parts), tuple(placed))
        parts += [np.zeros(pause, np.int16), item.pcm]
        placed.append(Placed(at + pause, end, item))
        at = end


def pieces(made: LongFile) -> list[tuple[float, Item]]:
    """The file cut in the middle of pauses, as much as fits into 30 s at a time.

    With the second at which each begins. A longer utterance is a piece of its own.
    """
    middles = [(before.end + after.first) // 2 for before, after in pairwise(made.placed)]
    cuts = [0]
    for last, following in pairwise([*middles, len(made.pcm)]):
        if following - cuts[-1] > WINDOW_SAMPLES:
            cuts.append(last)
    cuts.append(len(made.pcm))
    language = made.placed[0].item.language
    return [
        (first / SAMPLE_RATE, Item(f"from {first}", made.pcm[first:end], "", language))
        for first, end in pairwise(cuts)
    ]


def seams_of(pcm: Pcm) -> list[float]:
    """Seconds at which the service begins its second window and the later ones."""
    windows = split(Audio(to_float(pcm)))
    return [window.start_s for window in windows[1:]]


def joined(cut: Sequence[tuple[float, Item]], answers: Sequence[Answer]) -> list[TimedWord]:
    """The words of all pieces on the clock of the file."""
    language = cut[0][1].language
    return [
        word
        for (start_s, _), answer in zip(cut, answers, strict=True)
        for word in words_said(answer.segments, language, start_s)
    ]


def words_said(segments: Sequence[Segment], language: str, start_s: float = 0.0) -> list[TimedWord]:
    """Each segment's words spread evenly over it."""
    said: list[TimedWord] = []
    for segment in segments:
        length = segment.end - segment.start
        said += _spread(words_of(segment.text, language), start_s + segment.start, length)
    return said


def _spread(words: Sequence[str], start_s: float, length_s: float) -> list[TimedWord]:
    return [
        TimedWord(word, start_s + length_s * number / len(words), opens=number == 0)
        for number, word in enumerate(words)
    ]


def compare(made: LongFile, said: Sequence[TimedWord]) -> Comparison:
    """What was said against what was read, by the cheapest alignment."""
    expected: list[TimedWord] = []
    for one in made.placed:
        words = words_of(one.item.text, one.item.language)
        expected += _spread(words, one.first / SAMPLE_RATE, (one.end - one.first) / SAMPLE_RATE)
    wrong = 0
    lost: list[float] = []
    surplus: list[float] = []
    offsets: list[tuple[float, float]] = []
    for i, j in align([word.text for word in expected], [word.text for word in said]):
        if i is None and j is not None:
            surplus.append(said[j].time_s)
        elif j is None and i is not None:
            lost.append(expected[i].time_s)
        elif i is not None and j is not None:
            same = expected[i].text == said[j].text
            wrong += not same
            if same and expected[i].opens and said[j].opens:
                offsets.append((expected[i].time_s, said[j].time_s - expected[i].time_s))
    return Comparison(len(expected), wrong, tuple(lost), tuple(surplus), tuple(offsets))


def near(times_s: Sequence[float], seams_s: Sequence[float]) -> int:
    """How many of the times are near a seam."""
    return sum(any(abs(time - seam) <= NEAR_S for seam in seams_s) for time in times_s)


def drift(offsets: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Seconds an hour by which offsets grow, and the standard error of that."""
    hours, late = np.array(offsets).T / np.array([[3600.0], [1.0]])
    slope, level = np.polyfit(hours, late, 1)
    left = late - slope * hours - level
    error = np.sqrt(np.square(left).sum() / (len(late) - 2)) / (hours.std() * np.sqrt(len(late)))
    return float(slope), float(error)


def described(found: Comparison, seams_s: Sequence[float]) -> str:
    """The comparison as lines to be read."""
    text = (
        f"WER {found.wer:.2%} of {found.num_words} words\n"
        f"  wrong {found.num_wrong}; lost {len(found.lost_s)}, "
        f"{near(found.lost_s, seams_s)} of them near a seam; too much {len(found.surplus_s)}, "
        f"{near(found.surplus_s, seams_s)} near a seam"
    )
    if len(found.offsets) < 3:
        return text
    slope, error = drift(found.offsets)
    late = np.array([offset for _, offset in found.offsets])
    return (
        f"{text}\n  {len(late)} utterances open a segment: it begins {np.median(late):+.2f} s "
        f"(median; 5 to 95%: {np.quantile(late, 0.05):+.2f} to {np.quantile(late, 0.95):+.2f}) "
        f"after the recording's start; drift {slope:+.3f} s an hour (standard error {error:.3f})"
    )


if __name__ == "__main__":
    main()
