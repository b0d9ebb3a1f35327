"""The cost of low precision in loss: every recipe beside float32 and bfloat16, on small tasks, at the same budget.

All train with the optimizer of the workload, a cosine to zero after a warmup of 5 % and the workload's peak learning rate,
from the same weights on the same batches, with three seeds. `fp4_target_precision, then bfloat16` ends with the paper's
stage in the target precision, the last 7.5 % of the steps.

    python benchmarks/lowprec_training.py --out docs/benchmarks/lowprec_training.csv
    python benchmarks/lowprec_training.py --workloads cifar10 --data-dir DATA --updates 120 --batch-size 16 \
        --validation 1024 --no-xla --out docs/benchmarks/lowprec_training.csv
    python benchmarks/lowprec_training.py --out docs/benchmarks/lowprec_training.csv --table

With another `--batch-size` than the workload's, its peak learning rate goes along in proportion. `aqt_int4` fixes
its bounds after a tenth of the updates, and `wta_crs` samples rows in convolutions, too; the others have their defaults.

Runs that the file has are not made again. The gap is that of the mean loss to float32 with the same seeds; the cost is that
of all products with kernels, if one of 8 bits takes half the time of one of 16 bits, and one of 4 bits a quarter: a model,
not a measurement.
"""

import argparse
import copy
import csv
import math
import statistics
from pathlib import Path

import keras

from keras_lrsched.callbacks import PrecisionSchedule
from keras_lrsched.precision import get_recipe, quantize_model, recipe_names
from keras_lrsched.precision._gemms import LinearGemms
from keras_lrsched.precision._operands import IDENTITY
from keras_lrsched.precision.model import quantized_layers
from keras_lrsched.study import Study, Trial, workloads

