"""Building on first use: the cache, the lock, and what happens without a compiler."""

import ctypes
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import warnings

import pytest

from keras_lrsched import kernels
from keras_lrsched.kernels import _build, _loading, _threads

PRINT_LIBRARY = "from keras_lrsched.kernels import _build; print(_build.library('core'))"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_CACHE", str(tmp_path / "cache"))
    _build._path.cache_clear()
    yield tmp_path / "cache"
    _build._path.cache_clear()


@pytest.fixture
def quick_compiler(tmp_path, monkeypatch):
    """A stand-in, whose libraries hold a word each."""
    compiler = tmp_path / "quick"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\nwhile [ "$1" != -o ]; do shift; done\necho built > "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))


def test_built_once_then_found(cache, capsys, quick_compiler):
    path = _build.library("core")
    assert capsys.readouterr().err == f"keras_lrsched compiles its updates (core) into {cache}, once.\n"
    built = path.stat().st_mtime_ns
    assert path.parent == cache
    assert _build.cached("core") == path
    assert _build.library("core") == path
    assert path.stat().st_mtime_ns == built
    assert not capsys.readouterr().err
    assert sorted(each.suffix for each in cache.iterdir()) == [".lock", ".sha256", ".so"]  # nothing half done is left
    assert cache.stat().st_mode & 0o777 == 0o700


def test_other_flags_are_another_library(cache, monkeypatch):
    path = _build._path("core", "update")
    monkeypatch.setattr(_build, "MATHS", [*_build.MATHS, "-DANOTHER"])
    _build._path.cache_clear()
    assert _build._path("core", "update") != path


