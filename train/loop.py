"""The dataset-agnostic training loop, in one function to read from top to bottom.

The state is saved after every epoch, every few minutes and at Ctrl-C, and every random number follows from the seed and
the step. On devices that compute deterministically, such as CPUs, a run that was killed and resumed therefore ends with
the same weights as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from simplenet import checkpoints, files
from simplenet.errors import SimpleNetError, UsageError
from simplenet.model import SimpleNet
from simplenet.model_card import ModelCard
from train import checkpoint, distributed, evaluation, progress, recipe, signals
from train.checkpoint import BEST_NAME, LAST_NAME, STATE_NAME, TrainState
from train.distributed import Group
from train.evaluation import Batch
from train.recipe import Recipe, RngStream

_STEPS_BETWEEN_LOSS_CHECKS = {"cpu": 1, "cuda": 10}  # on a GPU, reading the loss waits until the step has finished


class TrainingData(Protocol):
    """What the loop needs from a dataset. Each process gets its part of the same global batches."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def test_split(self) -> str:
        """The name of the split that is measured, such as "val"."""

    @property
    def unreadable_images(self) -> int:
        """The number of unreadable images that this process has found since it started."""

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """Yield the training batches of an epoch, from `first_step`."""

    def test_batches(self, group: Group) -> Iterator[Batch]:
        """Yield this process's part of the test images."""


@dataclass(frozen=True)
class Run:
    """The settings of a run, which the training scripts pass on from their flags.

    Args:
        dataset: the dataset's name, for the results.
        output: the folder for all files of the run.
        options: values by flag or name that must be the same when the run is resumed.
        half: store the final convolution and linear weights as float16.
        command: the command line, for the results.
    """

    dataset: str
    output: Path
    config: Recipe
    card: ModelCard
    options: Mapping[str, Any]
    group: Group = field(default_factory=Group)
    resume: bool = False
    compile: bool = False
    half: bool = False
    minutes_between_saves: float = 10.0
    command: str = ""

    @property
    def title(self) -> str:
        return f"{self.card.variant} on {self.dataset}"

    @property
    def state_file(self) -> Path:
        return self.output / STATE_NAME


