"""RunTable: one row for each run, with the size of its model, what it was trained on, and its final loss."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.laws._logs import names, reader
from keras_lrsched.laws._logs.log import number
from keras_lrsched.laws.mean_parameters import mean_parameters

FLOPS = 6.0
"""Floating-point operations for each parameter and token: two forward, four backward."""
TOKENS_PER_PARAMETER = (0.1, 1e5)
"""A median outside of this is a mistake in the units: language models see 1 to 1000 tokens for each parameter."""
USUAL = {  # one letter alone is a name in the case of the papers only: `d` is often a width
    "loss": ("loss", "final_loss", "val_loss", "eval_loss", "validation_loss", "test_loss", "L"),
    "parameters": ("parameters", "params", "num_parameters", "num_params", "n_params", "model_size", "N"),
    "tokens": ("tokens", "num_tokens", "train_tokens", "training_tokens", "total_tokens", "n_tokens", "D"),
    "compute": ("compute", "flops", "flop", "training_flop", "training_flops", "train_flops", "total_flops", "C"),
    "steps": ("steps", "step", "updates", "num_steps", "train_steps", "S"),
    "batch_tokens": ("batch_tokens", "tokens_per_batch", "tokens_per_step", "batch_size_tokens", "B"),
    "sparsity": ("sparsity", "final_sparsity"),
    "members": ("members", "ensemble_size", "K"),
    "error": ("error", "err", "error_rate", "err_avg"),
    "run": ("run", "run_id", "run_name"),
}
"""The columns of a table, with the names that they usually have."""


@dataclass(frozen=True, eq=False)
class RunTable:
    """Runs, one row each: what `RunLaw`s are fitted to.

    Columns that follow from others are filled in: `tokens` from `steps` times `batch_tokens`, or from `compute`; `compute`
    as 6 `parameters` `tokens`; `batch_tokens` from `tokens` and `steps`.

    Raises:
        ValueError: If a number is not positive and finite, columns differ in length, or units do not belong together:
            tokens that are far from `steps` times `batch_tokens`, compute far from 6 `parameters` `tokens`, less than 0.1
            or more than 100,000 tokens for each parameter in the median.

    Example:

    >>> runs = RunTable(parameters=[1e8, 4e8], tokens=[2e9, 8e9], loss=[3.4, 2.9])
    >>> runs.compute
    array([1.20e+18, 1.92e+19])
    """

    loss: np.ndarray
    """The final loss of each run, in nats for each token."""
    parameters: np.ndarray | None = None
    """Parameters of the model: all, or all but embeddings, but the same for all runs; it moves exponents by 0.1."""
    tokens: np.ndarray | None = None
    """Tokens that the run was trained on, counted as often as they were seen."""
    compute: np.ndarray | None = None
    """Floating-point operations of the run."""
    steps: np.ndarray | None = None
    """Updates of the run."""
    batch_tokens: np.ndarray | None = None
    """Tokens in each batch."""
    sparsity: np.ndarray | None = None
    """Share of the parameters that are pruned at the end, in [0, 1)."""
    members: np.ndarray | None = None
    """Models in an ensemble."""
    error: np.ndarray | None = None
    """Error on downstream tasks, in (0, 1]."""
    run: np.ndarray | None = None
    """Labels; rows with the same one are of one run, and are resampled together. Defaults to `None`: each row is a run."""
    check_units: bool = True
    """Set to `False` to admit columns whose units do not seem to belong together; they raise otherwise."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in USUAL if getattr(self, name) is not None}
        columns = {name: np.array(values) if name == "run" else _numbers(name, values) for name, values in given.items()}
        shapes = {name: column.shape for name, column in columns.items()}
        if len(set(shapes.values())) != 1 or columns["loss"].ndim != 1 or not len(columns["loss"]):
            raise ValueError(f"The columns of a table must have one entry for each run. Received: shapes {shapes}")
        _derive(columns)
        vars(self).update(columns)
        if self.check_units:
            _check_units(columns)

    def __len__(self) -> int:
        return len(self.loss)

    @classmethod
    def read(
        cls,
        source: Any,
        columns: Mapping[str, str] | None = None,
        where: Mapping[str, Any] | None = None,
        check_units: bool = True,
    ) -> Self:
        """The runs in a table: a file (CSV, TSV, JSON, JSON lines), a mapping of columns (a DataFrame), or a list of rows.

        Args:
            source: The table.
            columns: Which column of the table is which of this class, for instance `{"parameters": "N_no_embed", "loss":
                "loss_c4_val"}`. Defaults to `None`: those with usual names (`N`, `params`, `D`, `flops`, `final_loss`, ...).
            where: Values of columns that the rows must have, for instance `{"dataset_name": "c4_original"}`. Defaults to
                `None`: all rows.
            check_units: See the class. Defaults to `True`.

        Raises:
            ValueError: If the table has no loss, or a column that is named does not exist or holds something else than
                numbers.

        Example:

        >>> runs = RunTable.read({"N": [1e8, 4e8, 4e8], "D": [2e9, 8e9, 2e9], "final_loss": [3.4, 2.9, 3.1]})
        >>> runs.tokens
        array([2.e+09, 8.e+09, 2.e+09])
        """
        rows = [row for row in _rows(source) if all(_equal(row.get(key), value) for key, value in (where or {}).items())]
        if not rows:
            raise ValueError(f"The table has no rows{f' with {dict(where)}' if where else ''}. Received: {source!r:.100}")
        known = list(dict.fromkeys(name for row in rows for name in row))
        found = _usual(known) | _named(columns or {}, known)
        if "loss" not in found:
            raise ValueError(
                "The table must have a loss under a usual name, or columns={'loss': ...} with the name of its column. "
                f"It has: {', '.join(map(str, known))}"
            )
        values = {name: [_cell(row.get(column), name, column) for row in rows] for name, column in found.items()}
        return cls(**{name: np.array(column) for name, column in values.items()}, check_units=check_units)

    def column(self, name: str) -> np.ndarray:
        """A column by its name.

        Raises:
            ValueError: If the table does not have it.
        """
        found = getattr(self, name)
        if found is None:
            present = ", ".join(each for each in USUAL if getattr(self, each) is not None)
            raise ValueError(f"The runs must have `{name}`. They have: {present}")
        return found

    def take(self, rows: Any) -> Self:
        """The table of some rows, by their numbers or by an array of booleans."""
        columns = {name: getattr(self, name) for name in USUAL}
        return replace(
            self,
            **{name: column[rows] for name, column in columns.items() if column is not None},
            check_units=False,  # all were checked together
        )

    def left(self, exclude: Sequence[int]) -> np.ndarray:
        """The numbers of all rows but some.

        Raises:
            ValueError: If there are no such rows.
        """
        excluded = validation.each("exclude", exclude, validation.non_negative_int)
        if excluded and max(excluded) >= len(self):
            raise ValueError(
                f"`exclude` must be rows of the table, 0 to {len(self) - 1}. Received: exclude={exclude!r:.200}"
            )
        return np.setdiff1d(np.arange(len(self)), np.array(excluded, int))

    def groups(self) -> list[np.ndarray]:
        """The numbers of the rows of each run."""
        if self.run is None:
            return [np.array([row]) for row in range(len(self))]
        return [np.flatnonzero(self.run == label) for label in dict.fromkeys(self.run.tolist())]

    @property
    def distinct(self) -> int:
        """The number of runs; one that a bootstrap drew several times counts once."""
        if self.run is not None:
            return len(set(self.run.tolist()))
        columns = [getattr(self, name) for name in USUAL if getattr(self, name) is not None]
        return len(set(zip(*(column.tolist() for column in columns), strict=True)))

    def with_mean_parameters(self, begin: float = 0.25, end: float = 0.75, of: str = "compute") -> Self:
        """The table of runs with gradual pruning, whose `parameters` are the means over the run. See `mean_parameters`."""
        sizes = zip(self.column("parameters"), self.column("sparsity"), strict=True)
        means = [mean_parameters(size, sparsity, begin, end, of) for size, sparsity in sizes]
        return replace(self, parameters=np.array(means), sparsity=None, compute=None, check_units=False)


