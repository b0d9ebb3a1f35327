"""The packages; all else is in setup.cfg, which cannot name found packages and others."""

from setuptools import find_packages, setup

SOURCES = ["keras_lrsched._sources.ops", "keras_lrsched._sources.custom_ops_cuda"]

setup(packages=[*find_packages(include=["keras_lrsched*"]), *SOURCES])
