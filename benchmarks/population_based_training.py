"""Population based training of the learning rate on digits, against as many random constant learning rates.

Both have the same budget: so many members, trained for so many epochs each. The members of the population copy from each
other after each epoch; the constant rates are drawn from the same range and train on. Both keep what has the least loss on
images set aside for that; the table says what that one reaches on the validation images, which took no part in it. For
population based training this is a replay, in one run, of the schedule that the search wrote.

    python benchmarks/population_based_training.py --out docs/benchmarks/population_based_training.csv
"""

import argparse
import csv
import tempfile
import time

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_lrsched.data import ScheduledBatches
from keras_lrsched.study.workloads.digits import Digits
from keras_lrsched.tune import PopulationBasedTraining
from keras_lrsched.tune._member import Member

RATE, RANGE = "optimizer.learning_rate", (1e-3, 1.0)
FACTORS = (2.0, 0.5)
TRAINED, SET_ASIDE = 33, 11
"""Batches."""


def main():
    arguments = _arguments()
    rows = []
    for seed in range(arguments.seeds):
        first = 100 * seed  # a member has the number of its own seed
        rows.append(_population(arguments, first) | {"seed": seed})
        rows.append(_constant(arguments, first) | {"seed": seed})
        print(rows[-2], rows[-1], sep="\n", flush=True)
    with open(arguments.out, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    _report(rows, arguments)


def make():
    workload = Digits()
    batches = [workload.train_batch(step, 0) for step in range(TRAINED + SET_ASIDE)]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    model = workload.build_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(workload.optimizer(0.1), loss, metrics=["accuracy"])
    size = workload.batch_size
    training = ScheduledBatches(x[: TRAINED * size], y[: TRAINED * size], batch_size=size, seed=0)
    return model, {"x": training, "validation_data": (x[TRAINED * size :], y[TRAINED * size :])}


def _population(arguments, first):
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        search = PopulationBasedTraining(
            {RATE: RANGE},
            population=arguments.population,
            rounds=arguments.epochs,
            perturbation_factors=FACTORS,
            seed=first,
        )
        found = search.search(make, folder, workers=arguments.workers)
    seconds = time.time() - begin
    keras.utils.set_random_seed(found.policy.seed)
    model, fit = make()
    model.fit(**fit, epochs=arguments.epochs, verbose=0, callbacks=found.policy.callbacks())
    rates = [each[RATE] for each in found.policy.settings]
    return _row("population", rates, found.value, model, fit) | {"copies": len(found.copies), "seconds": round(seconds)}


def _constant(arguments, first):
    begin = time.time()
    numbers = np.random.default_rng(first + 1)
    best, runs = None, []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(arguments.population):
            rate = float(np.exp(numbers.uniform(*np.log(RANGE))))
            keras.backend.clear_session()
            member = Member(make, first + i, folder, arguments.epochs, "val_loss", "min")
            value, score = member.train({RATE: rate})
            runs.append((score, rate, value))
            if score == max(runs)[0]:
                best = _row("constant", [rate], value, member.model, make()[1])
    return best | {"copies": 0, "seconds": round(time.time() - begin)}


def _row(method, rates, value, model, fit):
    replayed = model.evaluate(*fit["validation_data"], verbose=0)[0]
    loss, accuracy = model.evaluate(*Digits().validation, verbose=0)
    return {
        "method": method,
        "learning_rates": " ".join(f"{rate:.4g}" for rate in rates),
        "loss_set_aside": round(value, 5),
        "loss_set_aside_replayed": round(replayed, 5),
        "validation_loss": round(loss, 5),
        "validation_accuracy": round(accuracy, 5),
    }


def _report(rows, arguments):
    columns = ("seed", "method", "learning_rates", "loss_set_aside", "validation_loss", "validation_accuracy", "seconds")
    title = f"{arguments.population} members, {arguments.epochs} epochs of {TRAINED} updates each"
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    Console(width=150).print(table)
    for column in ("loss_set_aside", "validation_loss"):
        pairs = zip(rows[::2], rows[1::2], strict=True)
        wins = sum(population[column] < constant[column] for population, constant in pairs)
        print(f"{column}: the population has the lower one in {wins} of {len(rows) // 2} seeds")


def _arguments():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="searches of each kind (default: 3)")
    parser.add_argument("--population", type=int, default=4, help="members (default: 4)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs, each a round (default: 6)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--out", default="population_based_training.csv", help="where the table goes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