STAGED = "fp4_target_precision, then bfloat16"
WITHOUT = ("float32", "bfloat16")
COST_OF_OTHERS = {  # forward, gradient of inputs, gradient of the kernel; rules that are not three casts
    "double_rounding": ((0.5 + 0.5 + 0.25) / 3 + 2) / 3,
    "fp8_delayed": 0.5,
    "aqt_int4": (0.25 + 2) / 3,
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
    parser.add_argument("--batch-size", type=int, help="default: the workload's")
    parser.add_argument("--validation", type=int, help="evaluate on so many of the held-out examples (default: all)")
    parser.add_argument("--no-xla", action="store_true", help="faster for convolutions, and when compiling takes longest")
    parser.add_argument("--out", type=Path, default=Path("lowprec_training.csv"), help="default: lowprec_training.csv")
    parser.add_argument("--table", action="store_true", help="only print what the file has")
    arguments = parser.parse_args()
    names = arguments.recipes.split(";") if arguments.recipes else [*WITHOUT, STAGED, *recipe_names()]
    for workload_name in arguments.workloads.split(","):
        workload = None if arguments.table else load(workload_name, arguments)
        for name in [] if arguments.table else names:
            run(copy.copy(workload), name, arguments)
        print(table([row for row in read(arguments.out) if row["workload"] == workload_name]))


def load(name, arguments):
    """The workload, with the batch size and as much of the held-out data as asked for."""
    kind = workloads.get(name)
    if arguments.batch_size:
        size, peak = arguments.batch_size, kind.peak_learning_rate * arguments.batch_size / kind.batch_size
        kind = type(kind.__name__, (kind,), {"batch_size": size, "peak_learning_rate": peak})
    workload = kind(arguments.data_dir)
    workload.validation = tuple(part[: arguments.validation] for part in workload.validation)
    return workload


def recipe_of(name, updates):
    match name:
        case "aqt_int4":
            return get_recipe(name, statistics_steps=max(updates // 10, 1))
        case "wta_crs":
            return get_recipe(name, roles=("linear", "attention", "convolution"))
    return get_recipe("fp4_target_precision" if name == STAGED else name)


def run(workload, name, arguments):
    """The runs of one recipe that the file lacks."""
    done = {row["seed"] for row in read(arguments.out) if (row["workload"], row["recipe"]) == (workload.name, name)}
    missing = [seed for seed in range(arguments.seeds) if seed not in done]
    if not missing:
        return
    build, recipe = workload.build_model, None if name in WITHOUT else recipe_of(name, arguments.updates)
    keras.config.set_dtype_policy("float32" if name == "float32" else "mixed_bfloat16")
    workload.build_model = build if recipe is None else lambda: quantized(build(), recipe)
    problem = workload.problem() | ({"compile_options": {"jit_compile": False}} if arguments.no_xla else {})
    study = Study(
        **problem,
        schedules=["cosine"],
        learning_rates=workload.peak_learning_rate,
        budget=arguments.updates,
        evaluations=1,
        callbacks=lambda: [PrecisionSchedule.with_target_stage(recipe, arguments.updates)] if name == STAGED else [],
        reuse_model=True,
    )
    model, [(optimizer, schedule)] = workload.build_model(), study.pairs
    for seed in missing:
        trial = Trial(optimizer, schedule, workload.peak_learning_rate, arguments.updates, seed)
        [result] = study.run_trials([trial])
        row = {
            "workload": workload.name,
            "recipe": name,
            "seed": seed,
            "updates": arguments.updates,
            "loss": f"{result.final():.5f}",
            "metric": f"{result.final(workload.metric):.5f}",
            "seconds": f"{result.seconds:.1f}",
            "cost": f"{1.0 if recipe is None else cost(model, recipe):.3f}",
            "layers": len(quantized_layers(model)),
        }
        add(arguments.out, row)
        print(f"{workload.name}, {name}, seed {seed}: {row['loss']} in {row['seconds']} s", flush=True)
    keras.config.set_dtype_policy("float32")


def quantized(model, recipe):
    quantize_model(model, recipe)
    return model


def cost(model, recipe):
    """Of all products with kernels, in those of 16 bits."""
    total = narrow = 0.0
    for layer in quantized_layers(model):
        size = sum(math.prod(v.shape) for v in layer.trainable_variables if v.path.endswith("kernel"))
        size *= math.prod(n for n in layer.output.shape[1:-1])
        total += size
        narrow += size * cost_of(recipe, recipe.rule(layer.context))
    return narrow / total


def cost_of(recipe, rule):
    if rule is None:
        return 1.0
    if not isinstance(rule, LinearGemms) or recipe.name in COST_OF_OTHERS:
        return COST_OF_OTHERS[recipe.name]
    x, w = rule.fprop.left, rule.fprop.right
    pairs = [(x, w), *((product.left, product.right) for product in (rule.dgrad, rule.wgrad))]
    if rule.residuals == "quantized":  # what is not quantized again is so already
        pairs[1] = pairs[1][0], w if pairs[1][1] is IDENTITY else pairs[1][1]
        pairs[2] = x if pairs[2][0] is IDENTITY else pairs[2][0], pairs[2][1]
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
    heads = ("recipe", "seeds", "loss", "gap to float32", "metric", "cost of products")
    lines = [heads, ("---", *["---:"] * (len(heads) - 1))]
    groups = {name: [row for row in rows if row["recipe"] == name] for name in {row["recipe"] for row in rows}}
    for name in sorted(groups, key=lambda name: mean(groups[name], "loss")):
        its = groups[name]
        losses = [float(row["loss"]) for row in its]
        spread = f" ± {statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
        base = [row for row in groups.get("float32", []) if row["seed"] in {each["seed"] for each in its}]
        gap = 100 * (mean(its, "loss") / mean(base, "loss") - 1) if len(base) == len(its) else math.nan
        lines.append(
            (
                f"`{name}`" if name in recipe_names() else name,
                f"{len(its)}",
                f"{statistics.mean(losses):.4f}{spread}",
                f"{gap:+.2f} %",
                f"{mean(its, 'metric'):.4f}",
                f"{float(its[0]['cost']):.2f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mean(rows, column):
    return statistics.mean(float(row[column]) for row in rows)


if __name__ == "__main__":
    main()
