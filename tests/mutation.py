"""Kill rate of the tests: mutates formulas, encoders and files of state by seed, and runs the tests that are for them.

    python -m tests.mutation --number 300 --seed 0 --out build/mutants.csv

A mutant is one small mistake in one function: another operator, another comparison, another number, a negated condition, a
sign. It is killed if a test fails, or takes longer than `--timeout`. Each runs in a fork of a process that has imported all,
with the code of the function replaced; those of C++ are compiled in a copy, and run by the tests of compiled updates. The
file grows by a line a mutant, and a second run goes on where the first ended. What survives `make test` is tried by the
nightly tests. At the end a table of kill rates is printed, of both.

The tests that are run are those in `TARGETS`: others may kill a survivor, too.
"""

import argparse
import ast
import contextlib
import copy
import csv
import gc
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from keras_lrsched._core import registry

ROOT = Path(__file__).parent.parent
METHODS = (keras.optimizers.schedules.LearningRateSchedule, keras.optimizers.Optimizer)


@dataclass(frozen=True)
class Target:
    """Functions to be mutated, and the tests for them."""

    files: tuple[str, ...]
    """Patterns of paths."""
    functions: str
    """A regular expression for module and qualified name, `module:Class.function`."""
    tests: Callable[[Path, str], list[str]]
    """Arguments of pytest, for a file and the qualified name of a function."""
    share: float
    """The share of all mutants."""


def chosen_by_class(contract, room, *others):
    """The contract of a room, the mirrored tests and others, for the class of a function and all that inherit from it."""

    def tests(path, function):
        mirror = ROOT / "tests" / room / f"test_{path.stem.removeprefix('_')}.py"
        mirrors = [str(mirror)] if mirror.exists() else []
        return [contract, *mirrors, *others, *(["-k", " or ".join(heirs)] if (heirs := heirs_of(path, function)) else [])]

    return tests


def heirs_of(path, function):
    """Names in the tests of a class and all that inherit from it; none for what is no schedule or optimizer."""
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    name, _, method = function.partition(".")
    family = [getattr(module, name)] if method else []
    for each in family:
        family += each.__subclasses__()
    if not all(issubclass(each, METHODS) for each in family):
        return []
    budgets = [entry.name for entry in registry.entries("schedules") if entry.target in family and entry.name]
    return sorted({each.__name__ for each in family}) + [f"(budget and {name})" for name in budgets]


def tests_of_precision(path, function):
    names = ("elements", "formats", "quantized", "exact", "packing", "float_numerics", "hadamard", "dynamic_map")
    return [f"tests/precision/test_{name}.py" for name in names]


TESTS_OF_FILES = {
    "npz": ["tests/test_untrusted_files.py"],
    "run_file": ["tests/core/test_run_file.py", "tests/callbacks/test_loss_recorder.py"],
    "checkpoint_file": ["tests/test_untrusted_files.py", "tests/callbacks/test_training_state.py"],
}


TARGETS = {
    "schedules": Target(
        ("keras_lrsched/schedules/*.py",),
        r".*(compute|value|values|progress|floor_of|shape|for_budget|segments|phases)$",
        chosen_by_class("tests/contract/test_schedules.py", "schedules", "tests/schedules/test_budgets.py"),
        0.27,
    ),
    "optimizers": Target(
        ("keras_lrsched/optimizers/*.py",),
        r".*\.(step|begin_step|end_step)$",
        chosen_by_class("tests/contract/test_optimizers.py", "optimizers", "tests/optimizers/test_fused_optimizer.py"),
        0.27,
    ),
    "precision": Target(
        ("keras_lrsched/precision/*.py",),
        r".*numerics:.*|.*(encode|decode|quantize|pack|round|scale|unpack)\w*$",
        tests_of_precision,
        0.2,
    ),
    "state file": Target(
        ("keras_lrsched/_core/checkpoint_file.py", "keras_lrsched/_core/run_file.py", "keras_lrsched/_core/npz.py"),
        r".*",
        lambda path, function: TESTS_OF_FILES[path.stem],
        0.1,
    ),
}
CPP_SHARE = 0.16


