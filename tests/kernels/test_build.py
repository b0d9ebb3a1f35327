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
from keras_lrsched.kernels import build, loading

PRINT_LIBRARY = "from keras_lrsched.kernels import build; print(build.library('core'))"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_CACHE", str(tmp_path / "cache"))
    build._path.cache_clear()
    yield tmp_path / "cache"
    build._path.cache_clear()


def test_built_once_then_found(cache, capsys):
    path = build.library("core")
    assert capsys.readouterr().err == f"keras_lrsched compiles its updates (core) into {cache}, once.\n"
    built = path.stat().st_mtime_ns
    assert path.parent == cache
    assert build.cached("core") == path
    assert build.library("core") == path
    assert path.stat().st_mtime_ns == built
    assert not capsys.readouterr().err
    assert sorted(each.suffix for each in cache.iterdir()) == [".lock", ".so"]  # nothing half done is left


def test_other_flags_are_another_library(cache, monkeypatch):
    path = build._path("core", "update")
    monkeypatch.setattr(build, "MATHS", [*build.MATHS, "-DANOTHER"])
    build._path.cache_clear()
    assert build._path("core", "update") != path


def test_two_processes_at_once(cache):
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
    with pytest.raises(build.BuildError, match="no C\\+\\+ compiler"):
        build.library("core")
    assert "no C++ compiler" in kernels.status()["compiler"]


def test_a_compiler_that_fails(cache, monkeypatch, tmp_path):
    compiler = tmp_path / "broken"
    compiler.write_text("#!/bin/sh\n[ \"$1\" = --version ] && exit 0\necho 'no memory left'; exit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(build.BuildError, match="no memory left"):
        build.library("core")
    assert not list(cache.glob("*.so"))


def test_a_cache_that_is_a_file(cache):
    cache.write_text("in the way")
    with pytest.raises(build.BuildError, match="cannot be used"):
        build.library("core")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache(cache):
    cache.mkdir()
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(build.BuildError, match="cannot be used"):
        build.library("core")


def test_the_sources_are_part_of_the_key(cache, monkeypatch, tmp_path):
    first = build._path("core", "update")
    copy = tmp_path / "sources"
    for folder in ("ops", "custom_ops_cuda"):
        shutil.copytree(build.source_folder() / folder, copy / folder)
    monkeypatch.setattr(build, "source_folder", lambda: copy)
    for name, changes in (("matmul_other.h", False), ("updates.h", True), ("shared.h", True)):
        with (copy / "ops" / "kernels" / name).open("a") as file:
            file.write("// changed\n")
        build._path.cache_clear()
        now = build._path("core", "update")
        assert (now != first) == changes
        first = now


def test_one_warning_then_plain_operations(monkeypatch, untried):
    def fail(place):
        raise build.BuildError("There is no C++ compiler.")

    import keras
    import numpy as np

    from keras_lrsched.optimizers import Lion

    monkeypatch.setattr(loading.binding("update"), "load", fail)
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
        ("update", "kl_cuda_devices"),
        # 90 s: every element, on each of three architectures
        pytest.param("quantize", "kl_cuda_quantize_devices", marks=pytest.mark.slow),
    ],
)
def test_cuda_loads_without_a_driver(family, devices, cache):
    """What was linked needs no library of CUDA; without a device nothing can be launched."""
    loaded = ctypes.CDLL(str(build.library("jax_cuda", family)))
    assert getattr(loaded, devices)() >= 0
    assert getattr(loaded, f"keras_lrsched_{family}_cuda")
    needed = subprocess.run(["readelf", "-d", build.library("jax_cuda", family)], capture_output=True, text=True).stdout
    assert "NEEDED" in needed
    assert "cuda" not in "".join(line for line in needed.splitlines() if "NEEDED" in line)


def test_status_says_something_of_each_library():
    status = kernels.status()
    assert {"mode", "compiler", "cache", "core", "tensorflow", "tensorflow_xla", "jax", "jax_cuda"} < set(status)
    assert all(isinstance(value, str) and value for value in status.values())
