"""The commands, and the one line that each mistake ends with."""

import argparse
import importlib.util
import inspect
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import keras
import pytest

from keras_lrsched import cli, optimizers, schedules
from keras_lrsched._core import registry
from keras_lrsched.cli import support
from keras_lrsched.precision import recipe_names
from keras_lrsched.study import workloads
from keras_lrsched.study.training import Runner
from tests.nightly import nightly


def run(*words):
    """The command in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "keras_lrsched_command", *words], capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def fails(capsys):
    """Calls the command, which must fail with exit code 2 and one line on stderr, and returns that line."""

    def call(*words):
        assert cli.main(list(words)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    return call


def test_list_names_everything(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    others = [row.name for row in registry.entries("schedules") if row.name]
    every = [*schedules.names(), *others, *optimizers.names(), *recipe_names(), *workloads.names()]
    for name in [*every, "PerUpdate", "masking rate"]:
        assert name in out
    assert "rex\tREX\tREXDecay\tarXiv:2107.04197" in out.splitlines()


class Terminal(io.TextIOWrapper):
    """A stdout that is a terminal of an encoding."""

    def __init__(self, encoding="utf-8"):
        super().__init__(io.BytesIO(), encoding)

    def isatty(self):
        return True

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_no_name_is_cut_on_a_narrow_terminal(encoding, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", Terminal(encoding))
    assert cli.main(["list"]) == 0
    out = sys.stdout.text()
    assert "multiplicative_cyclic" in out
    assert "…" not in out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_any_encoding_prints(encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    support.print_in_any_encoding()
    support.show("Title", ["name", "value"], [["Pólya \u2026", "1 ± 2\t3\n4"]])
    sys.stdout.flush()
    text = sys.stdout.buffer.getvalue().decode(encoding)
    row = "Pólya \\u2026\t1 ± 2 3 4".encode(encoding, "backslashreplace").decode(encoding)
    assert text.splitlines() == ["# Title", "name\tvalue", row, ""]


def test_doctor_names_versions_and_backend(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert keras.__version__ in out
    assert f"backend\t{keras.backend.backend()}" in out


@pytest.mark.parametrize("words", ["doctor", "predict loss law.json"])
def test_an_untested_keras_is_named(words, capsys, monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    cli.main(words.split())
    assert "keras-lrsched: warning: Keras 3.99.0 is installed, but" in capsys.readouterr().err


def test_doctor_builds_all_libraries(capsys, monkeypatch):
    made = [("core", "/cache/update_core.so", True), ("jax", "g++ failed with 1", False)]
    monkeypatch.setattr("keras_lrsched.kernels.build_all", lambda: iter(made))
    assert cli.main(["doctor", "--build"]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == ["core\t/cache/update_core.so", "jax\tg++ failed with 1"]
    del made[1]
    assert cli.main(["doctor", "--build"]) == 0


def test_a_reader_that_has_seen_enough(monkeypatch, capsys):
    """As `head`: no traceback, and the exit code of SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert cli.main(["list"]) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--bakend", "jax", "list"], ["--bakend=jax", "list"]])