Runs: TypeAlias = RunTable | Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | os.PathLike
"""A `RunTable`, or what `RunTable.read` reads."""


def as_runs(runs: Any) -> RunTable:
    """A `RunTable`, read if it is not one yet."""
    return runs if isinstance(runs, RunTable) else RunTable.read(runs)


def _rows(source: Any) -> list[dict[str, Any]]:
    if isinstance(source, str | os.PathLike):
        log = reader.read(source)
        if log.named:
            raise ValueError(f"The table must have one row for each run. Received: path={str(source)!r}, the chart of a run")
        return [row for part in log.parts for row in part]
    if hasattr(source, "keys"):
        columns = {name: np.ravel(source[name]).tolist() for name in source.keys()}  # noqa: SIM118  a DataFrame, too
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if isinstance(source, Iterable):
        rows = list(source)
        if all(isinstance(row, Mapping) for row in rows):
            return [dict(row) for row in rows]
    raise ValueError(f"Runs must be a file, a mapping of columns, or a list of rows. Received: runs={source!r:.100}")


def _usual(known: Sequence[str]) -> dict[str, str]:
    """The column of the table for each of ours that has a usual name there."""
    by_name = {names.plain(str(name)): name for name in reversed(known)} | {str(name): name for name in known}
    found = {ours: next((by_name[name] for name in usual if name in by_name), None) for ours, usual in USUAL.items()}
    return {ours: column for ours, column in found.items() if column is not None}


