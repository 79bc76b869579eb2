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

from simplenet import cli
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
    with distributed.join_group(device) as group, friendly_errors():
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
def friendly_errors() -> Iterator[None]:
    """Turn PyTorch's errors that a user can fix into one line with the fix.

    Raises:
        SimpleNetError: memory is full, a decoding or training process ended, or torch.compile does not work here.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SimpleNetError(f"the GPU's memory is full ({one_line(error, 120)}); lower --batch") from error
    except MemoryError as error:
        raise SimpleNetError("the memory is full; lower --batch, or --workers") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise SimpleNetError(f"the memory is full ({one_line(error, 120)}); lower --batch") from error
        if "DataLoader worker" in str(error):  # Linux kills processes when memory is full
            raise SimpleNetError("a process that decodes images was killed; lower --workers, or --batch") from error
        if "Connection closed by peer" in str(error):  # gloo's message
            raise SimpleNetError("another process of this training has ended; see its error message") from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):  # by name: importing takes seconds
            raise SimpleNetError(f"--compile does not work here ({one_line(error, 120)}); leave it out") from error
        raise


def command(script: str, argv: Sequence[str] | None) -> str:
    """Return the command line that started this training, quoted for a shell."""
    size, local_size = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    nodes = ["--nnodes", str(size // local_size)] if size > local_size else []
    program = ["python"] if size == 1 else ["torchrun", *nodes, "--nproc-per-node", str(local_size)]
    return shlex.join([*program, script, *(sys.argv[1:] if argv is None else argv)])
