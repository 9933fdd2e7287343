"""Claims as data: a sentence with a key, the sign it expects, and the contrast that decides it, fixed before the runs.

From a claim follow, each in one place: the name of its effect, its criterion, the rows of the effects table, its
verdict and its line of help. A contrast is a weighted sum of cells of a tidy table, one value per seed; a cell is a
choice of values of the table's columns. Text and cells may hold symbols, such as {deep}: the greatest depth at hand, a
setting, or whatever the probe says.

Verdicts follow resx.stats: from six seeds on 'supported' and 'refuted', below that 'screening' at most.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from resx import paper, stats
from resx.stats import Estimate, Word

Sign = Literal[-1, 0, 1]
Cell = Mapping[str, Any]
Symbols = Mapping[str, Any]
Tables = Mapping[str, "pd.DataFrame"]

DEEP, SHALLOW = "{deep}", "{shallow}"
NETWORK = ("kind", "depth")  # columns whose values are written as one name: plain-56
VALUES = {("norm", "batch"): "", ("norm", "none"): "without norm"}  # words for a cell's value


def plain(depth: Any, **more: Any) -> dict[str, Any]:
    """Return the cell of plain networks of a depth."""
    return {"kind": "plain", "depth": depth, **more}


def residual(depth: Any, **more: Any) -> dict[str, Any]:
    """Return the cell of networks with identity shortcuts of a depth."""
    return {"kind": "residual", "depth": depth, **more}


@dataclass(frozen=True)
class Contrast:
    """Σ weight · cell − constant of one quantity, a value per seed.

    quantity: a column of one of the probe's tables. Where a cell's value is a tuple, the mean over these values is
    taken, all of which a seed must have. over: columns for each of whose combined values, among the rows that match
    `where`, there is a contrast of its own; cells name that value as a symbol, such as {depth}.
    """

    quantity: str
    terms: tuple[tuple[float, Cell], ...]
    constant: float | str = 0.0
    over: tuple[str, ...] = ()
    where: Cell = field(default_factory=dict)


def contrast(quantity: str, first: Cell, minus: Cell | float | str | None = None, **more: Any) -> Contrast:
    """Return the contrast of a cell with another cell, with a constant, or with 0."""
    if isinstance(minus, Mapping):
        return Contrast(quantity, ((1.0, first), (-1.0, minus)), **more)
    return Contrast(quantity, ((1.0, first),), 0.0 if minus is None else minus, **more)


def interaction(quantity: str, first: tuple[Cell, Cell], minus: tuple[Cell, Cell], **more: Any) -> Contrast:
    """Return a difference of differences: (first[0] − first[1]) − (minus[0] − minus[1])."""
    terms = ((1.0, first[0]), (-1.0, first[1]), (-1.0, minus[0]), (1.0, minus[1]))
    return Contrast(quantity, terms, **more)


@dataclass(frozen=True)
class Effect:
    """A contrast on the data at hand. values: by seed; cells: the values of each of its cells, by seed."""

    name: str
    values: pd.Series
    cells: tuple[pd.Series, ...]


class Rule(Protocol):
    """How a claim's word follows from its effects, and the same in words."""

    def word(self, claim: Claim, effects: Sequence[Effect], estimates: Sequence[Estimate], symbols: Symbols) -> Word:
        """Return the word for a claim from its own effects (not those that only stand next to it)."""

    def criterion(self, expected: Sign) -> str:
        """Return what supports and what refutes."""


@dataclass(frozen=True)
class BySign:
    """The effect has the expected sign; of several effects, all have."""

    def word(self, claim: Claim, effects: Sequence[Effect], estimates: Sequence[Estimate], symbols: Symbols) -> Word:
        return weakest({stats.word(estimate, claim.expected) for estimate in estimates})

    def criterion(self, expected: Sign) -> str:
        side, other = ("above", "below") if expected > 0 else ("below", "above")
        return f"supported {side} 0, refuted {other}"


@dataclass(frozen=True)
class OneOfEach(BySign):
    """BySign; where there is one network of each kind, at most screening, if all lie on one side of 0."""

    def word(self, claim: Claim, effects: Sequence[Effect], estimates: Sequence[Estimate], symbols: Symbols) -> Word:
        if any(one.n > 1 for one in estimates):
            return super().word(claim, effects, estimates, symbols)
        return "screening" if abs(sum(np.sign(one.mean) for one in estimates)) == len(estimates) else "inconclusive"

    def criterion(self, expected: Sign) -> str:
        return f"{super().criterion(expected)}; of one network a kind, screening where all lie on one side"