def test_an_option_before_the_command(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    expected = (
        f"keras-lrsched: There is no option {words[0]!r}. Did you mean --backend? Options: --backend, --help, --version.\n"
    )
    assert capsys.readouterr().err == expected


def test_an_empty_backend_is_none(capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert cli.main(["doctor"]) == 0
    assert f"backend\t{keras.backend.backend()}" in capsys.readouterr().out


def test_doctor_lives_without_a_backend(capsys, monkeypatch):
    """A missing part is a line of its table, and its exit code is 1."""
    monkeypatch.setenv("KERAS_BACKEND", "caffe")
    assert cli.main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert keras.__version__ in out
    assert "backend\tnone that works: Unknown backend 'caffe'. Known: tensorflow, jax, torch." in out.splitlines()
    assert err == ""


@pytest.mark.parametrize("out", ["p.xyz", "p", "p."])
def test_a_picture_of_an_unknown_type_is_refused_at_once(fails, out, tmp_path, monkeypatch):
    monkeypatch.setattr(schedules, "get", None)
    monkeypatch.chdir(tmp_path)
    assert "a type that Matplotlib writes: .avif, .eps" in fails("plot", "rex", "-o", out)
    assert not os.listdir(tmp_path)


def test_plot_draws(tmp_path, capsys):
    picture = tmp_path / "p.png"
    assert cli.main(["plot", "rex", "wsd:cooldown=linear", "--steps", "100", "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(picture)


@pytest.fixture
def without_xla(monkeypatch):
    """XLA takes longer to compile a step than a test has steps."""
    if keras.backend.backend() == "tensorflow":
        monkeypatch.setattr(workloads.get("digits"), "use_xla", False)


@pytest.mark.usefixtures("without_xla")
def test_compare_writes_its_results(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--workload", "digits", "--schedules", "linear,rex:a=0.1:b=0.9", "--budget", "4,6", "--seeds", "1"]
    words += ["--learning-rate", "0.1", "--evaluations", "1", "--out", str(out)]
    assert cli.main(["compare", *words]) == 0
    written = (out / "report.md").read_text()
    assert "keras-lrsched compare --workload digits" in written
    assert "## [digits-6](digits-6/report.html)" in written
    assert "untuned common peak 0.1; 1 seed." in written
    assert "## AlgoPerf score over 2 studies" in written
    assert {path.name for path in out.iterdir()} == {"digits-4", "digits-6", "report.md"}
    assert len((out / "digits-6" / "runs.jsonl").read_text().splitlines()) == 2
    assert (out / "digits-6" / "report.html").exists()
    assert "# digits-4: untuned common peak" in capsys.readouterr().out

    runs = (out / "digits-4" / "runs.jsonl").read_bytes()
    assert cli.main(["compare", *words]) == 0  # goes on, with nothing to do
    assert (out / "digits-4" / "runs.jsonl").read_bytes() == runs


@nightly
@pytest.mark.usefixtures("without_xla")
def test_compare_tunes_the_peaks(tmp_path, capsys):
    words = ["--schedules", "linear", "--budget", "4", "--seeds", "1", "--evaluations", "1", "--out", str(tmp_path / "out")]
    assert cli.main(["compare", *words, "--optimizers", "adamw"]) == 0
    assert "# digits-4: tuned peaks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedules", "lineer"], "Unknown schedule 'lineer'. Did you mean linear"),
        (
            ["--schedules", "rex:c=1"],
            "'rex' has no option 'c'. It has: alpha, a, b, sample_every, ",
        ),
        (["--schedules", "noam:c=1"], "'noam' has no option 'c'. It has: d_model, scale. Received: 'noam:c=1'"),
        (["--schedules", "constant:c=1"], "'constant' has no option 'c'. It has: none."),
        (["--schedules", "rex:a"], "name:option=value"),
        (["--schedules", "rex:a=-1:b=2"], "a=-1"),
        (["--workload", "digitz"], "Unknown workload 'digitz'. Did you mean digits"),
        (["--workload", "cifar10"], "needs data"),
        (["--workload", "shakespeare", "--data-dir", "/nowhere"], "does not exist"),
        (["--budget", "1", "--warmup", "0.999", "--schedules", "one_cycle"], "total_steps=1"),
    ],
)
def test_mistakes_end_in_one_line_and_write_nothing(fails, words, message, tmp_path):
    out = tmp_path / "out"
    assert message in fails("compare", *words, "--out", str(out))
    assert not out.exists()


def test_an_output_folder_that_cannot_be(fails, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written to" in fails("compare", "--out", str(tmp_path / "file"))
    assert "holds something else than a comparison: file. Give another one by --out." in fails(
        "compare", "--out", str(tmp_path), "--force"
    )
    assert "No such file" in fails("plot", "rex", "-o", str(tmp_path / "no" / "p.png"))
    assert os.listdir(tmp_path) == ["file"]


@nightly
@pytest.mark.usefixtures("without_xla")
def test_another_comparison_in_the_folder(fails, tmp_path, capsys):
    words = [
        "--schedules",
        "linear",
        "--budget",
        "4",
        "--learning-rate",
        "0.1",
        "--evaluations",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert cli.main(["compare", *words, "--seeds", "1"]) == 0
    capsys.readouterr()
    assert "a study of other settings" in fails("compare", *words, "--seeds", "2")
    assert cli.main(["compare", *words, "--seeds", "2", "--force"]) == 0
    assert len((tmp_path / "digits-4" / "runs.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "argument --seeds: must be a positive integer. Received: 0"),
        (["--seeds", "1.5"], "argument --seeds: must be a positive integer. Received: 1.5"),
        (
            ["--budget", "10,x"],
            "argument --budget: must be a positive integer, or several separated by commas. Received: 10",
        ),
        (["--learning-rate", "-1"], "argument --learning-rate: must be a positive number. Received: -1"),
        (["--learning-rate", "nan"], "argument --learning-rate: must be a positive number. Received: nan"),
        (["--warmup", "1"], "argument --warmup: must be at least 0 and below 1. Received: 1"),
        (["--warmup", "few"], "argument --warmup: must be at least 0 and below 1. Received: few"),
        (["--bugdet", "3"], "There is no option '--bugdet'. Did you mean --budget? Options: --budget, --data-dir, "),
        (["--zz=3"], "There is no option '--zz=3'. Options: --budget, --data-dir, --evaluations, --force, --help, "),
        (["--bud", "3"], "There is no option '--bud'. "),
    ],
)
def test_a_wrong_option_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["compare", *words])
    err = capsys.readouterr().err
    assert err.startswith(f"keras-lrsched compare: {message}")
    assert err.count("\n") == 1


def test_unknown_backend(fails, monkeypatch):
    assert "Unknown backend 'theano'" in fails("--backend", "theano", "list")
    monkeypatch.setenv("KERAS_BACKEND", "caffe")
    assert "Unknown backend 'caffe'" in fails("list")


def test_a_backend_that_is_not_installed(fails, monkeypatch):
    monkeypatch.setattr(cli, "installed_backends", lambda: ["tensorflow"])
    assert "pip install 'keras-lrsched[jax]'" in fails("--backend", "jax", "list")


@nightly
def test_unknown_backend_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "caffe")
    result = run("list")
    assert result.returncode == 2
    assert result.stderr == "keras-lrsched: Unknown backend 'caffe'. Known: tensorflow, jax, torch.\n"


def test_a_missing_package_is_named(fails, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    assert "pip install 'keras-lrsched[compare]'" in fails("compare")


@pytest.fixture
def default_handlers():
    """Python's own, also where the tests run in the background of a shell, which ignores SIGINT there."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@nightly
@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process")
@pytest.mark.usefixtures("without_xla", "default_handlers")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=nightly)])
def test_interrupting_keeps_what_is_finished(number, code, tmp_path, capsys, monkeypatch):
    """The batch in which the signal comes is the last one."""
    run, out, updates = Runner.__call__, tmp_path / "out", []

    def interrupted(self, trial, after_step):
        def then():
            if trial.schedule == "wsd":
                updates.append(trial)
                os.kill(os.getpid(), number)
            after_step()

        return run(self, trial, then)

    words = ["--schedules", "linear,wsd", "--budget", "5", "--seeds", "2", "--learning-rate", "0.1", "--out", str(out)]
    with monkeypatch.context() as patched:
        patched.setattr(Runner, "__call__", interrupted)
        assert cli.main(["compare", *words]) == code
    assert len(updates) == 1
    assert "Interrupted; the same command goes on." in capsys.readouterr().err
    runs = out / "digits-5" / "runs.jsonl"
    assert len(runs.read_text().splitlines()) == 1
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    assert cli.main(["compare", *words]) == 0
    assert len(runs.read_text().splitlines()) == 4


LONG_COMPARISON = ("compare", "--schedules", "linear", "--budget", "20,100000", "--seeds", "1", "--learning-rate", "0.1")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_a_killed_comparison_keeps_what_is_finished(tmp_path):
    out = tmp_path / "out"
    words = [*LONG_COMPARISON, "--out", str(out)]
    runs = out / "digits-20" / "runs.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "keras_lrsched_command", *words], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not runs.exists() or not (out / "report.md").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    assert len(runs.read_text().splitlines()) == 1
    assert "**1 of 2 studies are finished.**" in (out / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_a_real_process(number, code, tmp_path):
    out = tmp_path / "out"
    words = [*LONG_COMPARISON, "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_lrsched_command", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore SIGINT, and so would this test's child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (out / "report.md").exists() and process.poll() is None:  # made after the short study
            time.sleep(0.5)
        time.sleep(10)
        process.send_signal(number)
        stderr = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == code, stderr
    assert "Interrupted; the same command goes on." in stderr
    assert "**1 of 2 studies are finished.**" in (out / "report.md").read_text()
    assert "Traceback" not in stderr


def test_no_framework_is_imported_for_lists_and_refusals(tmp_path):
    code = """
import sys, keras_lrsched_command
for words in ("list", "list rex", "plot rx", "plot rex -o p.xyz", "compare --workload digitz"):
    sys.argv[1:] = words.split()
    keras_lrsched_command.main()
    assert not {"keras", "tensorflow", "jax", "torch", "scipy"} & {*sys.modules}, words
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("room", ["schedules", "optimizers"])
def test_list_shows_the_options_of_a_method(room, capsys):
    """Its defaults are those of the constructor, and of the base class behind `**options`, though read from the source."""
    for entry in registry.entries(room):
        words = [entry.name or entry.target.__name__]
        assert cli.main(["list", *words]) == 0
        out = capsys.readouterr().out
        assert entry.title in out
        for name, each in inspect.signature(entry.target).parameters.items():
            if each.kind is inspect.Parameter.VAR_KEYWORD:  # those of a class of Keras
                continue
            default = entry.options.get(name, each.default)
            shown = "required" if default is inspect.Parameter.empty else default
            (line,) = re.findall(rf"^{name}\t(.*)$", out, flags=re.MULTILINE)[-1:]
            assert line == shown or eval(line) == default or callable(default), (entry, line)


def test_list_of_an_unknown_method(fails):
    assert fails("list", "rx") == "keras-lrsched: Unknown method 'rx'. Did you mean rex?\n"
    assert fails("list", "autolrs") == "keras-lrsched: Unknown method 'autolrs'. Did you mean AutoLRS?\n"


def test_examples_in_the_help_are_commands():
    def examples(parser):
        yield from parser.examples
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for each in action.choices.values():
                    yield from examples(each)

    parser = cli._parser()
    found = [*examples(parser)]
    assert len(found) > 8
    for words in found:
        parser.parse_args(shlex.split(words))
