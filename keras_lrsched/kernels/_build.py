"""Compiled libraries, built on first use into a cache with the compiler that is there.

A library is built anew when the version of the framework, the compiler, the flags, the C library or a source changes. The
kernels of a family, which know no framework, are compiled once for all of its libraries, into one object file beside them.
Processes that want the same one at the same time wait for each other; what is in the cache is always complete. A build that
failed is not tried again until one of these changes, or `keras-lrsched doctor --build` is run.
"""

import contextlib
import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.kernels import _cache, _prebuilt, _targets
from keras_lrsched.kernels._cache import BuildError
from keras_lrsched.kernels._processes import ProcessGroup, wait

PROGRESS_EVERY = 10
"""Seconds between lines on the progress of a build."""

KERNELS = "kernels.o"
"""The kernels of a family in the folder of a build."""

TIME_LIMIT = 900
"""Seconds after which a build is given up."""


def mode():
    """The value of `KERAS_LRSCHED_FUSED`: `"auto"`, `"1"` or `"0"`; `"0"` while a model is exported, so that
    the export has operations of its framework only."""
    if is_exporting():
        return "0"
    value = os.environ.get("KERAS_LRSCHED_FUSED") or "auto"
    if value not in ("auto", "1", "0"):
        raise ValueError(f"KERAS_LRSCHED_FUSED must be auto, 1 or 0. Received: {value!r}")
    return value


def library(target, family="update", retry=False):
    """The path of a target's library: one that came with the package, or else is in the cache, or else is built.

    Args:
        target: `"core"`, `"jax"`, `"tensorflow"`, `"tensorflow_xla"`, `"jax_cuda"` or `"tensorflow_xla_cuda"`.
        family: What the names of its sources begin with, a key of `FAMILIES`. Defaults to `"update"`.
        retry: Whether a build that failed before is tried again. Defaults to `False`.

    Raises:
        BuildError: If there is none, with the reason in one line.
    """
    if (found := _prebuilt.library(target, family)) is not None:
        return found
    try:
        path = _path(target, family)
        if not _cache.has(path):
            _build_once(target, family, path, retry)
        _cache.verify(path)
    except OSError as error:
        raise BuildError(f"The cache {_cache.folder()} cannot be used: {error}") from error
    return path


def cached(target, family="update"):
    """The path of a library that is there already, or `None`; a part that needs TensorFlow is found without importing it."""
    if (found := _prebuilt.cached(target, family)) is not None:
        return found
    built = _cache.folder().glob(f"{_stem(target, family, _targets.installed_version(target))}-*.so")
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def _stem(target, family, version):
    return f"{family}_{target}-{version}" if version else f"{family}_{target}"


@functools.cache
def _path(target, family):
    framework = _targets.framework(target)
    versions = [_version_of(compiler) for compiler in _targets.compilers(target)]
    jobs = _targets.loops(family), _targets.bindings(target, family), _targets.dispatch(family)
    identity = repr((versions, _system(), jobs, _targets.linker(target), framework.version, framework.build))
    if framework.folder:  # the same version elsewhere is the same framework
        identity = identity.replace(framework.folder, "")
    digest = _digest(identity, _targets.sources(family))
    return _cache.folder() / f"{_stem(target, family, framework.version)}-{digest}.so"


def _kernels_path(family):
    """The object file with the kernels of a family and the choice among their instruction sets."""
    jobs = _targets.loops(family), _targets.dispatch(family)
    identity = repr((_version_of(_targets.compiler()), _system(), jobs))
    sources = [source for source in _targets.sources(family) if source.parent.name == "kernels"]
    return _cache.folder() / f"{family}_kernels-{_digest(identity, sources)}.o"


def _system():
    return platform.machine(), platform.libc_ver()


def _digest(identity, sources):
    content = hashlib.sha256(identity.encode())
    for source in sources:
        content.update(source.read_bytes())
    return content.hexdigest()[:16]


