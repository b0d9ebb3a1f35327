"""In a broken environment an update is computed all the same: by compiled code, or by plain operations after one warning.

docs/guides/compiled_code.md has the table of these environments.
"""

import multiprocessing
import os
import shutil
import stat
import subprocess
from multiprocessing import forkserver
from pathlib import Path

import keras
import pytest

from keras_lrsched.kernels import _build
from keras_lrsched.kernels import _cache as libraries
from tests.kernels import in_environment

BACKEND = keras.backend.backend()
pytestmark = pytest.mark.skipif(BACKEND == "jax", reason="the same loader, and a second to compile each operation")
TARGET = "core" if BACKEND == "torch" else BACKEND
ROOT = Path(__file__).parents[2]
COMPILER = """#!/bin/sh
# A stand-in: what it links is a library that was built before.
[ "$1" = --version ] && { echo stand-in; exit 0; }
FAIL
while [ "$1" != -o ]; do shift; done
case "$2" in *library.so) cp "$REAL" "$2";; *) : > "$2";; esac
"""
NO_AVX512 = 'case "$*" in *x86-64-v4*) echo "bad value (x86-64-v4) for -march=" >&2; exit 1;; esac'


@pytest.fixture(scope="module")
def processes():
    """Forked from one that has imported Keras already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kernels.in_environment"])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="module")
def real():
    _build._path.cache_clear()
    return _build.library(TARGET)


@pytest.fixture
def start(processes, real, tmp_path):
    """A function: what `in_environment.update` sends in an environment."""
    compiler(tmp_path / "g++")

    def call(prepare=None, **environment):
        own = {
            "CXX": str(tmp_path / "g++"),
            "KERAS_LRSCHED_CACHE": str(tmp_path / "cache"),
            "KERAS_LRSCHED_FUSED": None,
            "REAL": str(real),
        }
        told, tells = processes.Pipe(duplex=False)
        process = processes.Process(target=in_environment.update, args=({**own, **environment}, prepare, tells))
        process.start()
        tells.close()
        received = told.recv()
        process.join()
        return received

    return call


def compiler(path, fail=""):
    path.write_text(COMPILER.replace("FAIL", fail))
    path.chmod(stat.S_IRWXU)
    return path


def assert_compiled(received):
    assert received == (True, True, [])


def assert_plain(received, reason):
    is_compiled, is_right, warned = received
    assert (is_compiled, is_right, len(warned)) == (False, True, 1), received
    assert reason in warned[0]
    assert "Plain Keras operations are used instead" in warned[0]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="for root alone")


# Where it works


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"KERAS_LRSCHED_CACHE": "cache"},
        {"KERAS_LRSCHED_CACHE": "~/cache"},
        {"KERAS_LRSCHED_CACHE": None, "XDG_CACHE_HOME": None},
        {"KERAS_LRSCHED_CACHE": "", "XDG_CACHE_HOME": "relative"},
        {"KERAS_LRSCHED_FUSED": ""},
        {"CXX": "{}/g++ -m64 -DA='b c'"},
        {"CXX": "env {}/g++"},
        {"CXX": "{}/with spaces/g++"},
        {"CXX": "./g++"},
        {"CXX": " ", "PATH": "{}:/usr/bin:/bin"},
    ],
    ids=lambda change: ",".join(f"{name}={value}" for name, value in change.items()) or "as usual",
)
def test_works(start, tmp_path, change):
    (tmp_path / "with spaces").mkdir()
    compiler(tmp_path / "with spaces" / "g++")
    environment = {name: value and value.replace("{}", str(tmp_path)) for name, value in change.items()}
    assert_compiled(start(In(tmp_path), HOME=str(tmp_path / "home"), **environment))


class In:
    """Changes into a folder, and does what else there is to do."""

    def __init__(self, folder, then=None):
        self.folder, self.then = folder, then

    def __call__(self):
        os.chdir(self.folder)
        if self.then is not None:
            self.then()


def test_without_one_instruction_set(start, tmp_path):
    assert_compiled(start(CXX=str(compiler(tmp_path / "old", NO_AVX512))))


@pytest.mark.parametrize("prepare", [in_environment.close_standard_error, in_environment.allow_others_everything])
def test_works_in_a_process_that(start, tmp_path, prepare):
    assert_compiled(start(prepare))
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "cache").iterdir()} == {0}


def test_a_folder_that_a_killed_build_left(start, tmp_path):
    left = [tmp_path / "cache" / f"{name}.build-1" for name in ("update_core-0", "matmul_core-0")]
    for folder in left:
        folder.mkdir(parents=True, mode=0o700)
        (folder / "0.o").write_text("half")
    (tmp_path / "cache").chmod(0o700)
    assert_compiled(start())
    assert not any(folder.exists() for folder in left)


def test_a_library_without_its_sha256_is_built_again(start, tmp_path):
    assert_compiled(start())
    for file in (tmp_path / "cache").glob("*.sha256"):
        file.unlink()
    assert_compiled(start())
    assert list((tmp_path / "cache").glob("*.sha256"))


# Where plain operations take its place


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"CXX": "no-such-compiler"}, "There is no C++ compiler"),
        ({"CXX": 'g++ "'}, "CXX is no command"),
        ({"CXX": "", "PATH": ""}, "There is no C++ compiler"),
        ({"CXX": "{}/fails"}, "no memory left"),
        ({"CXX": "{}/foreign"}, "cannot be run"),
        ({"CXX": "false"}, "false failed with 1"),
        ({"KERAS_LRSCHED_CACHE": "~no-such-user/cache"}, "There is no folder for compiled libraries"),
        ({"KERAS_LRSCHED_CACHE": "{}/file"}, "is no folder of its own"),
        ({"KERAS_LRSCHED_CACHE": "{}/file/cache"}, "cannot be used"),
        ({"KERAS_LRSCHED_CACHE": "{}/link"}, "is no folder of its own, but a link"),
        ({"KERAS_LRSCHED_CACHE": "{}/open"}, "Others may write to {}/open"),
        ({"KERAS_LRSCHED_CACHE": "{}/open/cache"}, "Others may write to {}/open, above compiled libraries"),
        ({"KERAS_LRSCHED_CACHE": "{}/" + "a" * 300}, "cannot be used"),
    ],
    ids=lambda it: "" if isinstance(it, str) else ",".join(f"{name}={value:.20}" for name, value in it.items()),
)
def test_falls_back(start, tmp_path, change, reason):
    compiler(tmp_path / "fails", "printf 'no memory left \\377'; exit 1")
    (tmp_path / "foreign").write_bytes(b"\x7fELF\x02")
    (tmp_path / "foreign").chmod(0o700)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    environment = {name: value.replace("{}", str(tmp_path)) for name, value in change.items()}
    assert_plain(start(**environment), reason.replace("{}", str(tmp_path)))


def test_falls_back_without_a_working_folder(start, tmp_path):
    received = start(In(tmp_path, in_environment.lose_the_working_folder), KERAS_LRSCHED_CACHE="cache")
    assert_plain(received, "There is no folder for compiled libraries")


@as_root
def test_falls_back_without_a_home(start):
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "KERAS_LRSCHED_CACHE"))
    assert_plain(start(in_environment.become_nobody, CXX="true", **nowhere), "Name a folder in KERAS_LRSCHED_CACHE")


@as_root
@pytest.mark.parametrize("place", ["cache", "above"])
def test_falls_back_for_a_folder_of_another_user(start, tmp_path, place):
    (tmp_path / "above" / "cache").mkdir(parents=True, mode=0o700)
    os.chown(tmp_path / "above" / "cache" if place == "cache" else tmp_path / "above", 12345, 12345)
    assert_plain(start(KERAS_LRSCHED_CACHE=str(tmp_path / "above" / "cache")), "belongs to another user, 12345")


@as_root
@pytest.mark.parametrize(("option", "reason"), [("ro", "Read-only file system"), ("noexec,mode=0700", "")])
def test_falls_back_without_a_disk_for_it(start, tmp_path, option, reason):
    (tmp_path / "disk").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", tmp_path / "disk"], capture_output=True)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        assert_plain(start(KERAS_LRSCHED_CACHE=str(tmp_path / "disk" / "cache")), reason)
    finally:
        subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)


def truncate(library):
    library.write_bytes(library.read_bytes()[:4000])


def empty(library):
    library.write_bytes(b"")


def replace_by_a_link(library):
    library.rename(library.with_suffix(".moved"))
    library.symlink_to(library.with_suffix(".moved"))


def open_to_others(library):
    library.chmod(0o722)


def open_digest_to_others(library):
    library.with_suffix(".sha256").chmod(0o602)


def replace_by_a_foreign_one(library):
    """With its SHA-256, as on a disk that machines of two kinds share."""
    library.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    library.with_suffix(".sha256").write_text(libraries._digest(library))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "its SHA-256 is another one"),
        (empty, "its SHA-256 is another one"),
        (replace_by_a_link, "is no regular file, but a link"),
        (open_to_others, "Others may write to"),
        (open_digest_to_others, "Others may write to"),
        (replace_by_a_foreign_one, "Error"),
    ],
    ids=lambda it: it.__name__ if callable(it) else "",
)
def test_falls_back_for_a_library_that_does_not_load(start, tmp_path, damage, reason):
    assert_compiled(start())
    (library,) = (tmp_path / "cache").glob("*.so")
    damage(library)
    assert_plain(start(), reason)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_library_without_the_functions(start, tmp_path):
    (tmp_path / "other.c").write_text("int other(void) { return 0; }\n")
    subprocess.run(["g++", "-shared", "-fPIC", "-o", tmp_path / "other.so", tmp_path / "other.c"], check=True)
    assert_plain(start(REAL=str(tmp_path / "other.so")), "Error")
