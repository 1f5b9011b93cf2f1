"""What weights and windows in decode may take of the device's memory, and what a window takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from service.config import ServerConfig
from service.memory import held_memory, usable_memory
from service.model.protocol import ModelInfo
from service.model.sparsify import num_kept
from service.types import Job

# Of what is free when the model is there. On a CPU the rest is for encoding, recordings, and the
# processes that decode them; on a GPU for encoding alone.
SHARE_ON_A_CPU, SHARE_ON_A_GPU = 0.5, 0.8
SHARE_OF_WEIGHTS = 0.4  # of all, for the weights of several models
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Budget:
    """`total` bytes for all windows in decode; 0: without a limit.

    `row_bytes`: of a sequence, `frame_bytes`: of each frame that a window kept, of `num_frames`;
    what it kept is held in blocks of `block_frames`, the last of which is seldom full.
    """

    total: int = 0
    row_bytes: int = 0
    frame_bytes: int = 0
    num_frames: int = 0
    block_frames: int = 1

    def cost(self, job: Job) -> int:
        """The most that a job's window takes: a beam as many rows as it has sequences."""
        kept = num_kept(num_kept(self.num_frames, job.profile.sparsity), job.profile.late)
        held = -(-kept // self.block_frames) * self.block_frames
        return job.options.num_sequences * self.row_bytes + held * self.frame_bytes


UNLIMITED = Budget()


def budget_for(info: ModelInfo, config: ServerConfig) -> Budget:
    """By `decode_memory_mb`, or by what is free now that the model is loaded."""
    total = config.decode_memory_mb * MIB or _share_of_what_is_free(info.device)
    return Budget(total, info.row_bytes, info.frame_bytes, info.num_frames, info.block_frames)


def weights_budget(device: str, config: ServerConfig) -> int:
    """Bytes for the weights of all models: `models_memory_mb`, or a share of all that there is;
    0: without a limit, where nobody knows."""
    if config.models_memory_mb:
        return config.models_memory_mb * MIB
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[1] * SHARE_OF_WEIGHTS)
    return int(usable_memory() * SHARE_OF_WEIGHTS)


def _share_of_what_is_free(device: str) -> int:
    """0 where nobody knows."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * SHARE_ON_A_GPU)
    usable = usable_memory()
    # At least one byte where a limit is known: with nothing free, windows go one at a time.
    return max(1, int((usable - held_memory()) * SHARE_ON_A_CPU)) if usable else 0
