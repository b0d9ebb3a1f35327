"""Recommendations beside Keras' defaults, a random search and the whole study, on models that they were not developed on.

    python benchmarks/recommend.py --out FOLDER [TRIPLE ...]      # makes what is missing, one triple after another
    python benchmarks/recommend.py --out FOLDER --table           # prints the table of what is there, and writes results.csv

Each triple is a model, its data and a budget. Compared are means of the final validation loss over the seeds, at

- the default of `compile`: RMSprop at 0.001, constant; Adam at 0.001, constant
- the best of 32 random trials of one seed: optimizer and schedule at random, peak log-uniform in [1e-4, 1]
- the best pair of the whole study, each peak tuned
- what `Study.recommend` returns for several fractions of a full run of each pair

Each run is recorded when it is finished, and each triple's row in FOLDER/rows.jsonl: the command goes on where it was ended.
`recommend` was developed on multilayer perceptrons for scikit-learn's digits, its first Friedman problem and a generated
classification, 512 steps each; none of these is here.
"""

import argparse
import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers
from rich.console import Console
from rich.table import Table

from keras_lrsched.study import Study, Trial

OPTIMIZERS = {
    "adamw": keras.optimizers.AdamW,
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "momentum": lambda learning_rate: keras.optimizers.SGD(learning_rate, momentum=0.9),
}
SCHEDULES = ("constant", "cosine", "linear", "wsd")
DEFAULTS = {"RMSprop, 0.001": ("rmsprop", "constant", 1e-3), "Adam, 0.001": ("adam", "constant", 1e-3)}
FRACTIONS = (0.05, 0.3, 1.3)
RANDOM_TRIALS = 32


@dataclasses.dataclass(frozen=True)
class Triple:
    """A model, its data and a budget. `data` returns training and validation data."""

    model: Callable[[], keras.Model]
    data: Callable[[], tuple]
    loss: str | keras.losses.Loss
    budget: int
    batch_size: int = 32

    def study(self, folder, arguments):
        train, validation = self.data()
        budget = arguments.budget or self.budget
        return Study(
            self.model,
            train=train,
            validation=validation,
            loss=self.loss,
            batch_size=self.batch_size,
            optimizers={name: OPTIMIZERS[name] for name in arguments.optimizers},
            schedules=list(arguments.schedules),
            budget=budget,
            seeds=arguments.seeds,
            workers=arguments.workers,
            directory=folder,
            reuse_model=True,
        )


def split(x, y, held_out=0.2, seed=11):
    """Shuffled, inputs standardized."""
    order = np.random.default_rng(seed).permutation(len(x))
    x = ((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)).astype("float32")[order]
    y, first = y[order], int((1 - held_out) * len(x))
    return (x[:first], y[:first]), (x[first:], y[first:])


def standardized(y):
    return ((y - y.mean()) / y.std()).astype("float32")[:, None]


def cancer_data():
    from sklearn.datasets import load_breast_cancer

    return split(*load_breast_cancer(return_X_y=True), held_out=0.3)


def cancer_model():
    hidden = [layers.Dense(32), layers.BatchNormalization(momentum=0.9), layers.ReLU(), layers.Dropout(0.2)]
    return keras.Sequential([layers.Input((30,)), *hidden, layers.Dense(2)])


def moons_data():
    from sklearn.datasets import make_moons

    return split(*make_moons(5000, noise=0.3, random_state=1))


def moons_model():
    hidden = [layers.Dense(24, activation="tanh") for _ in range(3)]
    return keras.Sequential([layers.Input((2,)), *hidden, layers.Dense(2)])


def quantiles_data():
    from sklearn.datasets import make_gaussian_quantiles

    return split(*make_gaussian_quantiles(n_samples=6000, n_features=8, n_classes=4, random_state=2))


