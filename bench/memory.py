"""What ten profiles cost in memory, against one: the engine's peak with each, in own processes.

python -m bench.memory --shape base
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from service.families.whisper import Whisper
from service.model.checkpoint import load_checkpoint
from service.profiles import Profile
from service.types import DecodeOptions
from tests.checkpoints import write_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", default="base", help="tiny, base, small, ... (%(default)s)")
    parser.add_argument("--profiles", type=int, default=10, help="(%(default)s)")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(_peak_mib(args.inside, args.profiles))
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "model", shape=args.shape)
        one, many = _measured(checkpoint, 1), _measured(checkpoint, args.profiles)
    print(
        f"{args.shape}, float32: peak with 1 profile {one:.0f} MiB, "
        f"with {args.profiles} {many:.0f} MiB, ratio {many / one:.4f}"
    )


def _measured(checkpoint: Path, profiles: int) -> float:
    command = [sys.executable, "-m", "bench.memory", "--profiles", str(profiles)]
    done = subprocess.run(
        [*command, "--inside", str(checkpoint)], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def _peak_mib(checkpoint: Path, profiles: int) -> float:
    """Encodes and decodes a window ten times, by `profiles` profiles in turn."""
    torch.set_num_threads(1)
    model = Whisper(load_checkpoint(str(checkpoint), device="cpu", dtype="float32"))
    mel_BFT = torch.zeros(1, model.info.num_mels, 3000)
    batch = model.new_decode_batch()
    # The first is the same on both sides, and the one that needs the most for itself.
    chosen = [Profile(f"p{i}", layer=1, sparsity=0.1 + 0.05 * i) for i in range(profiles)]
    for turn in range(10):
        encoded = model.encode(mel_BFT, [chosen[turn % profiles]])
        batch.join([turn], encoded, [DecodeOptions(language="en")])
        batch.step()
        batch.drop([turn])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
