"""The training loop: one for all data, to be read from top to bottom; what it calls is next door.

Everything that the next step depends on is on disk after every epoch, every few minutes and at Ctrl-C, and everything
random follows from the seed and the step. So a run that was killed ends with the very weights that it would have had,
as far as the device computes the same twice: a CPU does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.progress import Progress
from torch import nn
from torch.nn import functional

from simplenet import cli, files, weights
from simplenet.errors import SimpleNetError, UsageError
from simplenet.model import SimpleNet
from simplenet.model_card import ModelCard
from train import checkpoint, distributed, interruption, recipe, report
from train.checkpoint import TrainState
from train.distributed import Group
from train.interruption import StopRequest
from train.recipe import Recipe, RngStream

LAST, BEST = "last.safetensors", "best.safetensors"
_STEPS_BETWEEN_LOOKS = {"cpu": 1, "cuda": 10}  # at the loss: on a GPU, to look is to wait


class Data(Protocol):
    """What the loop asks of a data set. Every process gets its part of the same batches."""

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, first_step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """From `first_step` on: normalized float32 [N, 3, S, S], and labels [N] or shares of classes [N, classes]."""

    def evaluate(
        self, network: nn.Module, bf16: bool, group: Group, stop: StopRequest | None = None
    ) -> tuple[float, float]:
        """Top-1 in percent and mean cross-entropy on pictures that are not trained on, shared out over the group.

        Raises KeyboardInterrupt in all processes when one is asked to stop meanwhile.
        """

    @property
    def test_images(self) -> int:
        """How many the last evaluation was over."""

    @property
    def unreadable_images(self) -> int:
        """How many files this process has met that cannot be read, since it was started."""


@dataclass(frozen=True)
class Run:
    """What is trained where. `options`, by flag, is what a resumed run must have in common with the one before."""

    title: str
    output: Path
    config: Recipe
    card: ModelCard
    options: Mapping[str, Any]
    group: Group = field(default_factory=Group)
    resume: bool = False
    compile: bool = False
    minutes_between_saves: float = 10.0

    @property
    def state_file(self) -> Path:
        return self.output / checkpoint.STATE_NAME


def train(network: SimpleNet, data: Data, run: Run) -> TrainState:
    """Trains `network` and leaves last.safetensors, best.safetensors, log.jsonl and the training state in the output.

    Raises:
        UsageError: nothing to resume, another run to resume, or a run already there.
        SimpleNetError: the loss is not a number any more, or the disk is full; what was saved before is intact.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved; after a second Ctrl-C, at once.
    """
    config, group, device = run.config, run.group, run.group.device
    torch.backends.cudnn.allow_tf32 = False  # what is called float32 is float32, in --fp32 and in the final accuracy
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe.freeze(network, config.freeze)
    optimizer = recipe.optimizer(network, config.weight_decay)
    average = recipe.WeightAverage(network, config.average_decay)
    position = _start(run, network, average.model, optimizer)
    if run.compile:
        network.compile()
    forward = distributed.wrap(network, group)
    steps_per_epoch, look_every = data.steps_per_epoch, _STEPS_BETWEEN_LOOKS[device.type]
    steps = config.epochs * steps_per_epoch

    with (
        interruption.deferred(speaks=group.is_first) as stop,
        report.Log(run.output, position.log, writes=group.is_first) as log,
        Progress(*report.columns(), console=cli.console(), disable=not group.is_first) as progress,
    ):
        done = (position.epoch * steps_per_epoch + position.step) * config.batch_size
        bar = progress.add_task(run.title, total=steps * config.batch_size, completed=done, note=log.note())
        clock = _Clock()

        def save() -> None:
            _save_state(run, network, average.model, optimizer, position)
            clock.saved()

        for epoch in range(position.epoch, config.epochs):
            network.train()
            recipe.freeze(network, config.freeze)
            loss_sum = torch.tensor(position.loss_sum, dtype=torch.float64, device=device)
            for images, targets in data.epoch(epoch, position.step):
                step = epoch * steps_per_epoch + position.step
                for parameters in optimizer.param_groups:
                    parameters["lr"] = recipe.learning_rate(step, steps, config.peak_learning_rate, config.warmup)
                torch.manual_seed(recipe.seed_for(config.seed, RngStream.DROPOUT, step))

                with recipe.autocast(config.bf16, device):
                    logits = forward(images)
                loss = functional.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                average.update(step + 1)

                loss_sum += loss.detach()
                position.step += 1
                progress.advance(bar, config.batch_size)
                if position.step % look_every == 0 or position.step == steps_per_epoch:
                    is_late = clock.since_save() >= 60 * run.minutes_between_saves
                    total, stops, saves = group.total(float(loss_sum), stop.wanted, is_late)
                    position.loss_sum = total / group.size
                    position.epoch_seconds += clock.lap()
                    if not math.isfinite(total):
                        raise _diverged(run, position, total, steps_per_epoch)
                    if stops or saves:
                        save()
                        if stops:
                            raise KeyboardInterrupt

            try:
                top1, test_loss = data.evaluate(average.model, config.bf16, group, stop)
            except KeyboardInterrupt:  # the epoch's steps are done; the run goes on with its evaluation
                position.seconds += clock.lap()
                save()
                raise
            if not math.isfinite(test_loss):
                raise _diverged(run, position, test_loss, steps_per_epoch)
            speed = steps_per_epoch * config.batch_size / position.epoch_seconds
            train_loss = position.loss_sum / steps_per_epoch
            log.append(
                epoch + 1, position.epoch_seconds, speed, train_loss=train_loss, test_loss=test_loss, test_top1=top1
            )
            progress.update(bar, note=log.note())
            _save_weights(run, average.model, epoch + 1, top1, is_best=top1 > position.best_top1)
            position.end_epoch(clock.lap(), top1)
            save()
            if group.total(stop.wanted)[0]:
                raise KeyboardInterrupt
    return position


def holds_run(output: Path, variant: str) -> bool:
    """Whether a new run, or an average of runs, would replace what a training has left there."""
    return any((output / name).exists() for name in (checkpoint.STATE_NAME, LAST, f"{variant}.safetensors"))


class _Clock:
    """Seconds since the last lap, and since the last save."""

    def __init__(self) -> None:
        self._lap = self._save = time.perf_counter()

    def lap(self) -> float:
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def saved(self) -> None:
        self._save = time.perf_counter()

    def since_save(self) -> float:
        return time.perf_counter() - self._save


def _start(run: Run, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    if run.resume:
        position = checkpoint.load(run.state_file, network, average, optimizer, run.options)
        if run.group.is_first:
            for name in (checkpoint.STATE_NAME, LAST, BEST):
                files.remove_leftovers(run.output / name)
        return position
    if holds_run(run.output, run.card.variant):
        resume = "continue it with --resume, or " if run.state_file.exists() else ""
        raise UsageError(f"{run.output} holds a run already; {resume}choose another --output for a new one")
    return TrainState()


def _save_weights(run: Run, average: nn.Module, epoch: int, top1: float, is_best: bool) -> None:
    if not run.group.is_first:
        return
    weights.save(run.output / LAST, average.state_dict(), run.card)
    if is_best:
        chosen = {"epoch": epoch, "test_top1": round(top1, 2), "chosen_by": "test accuracy, which is too kind to it"}
        card = replace(run.card, training={**run.card.training, **chosen})
        weights.save(run.output / BEST, average.state_dict(), card)


def _save_state(
    run: Run, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, position: TrainState
) -> None:
    position.peak_memory_bytes = max(position.peak_memory_bytes, report.peak_memory_bytes(run.group.device))
    if run.group.is_first:
        checkpoint.save(run.state_file, network, average, optimizer, position, run.options)


def _diverged(run: Run, position: TrainState, loss: float, steps_per_epoch: int) -> SimpleNetError:
    kept = f"{run.output / LAST} has the weights after epoch {position.epoch}; " if position.epoch else ""
    return SimpleNetError(
        f"the loss is {loss} in epoch {position.epoch + 1}, step {position.step} of {steps_per_epoch}; {kept}"
        "start again with a lower --learning-rate and another --output"
    )
