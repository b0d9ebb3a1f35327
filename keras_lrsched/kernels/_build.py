"""Builds the C++ parts on first use, with the compiler that is there, into a cache.

A library is built anew when the framework, the compiler, the flags, the C library or a source changes. Processes that want
the same one at the same time wait for each other; what is in the cache is always complete.
"""

import contextlib
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.kernels import _cache
from keras_lrsched.kernels._cache import BuildError

MATHS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]  # never -ffast-math: see below
"""No fused multiply-add, so that all instruction sets round alike. A library linked with `-ffast-math` would switch off
subnormal numbers in the whole process."""

FAMILIES = {"update": "its updates", "quantize": "its quantizers", "matmul": "its matrix products"}
"""Kernels that are built together. The names of their files begin alike: ops/kernels/{family}_loops.cc is compiled for
each instruction set, {family}_dispatch.cc chooses among these, ops/tensorflow/{family}_op.cc and so on bind them."""

ON_CUDA = ("update", "quantize")
"""Families that have custom_ops_cuda/{family}.cu."""

INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": ["-mavx2"],
    "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512"],
}

OWN_INSTRUCTION_SETS = {
    "matmul": {"baseline": [], "avx2": ["-mavx2"], "avx512vnni": ["-march=x86-64-v4", "-mavx512vnni"]},
}
"""Those of families that need others."""


CUDA = [
    *["-std=c++17", "-O3", "-fmad=false", "-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90"],
    *["-gencode=arch=compute_100,code=[sm_100,compute_100]", "-Xcompiler", "-fPIC,-fvisibility=hidden"],
]
"""Ampere, Hopper and Blackwell; what comes later compiles the last one's intermediate code."""


def mode():
    """What `KERAS_LRSCHED_FUSED` says: `"auto"`, `"1"` or `"0"`; `"0"` while a model is exported, so that
    the export has operations of its framework only."""
    if is_exporting():
        return "0"
    value = os.environ.get("KERAS_LRSCHED_FUSED") or "auto"
    if value not in ("auto", "1", "0"):
        raise ValueError(f"KERAS_LRSCHED_FUSED must be auto, 1 or 0. Received: {value!r}")
    return value


def source_folder():
    """Where the folders `ops` and `custom_ops_cuda` are: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "_sources", package.parent):
        if (folder / "ops" / "kernels" / "update.h").exists():
            return folder
    raise BuildError("The C++ sources are not installed.")


def compiler():
    """The first words of a command: `CXX`, maybe with arguments or a launcher, or the first of g++, clang++ and c++."""
    named = os.environ.get("CXX", "").strip()
    for words in [_words(named)] if named else [["g++"], ["clang++"], ["c++"]]:
        if found := shutil.which(words[0]):
            return [os.path.abspath(found), *words[1:]]
    raise BuildError("There is no C++ compiler. Install g++, or name one in CXX.")


def _words(command):
    """A path with spaces in it is one word."""
    try:
        return [command] if shutil.which(command) else shlex.split(command)
    except ValueError as error:
        raise BuildError(f"CXX is no command: {error}. Received: CXX={command!r}") from error


def cuda_compiler():
    """`nvcc`, from `CUDA_HOME` or the search path."""
    found = shutil.which("nvcc", path=os.path.join(os.environ["CUDA_HOME"], "bin")) if os.environ.get("CUDA_HOME") else None
    if found := found or shutil.which("nvcc"):
        return found
    raise BuildError("There is no nvcc. Install the CUDA toolkit, or name its folder in CUDA_HOME.")


def library(target, family="update"):
    """The path of a target's library, which is built if it is not in the cache.

    Args:
        target: `"core"`, `"jax"`, `"tensorflow"`, `"tensorflow_xla"`, `"jax_cuda"` or `"tensorflow_xla_cuda"`.
        family: What the names of its sources begin with, a key of `FAMILIES`. Defaults to `"update"`.

    Raises:
        BuildError: If that cannot be done, with the reason.
    """
    try:
        path = _path(target, family)
        if not _cache.has(path):
            _build_once(target, family, path)
        _cache.verify(path)
    except OSError as error:
        raise BuildError(f"The cache {_cache.folder()} cannot be used: {error}") from error
    return path


def cached(target, family="update"):
    """The path of a library that is there already, or `None`; a part that needs TensorFlow is found without importing it."""
    return next(iter(sorted(_cache.folder().glob(f"{family}_{target}-*.so"))), None)


@functools.cache
def _path(target, family):
    content = hashlib.sha256()
    compilers = [compiler(), *([[cuda_compiler()]] if target.endswith("cuda") else [])]
    versions = [_run([*each, "--version"]).stdout for each in compilers]
    system = platform.machine(), platform.libc_ver()
    jobs = _jobs_of_sets(family), _jobs(target, family), _job_of_choice(family, ())
    content.update(repr((versions, system, jobs, _link(target), _framework(target))).encode())
    for source in _sources(family):
        content.update(source.read_bytes())
    return _cache.folder() / f"{family}_{target}-{content.hexdigest()[:16]}.so"


def _sources(family):
    """What a family is made of: its own files, and those that belong to none."""
    others = tuple(set(FAMILIES) - {family})
    found = [file for folder in ("ops", "custom_ops_cuda") for file in sorted((source_folder() / folder).rglob("*.*"))]
    return [file for file in found if not file.name.startswith(others)]


def _build_once(target, family, path):
    with _cache.locked(path):
        if _cache.has(path):  # another process has built it meanwhile
            return
        _announce(f"keras_lrsched compiles {FAMILIES[family]} ({target}) into {path.parent}, once.")
        _cache.remove_leftovers(path)
        with tempfile.TemporaryDirectory(prefix=path.stem + _cache.BUILD, dir=path.parent) as folder:
            _build(target, family, Path(folder))
            _cache.store(Path(folder, "library.so"), path)


def _announce(text):
    """On the standard error, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


