"""What few bits cost in loss: every recipe beside float32 and bfloat16, on small tasks, at the same budget.

All train with the optimizer of the workload, a cosine to zero after a warmup of 5 % and the workload's peak learning rate,
from the same weights on the same batches, with three seeds. `fp4_zhou2025, then bfloat16` ends with the paper's stage in the
target precision, the last 7.5 % of the steps.

    python benchmarks/lowprec_training.py --out docs/lowprec_training.csv
    python benchmarks/lowprec_training.py --workloads cifar10 --data-dir DATA --updates 390 --out docs/lowprec_training.csv
    python benchmarks/lowprec_training.py --out docs/lowprec_training.csv --table

Runs that the file has are not made again. The gap is that of the mean loss to float32; the cost is that of all products with
kernels, if one of 8 bits takes half the time of one of 16 bits, and one of 4 bits a quarter: a model, not a measurement.
"""

import argparse
import csv
import math
import statistics
from pathlib import Path

import keras

from keras_lrsched import workloads
from keras_lrsched.callbacks import PrecisionSchedule
from keras_lrsched.precision import RECIPES, get_recipe, quantize_model
from keras_lrsched.precision.model import quantized_layers
from keras_lrsched.precision.operand import AS_IS
from keras_lrsched.precision.product import Products
from keras_lrsched.schedules.catalog import parse
from keras_lrsched.workloads.compare import Job, Trainer

STAGED = "fp4_zhou2025, then bfloat16"
WITHOUT = ("float32", "bfloat16")
COST_OF_OTHERS = {  # forward, gradient of inputs, gradient of the kernel; rules that are not three casts
    "double_rounding": ((0.5 + 0.5 + 0.25) / 3 + 2) / 3,
    "fp8_delayed": 0.5,
    "pareto_resnet_int4": (0.25 + 2) / 3,
    "wta_crs": (2 + 0.3) / 3,
}
COLUMNS = ("workload", "recipe", "seed", "updates", "loss", "metric", "seconds", "cost", "layers")


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default="pydoc", help="default: pydoc")
    parser.add_argument("--recipes", help="names, with semicolons between (default: all)")
    parser.add_argument("--data-dir", help="where the workloads' data are, for those that need some")
    parser.add_argument("--updates", type=int, default=300, help="of each run (default: 300)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("lowprec_training.csv"), help="default: lowprec_training.csv")
    parser.add_argument("--table", action="store_true", help="only print what the file has")
    arguments = parser.parse_args()
    names = arguments.recipes.split(";") if arguments.recipes else [*WITHOUT, STAGED, *sorted(RECIPES)]
    for workload in arguments.workloads.split(","):
        for name in [] if arguments.table else names:
            run(workload, name, arguments)
        print(table([row for row in read(arguments.out) if row["workload"] == workload]))


def run(workload_name, name, arguments):
    """The runs of one recipe that the file lacks."""
    done = {row["seed"] for row in read(arguments.out) if (row["workload"], row["recipe"]) == (workload_name, name)}
    missing = [seed for seed in range(arguments.seeds) if seed not in done]
    if not missing:
        return
    workload = workloads.load(workload_name, arguments.data_dir)
    build, recipe = workload.build_model, "fp4_zhou2025" if name == STAGED else name
    keras.config.set_dtype_policy("float32" if name == "float32" else "mixed_bfloat16")
    workload.build_model = build if recipe in WITHOUT else lambda: quantized(build(), recipe)
    trainer = Trainer(workload)
    schedule = parse("cosine", workload.peak_learning_rate, arguments.updates, warmup_steps=arguments.updates // 20)
    for seed in missing:
        stages = [PrecisionSchedule.with_target_stage(recipe, arguments.updates)] if name == STAGED else []
        result = trainer.run(Job(workload, arguments.updates, seed, name, schedule), evaluations=1, callbacks=stages)
        row = {
            "workload": workload_name,
            "recipe": name,
            "seed": seed,
            "updates": arguments.updates,
            "loss": f"{result.validation_loss[-1]:.5f}",
            "metric": f"{result.metric[-1]:.5f}",
            "seconds": f"{result.seconds:.1f}",
            "cost": f"{1.0 if recipe in WITHOUT else cost(trainer._model, recipe):.3f}",
            "layers": len(quantized_layers(trainer._model)),
        }
        add(arguments.out, row)
        print(f"{workload_name}, {name}, seed {seed}: {row['loss']} in {row['seconds']} s", flush=True)
    keras.config.set_dtype_policy("float32")


def quantized(model, recipe):
    quantize_model(model, recipe)
    return model


def cost(model, recipe):
    """Of all products with kernels, in those of 16 bits."""
    total = narrow = 0.0
    recipe = get_recipe(recipe)
    for layer in quantized_layers(model):
        size = sum(math.prod(v.shape) for v in layer.trainable_variables if v.path.endswith("kernel"))
        size *= math.prod(n for n in layer.output.shape[1:-1])
        total += size
        narrow += size * cost_of(recipe, recipe.rule(layer.place))
    return narrow / total


def cost_of(recipe, rule):
    if rule is None:
        return 1.0
    if not isinstance(rule, Products) or recipe.name in COST_OF_OTHERS:
        return COST_OF_OTHERS[recipe.name]
    x, w = rule.forward.left, rule.forward.right
    pairs = [(x, w), *((product.left, product.right) for product in (rule.input_gradient, rule.kernel_gradient))]
    if rule.saved == "written":  # what is written no more is so already
        pairs[1] = pairs[1][0], w if pairs[1][1] is AS_IS else pairs[1][1]
        pairs[2] = x if pairs[2][0] is AS_IS else pairs[2][0], pairs[2][1]
    widths = [max(left.element_bits, right.element_bits) for left, right in pairs]
    return statistics.mean(0.25 if bits <= 4 else 0.5 if bits <= 8 else 1.0 for bits in widths)


def add(path, row):
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read(path):
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{**row, "seed": int(row["seed"])} for row in csv.DictReader(file)]


def table(rows):
    """Markdown: a line a recipe, the smallest loss first."""
    heads = ("recipe", "loss", "gap to float32", "metric", "cost of products")
    lines = [heads, ("---", *["---:"] * (len(heads) - 1))]
    groups = {name: [row for row in rows if row["recipe"] == name] for name in {row["recipe"] for row in rows}}
    base = mean(groups["float32"], "loss") if "float32" in groups else math.nan
    for name in sorted(groups, key=lambda name: mean(groups[name], "loss")):
        its = groups[name]
        losses = [float(row["loss"]) for row in its]
        spread = statistics.stdev(losses) if len(losses) > 1 else math.nan
        lines.append(
            (
                f"`{name}`" if name in RECIPES else name,
                f"{statistics.mean(losses):.4f} ± {spread:.4f}",
                f"{100 * (statistics.mean(losses) / base - 1):+.2f} %",
                f"{mean(its, 'metric'):.4f}",
                f"{float(its[0]['cost']):.2f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean(rows, column):
    return statistics.mean(float(row[column]) for row in rows)


if __name__ == "__main__":
    main()
