"""Data-parallel training: the process group, each process's part of a batch, and DDP.

torchrun starts the processes. DistributedDataParallel (DDP) averages the gradients, so all processes hold the same
weights. On GPUs, SyncBatchNorm normalizes over the global batch. PyTorch has no SyncBatchNorm for CPUs: there, batch
statistics are per process, so use one process per machine.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from simplenet import cli
from simplenet.errors import UsageError


@dataclass(frozen=True)
class Group:
    """The processes that train one network together; rank 0 writes the files and the log."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return this process's part of a global batch of `count` images; all parts have the same length.

        Raises:
            UsageError: `count` is not a multiple of the number of processes.
        """
        if count % self.size:
            raise UsageError(f"{self.size} processes cannot share {count} images equally; choose another --batch")
        length = count // self.size
        return slice(self.rank * length, (self.rank + 1) * length)

    def total(self, *values: float) -> list[float]:
        """Sum each value over all processes; all of them must call it at the same point."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return list(map(float, sums))

    def broadcast_buffers(self, *modules: nn.Module) -> None:
        """Copy the first process's buffers (batch norm statistics) to all others."""
        if self.size > 1:
            for module in modules:
                for buffer in module.buffers():
                    distributed.broadcast(buffer, src=0)


@contextlib.contextmanager
def join_group(device: torch.device) -> Iterator[Group]:
    """Join the processes that torchrun started (gloo on CPUs, NCCL on GPUs), or form a group of one.

    Raises:
        UsageError: there are more processes than GPUs on this machine.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:  # of torchrun; a shell that starts the processes may end before them
        end_with(os.getppid())
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Group(device)
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} has no GPU, there are {torch.cuda.device_count()}; lower --nproc-per-node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(device, distributed.get_rank(), distributed.get_world_size())
    except KeyboardInterrupt:  # raised in all processes
        distributed.destroy_process_group()
        raise
    # Not after an error in one process: NCCL would wait here for the other processes, which torchrun ends.
    distributed.destroy_process_group()


def end_with(parent: int) -> None:
    """End this process within a second of its `parent`, by process id, even if the parent is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def cores_per_process(cores: int) -> int:
    """Return the share of this machine's `cores` that each of its training processes may use."""
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def wrap(network: nn.Module, group: Group) -> nn.Module:
    """Return the module to call in training: `network`, in DDP if there are several processes.

    The names and shapes in the state_dict of `network` stay the same.
    """
    if group.size == 1:
        return network
    if group.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    elif group.is_first:
        cli.log("batch norm statistics are per process: PyTorch has no SyncBatchNorm for CPUs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions renamed an option; the oldest needs this name
        return DistributedDataParallel(
            network,
            device_ids=[group.device.index] if group.device.type == "cuda" else None,
            broadcast_buffers=False,  # only evaluation reads them: the loop copies them once per epoch
            gradient_as_bucket_view=True,
        )
