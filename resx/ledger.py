"""The ledger: every sentence of a one-page summary of the paper, the claims it rests on, their verdicts and scale.

A statement's verdict comes from recorded verdicts alone (verdicts.csv of published experiments and of one's own
findings), never from this file, and none is shown without its scale. Where several experiments judge a claim, the one
nearest to the paper decides, then the one with most seeds, and one network of each kind never decides where there are
several; where they disagree, that is said. Only tables are read: no torch, nothing is trained or judged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from resx import paper
from resx.claims import BY_OTHERS, EFFECT, SCALES, is_of, scale_rank, weakest
from resx.probes import Findings, check_key, is_claim, load_probe
from resx.spec import SpecError, command_of, load_toml
from resx.stats import MIN_SEEDS, Estimate
from resx.store.files import StoreError
from resx.store.tables import costs, read_rows

VERDICT = ("says", "criterion", "word", "scale")  # columns that all rows of a verdict share
COLUMNS = ("part", "claim", *VERDICT, *EFFECT)


@dataclass(frozen=True)
class Statement:
    """A sentence or question of the summary, in this project's words.

    number: 1 to 8, or Q1 to Q3. claims: keys `probe:claim`; those after `against` speak for it where they are refuted.
    fact: what is counted or cited instead of measured.
    """

    number: str
    text: str
    claims: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    fact: str = ""

    def __post_init__(self) -> None:
        for key in (*self.claims, *self.against):
            check_key(key)


@dataclass(frozen=True)
class Experiment:
    """Where verdicts come from. own: recorded here by the user, rather than published with the package."""

    name: str
    folder: Path
    command: str
    runs: int
    seconds: float
    hardware: str
    own: bool


@dataclass(frozen=True)
class Evidence:
    """A claim's verdict in one experiment; part: of the probe within the experiment's, where it has parts."""

    claim: str
    part: str
    says: str
    criterion: str
    word: str
    scale: str
    estimates: tuple[Estimate, ...]
    experiment: Experiment

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Order evidence by scale, then by seeds; one network of each kind comes after all that has several."""
        seeds = max((one.n for one in self.estimates), default=0)
        return seeds > 1, scale_rank(self.scale), seeds


