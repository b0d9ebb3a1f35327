"""Building on first use: the cache, the lock, and what happens without a compiler."""

import ctypes
import importlib.util
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from keras_lrsched import kernels
from keras_lrsched.kernels import _build, _loading, _prebuilt, _processes, _targets, _threads
from tests.nightly import nightly, some

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
    seconds = _targets.seconds("core", "update", has_kernels=False)
    assert (
        capsys.readouterr().err == f"keras_lrsched compiles its updates (core) into {cache}, once, in about {seconds} s.\n"
    )
    built = path.stat().st_mtime_ns
    assert path.parent == cache
    assert _build.cached("core") == path
    assert _build.library("core") == path
    assert path.stat().st_mtime_ns == built
    assert not capsys.readouterr().err
    assert sorted(each.suffix for each in cache.iterdir()) == sorted(
        [".o", ".so", *2 * [".lock", ".sha256"]]
    )  # all complete
    assert cache.stat().st_mode & 0o777 == 0o700


def test_other_flags_are_another_library(cache, monkeypatch):
    path = _build._path("core", "update")
    monkeypatch.setattr(_targets, "MATHS", [*_targets.MATHS, "-DANOTHER"])
    _build._path.cache_clear()
    assert _build._path("core", "update") != path


@pytest.mark.nightly
def test_two_processes_at_once(cache, quick_compiler):
    processes = [
        subprocess.Popen([sys.executable, "-c", PRINT_LIBRARY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert len(list(cache.glob("*.so"))) == 1


def test_kernels_are_compiled_once_for_all_libraries_of_a_family(cache, tmp_path, monkeypatch):
    write_compiler(tmp_path / "counted", 'echo "$*" >> "$LOG"; while [ "$1" != -o ]; do shift; done; echo built > "$2"')
    monkeypatch.setenv("CXX", str(tmp_path / "counted"))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setattr(_targets, "_bindings", lambda target, family: [] if target == "core" else [("binding.cc", ["-O2"])])
    monkeypatch.setattr(_targets, "framework", lambda target: _targets.Framework("1.0"))
    monkeypatch.setattr(_targets, "libraries", lambda target: [])
    for target in ("core", "tensorflow", "jax"):
        _build.library(target)
    log = (tmp_path / "log").read_text()
    assert log.count("update_loops.cc") == len(_targets.loops("update"))
    assert log.count("update_dispatch.cc") == 1
    assert log.count("binding.cc") == 2
    (kernels,) = cache.glob("*.o")
    assert [line for line in log.splitlines() if "-shared" in line and "kernels.o" in line]
    kernels.write_text("something else")
    _build.library("core", "quantize")
    with pytest.raises(_build.BuildError, match="is not what was built"):
        _build.library("tensorflow_xla")


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


@pytest.fixture
def broken_compiler(tmp_path, monkeypatch):
    """A stand-in that fails, and counts its calls in a file, which is returned."""
    write_compiler(tmp_path / "broken", "echo call >> $CALLS; echo 'x.cc:1: error: no such thing'; echo 'more'; exit 1")
    monkeypatch.setenv("CXX", str(tmp_path / "broken"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def write_compiler(path, body):
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo stand-in; exit 0; }}\n{body}\n')
    path.chmod(0o755)


def test_a_failed_build_is_remembered(cache, broken_compiler):
    with pytest.raises(_build.BuildError) as first:
        _build.library("core")
    calls = broken_compiler.read_text()
    with pytest.raises(_build.BuildError) as second:
        _build.library("core")
    assert broken_compiler.read_text() == calls
    (log,) = cache.glob("*.failed")
    assert str(second.value) == str(first.value)
    assert len(str(first.value).splitlines()) == 1
    assert f"broken failed with 1: x.cc:1: error: no such thing The log is {log}; " in str(first.value)
    assert log.read_text().endswith("x.cc:1: error: no such thing\nmore\n")
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_failed_build_is_tried_again_if_that_is_requested_or_the_compiler_changed(cache, broken_compiler, monkeypatch):
    with pytest.raises(_build.BuildError, match="no such thing"):
        _build.library("core")
    write_compiler(broken_compiler.with_name("broken"), 'while [ "$1" != -o ]; do shift; done; : > "$2"')
    with pytest.raises(_build.BuildError, match="no such thing"):
        _build.library("core")
    assert _build.library("core", retry=True).exists()
    assert not list(cache.glob("*.failed"))
    write_compiler(broken_compiler.with_name("another"), "echo 'another error'; exit 1")
    monkeypatch.setenv("CXX", str(broken_compiler.with_name("another")))
    _build._path.cache_clear()
    with pytest.raises(_build.BuildError, match="another error"):
        _build.library("core")


def test_a_compiler_that_does_not_finish_is_stopped(cache, tmp_path, monkeypatch, capsys):
    write_compiler(tmp_path / "slow", "sleep 1000 & sleep 1000")
    monkeypatch.setenv("CXX", str(tmp_path / "slow"))
    monkeypatch.setattr(_build, "TIME_LIMIT", 0.5)
    monkeypatch.setattr(_build, "PROGRESS_EVERY", 0.2)
    started = []
    start = _processes.ProcessGroup.start
    monkeypatch.setattr(_processes.ProcessGroup, "start", lambda group, *args: started.append(group) or start(group, *args))
    with pytest.raises(_build.BuildError, match=r"did not finish within 0\.5 s"):
        _build.library("core")
    assert started
    until(lambda: not running(started[0]._watcher.pid))
    assert "keras_lrsched: 0 of 3 files are compiled after 0 s." in capsys.readouterr().err


def running(group):
    """The processes of a group that have not ended, with the children of compilers."""
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(None, 2) for line in listed.splitlines()]
    return [args for number, state, *args in found if int(number) == group and not state.startswith("Z")]


BUILD_FOREVER = """
import os
from keras_lrsched.kernels import _build
_build.library("core")
"""


@nightly
@pytest.mark.parametrize("end", some([signal.SIGKILL, signal.SIGINT]), ids=lambda end: end.name)
def test_no_compiler_outlives_the_process_that_started_it(cache, tmp_path, monkeypatch, end):
    """A compiler has processes of its own, which are looked at here."""
    write_compiler(tmp_path / "slow", 'sleep 1000 & echo $! >> "$PIDS"; wait')
    monkeypatch.setenv("CXX", str(tmp_path / "slow"))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD_FOREVER],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell ignores it in the background
    )
    until(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 3)
    pids = (tmp_path / "pids").read_text().split()
    assert all(is_running(pid) for pid in pids)
    process.send_signal(end)
    process.wait(60)
    until(lambda: not any(is_running(pid) for pid in pids))
    assert not list(cache.glob("*.failed"))


