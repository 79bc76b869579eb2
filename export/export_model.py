"""The network for export: batch norms folded, dropout removed, normalization inside."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from simplenet.model import SimpleNet
from simplenet.preprocessing import Preprocessing


class ExportModel(nn.Module):
    """A copy of a trained SimpleNet, or of another network, for export; the original is not changed.

    Input: uint8 [N, H, W, 3] RGB images if `preprocessing` is given, else normalized float32 [N, 3, H, W].
    Output: logits, float32 [N, num_classes].

    Args:
        half: compute the layers in float16; the normalization stays in float32.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing | None, half: bool = False) -> None:
        super().__init__()
        self.classifier: nn.Linear | None = None
        if isinstance(model, SimpleNet):
            self.features = nn.Sequential(*_without_batch_norms(model.features))
            self.classifier = nn.Linear(model.classifier.in_features, model.classifier.out_features)
            self.classifier.load_state_dict(model.classifier.state_dict())
        else:
            self.features = nn.Sequential(copy.deepcopy(model))
        if half:
            self.half()
        self.is_half = half
        self.normalizes = preprocessing is not None
        if preprocessing is not None:
            # (x / 255 - mean) / std as one multiplication and one addition, with constants for a whole row of pixels.
            mean = torch.tensor(preprocessing.mean, dtype=torch.float64).repeat(preprocessing.input_size)
            std = torch.tensor(preprocessing.std, dtype=torch.float64).repeat(preprocessing.input_size)
            self.register_buffer("scale", (1 / (255 * std)).float())
            self.register_buffer("offset", (-mean / std).float())
        self.requires_grad_(False)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.normalizes:
            # With constants for a whole row: with constants of 3 values, ONNX Runtime does not vectorize, and this took
            # 38 % of an int8 inference of 1.5m. The cast comes first: TensorRT has no other operation on uint8.
            size = image.shape[1]
            rows = image.float().reshape(-1, size, 3 * size) * self.scale + self.offset
            image = rows.reshape(-1, size, size, 3).permute(0, 3, 1, 2)
        if self.is_half:
            image = image.half()
        logits: torch.Tensor = self.features(image)
        if self.classifier is not None:
            logits = self.classifier(torch.amax(logits, dim=(2, 3)))
        return logits.float() if self.is_half else logits

    def example(self, batch: int, size: int) -> torch.Tensor:
        """An input of `batch` black images of `size` x `size` pixels."""
        if self.normalizes:
            return torch.zeros(batch, size, size, 3, dtype=torch.uint8)
        return torch.zeros(batch, 3, size, size)


def _without_batch_norms(features: nn.Sequential) -> list[nn.Module]:
    """The layers, without dropout, and with each batch norm folded into its convolution."""
    layers: list[nn.Module] = []
    convolution: nn.Conv2d | None = None
    for module in features:
        if isinstance(module, nn.Conv2d):
            convolution = module
        elif isinstance(module, nn.BatchNorm2d):
            assert convolution is not None
            pair = copy.deepcopy(convolution).double(), copy.deepcopy(module).double()
            layers.append(fuse_conv_bn_eval(*pair).float())  # folded in float64, which loses no accuracy
        elif not isinstance(module, nn.Dropout2d):
            layers.append(module)
    return layers
