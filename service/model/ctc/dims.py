"""The shape of a CTC model, as its config.json tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# How a model knows where frames are, beside the convolution before its layers.
Positions = Literal["convolution", "relative", "rotary"]


@dataclass(frozen=True, slots=True)
class Dims:
    """The shape of a model.

    `kernels`, `strides`: of the convolutions that turn samples into frames, and `channels` that
    come out of each. `group_norm`: the first of them is normed channel by channel, over time; else
    each is, frame by frame. `norm_first`: layers norm what they read, else what they give.
    `conformer`: its layers have a convolution of `reach` frames. `position_kernel`, in
    `position_groups`: of the convolution that says where frames are.
    """

    d_model: int
    heads: int
    layers: int
    inner: int
    vocab_size: int
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    group_norm: bool
    norm_first: bool
    conformer: bool
    positions: Positions
    position_kernel: int
    position_groups: int
    reach: int
    activation: str
    stem_activation: str
    rotary_base: float = 10_000.0

    @property
    def frame_samples(self) -> int:
        """From one frame to the next."""
        samples = 1
        for stride in self.strides:
            samples *= stride
        return samples

    @property
    def least_samples(self) -> int:
        """That the first frame looks at."""
        samples = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples

    def num_frames(self, num_samples: int) -> int:
        """Of a recording of so many samples."""
        return max(0, num_samples - self.least_samples) // self.frame_samples + 1
