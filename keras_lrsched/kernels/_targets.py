"""The parts of each library: its sources, its flags, and the version of the framework that it belongs to.

A target is how a library is called: `"core"` (the C interface), `"jax"`, `"tensorflow"`, `"tensorflow_xla"`, `"jax_cuda"` or
`"tensorflow_xla_cuda"`. A family is a set of kernels that are compiled together.
"""

import importlib.metadata
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from keras_lrsched.kernels._cache import BuildError

MATHS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]  # never -ffast-math: see below
"""No fused multiply-add, so that all instruction sets round alike. A library linked with `-ffast-math` would switch off
subnormal numbers in the whole process."""

FAMILIES = {
    "update": "its updates",
    "quantize": "its quantizers",
    "matmul": "its matrix products",
    "orthogonalize": "its orthogonalization of matrices",
}
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
    "orthogonalize": {
        "baseline": ["-ffp-contract=fast"],
        "avx2": ["-mavx2", "-mfma", "-ffp-contract=fast"],
        "avx512": ["-march=x86-64-v4", "-mprefer-vector-width=512", "-ffp-contract=fast"],
    },
}
"""Those of families that need others, or whose results may differ in the last bits between instruction sets."""

CUDA = [
    *["-std=c++17", "-O3", "-fmad=false", "-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=sm_90"],
    *["-gencode=arch=compute_100,code=[sm_100,compute_100]", "-Xcompiler", "-fPIC,-fvisibility=hidden"],
]
"""Ampere, Hopper and Blackwell; what comes later compiles the last one's intermediate code."""

KERNEL_SECONDS = {"update": 11, "quantize": 23, "matmul": 2, "orthogonalize": 2}
BINDING_SECONDS = {"core": 0, "jax": 3, "tensorflow": 8, "tensorflow_xla": 45}
"""Seconds on two cores that a family's kernels take, which are compiled once, and a target's bindings
(`python benchmarks/build_times.py`)."""

TENSORFLOW_PACKAGES = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tf-nightly", "tf-nightly-cpu")


class Framework(NamedTuple):
    """Dependencies of the binary interface of a target.

    Args:
        version: The version of the framework; empty for the C interface, which has none.
        build: Distinguishes builds of one version.
        folder: Where it is installed; flags with this folder are not part of a library's identity.
    """

    version: str = ""
    build: str = ""
    folder: str = ""


def framework(target):
    """The `Framework` of a target, which is imported."""
    if target.startswith("tensorflow"):
        import tensorflow as tf

        return Framework(tf.__version__, tf.version.GIT_VERSION, str(Path(tf.sysconfig.get_include()).parent))
    if target.startswith("jax"):
        import jax
        import jaxlib

        return Framework(jaxlib.__version__, "", jax.ffi.include_dir())
    return Framework()


def installed_version(target):
    """The version of a target's framework without importing it; empty for the C interface and for unknown versions."""
    module = "tensorflow" if target.startswith("tensorflow") else "jaxlib"
    if target == "core":
        return ""
    if module in sys.modules:
        return sys.modules[module].__version__
    for package in TENSORFLOW_PACKAGES if module == "tensorflow" else (module,):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def seconds(target, family, has_kernels):
    """Approximate duration of a build, whose kernels may be compiled already."""
    on_two = (0 if has_kernels else KERNEL_SECONDS[family]) + BINDING_SECONDS.get(target, 120)
    about = 2 * on_two // min(os.cpu_count() or 2, 4)
    return max(5, round(about, -1) if about > 20 else about)


# Compilers and sources


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


def compilers(target):
    """The commands that a target is compiled with."""
    return [compiler(), *([[cuda_compiler()]] if target.endswith("cuda") else [])]


def sources(family):
    """The files of a family: its own, and those that belong to none."""
    others = tuple(set(FAMILIES) - {family})
    found = [file for folder in ("ops", "custom_ops_cuda") for file in sorted((source_folder() / folder).rglob("*.*"))]
    return [file for file in found if not file.name.startswith(others)]


# Jobs: a source with its flags, by the name of its object


def is_x86():
    return platform.machine() in ("x86_64", "AMD64")


def _flags():
    return [*MATHS, *(["-DKLR_X86"] if is_x86() else [])]


def instruction_sets(family):
    """The flags of each instruction set that the kernels of a family are compiled for."""
    return OWN_INSTRUCTION_SETS.get(family, INSTRUCTION_SETS) if is_x86() else {"baseline": []}


def loops(family):
    """The kernels, for each instruction set."""
    sets = instruction_sets(family)
    return {name: (f"ops/kernels/{family}_loops.cc", [*_flags(), f"-DKLR_ISA={name}", *more]) for name, more in sets.items()}


def dispatch(family, lacking=()):
    """The choice among the instruction sets, without those that the compiler lacks."""
    return f"ops/kernels/{family}_dispatch.cc", [*_flags(), *(f"-DKLR_WITHOUT_{name.upper()}" for name in lacking)]


def bindings(target, family):
    """Sources that call the kernels from a framework, and CUDA's kernels."""
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


def linker(target):
    """CUDA's runtime is linked statically, so that the library loads on a machine without a driver."""
    return [cuda_compiler(), "-cudart", "static"] if target.endswith("cuda") else compiler()


def libraries(target):
    """The flags that name the libraries of the framework."""
    if not target.startswith("tensorflow"):
        return []
    import tensorflow as tf

    flags = [*tf.sysconfig.get_link_flags(), *(["-l:libtensorflow_cc.so.2"] if "xla" in target else [])]
    return [part for flag in flags for part in ("-Xlinker", flag)] if target.endswith("cuda") else flags