def _version_of(compiler):
    with _cannot_run(compiler):
        return subprocess.run(
            [*compiler, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        ).stdout


@contextlib.contextmanager
def _cannot_run(command):
    try:
        yield
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from error


def _build_once(target, family, path, retry):
    wait_for_others = functools.partial(_announce, "keras_lrsched waits for another process, which compiles the same.")
    with _cache.locked(path, wait_for_others):
        if _cache.has(path):  # another process has built it meanwhile
            return
        if not retry and (reason := _cache.failure(path)) is not None:
            raise BuildError(reason)
        kernels, seconds = _targets.FAMILIES[family], _targets.seconds(target, family, _cache.has(_kernels_path(family)))
        _announce(f"keras_lrsched compiles {kernels} ({target}) into {path.parent}, once, in about {seconds} s.")
        _cache.remove_leftovers(path)
        with tempfile.TemporaryDirectory(prefix=path.stem + _cache.BUILD, dir=path.parent) as folder:
            try:
                _build_with_cached_kernels(target, family, Path(folder))
            except CompilerError as error:
                raise BuildError(_cache.store_failure(path, str(error), error.log)) from error
            _cache.store(Path(folder, "library.so"), path)


def _build_with_cached_kernels(target, family, folder):
    cached = _kernels_path(family)
    is_cached = _cache.has(cached)
    if is_cached:
        _cache.verify(cached)
        (folder / KERNELS).symlink_to(cached)
    build(target, family, folder)
    if not is_cached:
        with _cache.locked(cached):
            if not _cache.has(cached):
                _cache.store(folder / KERNELS, cached)


def _announce(text):
    """On the standard error, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


class CompilerError(BuildError):
    """A compiler failed, or took too long; `log` is what it printed."""

    def __init__(self, message, log=""):
        super().__init__(message)
        self.log = log


def build(target, family, folder, link_flags=()):
    """Compiles a library into `folder / "library.so"`, and its kernels into `folder / KERNELS` unless that is there.

    Raises:
        CompilerError: If a compiler fails.
    """
    start = time.monotonic()
    with ProcessGroup() as group:
        make = _Make(group, folder, start + TIME_LIMIT)
        loops = {} if (folder / KERNELS).exists() else _targets.loops(family)
        bindings = _targets.bindings(target, family)
        started = {name: make.start(name, job) for name, job in {**loops, **bindings}.items()}
        make.wait(
            started.values(),
            lambda done: _announce(
                f"keras_lrsched: {done} of {len(started)} files are compiled after {time.monotonic() - start:.0f} s."
            ),
        )
        lacking = _lacking(make, family, [name for name in loops if started[name].process.returncode])
        for name in [name for name in started if name not in lacking]:
            make.check(started[name])
        if loops:
            make.run("dispatch", _targets.dispatch(family, lacking))
            kept = [name for name in loops if name not in lacking]
            make.link(KERNELS, [*_targets.compiler(), "-r", "-nostdlib"], ["dispatch", *kept])
        linker = [*_targets.linker(target), *link_flags, "-shared"]
        make.link("library.so", linker, ["kernels", *bindings], _targets.libraries(target))


def _lacking(make, family, failed):
    """Instruction sets that the compiler does not know, among those whose kernels it could not compile."""
    lacking = [name for name in failed if make.lacks_instructions(_targets.instruction_sets(family)[name])]
    if lacking:
        _announce(f"keras_lrsched leaves out code for {', '.join(lacking)}, which {_targets.compiler()[0]} cannot compile.")
    return lacking


class _Make:
    """The commands of one build, in its process group and until its deadline."""

    def __init__(self, group, folder, deadline):
        self.group, self.folder, self.deadline = group, folder, deadline

    def object(self, name):
        return self.folder / f"{name}.o"

    def start(self, name, job):
        """Starts the compilation of a source, with its flags, into an object file."""
        source, flags = job
        command = (
            [_targets.cuda_compiler()] if source.endswith(".cu") else [*_targets.compiler(), "-fPIC", "-fvisibility=hidden"]
        )
        command = [*command, *flags, "-w", "-c", source, "-o", str(self.object(name))]
        with _cannot_run(command):
            return self.group.start(command, self.folder / f"{name}.log", _targets.source_folder())

    def wait(self, commands, report=lambda done: None):
        try:
            wait([command.process for command in commands], self.deadline, PROGRESS_EVERY, report)
        except TimeoutError:
            raise CompilerError(f"The compiler did not finish within {TIME_LIMIT} s.") from None

    def run(self, name, job):
        started = self.start(name, job)
        self.wait([started])
        self.check(started)

    def link(self, file, linker, objects, libraries=()):
        words = [*linker, "-o", str(self.folder / file), *(str(self.object(each)) for each in objects), *libraries]
        with _cannot_run(words):
            started = self.group.start(words, self.folder / f"{file}.log")
        self.wait([started])
        self.check(started)

    def check(self, command):
        if command.process.returncode:
            log = command.log.read_text(errors="replace")
            reason = f"{command.process.args[0]} failed with {command.process.returncode}: {_first_error(log)}"
            raise CompilerError(reason, log)

    def lacks_instructions(self, flags):
        """Whether nothing can be compiled with the flags of an instruction set."""
        if not flags:
            return False
        source = self.folder / "empty.cc"
        source.write_text("int empty() { return 0; }\n")
        try:
            self.run("empty", (str(source), flags))
        except CompilerError:
            return True
        return False


def _first_error(log):
    """The first line of a log with an error, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output")[:200]