@dataclass(frozen=True)
class Within:
    """The effect is equivalent to 0 within a margin; of several effects, all are.

    errors: the effects are differences of test errors, so that a margin of less than two of {test_images} is refused
    and networks that all make no errors are not called equivalent (stats.equivalence). Otherwise the 90 % interval
    decides.
    """

    margin: float | str
    errors: bool = False

    def word(self, claim: Claim, effects: Sequence[Effect], estimates: Sequence[Estimate], symbols: Symbols) -> Word:
        margin = float(_filled(self.margin, symbols))
        return weakest(
            {
                stats.word(estimate, 0, equivalent=self._is_equivalent(effect, margin, symbols))
                for effect, estimate in zip(effects, estimates, strict=True)
            }
        )

    def _is_equivalent(self, effect: Effect, margin: float, symbols: Symbols) -> bool:
        values = effect.values.dropna()
        if not self.errors:
            return stats.is_within(values, margin)
        if pd.isna(symbols["test_images"]):  # no result states how many there are
            return False
        arms = [cell.loc[values.index] for cell in effect.cells]
        return stats.equivalence(values, margin, arms=arms, n_test=int(symbols["test_images"])) == "equivalent"

    def criterion(self, expected: Sign) -> str:
        return f"supported if equivalent within ±{self.margin} (two one-sided tests), refuted if it differs and is not"


@dataclass(frozen=True)
class AtMost:
    """A fact without statistics: no value exceeds a limit."""

    limit: float

    def word(self, claim: Claim, effects: Sequence[Effect], estimates: Sequence[Estimate], symbols: Symbols) -> Word:
        largest = max(float(effect.values.max()) for effect in effects)
        return "supported" if largest <= self.limit else "refuted"

    def criterion(self, expected: Sign) -> str:
        return f"supported if every value is at most {self.limit:g}, else refuted; no statistics involved"


@dataclass(frozen=True)
class AnyDiffers:
    """Some of several effects differ from 0; alike: symbol that says whether all are equivalent in what matters."""

    alike: str

    def word(self, claim: Claim, effects: Sequence[Effect], estimates: Sequence[Estimate], symbols: Symbols) -> Word:
        if any(one.n < stats.MIN_SEEDS for one in estimates):
            return "screening" if any(one.low > 0 or one.high < 0 for one in estimates) else "inconclusive"
        if any(one.p is not None and one.p <= stats.ALPHA for one in estimates):
            return "supported"
        return "refuted" if _filled(self.alike, symbols) else "inconclusive"

    def criterion(self, expected: Sign) -> str:
        return "supported if any differs; refuted if none does and all are equivalent in test error (±{margin} points)"


def weakest(words: Collection[str]) -> Word:
    """Return the word for 'all of these hold': refuted where one is, else the weakest."""
    order: tuple[Word, ...] = ("refuted", "inconclusive", "screening")
    return next((word for word in order if word in words), "supported")


@dataclass(frozen=True)
class Claim:
    """What is claimed, and what decides it.

    key: names the claim within its probe. first: decides; with `over`, all of its contrasts do. refutes: another
    contrast, whose opposite sign refutes, for a claim with one threshold that supports and a lower one that refutes.
    beside: shown with it. family: the effects that are judged together by one joint sign-flip. each: with `over`, a
    claim of its own for each of the combined values, which end its key, as in `better:conv`; text and contrasts name
    them as symbols.
    """

    key: str
    says: str
    expected: Sign
    first: Contrast
    beside: tuple[Contrast, ...] = ()
    rule: Rule = BySign()
    family: str = "effects"
    each: bool = False
    refutes: Contrast | None = None


@dataclass(frozen=True)
class Combination:
    """A claim that holds if all its parts do: claims of probes within its own, as `part:key`.

    Refuted where a part is, supported where all are, inconclusive where any is or none was judged, else screening.
    """

    key: str
    says: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """A claim judged. key: `probe:key`. estimates: the effects that decide, then those that stand next to them.

    deciding: how many decide, none where parts do. scale: see `scale`.
    """

    key: str
    says: str
    criterion: str
    word: Word
    estimates: tuple[Estimate, ...]
    scale: str = ""
    deciding: int = 1

    def __str__(self) -> str:
        first = self.estimates[: self.deciding]
        shown = f" ({first[0]})" if first else ""
        if len(first) > 1:
            ends = f"from {min(one.mean for one in first):+.2f} to {max(one.mean for one in first):+.2f}"
            shown = f" ({sum(one.mean > 0 for one in first)} of {len(first)} means above 0, {ends})"
        return f"{self.says}: {self.word}{shown}."