def is_running(pid):
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


# Versions of frameworks, and what came with the package


@pytest.fixture
def framework(monkeypatch):
    """A function that sets the framework of all targets."""

    def set_framework(version, build="a build", folder="/somewhere/tensorflow"):
        made = _targets.Framework(version, build, folder)
        monkeypatch.setattr(_targets, "framework", lambda target: made)
        monkeypatch.setattr(_targets, "installed_version", lambda target: version)
        monkeypatch.setattr(_targets, "_bindings", lambda *_: [("binding.cc", ["-O2", f"-I{folder}/include"])])
        monkeypatch.setattr(_targets, "libraries", lambda target: [f"-L{folder}"])
        _build._path.cache_clear()

    return set_framework


def test_the_key_is_the_version_of_the_framework_and_not_where_it_is_installed(cache, framework):
    framework("2.21.0")
    path = _build._path("tensorflow", "update")
    assert path.name.startswith("update_tensorflow-2.21.0-")
    framework("2.21.0", folder="/elsewhere/tensorflow")
    assert _build._path("tensorflow", "update") == path
    for other in ("2.20.0", "a build"), ("2.21.0", "another build"):
        framework(*other)
        assert _build._path("tensorflow", "update") != path


def test_a_library_of_another_version_is_not_found(cache, framework, quick_compiler):
    framework("2.20.0")
    old = _build.library("tensorflow")
    assert _build.cached("tensorflow") == old
    framework("2.21.0")
    assert _build.cached("tensorflow") is None
    assert _build.library("tensorflow") != old


@pytest.fixture
def prebuilt(tmp_path, monkeypatch):
    """A folder as `make wheel` puts it into the package, with one library for TensorFlow 2.21.0."""
    folder = tmp_path / "prebuilt"
    folder.mkdir()
    row = {"file": "u.so", "target": "tensorflow", "family": "update", "version": "2.21.0", "build": "a build"}
    (folder / "manifest.json").write_text(json.dumps({"machine": _prebuilt.machine(), "libraries": [row]}))
    (folder / "u.so").write_bytes(b"no library")
    monkeypatch.setattr(_prebuilt, "FOLDER", folder)
    monkeypatch.setattr(_prebuilt, "_given", [])
    monkeypatch.setattr(_prebuilt, "_refused", [])
    for function in (_prebuilt._rows, _prebuilt._find):
        function.cache_clear()
    yield folder
    for function in (_prebuilt._rows, _prebuilt._find):
        function.cache_clear()


