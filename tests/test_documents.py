"""The Python in the documents runs as it is written there, and what it makes can be used in a `fit`."""

import ast
import importlib.util
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_lrsched._core import registry
from tests.nightly import some

ROOT = Path(__file__).parents[1]

# What a page takes for granted.
A_MODEL = """
import keras
import numpy as np

x, y = np.ones((1024, 32)), np.ones((1024, 1))
model, loss = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(1)]), "mse"
model.compile("sgd", loss)
"""
TWO_RUNS = """
from keras_lrsched.laws import ConvexBound
from keras_lrsched.schedules import LinearDecay

schedule = LinearDecay(0.005, 2000)
for name, rates in {"constant": np.full(2000, 0.005), "cosine": schedule.values(2000)}.items():
    losses = ConvexBound(1.5, 3.4, 1.5).loss_at(rates, np.arange(2000))
    rows = [f"{step},0,{rate},{loss}" for step, (rate, loss) in enumerate(zip(rates, losses))]
    open(f"{name}.csv", "w").write("\\n".join(["step,run,learning_rate,loss", *rows]))
"""
DOCUMENTS = {
    "README.md": "",
    "docs/guides/tour.md": "",
    "docs/guides/from_tensorflow_addons.md": "",
    "docs/guides/laws.md": A_MODEL + TWO_RUNS,
    "docs/guides/low_precision.md": A_MODEL,
    "docs/guides/rules.md": "",
    "docs/guides/study.md": "",
    "docs/guides/transfer.md": "",
    "docs/guides/write_your_own.md": "",
}
QUICK = ("README.md", "docs/guides/laws.md", "docs/guides/write_your_own.md")


def python_of(document):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = [block for block in blocks if "model.export(" not in block]  # converters: tests/exports
    if importlib.util.find_spec("keras_hub") is None:  # `make test-programs-examples` has it
        blocks = [block for block in blocks if "import keras_hub" not in block]
    assert blocks
    return "\n".join(blocks)


def objects_of(code, document):
    """Executes the code and returns all values of its names and of its statements without a name."""
    tree = ast.parse(code)
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.Expr):
            tree.body[number] = ast.Assign([ast.Name(f"value_{number}", ast.Store())], node.value)
    names: dict = {}
    exec(compile(ast.fix_missing_locations(tree), document, "exec"), names)
    return [value for value in names.values() if not isinstance(value, type)]


def fit(optimizer, callbacks=()):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    model.fit(np.ones((4, 3), "float32"), np.ones((4, 1), "float32"), verbose=0, callbacks=[*callbacks])
    return float(model.optimizer.learning_rate)


@pytest.mark.parametrize("document", some(DOCUMENTS, chosen=QUICK.__contains__))
def test_python_blocks(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_entries", [*registry._entries])  # a page may register methods of its own
    for value in objects_of(DOCUMENTS[document] + python_of(document), document):
        if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
            assert fit(keras.optimizers.SGD(value)) == pytest.approx(float(value(1)), rel=1e-6)
        elif isinstance(value, keras.optimizers.Optimizer) and not value.built:
            fit(value)
            assert int(value.iterations) == 1
        elif isinstance(value, keras.callbacks.Callback) and value.model is None:
            fit(keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1), [value])
