"""The result of each feature of the package in a program: exact, warned, refused, or not applicable."""

import dataclasses
from collections.abc import Callable

from tests.programs.program import Program

EXACT, WARNED, REFUSED, NOTHING = "exact", "warned", "refused", "-"


@dataclasses.dataclass(frozen=True)
class Feature:
    """A column of the matrix.

    Attributes:
        name: The class, or what is done.
        exact: What "exact" means for it, for the page of the matrix.
        check: A function of a `Bench` that fails unless the feature is exact there, or warns by name where it is not.
        refuse: A function of a `Bench` that fails unless the feature raises by name before training.
        refused: Traits of programs in which it is refused.
        warned: Traits of programs in which it is not exact, and warns by name.
        nothing: Traits of programs in which it has no meaning, or none of its own.
        only: Traits of which a program must have one.
    """

    name: str
    exact: str
    check: Callable
    refuse: Callable | None = None
    refused: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    nothing: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def support(self, program: Program):
        """The result of the feature in a program."""
        if self.only and not program.has(*self.only):
            return NOTHING
        if program.has(*self.refused):
            return REFUSED
        if program.has(*self.nothing):
            return NOTHING
        return WARNED if program.has(*self.warned) else EXACT
