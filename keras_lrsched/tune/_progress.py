"""Progress of a search: a file from which it continues after an interruption."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from keras_lrsched._core.untrusted_file import refused

SEARCH, OUTCOME = "search.json", "outcome.json"


@dataclass
class Progress:
    """State of a search, beside the files of its members.

    Attributes:
        settings: Of each member, in the next round.
        sources: The member whose files of the last round each member continues from; `None` in the first round.
        numbers: The state of the random numbers.
        values: The metric of each member after each round that is over: a list of lists.
        scores: The scores of the members after the last round that is over.
        copies: As in `Discovery`.
    """

    settings: list[dict[str, float]]
    sources: list[int | None]
    numbers: Mapping[str, Any]
    values: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    copies: list[list[int]] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """The number of rounds that are over."""
        return len(self.values)

    def save(self, folder: Path, search: dict[str, Any]) -> None:
        """Write the file, with the arguments of the search; the former one stays whole until it is replaced."""
        new = folder / f"{SEARCH}.new"
        new.write_text(json.dumps({"search": search, **dataclasses.asdict(self)}) + "\n", encoding="utf-8")
        os.replace(new, folder / SEARCH)

    @classmethod
    def load(cls, folder: Path, search: dict[str, Any]) -> "Progress | None":
        """The progress that `save` wrote in the folder; `None` if there is none.

        Raises:
            ValueError: If the search had other arguments, or the file holds no search.
        """
        path = folder / SEARCH
        if not path.exists():
            return None
        with refused("search", path):
            content = json.loads(path.read_text(encoding="utf-8"))
            theirs, ours = content.pop("search"), json.loads(json.dumps(search))
            progress = cls(**content)
            changed = {name: value for name, value in theirs.items() if ours[name] != value}
        if changed:
            differences = "; ".join(f"{name}={ours[name]!r}, there {name}={value!r}" for name, value in changed.items())
            raise ValueError(
                "The folder holds a search with other arguments, which cannot continue with these: give their values, or a "
                f"new `folder`. Received: {differences:.300}"
            )
        return progress


def save_outcome(place: Path, outcome: tuple[float, float]) -> None:
    """Write the metric and the score of a member that has finished a round beside its files."""
    (place / OUTCOME).write_text(json.dumps(outcome) + "\n", encoding="utf-8")


def load_outcome(place: str | PathLike) -> tuple[float, float] | None:
    """The outcome that `save_outcome` wrote; `None` if the round was not finished."""
    path = Path(place) / OUTCOME
    if not path.exists():
        return None
    with refused("outcome of a round", path):
        value, score = json.loads(path.read_text(encoding="utf-8"))
        return float(value), float(score)
