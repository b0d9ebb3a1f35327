"""State and time of an update of every optimizer by name, beside AdamW; writes docs/benchmarks/optimizer_costs.md.

The update alone, in a graph of TensorFlow, of a small transformer's variables (0.45 million parameters): each optimizer
takes turns with the compiled AdamW, ten updates at a time, so that what happens each tenth update is in it. State is what
the optimizer holds for each parameter, beside the weights. Claims are those of its paper in docs/benchmarks/results.md.

Run: python benchmarks/optimizer_costs.py [--rounds 7] [NAME ...]
"""

import argparse
import os
import re
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_lrsched import optimizers
from keras_lrsched._core import registry

UPDATES = 10
DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
WIDTH, WORDS = 128, 1000


def model():
    inputs = layers.Input((8,), dtype="int32")
    x = layers.Embedding(WORDS, WIDTH)(inputs)
    x += layers.MultiHeadAttention(4, WIDTH // 4)(layers.LayerNormalization()(x), x)
    x += layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, layers.Dense(WORDS)(x))


class Updates:
    """An optimizer with a model of its own, and gradients that are always the same."""

    def __init__(self, optimizer):
        self.model = model()
        self.variables = self.model.trainable_variables
        rng = np.random.default_rng(0)
        self.gradients = [tf.constant(rng.normal(scale=1e-2, size=v.shape), "float32") for v in self.variables]
        self.optimizer = optimizer
        optimizer.build(self.variables)
        self.update = tf.function(self._update, autograph=False)

    def _update(self):
        if hasattr(self.optimizer, "set_loss"):
            self.optimizer.set_loss(tf.constant(1.0))
        self.optimizer.apply(self.gradients, self.variables)

    def milliseconds(self):
        start = time.perf_counter()
        for _ in range(UPDATES):
            self.update()
        return (time.perf_counter() - start) / UPDATES * 1e3

    def state_bytes(self):
        size = sum(v.numpy().nbytes for v in self.optimizer.variables)
        return size / sum(int(np.prod(v.shape)) for v in self.variables)


def measure(name, rounds, reference):
    """Bytes of state a parameter, milliseconds, and times AdamW; or the reason why not."""
    try:
        updates = Updates(optimizers.get(name))
        updates.update(), updates.update()
    except Exception as error:  # of those that need a model or several tasks
        return " ".join(str(error).split())[:100]
    pairs = [(updates.milliseconds(), reference.milliseconds()) for _ in range(rounds)]
    own = statistics.median(mine for mine, _ in pairs)
    return updates.state_bytes(), own, statistics.median(mine / other for mine, other in pairs)


def claims(entry, results):
    """The number of claims of the paper that were tried, with their verdicts."""
    found = re.search(r"\d{4}\.\d{4,5}", entry.paper or "")
    rows = [line for line in results.splitlines() if found and found[0] in line and line.startswith("|")]
    verdicts = [line.rstrip("| ").rsplit("|", 1)[-1].strip() for line in rows]
    return ", ".join(f"{verdicts.count(each)} {each}" for each in dict.fromkeys(verdicts))


def page(names, rounds):
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    reference = Updates(optimizers.AdamW(1e-3))
    reference.update(), reference.update()
    yield "# State and time of each optimizer\n"
    yield "\n".join((__doc__ or "").split("\n\n")[1].splitlines()) + "\n"
    yield f"TensorFlow {tf.__version__}, {os.cpu_count()} cores, medians of {rounds} rounds."
    yield "`python benchmarks/optimizer_costs.py` writes it."
    yield "By default Shampoo takes new roots in each update, PSGD new factors.\n"
    yield "| optimizer | bytes a parameter | update, ms | times AdamW | checked by | claims tried here |"
    yield "| --- | ---: | ---: | ---: | --- | --- |"
    for name in names:
        entry = registry.find("optimizers", name)
        got = measure(name, rounds, reference)
        numbers = f"not measured: {got} | | " if isinstance(got, str) else f"{got[0]:.2f} | {got[1]:.2f} | {got[2]:.2f}"
        link = f"[`{name}`](../methods/optimizers/{entry.target.__name__}.md)"
        yield f"| {link} | {numbers} | {entry.checked or ''} | {claims(entry, results)} |"
        keras.backend.clear_session()


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    lines = []
    for line in page(arguments.names or optimizers.names(), arguments.rounds):
        print(line, flush=True)
        lines.append(line)
    if not arguments.names:
        (DOCS / "optimizer_costs.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
