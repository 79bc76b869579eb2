"""The initial network: random or from a checkpoint, with a new last layer for other classes."""

from __future__ import annotations

from simplenet import model, weights
from simplenet.model import SimpleNet
from simplenet.model_card import ModelCard
from train.recipe import Recipe


def network(variant: str, initial: str, labels: tuple[str, ...], config: Recipe) -> tuple[SimpleNet, ModelCard | None]:
    """Create a network for the classes `labels`.

    The last layer is new unless the weights are for the same classes, or for the same number of unnamed classes.

    Args:
        initial: the value of --weights.

    Returns:
        The network, and the card of the initial weights (None for random ones).

    Raises:
        UsageError: unknown variant or weights.
        WeightsError: the weights are damaged, unsafe, or belong to another variant.
    """
    new = model.create(variant, len(labels), dropout=config.dropout, seed=config.seed)
    if initial == "random":
        return new, None
    loaded = weights.load(variant, initial)
    tensors = loaded.model.state_dict()
    if loaded.card.num_classes != len(labels) or loaded.card.labels not in ((), labels):
        tensors |= {name: tensor for name, tensor in new.state_dict().items() if name.startswith("classifier.")}
    new.load_state_dict(tensors)
    return new, loaded.card
