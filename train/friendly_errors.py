"""What PyTorch raises for reasons that the person at the keyboard can change, as one line that says how."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from simplenet.errors import SimpleNetError, one_line

_CPU_MEMORY_IS_FULL = "can't allocate memory"
_WORKER_IS_GONE = "DataLoader worker"  # killed: Linux does that where memory is full
_PEER_IS_GONE = "Connection closed by peer"  # gloo's words


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raises SimpleNetError for memory that is full, a decoding or training process that is gone, and a network that
    torch.compile cannot compile here."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SimpleNetError(f"the GPU's memory is full ({one_line(error, 120)}); lower --batch") from error
    except MemoryError as error:
        raise SimpleNetError("the memory is full; lower --batch, or --workers") from error
    except RuntimeError as error:
        if _CPU_MEMORY_IS_FULL in str(error):
            raise SimpleNetError(f"the memory is full ({one_line(error, 120)}); lower --batch") from error
        if _WORKER_IS_GONE in str(error):
            raise SimpleNetError("a process that decodes images was killed; lower --workers, or --batch") from error
        if _PEER_IS_GONE in str(error):
            raise SimpleNetError("another process of this training has ended; what it wrote says why") from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # importing them takes seconds
            raise SimpleNetError(f"--compile does not work here ({one_line(error, 120)}); leave it out") from error
        raise
