"""What each feature of the package does in a program: exact, refused, or nothing that it could do."""

import dataclasses
from collections.abc import Callable

from tests.programs.program import Program

EXACT, REFUSED, NOTHING = "exact", "refused", "-"


@dataclasses.dataclass(frozen=True)
class Feature:
    """A column of the matrix.

    Attributes:
        name: The class, or what is done.
        exact: What "exact" means for it, for the page of the matrix.
        check: A function of a `Bench` that fails unless the feature is exact there.
        refuse: A function of a `Bench` that fails unless the feature raises by name before training.
        refused: Traits of programs in which it is refused.
        nothing: Traits of programs in which it has no meaning, or none of its own.
        only: Traits of which a program must have one.
    """

    name: str
    exact: str
    check: Callable
    refuse: Callable | None = None
    refused: tuple[str, ...] = ()
    nothing: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    def support(self, program: Program):
        """What the feature does in a program."""
        if self.only and not program.has(*self.only):
            return NOTHING
        if program.has(*self.refused):
            return REFUSED
        return NOTHING if program.has(*self.nothing) else EXACT
