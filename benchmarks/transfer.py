"""The best learning rate at several widths and depths: standard parameterization beside muP and CompleteP.

    python benchmarks/transfer.py --data-dir FOLDER --out FOLDER

trains the character model on a grid of learning rates by factors of 2, once for each seed, at widths of 64 to 512 with 2
blocks, and at 2 to 8 blocks with a width of 64. It prints the best learning rate of each size, and by how many steps of the
grid it moves from the smallest size to the largest. Each run is recorded when it is finished: the command goes on where it
was ended. Without a data folder, the text is that of the help of Python.
"""

import argparse
import itertools
import json
from pathlib import Path

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_lrsched import transfer
from keras_lrsched.optimizers import AdamW
from keras_lrsched.schedules import LinearDecay
from keras_lrsched.study import workloads
from keras_lrsched.study.workloads.characters import transformer

BASE_WIDTH, BASE_DEPTH, HEAD_SIZE = 64, 2, 32


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", help="folder with tinyshakespeare.txt (default: the help texts of Python)")
    parser.add_argument("--widths", default="64,128,256,512", help="default: 64,128,256,512")
    parser.add_argument("--depths", default="2,4,8", help="default: 2,4,8")
    parser.add_argument("--exponents", default="-11:-3", help="powers of 2 of the learning rates (default: -11:-3)")
    parser.add_argument("--budget", type=int, default=300, help="updates of a run (default: 300)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--out", default="transfer", help="folder for results.jsonl")
    arguments = parser.parse_args()
    low, high = map(int, arguments.exponents.split(":"))
    rates = [2.0**power for power in range(low, high + 1)]
    name = "shakespeare" if arguments.data_dir else "pydoc"
    workload = workloads.load(name, arguments.data_dir)
    sizes = {
        "width": [(int(width), BASE_DEPTH) for width in arguments.widths.split(",")],
        "depth": [(BASE_WIDTH, int(depth)) for depth in arguments.depths.split(",")],
    }
    path = Path(arguments.out) / "results.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = [{key: row[key] for key in row if key != "val_loss"} for row in rows]
    for axis, rule in itertools.product(sizes, ("standard", "mup")):
        for (width, depth), rate, seed in itertools.product(sizes[axis], rates, range(arguments.seeds)):
            keys = {"axis": axis, "rule": rule, "width": width, "depth": depth, "learning_rate": rate, "seed": seed}
            keys["budget"] = arguments.budget
            if keys in done:
                continue
            loss = final_loss(workload, rule, width, depth, rate, arguments.budget, seed)
            print(f"{axis}, {rule}, width {width}, depth {depth}, rate {rate:g}, seed {seed}: {loss:.4f}", flush=True)
            rows.append(keys | {"val_loss": loss})
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    report([row for row in rows if row["budget"] == arguments.budget])


def make_model(workload, width, depth):
    size = len(workload.vocabulary)
    return transformer(workload.context, size, size, depth, width, width // HEAD_SIZE, causal=True)


def final_loss(workload, rule, width, depth, rate, budget, seed):
    """The validation loss at the end of a run; infinite if it diverges."""
    keras.utils.set_random_seed(seed)
    model = make_model(workload, width, depth)
    warmup = budget // 20
    schedule = LinearDecay(0.0, budget - warmup, warmup_target=rate, warmup_steps=warmup)
    optimizer = AdamW(schedule, weight_decay=0.1, beta_2=0.99, epsilon=1e-12)
    if rule == "mup":
        base = make_model(workload, BASE_WIDTH, depth)
        optimizer = transfer.apply(model, base, optimizer=optimizer, depth=(BASE_DEPTH, depth)).optimizer
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for step in range(budget):
        model.train_on_batch(*workload.train_batch(step, seed))
    loss = float(model.evaluate(*workload.validation, verbose=0))
    return loss if np.isfinite(loss) else np.inf


def report(rows):
    """Print the best learning rate of the mean loss over seeds, for each size, and how far it moves."""
    table = Table("axis", "rule", "size", "best rate", "val_loss", "grid steps from the smallest size")
    for axis, rule in itertools.product(("width", "depth"), ("standard", "mup")):
        mine = [row for row in rows if (row["axis"], row["rule"]) == (axis, rule)]
        first = None
        for size in sorted({row[axis] for row in mine}):
            best, loss = best_rate([row for row in mine if row[axis] == size])
            first = first or best
            table.add_row(axis, rule, str(size), f"{best:g}", f"{loss:.4f}", f"{np.log2(best / first):+.0f}")
    Console(width=120).print(table)


def best_rate(rows):
    """The learning rate of the lowest mean loss, and this loss."""
    rates = sorted({row["learning_rate"] for row in rows})
    means = [float(np.mean([row["val_loss"] for row in rows if row["learning_rate"] == rate])) for rate in rates]
    return rates[int(np.argmin(means))], min(means)


if __name__ == "__main__":
    main()