def judge(
    claims: Sequence[Claim],
    extras: Mapping[str, Sequence[Contrast]],
    tables: Tables,
    symbols: Symbols,
    labels: Mapping[str, str],
) -> tuple[pd.DataFrame, list[Verdict]]:
    """Return the effects table and a verdict for every claim whose networks are at hand.

    extras: contrasts by family that are judged with those of the claims. labels: words for the quantities. The table
    has the columns family, effect, mean, low, high, n and p. Verdicts' keys are not prefixed yet, and have no scale.
    """
    single = [pair for claim in claims for pair in _single(claim, tables, symbols)]
    own = {claim.key: _effects(claim.first, tables, filling, labels) for claim, filling in single}
    more = {
        claim.key: [effect for one in claim.beside for effect in _effects(one, tables, filling, labels)]
        for claim, filling in single
    }
    listed = [(family, _effects(one, tables, symbols, labels)) for family, several in extras.items() for one in several]
    listed += [(claim.family, own[claim.key] + more[claim.key]) for claim, _ in single]
    families: dict[str, dict[str, pd.Series]] = {}
    for family, effects in listed:
        families.setdefault(family, {}).update({effect.name: effect.values for effect in effects})
    estimates = {family: stats.judge_family(effects) for family, effects in families.items()}
    verdicts = []
    for claim, filling in single:
        judged = estimates[claim.family]
        effects = [effect for effect in own[claim.key] if effect.name in judged]
        if effects:
            deciding = [judged[effect.name] for effect in effects]
            if isinstance(claim.rule, AtMost):  # a fact about every network: its largest value, without an interval
                deciding = [Estimate(e.name, float(e.values.max()), np.nan, np.nan, len(e.values)) for e in effects]
            others = [judged[effect.name] for effect in more[claim.key] if effect.name in judged]
            word = claim.rule.word(claim, effects, deciding, filling)
            if claim.refutes:
                word = _between(deciding[0], others[0], claim.expected)
            verdicts.append(
                Verdict(
                    claim.key,
                    _text(claim.says, filling),
                    _text(criterion(claim, labels), filling),
                    word,
                    (*deciding, *others),
                    deciding=len(deciding),
                )
            )
    return effects_table(estimates), verdicts


def _single(claim: Claim, tables: Tables, symbols: Symbols) -> list[tuple[Claim, Symbols]]:
    """Return the claim, quantity and family filled in, with its symbols; with `each`, one for every combination."""
    first = replace(claim.first, quantity=str(_filled(claim.first.quantity, symbols)))
    beside = (claim.refutes, *claim.beside) if claim.refutes else claim.beside
    claim = replace(claim, first=first, beside=beside, family=str(_filled(claim.family, symbols)))
    table = _table(first, tables, symbols)
    if not claim.each or table is None:
        return [(claim, symbols)]
    single = []
    for own in _over(first, table, symbols):
        key = ":".join([claim.key, *(str(own[column]) for column in first.over)])
        single.append((replace(claim, key=key, first=replace(first, over=(), where={})), own))
    return single


def _between(supports: Estimate, refutes: Estimate, expected: Sign) -> Word:
    """Return the word for a claim with two thresholds: inconclusive where the effect lies between them."""
    if stats.word(supports, expected) in ("supported", "screening") and np.sign(supports.mean) == expected:
        return stats.word(supports, expected)
    if stats.word(refutes, expected) in ("refuted", "screening") and np.sign(refutes.mean) == -expected:
        return stats.word(refutes, expected)
    return "inconclusive"


def criterion(claim: Claim | Combination, labels: Mapping[str, str]) -> str:
    """Return what supports and what refutes a claim, symbols unfilled."""
    if isinstance(claim, Combination):
        return f"supported if all parts are, refuted if any is: {'; '.join(claim.parts)}"
    if claim.refutes:
        side, other = ("above", "below") if claim.expected > 0 else ("below", "above")
        first, second = describe(claim.first, labels), describe(claim.refutes, labels)
        return f"supported where {first} is {side} 0, refuted where {second} is {other} 0"
    every = f"for each {' and '.join(claim.first.over)}, " if claim.first.over else ""
    return f"{describe(_of_each(claim.first), labels)}: {every}{claim.rule.criterion(claim.expected)}"