def quantiles_model():
    inputs = layers.Input((8,))
    x = layers.Dense(48)(inputs)
    for _ in range(3):
        x += layers.Dense(48)(layers.Dense(96, activation="gelu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, layers.Dense(4)(layers.LayerNormalization()(x)))


def friedman3_data():
    from sklearn.datasets import make_friedman3

    x, y = make_friedman3(6000, noise=0.1, random_state=3)
    return split(x, standardized(y))


def friedman3_model():
    return keras.Sequential([layers.Input((4,)), layers.Dense(256, activation="elu"), layers.Dense(1)])


def _windows(length, count=8000):
    from pydoc_data.topics import topics

    text = "\n".join(topics[topic] for topic in sorted(topics)).lower()
    known = sorted(set("abcdefghijklmnopqrstuvwxyz .,()\n"))
    codes = np.array([known.index(c) if c in known else len(known) for c in text], "int32")
    starts = np.random.default_rng(4).integers(len(codes) - length - 1, size=count)
    rows = codes[np.sort(starts)[:, None] + np.arange(length + 1)]
    first = int(0.9 * count)  # the end of the text is held out
    train, validation = rows[np.random.default_rng(5).permutation(first)], rows[first + 20 :]
    return (train[:, :-1], train[:, 1:]), (validation[:, :-1], validation[:, 1:])


def lstm_data():
    return _windows(20)


def lstm_model():
    inputs = layers.Input((20,), dtype="int32")
    x = layers.LSTM(48, return_sequences=True)(layers.Embedding(33, 24)(inputs))
    return keras.Model(inputs, layers.Dense(33)(x))


def waves_data():
    """The frequency of a wave in noise."""
    random = np.random.default_rng(6)
    frequency, phase = random.uniform(0.02, 0.4, size=(4000, 1)), random.uniform(0, 2 * np.pi, size=(4000, 1))
    x = np.sin(2 * np.pi * frequency * np.arange(48) + phase) + 0.5 * random.normal(size=(4000, 48))
    return split(x, standardized(frequency[:, 0]))


def waves_model():
    convolutions = [layers.Conv1D(16, 5, activation="relu"), layers.Conv1D(16, 5, strides=2, activation="relu")]
    return keras.Sequential(
        [layers.Input((48,)), layers.Reshape((48, 1)), *convolutions, layers.GlobalAveragePooling1D(), layers.Dense(1)]
    )


def sensing_data():
    random = np.random.default_rng(7)
    matrix = random.normal(size=(16, 3)) @ random.normal(size=(3, 16)) / 16
    x = random.normal(size=(4000, 16, 16))
    y = np.tensordot(x, matrix, 2) + 0.1 * random.normal(size=4000)
    return split(x, standardized(y))


def sensing_model():
    flat = [layers.Dense(6, use_bias=False), layers.Flatten(), layers.Dense(1, use_bias=False)]
    return keras.Sequential([layers.Input((16, 16)), *flat])


def autoencoder_data():
    random = np.random.default_rng(8)
    x = np.tanh(random.normal(size=(5000, 5)) @ random.normal(size=(5, 40))) + 0.1 * random.normal(size=(5000, 40))
    (train, _), (validation, _) = split(x, x)
    return (train, train.copy()), (validation, validation.copy())


def autoencoder_model():
    return keras.Sequential(
        [
            layers.Input((40,)),
            layers.Dense(64, activation="swish"),
            layers.Dense(5),
            layers.Dense(64, activation="swish"),
            layers.Dense(40),
        ]
    )


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
TRIPLES = {
    "cancer": Triple(cancer_model, cancer_data, CROSS_ENTROPY, 200, 16),
    "moons": Triple(moons_model, moons_data, CROSS_ENTROPY, 600),
    "quantiles": Triple(quantiles_model, quantiles_data, CROSS_ENTROPY, 800, 64),
    "friedman3": Triple(friedman3_model, friedman3_data, "mse", 1000, 64),
    "lstm": Triple(lstm_model, lstm_data, CROSS_ENTROPY, 400),
    "waves": Triple(waves_model, waves_data, "mse", 500),
    "sensing": Triple(sensing_model, sensing_data, "mse", 400, 64),
    "autoencoder": Triple(autoencoder_model, autoencoder_data, "mse", 900, 64),
}


def final(study, setting):
    """The mean over the seeds; infinite if one of them does not finish."""
    made = study.run_trials([Trial(*setting, study.budget, seed) for seed in range(study.seeds)])
    values = [each.final() for each in made]
    return float(np.mean(values)) if all(map(math.isfinite, values)) else math.inf


def random_search(study, trials):
    """The best setting of trials of one seed, and their steps."""
    random = np.random.default_rng(1)
    pairs = study.pairs
    settings = [(*pairs[random.integers(len(pairs))], float(10 ** random.uniform(-4, 0))) for _ in range(trials)]
    made = study.run_trials([Trial(*setting, study.budget, 0) for setting in settings])
    values = [each.final() if each.status == "finished" else math.inf for each in made]
    return settings[int(np.argmin(values))], trials * study.budget


def whole_study(study):
    """The best mean over all seeds at the whole budget, and the steps of the study."""
    outcomes = study.outcomes()
    finals = {}
    for each in outcomes:
        if each.trial.budget == study.budget:
            finals.setdefault(each.trial.setting, []).append(each.final())
    whole = {setting: float(np.mean(v)) for setting, v in finals.items() if len(v) == study.seeds and np.all(np.isfinite(v))}
    best = min(whole, key=whole.__getitem__)
    return best, whole[best], sum(each.trial.budget for each in outcomes)


def compare(name, arguments):
    study = TRIPLES[name].study(Path(arguments.out) / name, arguments)
    best, least, steps = whole_study(study)
    row = {"triple": name, "budget": study.budget, "study": {"setting": best, "loss": least, "steps": steps}}
    row["defaults"] = {label: final(study, setting) for label, setting in DEFAULTS.items() if setting[:2] in study.pairs}
    setting, steps = random_search(study, arguments.random_trials)
    row["random"] = {"setting": setting, "loss": final(study, setting), "steps": steps}
    row["recommended"] = {}
    for fraction in arguments.fractions:
        found = study.recommend(fraction, verbose=0)
        setting = found.optimizer, found.schedule, found.learning_rate
        row["recommended"][str(fraction)] = {
            "setting": setting,
            "loss": final(study, setting),
            "predicted": found.loss,
            "interval": found.interval,
            "steps": found.spent,
            "reason": found.reason,
        }
    return row


def table(rows, out):
    """Print the table and write it as CSV."""
    lines = []
    for row in rows:
        least, whole = row["study"]["loss"], row["study"]["steps"]
        for fraction, found in row["recommended"].items():
            low, high = found["interval"]
            lines.append(
                {
                    "triple": row["triple"],
                    "fraction": float(fraction),
                    "compute": found["steps"] / whole,
                    "loss": found["loss"],
                    "study": least,
                    "excess": found["loss"] / least - 1,
                    "default": min(row["defaults"].values(), default=math.nan),
                    "rmsprop": row["defaults"].get("RMSprop, 0.001", math.nan),
                    "random": row["random"]["loss"],
                    "inside": low <= found["loss"] <= high,
                    "choice": "{}, {}, {:.3g}".format(*found["setting"]),
                    "best": "{}, {}, {:.3g}".format(*row["study"]["setting"]),
                }
            )
    shown = Table(*lines[0], title="final validation loss, means over the seeds")
    for line in lines:
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in line.values()))
    console = Console(width=200)
    console.print(shown)
    for fraction in sorted({line["fraction"] for line in lines}):
        own = [line for line in lines if line["fraction"] == fraction]
        compute, excess = (np.median([line[column] for line in own]) for column in ("compute", "excess"))
        default, random = (sum(line["loss"] < line[column] for line in own) for column in ("rmsprop", "random"))
        console.print(
            f"fraction {fraction}: {compute:.2%} of the compute of the study; median excess {excess:+.2%}; better than "
            f"RMSprop at 0.001 in {default} of {len(own)}, than the random search in {random}; "
            f"{sum(line['inside'] for line in own)} of the intervals hold"
        )
    with (Path(out) / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main():
    arguments = _arguments()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    done = [row["triple"] for row in rows_in(path)]
    for name in [] if arguments.table else arguments.triples or TRIPLES:
        if name not in done:
            row = compare(name, arguments)
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if rows := rows_in(path):
        table(rows, folder)


def _arguments():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("triples", nargs="*", choices=[[], *TRIPLES], help="which ones (default: all)")
    parser.add_argument("--out", default="recommend", help="folder for runs, rows and table; of one set of options")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--budget", type=int, help="steps of a run (default: those of the triple)")
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "rmsprop", "momentum"], choices=OPTIMIZERS)
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES))
    parser.add_argument("--fractions", nargs="+", type=float, default=list(FRACTIONS))
    parser.add_argument("--random-trials", type=int, default=RANDOM_TRIALS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
