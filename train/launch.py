"""The command-line side of training: process group, error messages, resume hint, result."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import torch

from simplenet import cli, files
from simplenet.errors import SimpleNetError, one_line
from train import distributed, flags
from train.checkpoint import STATE_NAME
from train.recipe import Recipe
from train.results import TrainingResult


def run(
    train: Callable[..., TrainingResult | None],
    default: Recipe,
    output: Path,
    arguments: argparse.Namespace,
    script: str,
    argv: Sequence[str] | None,
) -> int:
    """Call a script's `train` with the flags that both scripts share, and print its result.

    After Ctrl-C, log how to resume if `output` has a saved state.

    Args:
        default: the recipe whose values are used for fields without a flag.
        script, argv: the parts of the command line that the results record.

    Returns:
        The script's exit code.
    """
    device = flags.device(arguments.device)
    with distributed.join_group(device) as group, friendly_errors(output):
        try:
            result = train(
                config=flags.recipe_from(arguments, default, device),
                initial=arguments.weights,
                weights_key=arguments.weights_key,
                group=group,
                resume=arguments.resume,
                compile=arguments.compile,
                half=arguments.half,
                minutes_between_saves=arguments.save_minutes,
                command=command(script, argv),
            )
        except KeyboardInterrupt:
            state = output / STATE_NAME
            if group.is_first and state.is_file():
                age = timedelta(seconds=round(time.time() - state.stat().st_mtime))
                cli.log(f"the run in {output} was saved {age} ago; the same command with --resume continues it")
            raise
    if result is not None:
        print(result.to_json() if arguments.json else result.summary())
    return 0


@contextlib.contextmanager
def friendly_errors(output: Path | None = None) -> Iterator[None]:
    """Turn PyTorch's errors and full disks, which a user can mend, into one line that says how to go on.

    Args:
        output: the run's folder: if it has a saved state, --resume continues it.

    Raises:
        SimpleNetError: memory or disk is full, a decoding or training process ended, or torch.compile does not work.
    """
    try:
        yield
    except SimpleNetError as error:
        if getattr(error.__cause__, "errno", None) not in files.DISK_FULL:
            raise
        raise type(error)(f"{error}, {_then(output)}") from error
    except torch.OutOfMemoryError as error:
        raise _memory_error("the GPU's memory", error, output) from error
    except MemoryError as error:
        raise _memory_error("the memory", error, output) from error
    except RuntimeError as error:
        text = one_line(error, 120)
        if "can't allocate memory" in str(error):
            raise _memory_error("the memory", error, output) from error
        if "shared memory" in str(error):  # of DataLoader after a bus error in a worker, and of NCCL
            problem = f"shared memory is full ({text}); use --workers 0, or docker run --shm-size 1g"
            raise SimpleNetError(f"{problem}, {_then(output)}") from error
        if "DataLoader worker" in str(error):  # Linux kills processes when memory is full
            problem = "a process that decodes images was killed; lower --workers"
            raise SimpleNetError(f"{problem}, {_then(output)}") from error
        if "Connection closed by peer" in str(error):  # gloo's message
            raise SimpleNetError("another process of this training has ended; see its error message") from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # by name: importing takes seconds
            raise SimpleNetError(f"--compile does not work here ({text}); leave it out") from error
        raise


def _then(output: Path | None) -> str:
    is_saved = output is not None and (output / STATE_NAME).is_file()
    return "then type the same command " + ("with --resume" if is_saved else "again")


def _memory_error(what: str, error: Exception, output: Path | None) -> SimpleNetError:
    details = f" ({one_line(error, 120)})" if str(error) else ""
    if output is not None and (output / STATE_NAME).is_file():  # a run is resumed only with the same --batch
        return SimpleNetError(f"{what} is full{details}; end other programs, {_then(output)}")
    return SimpleNetError(f"{what} is full{details}; lower --batch")


def command(script: str, argv: Sequence[str] | None) -> str:
    """Return the command line that started this training, quoted for a shell."""
    size, local_size = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    nodes = ["--nnodes", str(size // local_size)] if size > local_size else []
    program = ["python"] if size == 1 else ["torchrun", *nodes, "--nproc-per-node", str(local_size)]
    return shlex.join([*program, script, *(sys.argv[1:] if argv is None else argv)])
