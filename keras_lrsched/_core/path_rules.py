"""Rules by the path of a variable, such as `"dense_1/bias"`; a rule is a regular expression that is searched for in it.

Two rules are standing words: `"bias"`, and `"normalization"`, which also find what is that by its layer, and vectors that
are called `gamma`, `beta` or `scale` or belong to layers with `norm` in their names. Unlike a pattern, they may find
nothing. Rules that begin with `role:`, such as `"role:embedding"`, find variables by their roles in their layers.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from keras_lrsched._core import role_rules, roles, validation
from keras_lrsched._core.roles import path_of as path


def patterns(name: str, values: Any) -> list:
    """A list of regular expressions, from a constructor argument that may be `None`."""
    values = [] if values is None else values
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(f"`{name}` must be a list of regular expressions. Received: {name}={values!r}")
    return [_pattern(name, value) for value in values]


def multipliers(name: str, values: Any) -> dict:
    """A dictionary from regular expressions to non-negative numbers, from a constructor argument that may be `None`."""
    return numbers(name, values, validation.non_negative_float)


def numbers(name: str, values: Any, check: Callable) -> dict:
    """A dictionary from regular expressions to what passes `check`, from a constructor argument that may be `None`."""
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"`{name}` must be a dictionary from regular expressions to numbers. Received: {name}={values!r}")
    return {_pattern(name, key): check(name, value) for key, value in values.items()}


def table(value: Any) -> Any:
    """The constructor argument `roles`: a table or `None`."""
    if value is not None and not isinstance(value, roles.Roles):
        raise ValueError(f"`roles` must be the table that `roles(model)` returns. Received: roles={value!r}")
    return value


def first_match(name: str, rules: Iterable, variables: Sequence, find_roles: Callable | None = None) -> list:
    """For each variable the first of the rules that finds it, or `None`.

    Args:
        name: The argument that the rules come from, for errors.
        rules: Regular expressions, standing words, and rules by role.
        variables: The variables.
        find_roles: A function that returns their roles, as `roles.deferred` makes. Defaults to `None`: by their layers.

    Raises:
        ValueError: If one that is no standing word finds nothing.
    """
    if any(_is_by_role(rule) for rule in rules):
        known = (find_roles or roles.deferred(variables))()
    else:
        known = [None] * len(variables)
    pairs = list(zip(variables, known, strict=True))
    for rule in rules:
        if rule not in STANDING_WORDS and not any(_is_found(rule, *pair) for pair in pairs):
            _raise_not_found(name, rule, variables, known)
    matches = [next((rule for rule in rules if _is_found(rule, *pair)), None) for pair in pairs]
    _warn_of_fused(name, rules, matches, known)
    return matches


STANDING_WORDS = ("bias", "normalization", "role:bias", "role:normalization")
ROLE = "role:"


def _is_by_role(rule: str) -> bool:
    return rule in STANDING_WORDS or rule.startswith(ROLE)


def _is_found(rule: str, variable: Any, role: Any) -> bool:
    if rule.startswith(ROLE):
        return roles.is_found(rule.removeprefix(ROLE), role)
    if re.search(rule, path(variable)):
        return True
    if rule == "normalization" and role_rules.is_named_normalization(path(variable), variable.shape):
        return True
    return rule in STANDING_WORDS and role.kind == rule


def _raise_not_found(name: str, rule: str, variables: Sequence, known: list) -> None:
    if rule.startswith(ROLE):
        if rule == "role:query_key" and any(role.block == "query_key_value" for role in known):
            return
        present = sorted(word for word in roles.WORDS if any(roles.is_found(word, role) for role in known))
        hint = (
            "Output layers are found in functional and sequential models; show others in a table: `roles=roles(model)`."
            if rule == "role:head"
            else "Leave the rule out, or correct the table of roles, `roles(model)`, and give it as `roles`."
        )
        raise ValueError(
            f"`{name}`: none of {len(variables)} variables is what {rule!r} is for; there are {', '.join(present)}. {hint}"
        )
    paths = [path(variable) for variable in variables]
    numbered = any(re.search(_without_numbers(rule), _without_numbers(each)) for each in paths)
    raise ValueError(
        f"`{name}`: {rule!r} is found in none of the {len(paths)} paths; {roles.nearest(rule, paths)}."
        + (f" {roles.NUMBERED}: give the layers names." if numbered else "")
    )


def _without_numbers(text: str) -> str:
    return re.sub(r"_\d+(?=/|$|\\/|\$)", "", text)


def _warn_of_fused(name: str, rules: Iterable, matches: list, known: list) -> None:
    """One matrix of query, key and value, where rules set them apart."""
    if "role:query_key" not in rules:
        return
    pairs = zip(known, matches, strict=True)
    fused = [role.path for role, rule in pairs if rule == "role:value_output" and role.block == "query_key_value"]
    if fused:
        warnings.warn(
            f"`{name}`: query, key and value are one matrix in {', '.join(fused)}, which takes the rule of values. For "
            "another one, put a pattern that finds these paths before the other rules.",
            stacklevel=2,
        )


def included(name: str, excluded: Iterable, variables: Sequence, find_roles: Callable | None = None) -> list:
    """For each variable whether none of the rules finds it."""
    return [rule is None for rule in first_match(name, excluded, variables, find_roles)]


def refuse_complex(variables: Sequence) -> None:
    """Raise an error for variables whose gradients have an imaginary part, which no method here has a formula for."""
    for variable in variables:
        if "complex" in keras.backend.standardize_dtype(variable.dtype):
            raise ValueError(f"Variables must be real. Received: {path(variable)}, dtype={variable.dtype}")


def _pattern(name: str, value: Any) -> str:
    try:
        re.compile(value)
    except (TypeError, re.error) as error:
        raise ValueError(f"`{name}` must hold regular expressions. Received: {value!r} ({error})") from error
    if value.startswith(ROLE) and value.removeprefix(ROLE) not in roles.WORDS:
        raise ValueError(f"`{name}`: after 'role:' there must be one of {', '.join(roles.WORDS)}. Received: {value!r}")
    return value
