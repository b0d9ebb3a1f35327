"""The version, and the address of the project: written here, and nowhere else."""

__version__ = "0.1.0"

KERAS = ("3.10", "3.16")
"""The oldest version of Keras that the package was tested with, and the first that it was not; as in setup.cfg."""

REPOSITORY = ""
"""The address of the repository, such as `"https://github.com/OWNER/keras-lrsched"`; empty before there is one.

The project URLs of the package (setup.py) and the badges and install cells of the notebooks (docs/make_notebooks.py) follow
from it.
"""