def _named(columns: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    for ours, column in columns.items():
        validation.one_of("columns", ours, tuple(USUAL))
        if column not in known:
            raise ValueError(f"`columns` must name columns of the table: {', '.join(map(str, known))}. Received: {column!r}")
    return dict(columns)


def _cell(value: Any, ours: str, column: str) -> Any:
    if ours == "run":
        return value
    found = number(value, column)
    return np.nan if found is None else found


def _equal(cell: Any, value: Any) -> bool:
    """True if a cell of a table, which may be text, has a value."""
    try:
        return cell == value or float(cell) == float(value)
    except (TypeError, ValueError):
        return str(cell) == str(value)


def _numbers(name: str, values: Any) -> np.ndarray:
    column = np.array(values, float)
    lowest = 0.0 if name == "sparsity" else np.nextafter(0.0, 1.0)
    bad = ~(np.isfinite(column) & (column >= lowest) & ((column < 1) | (name != "sparsity")))
    if bad.any():
        row = np.flatnonzero(bad)[0]
        what = "at least 0 and below 1" if name == "sparsity" else "positive and finite"
        raise ValueError(f"`{name}` must be {what}. Received: {name}={np.ravel(column)[row]} in row {row}")
    return column


def _derive(columns: dict[str, np.ndarray]) -> None:
    """Fill in columns that follow from others."""
    if "tokens" not in columns and {"steps", "batch_tokens"} <= columns.keys():
        columns["tokens"] = columns["steps"] * columns["batch_tokens"]
    if "tokens" not in columns and {"compute", "parameters"} <= columns.keys():
        columns["tokens"] = columns["compute"] / (FLOPS * columns["parameters"])
    if "compute" not in columns and {"tokens", "parameters"} <= columns.keys():
        columns["compute"] = FLOPS * columns["parameters"] * columns["tokens"]
    if "batch_tokens" not in columns and {"tokens", "steps"} <= columns.keys():
        columns["batch_tokens"] = columns["tokens"] / columns["steps"]


def _check_units(columns: dict[str, np.ndarray]) -> None:
    """Raise where orders of magnitude show that columns are in other units than they should be."""
    if {"tokens", "steps"} <= columns.keys() and np.median(columns["batch_tokens"]) <= 1:
        _mixed_up(
            "`tokens` must count tokens, and `steps` updates", "tokens for each update", columns["tokens"] / columns["steps"]
        )
    if {"tokens", "steps"} <= columns.keys():
        ratio = columns["tokens"] / (columns["steps"] * columns["batch_tokens"])
        if not 0.5 < np.median(ratio) < 2:
            _mixed_up("`tokens` must be `steps` times `batch_tokens`, updates times tokens a batch", "times that", ratio)
    if {"tokens", "parameters"} <= columns.keys():
        ratio = columns["tokens"] / columns["parameters"]
        if not TOKENS_PER_PARAMETER[0] <= np.median(ratio) <= TOKENS_PER_PARAMETER[1]:
            _mixed_up(
                "`tokens` must count tokens, not updates, sequences or billions, and `parameters` single ones, not millions",
                "tokens for each parameter",
                ratio,
            )
    if {"tokens", "parameters"} <= columns.keys():
        ratio = columns["compute"] / (FLOPS * columns["parameters"] * columns["tokens"])
        if not 0.1 < np.median(ratio) < 10:
            _mixed_up("`compute` must be in floating-point operations, about 6 `parameters` `tokens`", "times that", ratio)


def _mixed_up(message: str, unit: str, ratio: np.ndarray) -> None:
    raise ValueError(
        f"{message}; `RunTable` takes other units with check_units=False. "
        f"Received: {np.median(ratio):.3g} {unit} in the median run"
    )
