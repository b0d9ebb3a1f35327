"""What is built, why not, and where."""

import importlib.util
import os
import shlex

from keras_lrsched.kernels import _build, _cache

TARGETS = {
    "core": (None, "PyTorch"),
    "tensorflow": ("tensorflow", "TensorFlow"),
    "tensorflow_xla": ("tensorflow", "TensorFlow with jit_compile"),
    "jax": ("jax", "JAX"),
    "jax_cuda": ("jax", "JAX on CUDA, if KERAS_LRSCHED_FUSED is 1,"),
    "tensorflow_xla_cuda": ("tensorflow", "TensorFlow with jit_compile on CUDA, if KERAS_LRSCHED_FUSED is 1,"),
}


def status():
    """A dictionary of strings.

    `"mode"` is what `KERAS_LRSCHED_FUSED` says; `"compiler"` and `"cuda_compiler"` are their paths, or why there is none;
    `"sources"` and `"cache"` the folders of C++ files and of libraries. Then a key for each library: its path, or why there
    is none.
    """
    return {
        "mode": os.environ.get("KERAS_LRSCHED_FUSED") or "auto",
        "compiler": _try(lambda: shlex.join(_build.compiler())),
        "cuda_compiler": _try(_build.cuda_compiler),
        "sources": _try(_build.source_folder),
        "cache": _try(_cache.folder),
        **{
            target if family == "update" else f"{family}_{target}": _library(target, family, *of)
            for family in _build.FAMILIES
            for target, of in TARGETS.items()
            if family in _build.ON_CUDA or not target.endswith("cuda")
        },
    }


def _library(target, family, module, user):
    if module is not None and importlib.util.find_spec(module) is None:
        return f"{user} is not installed"
    return _try(lambda: _build.cached(target, family) or f"not built yet; {user} builds it when first used")


def _try(function):
    try:
        return str(function())
    except _build.BuildError as error:
        return str(error)
