"""Rules by the path of a variable, such as `"dense_1/bias"`; a rule is a regular expression that is searched for in it.

Two rules are standing words: `"bias"`, and `"normalization"`, which also finds vectors that are called `gamma`, `beta` or
`scale`, as in normalization layers, and those of layers with `norm` in their names. Unlike a pattern, they may find nothing.
"""

import difflib
import re

import keras

from keras_lrsched.schedules import checks


def patterns(name, values):
    """A list of regular expressions, from a constructor argument that may be `None`."""
    values = [] if values is None else values
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(f"`{name}` must be a list of regular expressions. Received: {name}={values!r}")
    return [_pattern(name, value) for value in values]


def multipliers(name, values):
    """A dictionary from regular expressions to non-negative numbers, from a constructor argument that may be `None`."""
    return numbers(name, values, checks.non_negative_float)


def numbers(name, values, check):
    """A dictionary from regular expressions to what passes `check`, from a constructor argument that may be `None`."""
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"`{name}` must be a dictionary from regular expressions to numbers. Received: {name}={values!r}")
    return {_pattern(name, key): check(name, value) for key, value in values.items()}


def path(variable):
    """The path of a Keras variable; the name of a bare `tf.Variable`, which has none."""
    return variable.path if hasattr(variable, "path") else variable.name


def first_match(name, rules, variables):
    """For each variable the first of the regular expressions that is found in its path, or `None`.

    Raises:
        ValueError: If one that is no standing word is found in no path.
    """
    for rule in rules:
        if rule not in STANDING_WORDS and not any(_is_found(rule, each) for each in variables):
            known = [path(variable) for variable in variables]
            nearest = difflib.get_close_matches(rule, known, n=3, cutoff=0)
            raise ValueError(
                f"`{name}`: {rule!r} is found in none of the {len(known)} paths; the nearest are {', '.join(nearest)}."
            )
    return [next((rule for rule in rules if _is_found(rule, each)), None) for each in variables]


STANDING_WORDS = ("bias", "normalization")


def _is_found(rule, variable):
    return bool(re.search(rule, path(variable))) or (rule == "normalization" and _is_of_normalization(variable))


def _is_of_normalization(variable):
    """Whether a variable is a scale or an offset along one axis, by the names that normalization layers give them."""
    is_vector = sum(size != 1 for size in variable.shape) <= 1
    *layers, name = path(variable).lower().split("/")
    return is_vector and (name in ("gamma", "beta", "scale") or "norm" in "".join(layers[-1:]))


def included(name, excluded, variables):
    """For each variable whether none of the regular expressions is found in its path."""
    return [rule is None for rule in first_match(name, excluded, variables)]


def refuse_complex(variables):
    """Raises an error for variables whose gradients have an imaginary part, which no method here has a formula for."""
    for variable in variables:
        if "complex" in keras.backend.standardize_dtype(variable.dtype):
            raise ValueError(f"Variables must be real. Received: {path(variable)}, dtype={variable.dtype}")


def _pattern(name, value):
    try:
        re.compile(value)
    except (TypeError, re.error) as error:
        raise ValueError(f"`{name}` must hold regular expressions. Received: {value!r} ({error})") from error
    return value
