"""The loss and the learning rates of a run, from the rows of its log."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.laws._logs import names, runs
from keras_lrsched.laws._logs.log import LogError, columns_of, number, whole
from keras_lrsched.laws.law import rates as rates_of

MOST = 2**26
"""Updates that a log may count."""


class Choice(NamedTuple):
    """The arguments of `LossCurve.read`."""

    learning_rate: Any = None
    run: Any = None
    loss: Any = None
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    first: int | None = None
    drop_nan: bool = False


class Series(NamedTuple):
    """The numbers of a column, and the count of each."""

    at: np.ndarray
    value: np.ndarray


def columns(log, choice):
    """`loss`, `rates` and `step` of a `LossCurve`.

    Raises:
        LogError: If the log does not hold what is needed, or it is not clear what is meant.
    """
    parts, run = runs.parts_of(log, choice.run)
    every = [row for part in parts for row in part]
    losses = _loss_columns(every, choice.loss)
    counter, in_epochs = _counter(every, losses)
    if not in_epochs:
        parts = _counted_on(parts, counter, choice.steps_per_epoch)
    rows = runs.one_of(parts, run, _count(counter))
    per_epoch = _steps_per_epoch(choice, in_epochs)
    loss = _series(rows, counter, losses)
    if not len(loss.at):
        raise LogError(f"The run has no {' + '.join(losses)}: pass loss=..., one of {', '.join(columns_of(rows))}")
    first = _first(loss.at, choice.first, log.first, counter, in_epochs)
    last = max(whole(row.get(counter), counter) or 0 for row in rows) - first
    steps = _steps(choice.total_steps, (last + 1) * per_epoch, counter)
    place = _places(loss.at - first, losses[0], per_epoch, log.window_mean)
    finite = np.isfinite(loss.value)
    if choice.learning_rate is None or isinstance(choice.learning_rate, str):
        name = choice.learning_rate or names.rate_of([name for name in columns_of(rows) if _has(rows, name)])
        logged = _series(rows, counter, [_known(name, columns_of(rows), "learning_rate")])
        good = np.isfinite(logged.value)
        _drop(~finite, ~good, loss, logged, choice.drop_nan)
        rates = _spread(Series(logged.at[good] - first, logged.value[good]), steps, per_epoch, name)
    else:
        _drop(~finite, np.zeros(0, bool), loss, None, choice.drop_nan)
        rates = rates_of(choice.learning_rate, choice.total_steps if np.ndim(choice.learning_rate) else steps)
    if place[-1] >= len(rates):
        raise LogError(
            f"The log has losses up to update {place[-1]}, counted from 0, and there are {len(rates)} learning rates: pass "
            "learning_rate=... with one for each update, or total_steps=... for the length of the run"
        )
    if not finite.any():
        raise LogError("The run has no loss that is finite")
    return {"loss": loss.value[finite], "rates": rates, "step": place[finite]}


def _loss_columns(rows, given):
    present = [name for name in columns_of(rows) if _has(rows, name)]
    if given is None:
        return [names.loss_of(present)]
    chosen = [given] if isinstance(given, str) else list(given)
    if not chosen:
        raise LogError("Pass loss=..., the name of a column or a list of some. Received: an empty list")
    return [_known(name, present, "loss") for name in chosen]


def _known(name, present, argument):
    if name not in present:
        raise LogError(f"The log has no {name!r}: pass {argument}=..., one of {', '.join(present)}")
    return name


def _has(rows, name):
    return any(row.get(name) not in (None, "") for row in rows)


def _counter(rows, losses):
    """The column that counts the rows with a loss, and whether it counts epochs."""
    with_loss = [row for row in rows if row.get(losses[0]) not in (None, "")]
    present = [name for name in columns_of(with_loss) if _has(with_loss, name)]
    step = names.first_of(names.STEPS, present)
    epoch = names.first_of(names.EPOCHS, present)
    if step is None and epoch is None:
        raise LogError(
            f"The log does not count updates or epochs: it needs a column {', '.join(names.STEPS[:5])}, ... or epoch; make "
            f"the curve by LossCurve(loss=..., rates=..., step=...). It has: {', '.join(columns_of(rows))}"
        )
    return (epoch, True) if step is None else (step, False)


def _count(counter):
    return lambda row: whole(row.get(counter), counter)


def _counted_on(parts, counter, steps_per_epoch):
    """The rows with a count over the whole run, if it begins anew in each epoch."""
    rows = [row for part in parts for row in part if row.get(counter) not in (None, "")]
    name = names.first_of(names.EPOCHS, columns_of(rows))
    if name is None or any(row.get(name) in (None, "") for row in rows):
        return parts
    epochs = [number(row[name], name) for row in rows]
    counts = [whole(row[counter], counter) for row in rows]
    falls = np.diff(counts) < 0
    if not falls.any() or np.any(np.diff(epochs) < 0) or np.any(np.diff(epochs)[falls] == 0):
        return parts
    if steps_per_epoch is None:
        raise LogError(f"{counter!r} begins anew in each epoch: pass steps_per_epoch=..., the updates in each of them")
    per_epoch = validation.positive_int("steps_per_epoch", steps_per_epoch)
    if max(counts) > per_epoch:
        raise LogError(f"{counter!r} goes up to {max(counts)} within an epoch, and steps_per_epoch is {per_epoch}")
    numbers = [whole(row[name], name) for row in rows]
    return [
        [
            {**row, counter: (epoch - numbers[0]) * per_epoch + count}
            for row, epoch, count in zip(rows, numbers, counts, strict=True)
        ]
    ]


def _steps_per_epoch(choice, in_epochs):
    if not in_epochs:
        return 1
    if choice.steps_per_epoch is None:
        raise LogError("The log counts epochs: pass steps_per_epoch=..., the updates in each of them")
    return validation.positive_int("steps_per_epoch", choice.steps_per_epoch)


def _series(rows, counter, chosen):
    """The sum of some columns, where rows have them.

    Raises:
        LogError: If a row has only some of them, or a count is there twice with two values.
    """
    found: dict[int, float] = {}
    for row in rows:
        values = [number(row.get(name), name) for name in chosen]
        if all(value is None for value in values):
            continue
        count = whole(row.get(counter), counter)
        if count is None or None in values:
            raise LogError(f"A row has {' or '.join(chosen)} only in part, or no {counter}: {row!s:.200}")
        total = sum(value for value in values if value is not None)
        if not _same(found.setdefault(count, total), total):
            apart = ", ".join(runs.telling(rows, _count(counter))) or "or split the file"
            what = " + ".join(chosen)
            raise LogError(
                f"The log has two values of {what} at {counter} {count}, {found[count]:.6g} and {total:.6g}: if it holds "
                f"several runs, pass run={{column: value}} with the columns that distinguish them, {apart}"
            )
    return Series(np.array(list(found), int), np.array(list(found.values()), float))


def _same(one, other):
    return one == other or (np.isnan(one) and np.isnan(other))


def _first(counts, given, of_form, counter, in_epochs):
    """The number of the first update, from the argument, the form, or the counts themselves."""
    if given is not None:
        return validation.non_negative_int("first", given)
    if of_form is not None:
        return of_form
    start, gap = counts[0], counts[1] - counts[0] if len(counts) > 1 else 0
    if start == 0 or (not in_epochs and start == gap - 1):  # 0, 1, 2 or 0, 50, 100; 49, 99, 149
        return 0
    if start == 1 and in_epochs:
        return 1
    if not in_epochs and gap and (start == gap or (start == 1 and len(counts) > 2 and counts[1] == counts[2] - counts[1])):
        return 1  # 1, 2, 3; 25, 50, 75; 1, 25, 50
    raise LogError(
        f"The column {counter!r} begins with {', '.join(map(str, counts[:3]))}, from which it is not clear what the first "
        f"{'epoch' if in_epochs else 'update'} of the run is called: pass first=0 or first=1"
    )


def _steps(given, logged, counter):
    steps = logged if given is None else validation.positive_int("total_steps", given)
    if steps > MOST:
        raise LogError(f"The column {counter!r} counts {steps} updates, and a curve may have {MOST}")
    if steps < logged:
        raise LogError(f"The log has {logged} updates: pass total_steps=... with as many or more, not {steps}")
    return steps


def _places(counts, loss, per_epoch, window_mean):
    """The update, counted from 0, that each loss belongs to."""
    if counts.min() < 0:
        raise LogError(f"The log counts from {counts.min()} below `first`: pass first=0")
    if window_mean and not loss.startswith(("eval", "val")):
        before = np.append(-1, counts[:-1])
        return (before + 1 + counts) // 2
    if per_epoch == 1:
        return counts
    return counts * per_epoch + (per_epoch - 1 if loss.lower().startswith(("val", "eval")) else (per_epoch - 1) // 2)


def _spread(logged, steps, per_epoch, name):
    """The learning rate of all updates: a straight line between those that were logged, and one for a whole epoch.

    Raises:
        LogError: If a part of the run at its begin or end has none.
    """
    if not len(logged.at):
        raise LogError(f"The run has no {name!r}: pass learning_rate=..., a number, a schedule, or the rates of all updates")
    total = -(-steps // per_epoch)
    longest = int(np.max(np.diff(logged.at), initial=1))
    for what, missing in (("first", int(logged.at[0])), ("last", total - 1 - int(logged.at[-1]))):
        if missing > 2 * longest:
            raise LogError(
                f"The log has no {name!r} in the {what} {missing} {'epochs' if per_epoch > 1 else 'updates'}: pass "
                "learning_rate=..., a number, a schedule, or the rates of all updates"
            )
    return np.repeat(np.interp(np.arange(total), logged.at, logged.value), per_epoch)[:steps]


def _drop(bad_loss, bad_rate, loss, rates, drop_nan):
    """Refuse numbers that are not finite, or count those that are left out."""
    count = int(bad_loss.sum() + bad_rate.sum())
    if not count:
        return
    which, bad = (loss, bad_loss) if bad_loss.any() else (rates, bad_rate)
    if not drop_nan:
        raise LogError(
            f"The log has {count} losses or learning rates that are not finite, the first {which.value[bad][0]} at "
            f"{which.at[bad][0]}: pass drop_nan=True to leave them out"
        )
    warnings.warn(f"{count} of {len(loss.value)} losses or learning rates are not finite and left out", stacklevel=4)
