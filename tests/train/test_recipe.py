"""The recipe's parts, each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simplenet import model
from simplenet.errors import UsageError
from train import recipe


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_learning_rate_is_a_triangle() -> None:
    rates = [recipe.learning_rate(step, 100, peak=0.4, warmup=0.2) for step in range(100)]
    assert rates[19] == pytest.approx(0.4) == max(rates)
    assert rates[0] == pytest.approx(0.02)
    assert 0 < rates[-1] < 0.006
    np.testing.assert_allclose(np.diff(rates[:20]), np.diff(rates[:2])[0])
    np.testing.assert_allclose(np.diff(rates[19:]), np.diff(rates[-2:])[0])
    assert recipe.learning_rate(0, 1, peak=0.4, warmup=0.2) > 0


def test_the_average_follows_weights_and_statistics() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = recipe.ModelEma(network, decay=0.5)
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    for step in range(1, 30):
        with torch.no_grad():
            for value in (*network.parameters(), network[1].running_mean):
                value.add_(torch.randn(value.shape, generator=_generator(step)))  # type: ignore[union-attr]
        average.update(step)
        decay = min(0.5, step / (step + 10))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name in ("0.weight", "1.bias", "1.running_mean"):
        torch.testing.assert_close(average.model.state_dict()[name], expected[name])


def test_only_matrices_and_kernels_decay() -> None:
    network = model.create("cifar-310k")
    decaying, other = recipe.optimizer(network, weight_decay=0.1).param_groups
    assert decaying["weight_decay"] == 0.1
    assert other["weight_decay"] == 0.0
    assert {parameter.ndim for parameter in decaying["params"]} == {2, 4}
    assert {parameter.ndim for parameter in other["params"]} == {1}
    assert len(decaying["params"]) + len(other["params"]) == len(list(network.parameters()))


def test_freezing_counts_convolutions() -> None:
    network = model.create("cifar-310k").train()
    recipe.freeze(network, 2)
    moving = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert moving[0] == "features.8.weight"  # the third: each takes four places
    assert [module.training for module in network.features[:9]] == [False] * 8 + [True]
    recipe.freeze(network, 13)
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]
    with pytest.raises(UsageError, match="has 13 convolutions, not 14; choose a smaller --freeze"):
        recipe.freeze(network, 14)


PATHS = st.tuples(st.integers(0, 2**31), st.sampled_from(recipe.RngStream), st.integers(0, 9999))


@given(st.lists(PATHS, min_size=2, unique=True))
def test_every_path_has_a_seed_of_its_own(paths: list[tuple[int, recipe.RngStream, int]]) -> None:
    seeds = [recipe.seed_for(*path) for path in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [recipe.seed_for(*path) for path in paths]