# Mutations of Python

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutations(node):
    """Functions that each make one mistake in a node, in place."""
    match node:
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
            yield lambda it: setattr(it, "op", OPERATORS[type(it.op)]())
        case ast.Compare(ops=[op]) if type(op) in OPERATORS:
            yield lambda it: setattr(it, "ops", [OPERATORS[type(it.ops[0])]()])
        case ast.Constant(value=bool()):
            yield lambda it: setattr(it, "value", not it.value)
        case ast.Constant(value=int() | float()):
            yield lambda it: setattr(it, "value", it.value + 1)
        case ast.UnaryOp(op=ast.USub()):
            yield lambda it: setattr(it, "op", ast.UAdd())
        case ast.If() | ast.IfExp():
            yield lambda it: setattr(it, "test", ast.UnaryOp(ast.Not(), it.test))


def functions(module):
    """Qualified name and node of each function of a module."""

    def walk(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                yield f"{prefix}{child.name}", child

    yield from walk(module, "")


def python_mutants(target):
    """(path, function, index of the mutation) of all mutants of a target."""
    for path in sorted(path for pattern in target.files for path in ROOT.glob(pattern)):
        for name, node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if re.fullmatch(target.functions, f"{path.stem}:{name}"):
                yield from ((path, name, index) for index, _ in enumerate(places(node)))


def places(function):
    """Node and mutation of all mistakes in a function; its docstring and annotations have none."""
    for statement in function.body:
        for node in ast.walk(statement):
            if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
                yield from ((node, mutation) for mutation in mutations(node))


def mutated_code(path, name, index):
    """The code object of the function with its mistake, and the line of it before and after."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    function = dict(functions(module))[name]
    node, mutate = list(places(function))[index]
    before = ast.unparse(copy.deepcopy(node))
    mutate(node)
    ast.fix_missing_locations(module)
    code = find_code(compile(module, str(path), "exec"), name)
    return code, f"{node.lineno}: {before[:60]} -> {ast.unparse(node)[:60]}".replace("\n", " ")


def find_code(code, name):
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            if constant.co_qualname == name:
                return constant
            found = find_code(constant, name)
            if found:
                return found
    return None


def apply(path, name, code):
    """Replace the code of all living functions of this name; return how many there were."""
    alive = [
        each
        for each in gc.get_objects()
        if isinstance(each, types.FunctionType)
        and each.__code__.co_qualname == name
        and each.__code__.co_filename == str(path)
    ]
    for function in alive:
        function.__code__ = code
    return len(alive)


def run_python(mutant, tests, timeout):
    """`killed`, `killed at night`, `survived` or `timeout`, and what was changed."""
    result, change = run_in_fork(mutant, tests, timeout)
    if result == "survived":
        at_night, _ = run_in_fork(mutant, lambda *function: [*tests(*function), "-m", "nightly"], timeout)
        result = "killed at night" if at_night in ("killed", "timeout") else "survived"
    return result, change


def run_in_fork(mutant, tests, timeout):
    path, name, index = mutant
    code, change = mutated_code(path, name, index)
    child = os.fork()
    if child == 0:
        os.setsid()
        with open(os.devnull, "w") as nothing, tempfile.TemporaryDirectory() as folder:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
            import pytest

            status = 3
            if apply(path, name, code):
                options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={folder}/pytest"]
                status = pytest.main([*options, *tests(path, name)])
        os._exit(int(status))
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(status)
            return {0: "survived", 3: "not found", 5: "no test"}.get(status, "killed"), change
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout", change


# Mutations of C++

TOKENS = [(" + ", " - "), (" - ", " + "), (" * ", " / "), (" / ", " * "), (" > ", " >= "), (" < ", " <= "), (" ? ", " ? !")]


def cpp_file():
    """The header with the formulas of the optimizers."""
    return next(path for path in (ROOT / "ops" / "kernels").glob("*.h") if "struct Lion" in path.read_text(encoding="utf-8"))


def cpp_mutants():
    """(path, line, index of the token in it) of all mutants of formulas."""
    path = cpp_file()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if line.startswith("    ") and not line.strip().startswith("//"):
            found = [(match.start(), token) for token in TOKENS for match in re.finditer(re.escape(token[0]), line)]
            yield from ((path, str(number), index) for index, _ in enumerate(found))


def run_cpp(mutant, timeout):
    """As `run_python`, in a copy with the C++ changed, by the tests that hold compiled updates to `step`."""
    path, number, index = mutant
    lines = path.read_text(encoding="utf-8").splitlines()
    line = lines[int(number)]
    found = [(match.start(), token) for token in TOKENS for match in re.finditer(re.escape(token[0]), line)]
    start, (old, new) = found[index]
    lines[int(number)] = line[:start] + new + line[start + len(old) :]
    with tempfile.TemporaryDirectory() as folder:
        parts = ["keras_lrsched", "ops", "custom_ops_cuda", "tests", "conftest.py", "pyproject.toml"]
        subprocess.run(["cp", "-r", *parts, folder], cwd=ROOT, check=True)
        (Path(folder) / path.relative_to(ROOT)).write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = {"KERAS_LRSCHED_CACHE": f"{folder}/cache", "KERAS_LRSCHED_FUSED": "1", "PYTHONPATH": folder}
        environment = os.environ | settings
        tests = ["tests/optimizers/test_fused_optimizer.py", "-k", "agrees_with_step"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            done = subprocess.run(command, cwd=folder, env=environment, timeout=timeout, capture_output=True, check=False)
        except subprocess.TimeoutExpired:
            return "timeout", lines[int(number)].strip()
    return "killed" if done.returncode else "survived", f"{line.strip()} -> {lines[int(number)].strip()}"


# The run


def sample(number, seed):
    """Room and mutant, the same for a seed as long as the mutated files stay."""
    chosen = []
    for room, target in TARGETS.items():
        every = list(python_mutants(target))
        count = min(len(every), round(number * target.share))
        chosen += [(room, each) for each in random.Random(f"{seed}{room}").sample(every, count)]
    every = list(cpp_mutants())
    chosen += [
        ("C++", each) for each in random.Random(f"{seed}C++").sample(every, min(len(every), round(number * CPP_SHARE)))
    ]
    return chosen


def import_all():
    """Import what the tests need, once for all forks; no operation of a framework may run before a fork."""
    modules = [
        "tests.contract.test_schedules",
        "tests.contract.test_optimizers",
        "tests.callbacks.test_training_state",
        *(f"tests.precision.test_{name}" for name in ("elements", "formats", "quantized", "hadamard")),
    ]
    for name in modules:
        importlib.import_module(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for the tests of a mutant")
    parser.add_argument("--part", default="0/1", help="i/n: each n-th mutant from the i-th on, for several processes")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    part, parts = map(int, arguments.part.split("/"))
    chosen = sample(arguments.number, arguments.seed)[part::parts]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = read(arguments.out)
    import_all()
    for room, mutant in chosen:
        path, name, index = mutant
        key = (str(path.relative_to(ROOT)), name, str(index))
        if key in {tuple(row[1:4]) for row in done}:
            continue
        start = time.monotonic()
        if room == "C++":
            result, change = run_cpp(mutant, arguments.timeout)
        else:
            result, change = run_python(mutant, TARGETS[room].tests, arguments.timeout)
        with open(arguments.out, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([room, *key, result, f"{time.monotonic() - start:.1f}", change])
    print(table(read(arguments.out)))


def read(path):
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def table(rows):
    lines = ["| room | mutants | killed by `make test` | with `make test-nightly` |", "| --- | --- | --- | --- |"]
    rows = [row for row in rows if row[4] in ("killed", "killed at night", "timeout", "survived")]
    for room in [*dict.fromkeys(row[0] for row in rows), "all"]:
        results = [row[4] for row in rows if room in ("all", row[0])]
        killed, later = (
            sum(result in kinds for result in results) for kinds in (("killed", "timeout"), ("killed at night",))
        )
        number = max(1, len(results))
        lines.append(f"| {room} | {len(results)} | {killed / number:.1%} | {(killed + later) / number:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
