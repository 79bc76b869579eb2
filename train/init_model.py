"""The network that training starts from: random, or with the weights of another, and a new last layer if need be."""

from __future__ import annotations

from simplenet import model, weights
from simplenet.model import SimpleNet
from simplenet.model_card import ModelCard
from train.recipe import Recipe


def network(variant: str, initial: str, labels: tuple[str, ...], config: Recipe) -> tuple[SimpleNet, ModelCard | None]:
    """A network for the classes `labels`, and the card of the weights `initial`, which is what --weights says.

    The last layer is new unless the weights are of the same classes, or of as many without names.

    Raises:
        UsageError: unknown variant or weights. WeightsError: they are damaged, unsafe, or of another network.
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
