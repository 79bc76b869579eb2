"""One process or several: who am I, which part of a batch is mine, and how several train the very network of one.

`torchrun` starts several. Gradients are averaged by PyTorch's DistributedDataParallel. What else looks at a whole
batch, batch norm and the drawing of dropout, is replaced by what looks at the batches of all: PyTorch's SyncBatchNorm
on GPUs, and here for CPUs, where PyTorch has none.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from simplenet.errors import UsageError


@dataclass(frozen=True)
class Group:
    """The processes that train one network together; `rank` is this one's number, 0 writes and speaks."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This process's part of `count` things, all parts equally long.

        Raises:
            UsageError: they cannot be shared out equally.
        """
        if count % self.size:
            raise UsageError(f"{self.size} processes cannot share {count} images equally; choose another --batch")
        length = count // self.size
        return slice(self.rank * length, (self.rank + 1) * length)

    def total(self, *values: float) -> list[float]:
        """Each value summed over all processes; all must call it at the same point."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(sums)
        return list(map(float, sums))


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """This process alone, or its place among those that torchrun started: gloo on CPUs, nccl on GPUs.

    Raises:
        UsageError: more processes than GPUs on this machine.
    """
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
    except KeyboardInterrupt:  # in all of them
        distributed.destroy_process_group()
        raise
    # After an error of this process alone nccl would wait here for the others, which wait for it: torchrun ends them.
    distributed.destroy_process_group()


def share_of(cores: int) -> int:
    """How many of this machine's cores each of its training processes may count on."""
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def wrap(network: nn.Module, group: Group) -> nn.Module:
    """What to call in training. For several processes, batch norm and dropout in `network` are replaced by ones that
    look at the batches of all; the names and shapes in its state_dict stay."""
    if group.size == 1:
        return network
    if group.device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, _SharedBatchNorm2d.like(child))
            elif type(child) is nn.Dropout2d:
                setattr(module, name, _SharedDropout2d(child.p, group))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the option's new name is younger than our lowest PyTorch
        return DistributedDataParallel(
            network,
            device_ids=[group.device.index] if group.device.type == "cuda" else None,
            broadcast_buffers=False,  # they are equal already
            gradient_as_bucket_view=True,
        )


class _SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, equally long: one small message forward, one backward."""

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> _SharedBatchNorm2d:
        """The same parameters and buffers, not copies."""
        shared = cls(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        shared.weight, shared.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(shared, name, buffer)
        return shared.train(norm.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        normalized: torch.Tensor
        normalized, mean, variance = _NormalizeTogether.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps
        )
        count = input.numel() // input.shape[1] * distributed.get_world_size()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return normalized


class _NormalizeTogether(torch.autograd.Function):
    """(x, weight, bias, eps) -> normalized x, mean and biased variance over all processes.

    The batch norm of evaluation does the work on the pixels; what it lacks is that mean and variance depend on x,
    which adds an affine function of x to the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        scratch = torch.zeros_like(weight), torch.ones_like(weight)  # they make the answer float32 for x of bf16
        own = torch.stack(torch.batch_norm_update_stats(x, *scratch, 0.0))
        of_all = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(of_all, own)
        means, variances = torch.stack(of_all, dim=1)
        mean = means.mean(0)
        variance = (variances + (means - mean) ** 2).mean(0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return functional.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, mean, variance = ctx.saved_tensors
        gradient_x, gradient_weight, gradient_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([gradient_bias, gradient_weight])
        distributed.all_reduce(sums)
        per_value, per_deviation = sums / (x.numel() // x.shape[1] * distributed.get_world_size())
        inverse = torch.rsqrt(variance + ctx.eps)
        slope = weight * inverse * inverse * per_deviation
        offset = weight * inverse * per_value - slope * mean
        correction = torch.addcmul(offset.view(-1, 1, 1).to(x.dtype), slope.view(-1, 1, 1).to(x.dtype), x)
        return gradient_x - correction, gradient_weight, gradient_bias, None


class _SharedDropout2d(nn.Dropout2d):
    """Draws for the batches of all processes, whose random states are equal, and takes its own part."""

    def __init__(self, p: float, group: Group) -> None:
        super().__init__(p)
        self._group = group

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return input
        count = len(input) * self._group.size
        kept = input.new_empty(count, input.shape[1], 1, 1).bernoulli_(1 - self.p).div_(1 - self.p)
        return input * kept[self._group.part(count)]