def _of_each(one: Contrast) -> Contrast:
    """Return a contrast as a criterion names it: what all its cells have each value of is left out, else worded."""
    symbols = {column: f"{{{column}}}" for column in one.over}
    shared = {column for column in symbols if all(cell.get(column) == symbols[column] for _, cell in one.terms)}
    words = {symbol: column for column, symbol in symbols.items()}
    terms = tuple(
        (weight, {column: words.get(value, value) for column, value in cell.items() if column not in shared})
        for weight, cell in one.terms
    )
    return replace(one, terms=terms)


def describe(one: Contrast, labels: Mapping[str, str]) -> str:
    """Return a contrast's name: the quantity, its cells with the signs between them, and once what all cells share."""
    cells = [cell for _, cell in one.terms]
    shared = {
        column: value
        for column, value in cells[0].items()
        if len(cells) > 1
        and not ("kind" in cells[0] and column in NETWORK)
        and all(cell.get(column) == value for cell in cells)
    }
    names = [
        ("" if abs(weight) == 1 else f"{abs(weight):g}·")
        + cell_name({c: v for c, v in cell.items() if c not in shared})
        for weight, cell in one.terms
    ]
    label = labels.get(one.quantity, one.quantity)
    shown = one.constant if isinstance(one.constant, str) else f"{one.constant:g}"
    if one.constant:
        label = f"{label} − {shown}"
    if len(names) == 4:
        names = [f"({names[0]} − {names[1]}) − ({names[2]} − {names[3]})"]
    signs = [" + " if weight > 0 else " − " for weight, _ in one.terms]
    joined = "".join(sign + name for sign, name in zip(signs, names, strict=False) if name)[3:]
    return ", ".join(filter(None, [label, joined, cell_name(shared)]))


def cell_name(cell: Cell) -> str:
    """Write a cell as a person would: plain-56, trained."""
    network = "-".join(str(cell[column]) for column in NETWORK if column in cell and "kind" in cell)
    others = [
        f"{value} layers"
        if column == "depth"
        else "mean"
        if isinstance(value, tuple)
        else VALUES.get((column, value), str(value))
        for column, value in cell.items()
        if not (network and column in NETWORK)
    ]
    return ", ".join(filter(None, [network, *others]))


def is_of(key: str, claim: str) -> bool:
    """Return whether a verdict's key is a claim's own, or one of those that it has for each of several values."""
    return key == claim or key.startswith(f"{claim}:")