def test_two_processes_at_once(cache, quick_compiler):
    processes = [
        subprocess.Popen([sys.executable, "-c", PRINT_LIBRARY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert len(list(cache.glob("*.so"))) == 1


def test_no_compiler(cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(_build.BuildError, match="no C\\+\\+ compiler"):
        _build.library("core")
    assert "no C++ compiler" in kernels.status()["compiler"]


def test_a_compiler_that_fails(cache, monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'no memory left'; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(_build.BuildError, match="no memory left"):
        _build.library("core")
    assert not list(cache.glob("*.so"))


def test_a_cache_that_is_a_file(cache):
    cache.write_text("in the way")
    with pytest.raises(_build.BuildError, match="is no folder of its own"):
        _build.library("core")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache(cache):
    cache.mkdir()
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(_build.BuildError, match="cannot be used"):
        _build.library("core")


def test_only_an_instruction_set_that_the_compiler_lacks_is_left_out(cache, monkeypatch, tmp_path, capsys):
    """Any other failure is one: what is built stays."""
    compiler = tmp_path / "old"
    compiler.write_text(
        "#!/bin/sh\n"
        'case "$*" in *x86-64-v4*) echo "bad value (x86-64-v4) for -march=" >&2; exit 1;; esac\n'
        'case "$*" in *-DKLR_ISA=$FAILS*) echo "no memory left"; exit 1;; esac\n'
        'echo "$*" >> "$LOG"; while [ "$1" != -o ] && [ $# -gt 0 ]; do shift; done; [ $# -gt 0 ] && : > "$2"; exit 0\n'
    )
    compiler.chmod(0o755)
    for name, value in {"CXX": str(compiler), "FAILS": "avx2", "LOG": str(tmp_path / "log")}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(_build.BuildError, match="no memory left"):
        _build.library("core")
    monkeypatch.setenv("FAILS", "none")
    _build.library("core")
    assert "leaves out code for avx512, which" in capsys.readouterr().err
    log = (tmp_path / "log").read_text().splitlines()
    choice = next(line for line in log if "kernels/update_dispatch.cc" in line and "WITHOUT" in line)
    assert "-DKLR_WITHOUT_AVX512 " in choice
    assert "avx512.o" not in log[-1]
    assert "avx2.o" in log[-1]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("family", ["update", "quantize", "matmul"])
def test_what_chooses_can_do_without_each_instruction_set(family, tmp_path):
    for lacking in [], ["avx2"], list(_build._instruction_sets(family))[1:]:
        source, flags = _build._job_of_choice(family, lacking)
        command = [
            *_build.compiler(),
            *flags,
            "-O0",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-c",
            source,
            "-o",
            str(tmp_path / "it.o"),
        ]
        subprocess.run(command, cwd=_build.source_folder(), check=True)
        symbols = subprocess.run(["nm", "-C", tmp_path / "it.o"], capture_output=True, text=True, check=True).stdout
        assert not any(f"klr::{name}::" in symbols for name in lacking)
        assert "klr::baseline::" in symbols


def test_the_sources_are_part_of_the_key(cache, monkeypatch, tmp_path):
    first = _build._path("core", "update")
    copy = tmp_path / "sources"
    for folder in ("ops", "custom_ops_cuda"):
        shutil.copytree(_build.source_folder() / folder, copy / folder)
    monkeypatch.setattr(_build, "source_folder", lambda: copy)
    for name, changes in (("matmul_other.h", False), ("update_formulas.h", True), ("shared.h", True)):
        with (copy / "ops" / "kernels" / name).open("a") as file:
            file.write("// changed\n")
        _build._path.cache_clear()
        now = _build._path("core", "update")
        assert (now != first) == changes
        first = now


@pytest.mark.parametrize(
    "error", [_build.BuildError("There is no C++ compiler."), OSError("no C++ compiler"), AttributeError("no C++ compiler")]
)
def test_one_warning_then_plain_operations(monkeypatch, untried, error):
    def fail(place):
        raise error

    import keras
    import numpy as np

    from keras_lrsched.optimizers import Lion

    monkeypatch.setattr(_loading.binding("update"), "load", fail)
    w = keras.Variable(np.ones(4, "float32"))
    optimizer = Lion(0.1)
    optimizer.build([w])
    with pytest.warns(UserWarning, match="Plain Keras operations") as caught:
        optimizer.apply([keras.ops.ones(4)], [w])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.apply([keras.ops.ones(4)], [w])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(w), 0.8, rtol=1e-6)
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        Lion(0.1, fused=True).apply([keras.ops.ones(4)], [w])


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX")
@pytest.mark.parametrize(
    ("family", "devices"),
    [
        ("update", "klr_cuda_devices"),
        # 90 s: every element, on each of three architectures
        pytest.param("quantize", "klr_cuda_quantize_devices", marks=pytest.mark.slow),
    ],
)
def test_cuda_loads_without_a_driver(family, devices, cache):
    """What was linked needs no library of CUDA; without a device nothing can be launched."""
    loaded = ctypes.CDLL(str(_build.library("jax_cuda", family)))
    assert getattr(loaded, devices)() >= 0
    assert getattr(loaded, f"keras_lrsched_{family}_cuda")
    needed = subprocess.run(["readelf", "-d", _build.library("jax_cuda", family)], capture_output=True, text=True).stdout
    assert "NEEDED" in needed
    assert "cuda" not in "".join(line for line in needed.splitlines() if "NEEDED" in line)


def test_status_says_something_of_each_library():
    status = kernels.status()
    assert {"mode", "compiler", "cache", "core", "tensorflow", "tensorflow_xla", "jax", "jax_cuda"} < set(status)
    assert all(isinstance(value, str) and value for value in status.values())


def test_status_without_a_home(monkeypatch):
    """Where there is no cache, it has the reason in its place."""
    monkeypatch.setenv("KERAS_LRSCHED_CACHE", "~no-such-user/cache")
    status = kernels.status()
    assert "There is no folder for compiled libraries" in status["cache"]
    assert "There is no folder for compiled libraries" in status["core"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_has_threads_of_its_own():
    """It would wait for those of its parent, which it does not have."""
    assert _threads.pool(2).submit(int).result() == 0
    child = os.fork()
    if not child:
        try:
            _threads.pool(2).submit(int).result(timeout=20)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
