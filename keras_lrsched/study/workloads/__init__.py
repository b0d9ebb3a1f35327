"""Workloads: small real models on real data, for `compare`, the benchmarks and the notebooks."""

from keras_lrsched._core import registry
from keras_lrsched.study.workloads.base import Workload

globals().update(registry.import_methods(__name__))


def names() -> list[str]:
    """The names of all workloads, sorted."""
    return registry.names("study")


def get(name: str) -> type[Workload]:
    """The class of the workload of this name.

    Raises:
        ValueError: If there is none; the message lists the nearest names, or all.
    """
    return registry.find("study", name, what="workload").target


def load(name: str, data_dir: str | None = None) -> Workload:
    """The workload of this name, with its data loaded.

    Args:
        name: One of `names()`.
        data_dir: The folder with the data of workloads that need one. Defaults to `None`.

    Raises:
        ValueError: If there is none of this name.
        FileNotFoundError: If it needs a data folder and does not find its files there.
        ImportError: If it needs a package that is not installed.
    """
    return get(name)(data_dir)


__all__ = registry.public_names(globals())
