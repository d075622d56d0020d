"""Training in one process, or in several under torchrun: the share of each, and sums over all.

``torchrun --nproc-per-node N -m augkit.train ...`` starts N processes and sets the rank of each in its environment;
they communicate through NCCL on GPUs and gloo on the CPU.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from augkit.core.errors import InputError
from augkit.core.files import claim


@dataclass(frozen=True)
class Process:
    """One of ``count`` processes that train together; only ``rank`` 0 writes and prints."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes."""
        return self.rank == 0

    def share(self, indices: Tensor) -> Tensor:
        """Return every ``count``-th of ``indices``; the shares of the processes are disjoint and cover all indices."""
        return indices[self.rank :: self.count]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def align(self, model: nn.Module) -> None:
        """Give all processes the buffers of the first, such as the statistics of batch norm."""
        if self.count > 1:
            for values in model.buffers():
                dist.broadcast(values, 0)

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.count > 1:
            dist.barrier()


def local_device(device: str | torch.device | None) -> str | torch.device | None:
    """Return the device of this process: under torchrun the GPU of its local rank, unless a numbered one is given."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if alone or not torch.cuda.is_available() or str(device or "cuda") != "cuda":
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Process]:
    """Context of the process group of torchrun; without torchrun, of a single process.

    Raises:
        InputError: this machine has fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or dist.is_initialized():
        yield Process(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Process()
        return
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device.type == "cuda" and local >= gpus:
        raise InputError(f"torchrun: expected at most {gpus} processes for {gpus} GPUs, got process {local}")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # used by NCCL's barriers
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    process = Process(dist.get_rank(), dist.get_world_size())
    try:
        yield process
        process.wait()  # no process leaves while another still communicates with it
    finally:
        # A parallel network that is not collected yet keeps threads of the group, which abort at exit.
        gc.collect()
        dist.destroy_process_group()


def parallel(model: nn.Module, process: Process, device: torch.device) -> nn.Module:
    """Return ``model`` with gradients averaged over all processes, or unchanged for a single process."""
    if process.count == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def claim_once(output: str | Path | None, process: Process, *, resume: bool, overwrite: bool) -> Path | None:
    """Call `augkit.core.files.claim` in the first process while the others wait; None without an output."""
    if output is None:
        return None
    folder = claim(Path(output), resume=resume, overwrite=overwrite) if process.first else Path(output)
    process.wait()
    return folder
