"""Claims of papers, and whether they show here: one row each in the table of results."""

import csv
import dataclasses
import math
import statistics
from pathlib import Path

from keras_lrsched._core.untrusted_file import refused


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper beside what was measured.

    Verdict: "agrees" where each seed shows it, "weaker" where only the mean over the seeds does, else "does not show at this
    scale".

    Args:
        claim: What the paper says, in a sentence.
        source: Where it says so, an arXiv id.
        paper: The paper's own number and setting.
        measure: What `advantages` are, with their unit: "loss of cosine minus loss of REX".
        workload: On what it was measured.
        advantages: A number a seed, above zero where the claim shows.
        margin: For claims that something is *as good*: how far below zero still counts. Defaults to `0.0`.

    Raises:
        ValueError: If there are no advantages, one is NaN, or `margin` is negative.

    Example:

    >>> claim = Claim("REX beats cosine", "2107.04197", "7 settings", "loss of cosine - loss of REX", "digits", (0.02, 0.01))
    >>> claim.verdict
    'agrees'
    """

    claim: str
    source: str
    paper: str
    measure: str
    workload: str
    advantages: tuple
    margin: float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "advantages", tuple(float(number) for number in self.advantages))
        if not self.advantages or any(map(math.isnan, self.advantages)):
            raise ValueError(f"`advantages` must hold a number a seed. Received: advantages={self.advantages}")
        if not self.margin >= 0:
            raise ValueError(f"`margin` must not be negative. Received: margin={self.margin}")

    @property
    def mean(self):
        return statistics.fmean(self.advantages)

    @property
    def spread(self):
        """The standard deviation over the seeds, 0 for a single one."""
        return statistics.stdev(self.advantages) if len(self.advantages) > 1 else 0.0

    @property
    def verdict(self):
        if min(self.advantages) > -self.margin:
            return "agrees"
        return "weaker" if self.mean > -self.margin else "does not show at this scale"


def save(claims, path="claims.csv"):
    """Writes the claims of a notebook into a CSV file, a line each; a claim's advantages are parted by spaces."""
    with Path(path).expanduser().open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Claim)], lineterminator="\n")
        writer.writeheader()
        for claim in claims:
            advantages = " ".join(f"{number:.6g}" for number in claim.advantages)
            writer.writerow(dataclasses.asdict(claim) | {"advantages": advantages})


def load(path):
    """The claims that `save` has written.

    Raises:
        ValueError: If the file holds something else.
    """
    with refused("claims", path), Path(path).expanduser().open(newline="", encoding="utf-8") as file:
        return [_claim(**row) for row in csv.DictReader(file)]


def _claim(advantages, margin, **texts):
    return Claim(**texts, advantages=tuple(map(float, advantages.split())), margin=float(margin))


def markdown(claims):
    """The table of results."""
    lines = ["| claim | paper | measured here | seeds | verdict |", "| --- | --- | --- | --- | --- |"]
    for each in claims:
        margin = f" (counts above {-each.margin:g})" if each.margin else ""
        measured = f"{each.mean:+.4g} ± {each.spread:.2g}: {each.measure}{margin}; {each.workload}"
        source = f"{each.paper} ([{each.source}](https://arxiv.org/abs/{each.source}))"
        claim = each.claim[:1].upper() + each.claim[1:]
        lines.append(f"| {claim} | {source} | {measured} | {len(each.advantages)} | {each.verdict} |")
    return "\n".join(lines)


def show(claims):
    """Display the table of results in a notebook; print it as Markdown where IPython is not running."""
    text = markdown(claims)
    try:
        from IPython import display, get_ipython
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(text)
    else:
        display.display(display.Markdown(text))
