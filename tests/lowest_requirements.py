"""Prints the lowest version of each dependency that setup.cfg admits, as requirements for pip.

Run: python tests/lowest_requirements.py [EXTRA ...]
"""

import configparser
import re
import sys
from pathlib import Path


def lowest(extras=()):
    """Requirements `name==version`, of the package and of some of its extras."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
    lines = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in extras)]
    requirements = [line.strip() for text in lines for line in text.splitlines() if line.strip()]
    return sorted({re.sub(r"^([\w.\[\]-]+)>=([\d.]+).*", r"\1==\2", requirement) for requirement in requirements})


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