def test_a_prebuilt_library_is_found_without_a_compiler(cache, framework, prebuilt, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    framework("2.21.0")
    assert _build.library("tensorflow") == _build.cached("tensorflow") == prebuilt / "u.so"
    with pytest.raises(_build.BuildError, match="no C\\+\\+ compiler"):
        _build.library("tensorflow", "quantize")


@pytest.mark.parametrize("other", [("2.21.1", "a build"), ("2.21.0", "another build")])
def test_a_prebuilt_library_of_another_version_is_never_loaded(cache, framework, prebuilt, quick_compiler, other):
    framework(*other)
    assert _build.library("tensorflow").parent == cache


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"machine": _prebuilt.machine(), "libraries": 3})])
def test_a_damaged_manifest_is_named_and_not_used(cache, framework, prebuilt, quick_compiler, text):
    (prebuilt / "manifest.json").write_text(text)
    framework("2.21.0")
    with pytest.warns(UserWarning, match=r"manifest\.json is damaged"):
        assert _build.library("tensorflow").parent == cache


def test_a_prebuilt_library_for_another_machine_is_never_loaded(cache, framework, prebuilt, quick_compiler):
    manifest = json.loads((prebuilt / "manifest.json").read_text())
    (prebuilt / "manifest.json").write_text(json.dumps({**manifest, "machine": "linux-s390x"}))
    framework("2.21.0")
    assert _build.library("tensorflow").parent == cache


def test_a_prebuilt_library_that_does_not_load_is_built(cache, framework, prebuilt, quick_compiler, untried, monkeypatch):
    framework("2.21.0")
    loaded = []

    def load(place):
        loaded.append(_build.library("tensorflow"))
        if loaded[-1].parent == prebuilt:
            raise OSError("version `GLIBCXX_3.4.99' not found")

    monkeypatch.setattr(_loading.binding("update"), "load", load)
    assert _loading._cannot_load("update", "update", "cpu") is None
    assert [path.parent for path in loaded] == [prebuilt, cache]


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
    _build.library("core", retry=True)
    assert "leaves out code for avx512, which" in capsys.readouterr().err
    log = (tmp_path / "log").read_text().splitlines()
    choice = next(line for line in log if "kernels/update_dispatch.cc" in line and "WITHOUT" in line)
    assert "-DKLR_WITHOUT_AVX512 " in choice
    kernels = next(line for line in log if "-nostdlib" in line)
    assert "avx512.o" not in kernels
    assert "avx2.o" in kernels


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("family", _targets.FAMILIES)
def test_dispatch_compiles_without_each_instruction_set(family, tmp_path):
    for lacking in [], ["avx2"], list(_targets.instruction_sets(family))[1:]:
        source, flags = _targets.dispatch(family, lacking)
        command = [
            *_targets.compiler(),
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
        subprocess.run(command, cwd=_targets.source_folder(), check=True)
        symbols = subprocess.run(["nm", "-C", tmp_path / "it.o"], capture_output=True, text=True, check=True).stdout
        assert not any(f"klr::{name}::" in symbols for name in lacking)
        assert "klr::baseline::" in symbols


def test_the_sources_are_part_of_the_key(cache, monkeypatch, tmp_path):
    first = _build._path("core", "update")
    copy = tmp_path / "sources"
    for folder in ("ops", "custom_ops_cuda"):
        shutil.copytree(_targets.source_folder() / folder, copy / folder)
    monkeypatch.setattr(_targets, "source_folder", lambda: copy)
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
        pytest.param("update", "klr_cuda_devices", marks=pytest.mark.nightly),
        # 90 s: every element, on each of three architectures
        pytest.param("quantize", "klr_cuda_quantize_devices", marks=pytest.mark.slow),
    ],
)
def test_cuda_loads_without_a_driver(family, devices, cache):
    """The linked library needs no library of CUDA; without a device nothing can be launched."""
    loaded = ctypes.CDLL(str(_build.library("jax_cuda", family)))
    assert getattr(loaded, devices)() >= 0
    assert getattr(loaded, f"keras_lrsched_{family}_cuda")
    needed = subprocess.run(["readelf", "-d", _build.library("jax_cuda", family)], capture_output=True, text=True).stdout
    assert "NEEDED" in needed
    assert "cuda" not in "".join(line for line in needed.splitlines() if "NEEDED" in line)


def test_status_has_a_text_for_each_library():
    status = kernels.status()
    assert {"mode", "compiler", "cache", "core", "tensorflow", "tensorflow_xla", "jax", "jax_cuda"} < set(status)
    assert all(isinstance(value, str) and value for value in status.values())


def test_all_libraries_of_installed_frameworks_are_built_and_failures_are_tried_again(monkeypatch):
    requested = []

    def library(target, family, retry):
        requested.append((target, family, retry))
        if target == "jax":
            raise _build.BuildError("no memory left")
        return Path("library.so")

    monkeypatch.setattr(_build, "library", library)
    monkeypatch.setattr("keras_lrsched.kernels._status._is_installed", lambda target: not target.startswith("tensorflow"))
    monkeypatch.delenv("KERAS_LRSCHED_FUSED", raising=False)
    results = list(kernels.build_all())
    assert requested == [(target, family, True) for family in _targets.FAMILIES for target in ("core", "jax")]
    assert results[:2] == [("core", "library.so", True), ("jax", "no memory left", False)]


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