def combine(claim: Combination, verdicts: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict of a combined claim from those of its parts; one that was not judged leaves it open."""
    judged = [[one for key, one in verdicts.items() if is_of(key, part)] for part in claim.parts]
    parts = [one for several in judged for one in several]
    word = weakest({one.word for one in parts} | (set() if all(judged) else {"inconclusive"}))
    estimates = tuple(one.estimates[0] for one in parts)
    return Verdict(claim.key, claim.says, criterion(claim, {}), word, estimates, deciding=0)


EFFECT = ("effect", "mean", "low", "high", "n", "p")  # columns of an effect


def effects_table(estimates: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """Return a row per effect: family, effect, mean, low, high, n, p."""
    rows = [{"family": family, **_cells(one)} for family, listed in estimates.items() for one in listed.values()]
    return pd.DataFrame(rows, columns=["family", *EFFECT]).astype({"p": float})


def verdicts_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return a row per verdict and effect: claim, says, criterion, word, scale, effect, mean, low, high, n, p."""
    rows = [
        {"claim": verdict.key, **vars(verdict), **_cells(one)}
        for verdict in verdicts
        for one in verdict.estimates or (stats.NOTHING,)
    ]
    return pd.DataFrame(rows, columns=["claim", "says", "criterion", "word", "scale", *EFFECT]).astype({"p": float})


def _cells(one: Estimate) -> dict[str, Any]:
    return {"effect": one.name, **vars(one)}


def _effects(one: Contrast, tables: Tables, symbols: Symbols, labels: Mapping[str, str]) -> list[Effect]:
    """Return the effects of a contrast on the data at hand: none where a cell has no rows or equals its opposite."""
    quantity, table = str(_filled(one.quantity, symbols)), _table(one, tables, symbols)
    if table is None:
        return []
    effects = []
    for own in _over(one, table, symbols):
        terms = tuple((weight, {c: _filled(v, own) for c, v in cell.items()}) for weight, cell in one.terms)
        cells = [_by_seed(table, cell, quantity) for _, cell in terms]
        repeated = any(terms[i][1] == terms[j][1] for i in range(len(terms)) for j in range(i))
        if repeated or any(series.empty for series in cells):
            continue
        constant = float(_filled(one.constant, own))
        total = pd.Series(-constant, index=cells[0].index)
        for (weight, _), series in zip(terms, cells, strict=True):
            total = total + weight * series
        named = tuple((weight, {c: _named(v, own) for c, v in cell.items()}) for weight, cell in one.terms)
        effects.append(Effect(describe(Contrast(quantity, named, constant), labels), total, tuple(cells)))
    return effects


def _table(one: Contrast, tables: Tables, symbols: Symbols) -> pd.DataFrame | None:
    """Return the table that holds a contrast's quantity by seed."""
    columns = {str(_filled(one.quantity, symbols)), "seed"}
    return next((table for table in tables.values() if columns <= set(table.columns)), None)


def _over(one: Contrast, table: pd.DataFrame, symbols: Symbols) -> list[Symbols]:
    """Return the symbols with each combination of the values of `over` in a table; without `over`, them alone."""
    if not one.over:
        return [symbols]
    where = {column: _filled(value, symbols) for column, value in one.where.items()}
    combinations = _rows(table, where)[list(one.over)].drop_duplicates().itertuples(index=False, name=None)
    return [{**symbols, **dict(zip(one.over, values, strict=True))} for values in combinations]


def _rows(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    keep = pd.Series(True, index=table.index)
    for column, value in cell.items():
        keep &= table[column].isin(value) if isinstance(value, tuple) else table[column] == value
    return table[keep]


def _by_seed(table: pd.DataFrame, cell: Cell, quantity: str) -> pd.Series:
    """Return a cell's value by seed; of several values the mean, nan where one is missing.

    Raises ValueError where a seed has several rows and no tuple of the cell says that their mean is meant.
    """
    rows = _rows(table, cell)
    several = [column for column, value in cell.items() if isinstance(value, tuple)]
    if rows.duplicated(["seed", *several]).any():
        raise ValueError(f"{quantity}: a cell {dict(cell)} has several rows of one seed")
    if not several:
        return rows.set_index("seed")[quantity].sort_index()
    return rows.pivot(index="seed", columns=several, values=quantity).mean(axis=1, skipna=False)


def _filled(value: Any, symbols: Symbols) -> Any:
    """Return the value of a symbol; anything else as it is."""
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        return symbols[value[1:-1]]
    return tuple(_filled(item, symbols) for item in value) if isinstance(value, tuple) else value


def _named(value: Any, symbols: Symbols) -> Any:
    """Return the value of a symbol as names show it: of a symbol for several values, its own name."""
    filled = _filled(value, symbols)
    return value[1:-1] if isinstance(value, str) and isinstance(filled, tuple) else filled


def _text(text: str, symbols: Symbols) -> str:
    for name, value in symbols.items():
        shown = name if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
        text = text.replace(f"{{{name}}}", shown)
    return text


def help_lines(claims: Sequence[Claim | Combination], labels: Mapping[str, str]) -> list[str]:
    """Return a line per claim: its key, what it says and its criterion, symbols as plain words."""
    lines = [f"{claim.key}: {claim.says}. {criterion(claim, labels)}." for claim in claims]
    return [line.replace("{", "").replace("}", "") for line in lines]


SCALES = ("toy", "reduced", "paper")
BY_OTHERS = ", trained by others"


def scale(runs: pd.DataFrame) -> str:
    """Return how near runs are to the paper's: paper, reduced or toy; of several runs, the least.

    paper: the paper's images at full size and number, batch and at least its iterations, with its widths. reduced: real
    images of the paper's data, but fewer, smaller, shorter, or in another network. toy: anything else. Where any was
    trained by others, that is said too.
    """
    least = min(map(_scale, runs.to_dict("records")), key=SCALES.index)
    return least + BY_OTHERS * bool(runs["foreign"].notna().any())


def scale_rank(text: str) -> int:
    """Return a scale's place in SCALES. Raises ValueError for another text."""
    return SCALES.index(text.removesuffix(BY_OTHERS))


def at_scale(text: str) -> str:
    """Return a scale as it stands in a sentence: 'paper scale, trained by others'."""
    return f"{text.removesuffix(BY_OTHERS)} scale{BY_OTHERS * text.endswith(BY_OTHERS)}"


def _scale(run: Mapping[Any, Any]) -> str:
    if not (run["dataset"] == "cifar10" or run["reference"] == "cifar10" or run["content"] in paper.CIFAR10_COPIES):
        return "toy"
    whole = all(pd.isna(run[field]) for field in ("image_size", "subset", "test_subset", "widths"))
    same = run["width"] == 16 and run["batch_size"] == 128 and run["steps"] >= paper.CIFAR_ITERATIONS
    return "paper" if whole and same else "reduced"
