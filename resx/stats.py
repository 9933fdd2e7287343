"""Statistics of paired runs: differences are taken within a seed, and the seed is the unit.

A plain and a residual network of one seed share weights and batches, so what is judged is the difference
within a seed: its mean with Student's t interval, a family of them by one joint sign-flip over seeds, and 'no
difference' only by equivalence. He et al. 2016 report one run (section 4.2; ResNet-110: five), so none of
this is theirs. References: Westfall & Young 1993, ch. 2 (max statistic, single step); Schuirmann 1987 (two
one-sided tests).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import scipy  # imports scipy.special when it is first used, which takes as long as all of `resx claims`

from resx.spec import SpecError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MIN_SEEDS = 6  # the joint sign-flip's smallest p is 2/2^n: 0.0625 with 5 seeds, 0.03125 with 6
ROUNDING = 1e-9  # values (percent, log10) closer than this differ by rounding only
ALPHA = 0.05  # a family's error rate
EXACT_SEEDS, SAMPLES = 14, 20_000  # the most seeds of which every sign pattern is tried; the size of a sample beyond

Word = Literal["supported", "refuted", "screening", "inconclusive"]


@dataclass(frozen=True)
class Estimate:
    """A mean over n seeds and its interval [low, high], in the outcome's unit; p where a family was judged.

    low and high are nan with fewer than two seeds, where no interval exists.
    """

    name: str
    mean: float
    low: float
    high: float
    n: int
    p: float | None = None

    def cells(self, quantity: str) -> dict[str, float]:
        """Return the mean and the interval as cells of a table's row: q, q_low and q_high of a quantity q."""
        return {quantity: self.mean, f"{quantity}_low": self.low, f"{quantity}_high": self.high}

    @property
    def decimals(self) -> int:
        """Return how many decimals are worth showing: two, or up to four where the interval is that narrow."""
        half = (self.high - self.low) / 2
        return min(max(2, -math.floor(math.log10(half))), 4) if half > 0 else 2

    @property
    def middle(self) -> str:
        """Return the mean with its sign, to the decimals that its interval has."""
        if not math.isfinite(self.low + self.high) and 0 < abs(self.mean) < 0.005:
            return f"{self.mean:+.2g}"
        return f"{self.mean:+.{self.decimals}f}"

    @property
    def interval(self) -> str:
        """Return `low to high` with signs, or '–' where there is none."""
        if not math.isfinite(self.low + self.high):
            return "–"
        return f"{self.low:+.{self.decimals}f} to {self.high:+.{self.decimals}f}"

    @property
    def with_interval(self) -> str:
        """Return `mean (low to high)`, or the mean alone where there is no interval."""
        return self.middle if self.interval == "–" else f"{self.middle} ({self.interval})"

    def __str__(self) -> str:
        judged = "" if self.p is None else f", p={self.p:.3g}"
        return f"{self.name}: {self.middle} [{self.interval}], n={self.n}{judged}"


NOTHING = Estimate("", math.nan, math.nan, math.nan, 0)  # of no seed at all


