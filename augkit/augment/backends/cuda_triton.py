"""Resampling on CUDA in one launch, by Triton (which comes with torch on Linux).

One kernel is for axis-aligned matrices (`augkit.augment.backends.triton_axes`), one for all others
(`augkit.augment.backends.triton_general`); both read a batch of one size, or images of different sizes from one buffer.
Tile and warps are tuned by Triton at the first call for each output size and kind of taps. Indices are int32 within a
plane. There is no backward pass: `augkit.augment.backends.choose` selects torch where gradients are needed. Without
Triton torch's own backends are used; torch.compile is no alternative, since its own CUDA code is Triton.

State: all forms are tested on the CPU by Triton's interpreter and compiled for a GPU; none has been run, timed or tuned
on one yet. So `augkit.augment.backends.self_check` compares them with torch before they are used on a device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from augkit.augment.backends import triton_axes, triton_general
from augkit.augment.backends.triton_call import How, Source


def resample(source: Source, how: How) -> Tensor:
    """Resample the images of ``source``, as `augkit.augment.backends.native.resample` does; ``(B, C, *how.size)``."""
    out = torch.empty((source.batch, source.channels, *how.size), dtype=how.dtype, device=source.values.device)
    if out.numel():
        (triton_axes if how.axis_aligned else triton_general).write(source, out, how)
    return out