def _build(target, family, folder):
    sets = _jobs_of_sets(family)
    jobs = {**sets, **_jobs(target, family)}
    started = {name: _start(job, folder / f"{name}.o") for name, job in jobs.items()}
    outputs = {name: process.communicate()[0] for name, process in started.items()}
    lacking = [name for name in sets if started[name].returncode and _lacks_instructions(name, family, folder)]
    for name in [name for name in jobs if name not in lacking]:
        _check(outputs[name], started[name])
    if lacking:
        _announce(f"keras_lrsched leaves out code for {', '.join(lacking)}, which {compiler()[0]} cannot compile.")
    choice = _start(_job_of_choice(family, lacking), folder / "choice.o")
    _check(choice.communicate()[0], choice)
    objects = [str(folder / f"{name}.o") for name in ("choice", *jobs) if name not in lacking]
    linked = _run([*_link(target), "-shared", "-o", str(folder / "library.so"), *objects, *_libraries(target)])
    _check(linked.stdout, linked)


def _start(job, output):
    source, flags = job
    command = [cuda_compiler()] if source.endswith(".cu") else [*compiler(), "-fPIC", "-fvisibility=hidden"]
    return _popen([*command, *flags, "-w", "-c", source, "-o", str(output)], cwd=source_folder())


def _run(command):
    process = _popen(command)
    output = process.communicate()[0]
    return subprocess.CompletedProcess(command, process.returncode, output)


def _popen(command, **options):
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **options,
        )
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from error


def _check(output, process):
    if process.returncode:
        raise BuildError(f"{process.args[0]} failed with {process.returncode}: {output.strip()[-1000:]}")


def _lacks_instructions(name, family, folder):
    """Whether nothing can be compiled with the flags of an instruction set."""
    more = _instruction_sets(family)[name]
    source = folder / "empty.cc"
    source.write_text("int empty() { return 0; }\n")
    return bool(more) and _run([*compiler(), *more, "-c", str(source), "-o", str(folder / "empty.o")]).returncode != 0


# The sources of a library, each with its flags, by the names of their objects


def _is_x86():
    return platform.machine() in ("x86_64", "AMD64")


def _flags():
    return [*MATHS, *(["-DKLR_X86"] if _is_x86() else [])]


def _instruction_sets(family):
    return OWN_INSTRUCTION_SETS.get(family, INSTRUCTION_SETS) if _is_x86() else {"baseline": []}


def _jobs_of_sets(family):
    """The kernels, for each instruction set."""
    sets = _instruction_sets(family)
    return {name: (f"ops/kernels/{family}_loops.cc", [*_flags(), f"-DKLR_ISA={name}", *more]) for name, more in sets.items()}


def _job_of_choice(family, lacking):
    """What chooses among the instruction sets."""
    return f"ops/kernels/{family}_dispatch.cc", [*_flags(), *(f"-DKLR_WITHOUT_{name.upper()}" for name in lacking)]


def _jobs(target, family):
    """The rest."""
    cuda = [(f"custom_ops_cuda/{family}.cu", CUDA)] if target.endswith("cuda") else []
    return {f"binding_{number}": job for number, job in enumerate([*cuda, *_bindings(target, family)])}


def _bindings(target, family):
    if target.startswith("jax"):
        import jax

        source = f"ops/jax/{family}_jax.cc" if target == "jax" else f"custom_ops_cuda/{family}_jax.cc"
        return [(source, ["-O2", "-std=c++17", f"-I{jax.ffi.include_dir()}"])]
    if target.startswith("tensorflow"):
        import tensorflow as tf

        flags = ["-O2", *tf.sysconfig.get_compile_flags()]
        if target == "tensorflow":
            return [(f"ops/tensorflow/{family}_op.cc", flags)]
        external = f"{tf.sysconfig.get_include()}/external"
        includes = [f"-I{external}/highwayhash", f"-I{external}/farmhash_archive/src"]
        handler = f"custom_ops_cuda/{family}_tensorflow.cc" if target.endswith("cuda") else f"ops/tensorflow/{family}_ffi.cc"
        return [(f"ops/tensorflow/{family}_xla.cc", [*flags, *includes]), (handler, flags)]
    return []


def _link(target):
    """CUDA's runtime is linked statically, so that the library loads on a machine without a driver."""
    return [cuda_compiler(), "-cudart", "static"] if target.endswith("cuda") else compiler()


def _libraries(target):
    if not target.startswith("tensorflow"):
        return []
    import tensorflow as tf

    flags = [*tf.sysconfig.get_link_flags(), *(["-l:libtensorflow_cc.so.2"] if "xla" in target else [])]
    return [part for flag in flags for part in ("-Xlinker", flag)] if target.endswith("cuda") else flags


def _framework(target):
    if target.startswith("tensorflow"):
        import tensorflow as tf

        return tf.__version__, tf.version.GIT_VERSION
    if target.startswith("jax"):
        import jaxlib

        return jaxlib.__version__
    return None
