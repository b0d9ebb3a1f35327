"""A list of what is built, where, and for what reason not."""

import importlib.util
import os
import shlex

from keras_lrsched.kernels import _build, _cache, _targets

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

    `"mode"` is the value of `KERAS_LRSCHED_FUSED`; `"compiler"` and `"cuda_compiler"` are their paths, or why there is none;
    `"sources"` and `"cache"` the folders of C++ files and of libraries. Then a key for each library: its path, or why there
    is none.
    """
    return {
        "mode": os.environ.get("KERAS_LRSCHED_FUSED") or "auto",
        "compiler": _try(lambda: shlex.join(_targets.compiler())),
        "cuda_compiler": _try(_targets.cuda_compiler),
        "sources": _try(_targets.source_folder),
        "cache": _try(_cache.folder),
        **{name: _library(target, family) for name, target, family in _all()},
    }


def build_all():
    """Build each library that an installed framework may use, also if that failed before.

    Yields:
        The name of a library, its path or why there is none, and whether there is one. Those for CUDA are left out unless
        `KERAS_LRSCHED_FUSED` is 1, as they are when used.
    """
    for name, target, family in _all():
        is_off = target.endswith("cuda") and os.environ.get("KERAS_LRSCHED_FUSED") != "1"
        if is_off or not _is_installed(target):
            continue
        try:
            yield name, str(_build.library(target, family, retry=True)), True
        except (_build.BuildError, ImportError) as error:
            yield name, str(error), False


def _all():
    for family in _targets.FAMILIES:
        for target in TARGETS:
            if family in _targets.ON_CUDA or not target.endswith("cuda"):
                yield target if family == "update" else f"{family}_{target}", target, family


def _is_installed(target):
    module = TARGETS[target][0]
    return module is None or importlib.util.find_spec(module) is not None


def _library(target, family):
    user = TARGETS[target][1]
    if not _is_installed(target):
        return f"{user} is not installed"
    return _try(lambda: _build.cached(target, family) or f"not built yet; {user} builds it when first used")


def _try(function):
    try:
        return str(function())
    except _build.BuildError as error:
        return str(error)
