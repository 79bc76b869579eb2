"""Bootstrap intervals of latencies, and of the ratio of two backends that were timed in the same rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST_ROUNDS = 6
"""With fewer, even the range from the lowest to the highest round covers the median with less than 95 %."""
_RESAMPLES = 1000

Rounds = Sequence[Sequence[float]]
"""Samples in milliseconds, one sequence for each round."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; the bounds are None with fewer than `FEWEST_ROUNDS` rounds."""

    value: float
    low: float | None = None
    high: float | None = None

    def __format__(self, spec: str) -> str:
        numbers = [format(number, spec or ".2f") for number in (self.value, self.low, self.high) if number is not None]
        return numbers[0] if len(numbers) < 3 else f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"

    def __str__(self) -> str:
        return format(self)

    @property
    def width(self) -> float:
        """The relative width, `high / low - 1`; infinite without bounds."""
        return math.inf if self.low is None or self.high is None else self.high / self.low - 1

    def differs(self, noise: float) -> bool:
        """Whether a ratio lies with its whole interval outside 1 / (1 + noise) to 1 + noise."""
        return self.low is not None and self.high is not None and (self.low > 1 + noise or self.high < 1 / (1 + noise))


def ratio(numerator: Rounds, denominator: Rounds) -> Interval | None:
    """Estimate how many times as long one backend takes as the other, from the rounds that both finished.

    The estimate is the median over the rounds of the ratio of the two medians in a round. The interval is a paired
    percentile bootstrap over rounds (Efron and Tibshirani 1993, chapter 13): single samples within a round are not
    independent, and the machine's drift affects both backends of a round.

    Returns:
        None if there is no common round.
    """
    medians = [(np.median(ours), np.median(theirs)) for ours, theirs in zip(numerator, denominator, strict=False)]
    if not medians:
        return None
    logs = np.log([ours / theirs for ours, theirs in medians])
    value = float(np.exp(np.median(logs)))
    bounds = _bootstrap(len(logs), lambda resampled: np.median(logs[resampled], axis=1))
    return Interval(value) if bounds is None else Interval(value, *np.exp(bounds).tolist())


def unpaired_ratio(numerator: Rounds, denominator: Rounds) -> Interval:
    """As `ratio`, for two different runs: the interval does not cover a change of the machine between them."""
    ours, theirs = (np.log([np.median(samples) for samples in rounds]) for rounds in (numerator, denominator))
    value = float(np.exp(np.median(ours) - np.median(theirs)))
    ours_bootstrap, theirs_bootstrap = (
        _resampled_estimates(len(logs), lambda chosen, logs=logs: np.median(logs[chosen], axis=1), seed)  # type: ignore[misc]
        for seed, logs in enumerate((ours, theirs))
    )
    if ours_bootstrap is None or theirs_bootstrap is None:
        return Interval(value)
    return Interval(value, *np.exp(np.percentile(ours_bootstrap - theirs_bootstrap, [2.5, 97.5])).tolist())


def percentiles(rounds: Rounds, percents: Sequence[int]) -> list[Interval]:
    """Estimate percentiles (nearest rank) of the samples of all rounds, with a bootstrap over rounds."""
    samples = [np.asarray(one) for one in rounds]

    def of_rounds(chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        drawn = np.concatenate([samples[number] for number in chosen])
        found: npt.NDArray[np.float64] = np.percentile(drawn, percents, method="inverted_cdf")
        return found

    values = of_rounds(np.arange(len(samples)))
    bounds = _bootstrap(len(samples), lambda resampled: np.array([of_rounds(chosen) for chosen in resampled]))
    if bounds is None:
        return [Interval(float(value)) for value in values]
    return [Interval(float(value), float(low), float(high)) for value, low, high in zip(values, *bounds, strict=True)]


def _bootstrap(
    rounds: int, estimate: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64] | None:
    """Return the 2.5 and 97.5 percentiles, [2, ...], of `_resampled_estimates`."""
    estimates = _resampled_estimates(rounds, estimate)
    return None if estimates is None else np.percentile(estimates, [2.5, 97.5], axis=0)


def _resampled_estimates(
    rounds: int, estimate: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]], seed: int = 0
) -> npt.NDArray[np.float64] | None:
    """Return what `estimate` gives for resampled rounds; None if there are fewer than `FEWEST_ROUNDS`.

    Args:
        estimate: maps numbers of rounds, int64 [resamples, rounds], to estimates [resamples, ...].
    """
    if rounds < FEWEST_ROUNDS:
        return None
    return estimate(np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds)))
