"""Builds the C++ parts on first use, with the compiler that is there, into a cache.

A library is built anew when the framework, the compiler, the flags or a source changes. Processes that want the same one at
the same time wait for each other; what is in the cache is always complete.
"""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MATHS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]  # never -ffast-math: see below
"""No fused multiply-add, so that all instruction sets round alike. A library linked with `-ffast-math` would switch off
subnormal numbers in the whole process."""

FAMILIES = {"update": "its updates", "quantize": "its quantizers", "matmul": "its matrix products"}
"""Kernels that are built together. The names of their files begin alike: ops/kernels/{family}s.cc is compiled for each
instruction set, {family}.cc chooses among these, ops/tensorflow/{family}_op.cc and so on bind them."""

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


class BuildError(Exception):
    """Why there is no library."""


def mode():
    """What `KERAS_LRSCHED_FUSED` says: `"auto"`, `"1"` or `"0"`."""
    value = os.environ.get("KERAS_LRSCHED_FUSED", "auto")
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


def cache_folder():
    """`KERAS_LRSCHED_CACHE`, or `keras_lrsched` in the user's cache."""
    if folder := os.environ.get("KERAS_LRSCHED_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keras_lrsched"


def compiler():
    """`CXX`, or the first of g++, clang++ and c++ that is there."""
    for name in [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]:
        if found := shutil.which(name):
            return found
    raise BuildError("There is no C++ compiler. Install g++, or name one in CXX.")


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
        if not path.exists():
            _build_once(target, family, path)
    except OSError as error:
        raise BuildError(f"The cache {cache_folder()} cannot be used: {error}") from error
    return path


def cached(target, family="update"):
    """The path of a library that is there already, or `None`; a part that needs TensorFlow is found without importing it."""
    return next(iter(sorted(cache_folder().glob(f"{family}_{target}-*.so"))), None)


@functools.cache
def _path(target, family):
    content = hashlib.sha256()
    compilers = [compiler(), *([cuda_compiler()] if target.endswith("cuda") else [])]
    versions = [subprocess.run([each, "--version"], capture_output=True, text=True).stdout for each in compilers]
    content.update(repr((versions, platform.machine(), _jobs(target, family), _link(target), _framework(target))).encode())
    for source in _sources(family):
        content.update(source.read_bytes())
    return cache_folder() / f"{family}_{target}-{content.hexdigest()[:16]}.so"


def _sources(family):
    """What a family is made of: its own files, and those that belong to none."""
    others = tuple(set(FAMILIES) - {family})
    found = [file for folder in ("ops", "custom_ops_cuda") for file in sorted((source_folder() / folder).rglob("*.*"))]
    return [file for file in found if not file.name.startswith(others)]


def _build_once(target, family, path):
    import fcntl  # not on Windows, where nothing of this is tried

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():  # another process may have built it meanwhile
            print(
                f"keras_lrsched compiles {FAMILIES[family]} ({target}) into {path.parent}, once.",
                file=sys.stderr,
                flush=True,
            )
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                _build(target, family, Path(folder))
                os.replace(Path(folder, "library.so"), path)


def _build(target, family, folder):
    processes = []
    for number, (source, flags) in enumerate(_jobs(target, family)):
        start = [cuda_compiler()] if source.endswith(".cu") else [compiler(), "-fPIC", "-fvisibility=hidden"]
        command = [*start, *flags, "-w", "-c", source, "-o", str(folder / f"{number}.o")]
        processes.append(
            subprocess.Popen(command, cwd=source_folder(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    for process in processes:
        _check(process.communicate()[0], process)
    objects = [str(folder / f"{number}.o") for number in range(len(processes))]
    command = [*_link(target), "-shared", "-o", str(folder / "library.so"), *objects, *_libraries(target)]
    linked = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _check(linked.stdout, linked)


def _check(output, process):
    if process.returncode:
        raise BuildError(f"{' '.join(process.args[:1])} failed with {process.returncode}: {output.strip()[-1000:]}")


def _jobs(target, family):
    """The sources of a library, each with its flags."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    flags = [*MATHS, *(["-DKL_X86"] if x86 else [])]
    sets = OWN_INSTRUCTION_SETS.get(family, INSTRUCTION_SETS) if x86 else {"baseline": []}
    jobs = [(f"ops/kernels/{family}s.cc", [*flags, f"-DKL_ISA={name}", *more]) for name, more in sets.items()]
    cuda = [(f"custom_ops_cuda/{family}.cu", CUDA)] if target.endswith("cuda") else []
    return [*jobs, *cuda, (f"ops/kernels/{family}.cc", flags), *_bindings(target, family)]


def _bindings(target, family):
    if target.startswith("jax"):
        import jax

        source = f"ops/jax/{family}_jax.cc" if target == "jax" else f"custom_ops_cuda/{family}_ffi.cc"
        return [(source, ["-O2", "-std=c++17", f"-I{jax.ffi.include_dir()}"])]
    if target.startswith("tensorflow"):
        import tensorflow as tf

        flags = ["-O2", *tf.sysconfig.get_compile_flags()]
        if target == "tensorflow":
            return [(f"ops/tensorflow/{family}_op.cc", flags)]
        external = f"{tf.sysconfig.get_include()}/external"
        includes = [f"-I{external}/highwayhash", f"-I{external}/farmhash_archive/src"]
        handler = f"{family}_ffi.cc" if target == "tensorflow_xla" else f"{family}_ffi_cuda.cc"
        return [(f"ops/tensorflow/{family}_xla.cc", [*flags, *includes]), (f"ops/tensorflow/{handler}", flags)]
    return []


def _link(target):
    """CUDA's runtime is linked statically, so that the library loads on a machine without a driver."""
    return [cuda_compiler(), "-cudart", "static"] if target.endswith("cuda") else [compiler()]


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
