"""The lists that C++ and Python share, as the headers of ops/kernels have them: macros with a row an entry."""

import functools
import re

from keras_lrsched.kernels import _targets
from keras_lrsched.kernels._cache import BuildError


@functools.cache
def _rows(header: str, row: str) -> tuple[tuple[str, ...], ...]:
    """The fields of all rows `row(a, b, ...)` in a header; none where the C++ sources are not installed."""
    try:
        text = (_targets.source_folder() / "ops" / "kernels" / header).read_text(encoding="utf-8")
    except BuildError:
        return ()
    found = re.findall(rf"^ +{row}\((.*?)\)", text.replace("\\\n", "\n"), re.DOTALL | re.MULTILINE)
    return tuple(tuple(field.strip() for field in fields.split(",")) for fields in found)


def update_parameters() -> dict[str, tuple[str, ...]]:
    """The names of the parameters of each compiled update, in the order of the kernel."""
    return {name: ("gradient_scale", *names) for _, _, name, _, *names in _rows("update_rules.h", "RULE")}


def updates_of_codes() -> set[str]:
    """The compiled updates whose state may be in 8 bits."""
    return {name for _, _, name, in_codes, *_ in _rows("update_rules.h", "RULE") if in_codes == "1"}


def state_codes() -> dict[str, int]:
    """The number of each kind of `keras_lrsched.precision.QuantizedState`; 0 is none."""
    return {name: 1 + i for i, (_, name) in enumerate(_rows("update_rules.h", "CODE"))}


def elements() -> dict[str, tuple]:
    """The element types of quantizers: the fields of a `keras_lrsched.precision.Element` after its name."""
    return {name: _element(*map(_integer, fields)) for name, *fields in _rows("quantize_lists.h", "ELEMENT")}


def scale_rules() -> list[str]:
    """The rules by which quantizers find scales."""
    return [name for _, name in _rows("quantize_lists.h", "SCALE_RULE")]


def _element(bits: int, mantissa: int, least: int, largest: int, integer: int, nan: int, infinity: int) -> tuple:
    return bits, mantissa, least, largest, bool(integer), nan or None, infinity or None


def _integer(text: str) -> int:
    return int(text, 0)