def train(network: SimpleNet, data: TrainingData, run: Run) -> TrainState:
    """Train `network`; write last.safetensors, best.safetensors, log.jsonl and the training state.

    Raises:
        UsageError: there is nothing to resume, the options differ, or the output folder holds a run already.
        SimpleNetError: the loss is not finite, or a file cannot be written; earlier files stay intact.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the state is saved; after a second Ctrl-C, at once.
    """
    config, group, device, preprocessing = run.config, run.group, run.group.device, run.card.preprocessing
    torch.backends.cudnn.allow_tf32 = False  # keeps float32 exact, with --fp32 and in the final accuracy
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe.freeze(network, config.freeze)
    optimizer = recipe.optimizer(network, config.weight_decay)
    ema = recipe.ModelEma(network, config.average_decay)
    state = _start(run, network, ema.model, optimizer)
    if run.compile:
        network.compile()
    forward = distributed.wrap(network, group)
    steps_per_epoch, check_every = data.steps_per_epoch, _STEPS_BETWEEN_LOSS_CHECKS[device.type]
    steps = config.epochs * steps_per_epoch

    with (
        signals.deferred(logs=group.is_first) as stop,
        contextlib.closing(progress.Log(run.output, state.log, writes=group.is_first)) as log,
        progress.bar(visible=group.is_first) as bar,
    ):
        done = (state.epoch * steps_per_epoch + state.step) * config.batch_size
        task = bar.add_task(run.title, total=steps * config.batch_size, completed=done, note=log.note())
        last_lap = last_save = time.perf_counter()

        def lap() -> float:
            nonlocal last_lap
            before, last_lap = last_lap, time.perf_counter()
            return last_lap - before

        def save() -> None:
            nonlocal last_save
            state.peak_memory_bytes = max(state.peak_memory_bytes, progress.peak_memory_bytes(device))
            if group.is_first:
                checkpoint.save(run.state_file, network, ema.model, optimizer, state, run.options, run.card)
            last_save = time.perf_counter()

        for epoch in range(state.epoch, config.epochs):
            network.train()
            recipe.freeze(network, config.freeze)
            loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=device)
            for images, labels in data.epoch(epoch, state.step):
                step = epoch * steps_per_epoch + state.step
                for parameters in optimizer.param_groups:
                    parameters["lr"] = recipe.learning_rate(step, steps, config.peak_learning_rate, config.warmup)
                torch.manual_seed(recipe.seed_for(config.seed, RngStream.DROPOUT, step) + group.rank)

                with recipe.autocast(config.bf16, device):
                    logits = forward(images)
                loss = functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                ema.update(step + 1)

                loss_sum += loss.detach()
                state.step += 1
                bar.advance(task, config.batch_size)
                if state.step % check_every == 0 or state.step == steps_per_epoch:
                    is_late = time.perf_counter() - last_save >= 60 * run.minutes_between_saves
                    total, must_stop, must_save = group.total(float(loss_sum), stop.is_set, is_late)
                    state.loss_sum = total / group.size
                    state.epoch_seconds += lap()
                    if not math.isfinite(total):
                        raise _diverged(run, state, total, steps_per_epoch)
                    if must_stop or must_save:
                        save()
                        if must_stop:
                            raise KeyboardInterrupt

            if not run.state_file.exists():  # before other files: a run whose first save failed can start again
                save()
            group.broadcast_buffers(network, ema.model)
            try:
                tests = data.test_batches(group)
                top1, test_loss, _ = evaluation.evaluate(ema.model, tests, preprocessing, config.bf16, group, stop)
            except KeyboardInterrupt:  # a resumed run continues with this evaluation
                state.seconds += lap()
                save()
                raise
            if not math.isfinite(test_loss):
                raise _diverged(run, state, test_loss, steps_per_epoch)
            speed = steps_per_epoch * config.batch_size / state.epoch_seconds
            train_loss = state.loss_sum / steps_per_epoch
            log.append(
                epoch + 1, state.epoch_seconds, speed, train_loss=train_loss, test_loss=test_loss, test_top1=top1
            )
            bar.update(task, note=log.note())
            if group.is_first:
                _save_weights(run, ema.model, epoch + 1, top1, is_best=top1 > state.best_top1)
            state.seconds += state.epoch_seconds + lap()
            state.epoch, state.step, state.loss_sum, state.epoch_seconds = epoch + 1, 0, 0.0, 0.0
            state.best_top1 = max(top1, state.best_top1)
            save()
            if group.total(stop.is_set)[0]:
                raise KeyboardInterrupt
    return state


def _start(run: Run, network: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    if run.resume:
        state = checkpoint.load(run.state_file, network, ema, optimizer, run.options)
        if run.group.is_first:
            for name in (STATE_NAME, LAST_NAME, BEST_NAME):
                files.remove_leftovers(run.output / name)
        return state
    if checkpoint.holds_run(run.output, run.card.variant):
        resume = "continue it with --resume, or " if run.state_file.exists() else ""
        raise UsageError(f"{run.output} holds a run already; {resume}choose another --output for a new one")
    return TrainState()


def _save_weights(run: Run, ema: nn.Module, epoch: int, top1: float, is_best: bool) -> None:
    checkpoints.save(run.output / LAST_NAME, ema.state_dict(), run.card)
    if is_best:
        chosen = {"epoch": epoch, "test_top1": round(top1, 2), "chosen_by": "test accuracy, so optimistically biased"}
        card = replace(run.card, training={**run.card.training, **chosen})
        checkpoints.save(run.output / BEST_NAME, ema.state_dict(), card)


def _diverged(run: Run, state: TrainState, loss: float, steps_per_epoch: int) -> SimpleNetError:
    kept = f"{run.output / LAST_NAME} has the weights after epoch {state.epoch}; " if state.epoch else ""
    return SimpleNetError(
        f"the loss is {loss} in epoch {state.epoch + 1}, step {state.step} of {steps_per_epoch}; {kept}"
        "start again with a lower --learning-rate and another --output"
    )