@dataclass(frozen=True)
class Entry:
    """A statement with all evidence on its claims, the strongest first.

    word: supported, refuted, mixed, screening, inconclusive, counted, cited, or not available.
    """

    statement: Statement
    word: str
    scale: str
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Return number, text, verdict and scale of the statement, as tables show them."""
        one, word = self.statement, self.word + " (experiments disagree)" * self.disagrees
        return one.number, one.text, word, "–" if one.fact else self.scale

    @property
    def effect(self) -> str:
        """Return the fact, or the first effect of the strongest evidence."""
        estimates = self.evidence[0].estimates if self.evidence else ()
        return self.statement.fact or (str(estimates[0]) if estimates else "–")

    @property
    def experiments(self) -> list[str]:
        """Return the names of the experiments that it rests on."""
        return list(dict.fromkeys(item.experiment.name for item in self.evidence))

    @property
    def disagrees(self) -> bool:
        """Whether experiments give contrary words for one claim."""
        words: dict[str, set[str]] = {}
        for one in self.evidence:
            words.setdefault(one.claim, set()).add(one.word)
        return any({"supported", "refuted"} <= one for one in words.values())


_DEPTHS = f"152 layers against VGG's 19 are {152 / 19:.1f} times as many"
_COST = paper.IMAGENET_MULTIPLY_ADDS[152].value / paper.VGG_MULTIPLY_ADDS[19].value

STATEMENTS = (
    Statement(
        "1",
        "Deeper plain networks have higher training error than shallower ones.",
        ("degradation:plain-training-error", "degradation:plain-degrades"),
    ),
    Statement(
        "2",
        "That is a failure to optimise, not a lack of capacity: as good a solution exists by construction.",
        ("construct:solution-exists", "construct:not-found"),
    ),
    Statement(
        "3",
        "The best mapping of a block is nearer the identity than zero: what blocks add is small.",
        (
            "responses:respond-less",
            "responses:deeper-respond-less",
            "responses:small-is-learned",
            "trained:adds-little",
            "trained:nearer-identity",
            "trained:deeper-responds-less",
        ),
    ),
    Statement(
        "4",
        "Shortcut connections lower training and validation error over the same iterations.",
        ("degradation:lower-training-error", "degradation:lower-training-loss", "degradation:lower-test-error"),
    ),
    Statement(
        "5",
        "Residual networks can be stacked very deep without becoming hard to train.",
        ("degradation:depth-costs-plain-more", "degradation:residual-trains-deeper", "trained:deeper-is-better"),
    ),
    Statement(
        "6",
        "The idea transfers to other networks and to other kinds of models.",
        ("transfer:worth-more-with-size", "transfer:better-at-the-greatest-size", "transfer:trees"),
    ),
    Statement(
        "7",
        "ResNets have up to 8 times the layers of VGG at lower complexity.",
        fact=f"Counted: {_DEPTHS}, with {_COST:.2f} of VGG-19's multiply-adds "
        f"({paper.IMAGENET_MULTIPLY_ADDS[152].source}; resx models counts them again)",
    ),
    Statement(
        "8",
        "152 layers won ImageNet and COCO 2015.",
        fact=f"Cited, not checked here: {paper.IMAGENET_ENSEMBLE_TEST_TOP5.value} % top-5 test error of an ensemble, "
        f"{paper.RESNET_152_SINGLE_MODEL.top5} % of one network on the validation images "
        f"({paper.IMAGENET_ENSEMBLE_TEST_TOP5.source}, {paper.RESNET_152_SINGLE_MODEL.source})",
    ),
    Statement(
        "Q1",
        "Do ResNets resolve vanishing gradients by being many shallow networks?",
        (
            "question1:vanishing",
            "question1:shattering",
            "question1:many-shallow-networks",
            "interventions:unshattered-trains",
            "interventions:shattered-fails",
            "trained:short-paths",
            "trained:removal-hurts-deeper-less",
        ),
        against=("trained:gradient-arrives", "trained:shape-changes-matter"),
    ),
    Statement(
        "Q2",
        "Could another function than the identity be the shortcut, given some knowledge? Could it be learned?",
        (
            "shortcuts:known",
            "shortcuts:learned",
            "mapping:knowing-helps",
            "mapping:learned-finds",
            "shortcuts:doubly-stochastic-better",
            "shortcuts:perpendicular-better",
            "shortcuts:delta-better",
            "shortcuts:deep-gate-better",
            "shortcuts:streams-help",
        ),
    ),
    Statement(
        "Q3",
        "Where sizes differ, can the input be modified (copied, chopped off, summed) to make the addition work?",
        ("question3:input-can-be-modified", "mismatch:works", "mismatch:learned-better"),
    ),
)


def statement(number: str) -> Statement:
    """Return a statement by its number. Raises SpecError with the known ones."""
    for one in STATEMENTS:
        if one.number.lower() == number.lower():
            return one
    raise SpecError(f"no statement '{number}'; there are {', '.join(one.number for one in STATEMENTS)}")


def collect(results: Path) -> tuple[list[Evidence], list[str]]:
    """Return the evidence of published experiments (results/NAME) and of one's own findings (results/findings/NAME).

    With a line for each experiment that cannot be read.
    """
    evidence: list[Evidence] = []
    problems: list[str] = []
    for own, pattern in ((False, "*/verdicts.csv"), (True, "findings/*/verdicts.csv")):
        for file in sorted(results.glob(pattern)):
            try:
                evidence += _read(file, own)
            except (StoreError, SpecError) as error:
                problems.append(str(error))
    return evidence, problems


def _read(file: Path, own: bool) -> list[Evidence]:
    table = [row for row in read_rows(file) if row.get("claim", "-")]  # others are effects that no verdict rests on
    if any(not set(COLUMNS) <= set(row) or row["scale"].removesuffix(BY_OTHERS) not in SCALES for row in table):
        raise StoreError(
            f"{file}: not the verdicts of this version of resx; `resx publish {file.parent}` writes them again"
        )
    unknown = [key for key in dict.fromkeys(row["claim"] for row in table) if not is_claim(key)]
    if unknown:
        raise StoreError(
            f"{file}: {', '.join(unknown)}: not claims of this version of resx; "
            f"`resx publish {file.parent}` judges its tables again"
        )
    experiment = describe(file.parent, own)
    verdicts: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in table:
        verdicts.setdefault((row["part"], row["claim"]), []).append(row)
    evidence = []
    for (part, claim), rows in verdicts.items():
        says, criterion, word, scale = (rows[0][name] for name in VERDICT)
        try:
            estimates = tuple(_estimate(row) for row in rows if row["effect"])
        except ValueError as error:
            raise StoreError(f"{file}: damaged (not the table that was written)") from error
        evidence.append(Evidence(claim, part, says, criterion, word, scale, estimates, experiment))
    return evidence


def _estimate(row: Mapping[str, str]) -> Estimate:
    mean, low, high, p = (float(row[name] or "nan") for name in ("mean", "low", "high", "p"))
    return Estimate(row["effect"], mean, low, high, int(row["n"]), None if math.isnan(p) else p)


def describe(folder: Path, own: bool) -> Experiment:
    """Return what a folder of findings says of itself. Raises StoreError and SpecError where it cannot be read."""
    load_toml(folder / "experiment.toml")
    command = command_of(folder / "experiment.toml")
    command = command.replace(" experiment.toml", f" {folder / 'experiment.toml'}")  # a page names its own folder's
    cost = costs(folder)
    seconds = math.fsum(seconds for seconds, _ in cost.values() if not math.isnan(seconds))
    hardware = "; ".join(sorted({name for _, name in cost.values() if name}))
    return Experiment(folder.name, folder, command, len(cost), seconds, hardware, own)


def from_findings(experiment: Experiment, findings: Findings) -> list[Evidence]:
    """Return the evidence that findings give."""
    return [
        Evidence(one.key, part, one.says, one.criterion, one.word, one.scale, tuple(one.estimates), experiment)
        for part, one in findings.judged()
    ]


def entries(evidence: Sequence[Evidence], statements: Sequence[Statement] = STATEMENTS) -> list[Entry]:
    """Return every statement with its evidence and its word."""
    return [_entry(one, evidence) for one in statements]


def _entry(one: Statement, evidence: Sequence[Evidence]) -> Entry:
    if one.fact:
        return Entry(one, "counted" if one.fact.startswith("Counted") else "cited", "paper")
    by_claim = {key: [item for item in evidence if is_of(item.claim, key)] for key in (*one.claims, *one.against)}
    missing = tuple(key for key, items in by_claim.items() if not items)
    own = [item for items in by_claim.values() for item in items]
    if not own:
        return Entry(one, "not available", "–", (), missing)
    own.sort(key=lambda item: item.rank, reverse=True)  # where they are as strong, the first claim's first
    strongest = {key: max(items, key=lambda item: item.rank) for key, items in by_claim.items() if items}
    opposite = {"supported": "refuted", "refuted": "supported"}
    words = {opposite.get(item.word, item.word) if key in one.against else item.word for key, item in strongest.items()}
    scale = min((item.scale for item in strongest.values()), key=scale_rank)
    word = "mixed" if {"supported", "refuted"} <= words else weakest(words)
    return Entry(one, word, scale, tuple(own), missing)


def stronger(entry: Entry, experiments: Path, done: Sequence[str]) -> list[str]:
    """Return what would make a statement's verdict stronger here: experiments without results, with their commands.

    experiments: the folder of TOML files. done: names of those with results. What stands in a file's first comment
    lines says what it costs. Toy experiments do not strengthen what is judged at a greater scale.
    """
    probes = {key.partition(":")[0] for key in (*entry.statement.claims, *entry.statement.against)}
    lines = []
    for file in sorted(experiments.glob("*.toml")):
        written = load_toml(file)
        is_toy = written.run.get("preset") == "digits" and "dataset" not in written.run
        if file.stem not in done and written.probe in probes and not (is_toy and entry.scale in SCALES[1:]):
            lines.append(f"resx run {file}: {_stated_cost(file)}")
    best = entry.evidence[0] if entry.evidence else None
    seeds = best.rank[-1] if best else 0
    if best and 0 < seeds < MIN_SEEDS and not best.scale.endswith(BY_OTHERS):
        minutes = best.experiment.seconds / 60 * MIN_SEEDS / seeds
        lines.append(
            f"{best.experiment.command} --seeds {MIN_SEEDS}: about {minutes:.0f} core-minutes; "
            f"verdicts need {MIN_SEEDS} seeds, these have {seeds}"
        )
    return lines


def limits(entry: Entry) -> list[str]:
    """Return what the evidence on a statement does not show: a text per probe that judged one of its claims."""
    probes = dict.fromkeys(item.claim.partition(":")[0] for item in entry.evidence)
    return [text for name in probes if (text := load_probe(name).limits)]


def _stated_cost(file: Path) -> str:
    """Return the sentence among the first comment lines of an experiment's file that says what it costs."""
    lines = file.read_text(encoding="utf-8").splitlines()[1:]
    comment = " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))
    sentences = re.split(r"(?<=[.:]) +(?=[A-Z])", comment)
    stated = next((one for one in sentences if re.search(r"\bcores?\b|GPU|core-", one)), "")
    return stated.rstrip(".") or f"cost not stated; `resx run {file} --dry-run` estimates it"