def _values(values: ArrayLike) -> NDArray[np.float64]:
    """Return a float array in which what is zero but for rounding is zero."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.abs(array) < ROUNDING, 0.0, array)


def t_interval(differences: ArrayLike, confidence: float = 0.95, name: str = "") -> Estimate:
    """Return the mean of one difference per seed, [n], with Student's t interval.

    With one seed the bounds are nan; where all seeds agree exactly they equal the mean. A missing value (nan)
    makes the whole estimate nan: a seed is never dropped silently. Raises ValueError for an empty or nested
    input.
    """
    values = _values(differences)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"one difference per seed is needed, not an array of shape {values.shape}")
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(name, mean, math.nan, math.nan, n)
    half = float(scipy.special.stdtrit(n - 1, (1 + confidence) / 2) * values.std(ddof=1) / math.sqrt(n))
    return Estimate(name, mean, mean - half, mean + half, n)


def mean_of(values: pd.Series) -> Estimate:
    """Return the mean of the values that are not missing, with its interval; NOTHING where all are."""
    present = values.dropna().to_numpy(float)
    return t_interval(present) if len(present) else NOTHING


def joint_sign_flip(differences: ArrayLike) -> NDArray[np.float64]:
    """Return a p per comparison, adjusted for the family, from differences [n_seeds, n_comparisons].

    Without an effect a seed's differences are as likely as their negatives, all comparisons of the seed
    together (they share networks). p of a comparison is the share of sign patterns, the observed one
    included, whose largest |t| in the family reaches the comparison's own |t|. Patterns come in mirrored
    pairs, so the smallest p is 2/2^n. All patterns are tried up to 14 seeds, beyond that 20,000 of them
    from a fixed stream (the observed one added, so p is never 0).

    So it is assumed that a seed's differences are distributed symmetrically about 0 where there is no effect. For a
    difference between two networks of a seed that follows if the two could change places. For a contrast with a
    constant (a growth rate against 0 %, half/n against ½) nothing makes it so: there it is an assumption, as in the t
    interval.

    The comparison is made on r = |mean| / root mean square, of which |t| = r·sqrt((n−1)/(1−r²)) is an
    increasing function, the same for every column and pattern. r stays finite where t does not: a column
    without variance has r = 1 (t infinite) and ties with any other such; a column of zeros (t = 0/0) has r =
    0, so p = 1. Ties count as reached. Where a value is missing (nan) the family cannot be judged and every p
    is nan. Raises ValueError unless there are two dimensions and at least one seed.
    """
    values = _values(differences)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"differences must be [n_seeds, n_comparisons], not of shape {values.shape}")
    if not np.isfinite(values).all():
        return np.full(values.shape[1], np.nan)
    n = len(values)
    scale = n * np.sqrt(np.square(values).mean(axis=0))
    unit = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
    if n <= EXACT_SEEDS:  # the mirrored half of the patterns gives the same |t|
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)
        signs = 1.0 - 2.0 * (bits & 1)
    else:
        drawn = np.random.default_rng(0).integers(0, 2, (SAMPLES, n))
        signs = np.vstack([np.ones(n), 1.0 - 2.0 * drawn])
    largest = np.abs(signs @ unit).max(axis=1, initial=0.0)
    observed = np.abs(unit.sum(axis=0))
    return (largest[:, None] >= observed - ROUNDING).mean(axis=0)


def judge_family(effects: Mapping[str, pd.Series]) -> dict[str, Estimate]:
    """Return an estimate per effect, from its values by seed, with p adjusted for the whole family.

    The rule for missing seeds, the same for every probe: an effect is estimated from the seeds that it has. The seeds
    of the family are those that at least half of its effects have. The effects that have all of them are judged
    together by one joint sign-flip over these seeds. An effect that lacks one of them keeps its interval and gets no p,
    so it can be neither supported nor refuted, and it costs the others no seed. An effect without any value is left
    out.
    """
    values = {name: series.astype(float).dropna() for name, series in effects.items()}
    values = {name: series for name, series in values.items() if len(series)}
    table = pd.DataFrame(values)
    table = table[table.notna().mean(axis=1) >= 0.5]
    judged = table.dropna(axis=1)
    p = dict(zip(judged, joint_sign_flip(judged.to_numpy()), strict=True)) if len(judged) > 1 else {}
    return {
        name: replace(t_interval(series.to_numpy(), name=name), p=None if name not in p else float(p[name]))
        for name, series in values.items()
    }


def check_margin(margin: float, n_test: int) -> None:
    """Raise SpecError where a margin (%) is less than two of the n_test images that it is counted in."""
    smallest = 200 / n_test
    if not margin >= smallest - ROUNDING:
        raise SpecError(
            f"margin: {margin:g} % is less than two of {n_test} test images; it must be at least {smallest:.3g} %"
        )


def is_within(differences: ArrayLike, margin: float) -> bool:
    """Return whether a mean difference is equivalent to 0 within ±margin, by two one-sided t tests at 5 % (TOST).

    Both tests reject exactly where the 90 % interval lies within the margin. One seed shows nothing.
    """
    interval = t_interval(differences, confidence=1 - 2 * ALPHA)
    return interval.low > ROUNDING - margin and interval.high < margin - ROUNDING


def equivalence(
    differences: ArrayLike, margin: float, *, arms: Sequence[ArrayLike], n_test: int
) -> Literal["equivalent", "not shown", "at the floor"]:
    """Judge 'no difference' between errors (%).

    differences: [n], one per seed. margin: the largest difference (%) that does not matter, chosen beforehand. arms:
    the errors, [n] each, of every network that enters the difference; where the mean of each is within the margin of
    0 %, they cannot differ and nothing is judged. n_test: number of test images. Raises SpecError for a margin of less
    than two test images.
    """
    check_margin(margin, n_test)
    if all(np.asarray(arm, float).mean() <= margin for arm in arms):
        return "at the floor"
    return "equivalent" if is_within(differences, margin) else "not shown"


def word(estimate: Estimate, expected: Literal[-1, 0, 1], *, equivalent: bool = False) -> Word:
    """Return the word for a comparison whose sign `expected` was predicted (0: no difference).

    From 6 seeds on: 'supported' for a significant difference (p ≤ 5 %) of the expected sign, or
    for equivalence where none was expected; 'refuted' for the contrary; else 'inconclusive'. Below 6 seeds no
    p can reach 5 %, so neither is ever said: 'screening' where the interval excludes 0 or equivalence was
    found, which is a reason to run more seeds, else 'inconclusive'.
    """
    if estimate.n < MIN_SEEDS:
        excludes_zero = estimate.low > 0 or estimate.high < 0  # False for the nan bounds of one seed
        return "screening" if excludes_zero or equivalent else "inconclusive"
    if equivalent and expected == 0:  # a significant difference within the margin exists but does not matter
        return "supported"
    if estimate.p is not None and estimate.p <= ALPHA:
        return "supported" if np.sign(estimate.mean) == expected else "refuted"
    return "refuted" if equivalent else "inconclusive"


def binomial_error(error: float, n_images: int) -> float:
    """Return the standard error (%) of an error (%) that was counted on n_images: the test set's own part."""
    share = error / 100
    return 100 * math.sqrt(share * (1 - share) / n_images)


def log10_loss(loss: ArrayLike) -> NDArray[np.float64]:
    """Return log10 of cross-entropy losses (any shape), the outcome at the floor; nan stays nan.

    Losses below float32's resolution of one image's loss (1.2e-7) count as one, so that 0 is finite.
    """
    return np.log10(np.maximum(np.asarray(loss, dtype=np.float64), np.finfo(np.float32).eps))
