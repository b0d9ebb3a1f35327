"""The code of the pages runs as it is written there, in order."""

import csv
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import keras
import pytest

from tests.nightly import nightly, some

DOCS = Path(__file__).parents[2] / "docs"
BACKEND = keras.backend.backend()


def blocks(page, language):
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    assert found
    return found


def run(command, folder):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "KERAS_BACKEND": BACKEND}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@nightly
def test_start_here(tmp_path):
    """In a new process; what it ends with is looked at from within."""
    (tmp_path / "start.py").write_text(
        "\n".join(blocks("index.md", "python")) + "\nassert accuracy > 0.93\n", encoding="utf-8"
    )
    printed = run([sys.executable, "start.py"], tmp_path)
    assert "of the test images are right" in printed
    assert {path.name for path in tmp_path.iterdir()} >= {"linear.png", "digits.keras"}


@pytest.mark.slow
def test_commands_of_start_here(tmp_path):
    """All but the installation, which has been made."""
    commands = [shlex.split(line) for block in blocks("index.md", "bash") for line in block.splitlines()]
    for command in commands:
        if command[0] != "pip":
            run(command, tmp_path)
    assert [command[0] for command in commands] == ["pip", "keras-lrsched", "keras-lrsched"]
    assert (tmp_path / "shapes.png").exists()


@pytest.mark.parametrize("page", some(["data", "layerwise", "resume", "mixed_precision", "bfloat16", "rules"]))
def test_how_to(page, tmp_path, monkeypatch):
    if page == "mixed_precision" and BACKEND == "torch":
        pytest.skip("float16 on a CPU takes minutes there")
    monkeypatch.chdir(tmp_path)
    try:
        names: dict = {}
        exec(compile("\n".join(blocks(f"guides/{page}.md", "python")), page, "exec"), names)
    finally:
        keras.config.set_dtype_policy("float32")
    if page == "bfloat16":
        assert names["moved"]() == 1.0
        assert names["moved"](stochastic_rounding=True, seed=0) == pytest.approx(0.9, abs=2e-3)
        assert names["moved"](master_weights=True) == pytest.approx(0.9, abs=2e-3)
        assert names["history"].history["accuracy"][-1] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_distributed(backend, tmp_path):
    pytest.importorskip(backend)
    (block,) = [block for block in blocks("guides/distributed.md", "python") if f'"{backend}"' in block]
    (tmp_path / "distributed.py").write_text(block, encoding="utf-8")
    run([sys.executable, "distributed.py"], tmp_path)


def test_choose_has_the_numbers_of_the_file():
    losses: dict = defaultdict(dict)
    with open(DOCS / "benchmarks" / "predict_before_run.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            losses[row["schedule"], row["updates"]][row["seed"]] = float(row["measured"])
    mean = {key: statistics.mean(seeds.values()) for key, seeds in losses.items()}
    text = (DOCS / "guides" / "choose.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d\.\d{3} .*?) \| (\d\.\d{3} .*?) \|$", text, flags=re.MULTILINE)
    assert len(rows) == 10
    for name, *cells in rows:
        for updates, cell in zip(("2000", "4000"), cells, strict=True):
            loss = mean[name, updates]
            assert cell == f"{loss:.3f} ({loss - mean['cosine', updates]:+.3f})", name


def test_choose_and_readme_show_the_same_demo():
    def cells(path):
        found = re.findall(r"^\| ([^|`]+) \| (.*±.*) \|$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return {name: sorted(row.replace("*", "").split(" | ")) for name, row in found}

    ours, readme = cells(DOCS / "guides" / "choose.md"), cells(DOCS.parent / "README.md")
    assert len(ours) == 5
    assert {name: readme[name] for name in ours} == ours


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_two_replicas_end_where_one_does(part):
    """The claim of the page on distributed training, for all optimizers but those that refuse several replicas by name."""
    pytest.importorskip("tensorflow")
    from keras_lrsched import optimizers

    names = [name for name in optimizers.names() if name != "local_updates"][part::4]
    printed = run([sys.executable, str(Path(__file__).with_name("replicas.py")), *names], DOCS.parent)
    found = dict(re.findall(r"^(\w+) (.+)$", printed, flags=re.MULTILINE))
    assert found.keys() == {*names, "schedule"}
    apart = {name: float(number) for name, number in found.items() if number != "refused"}
    assert max(apart.values()) < 2e-5, apart
