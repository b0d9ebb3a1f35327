"""The private names that are tested, and the meaning of a failure: this version of Keras does it otherwise."""

import functools

COVERED: set[str] = set()


def relies_on(*names):
    """Mark a test of functions of `keras_private`: it fails with "Keras changed NAMES: ..."."""
    COVERED.update(names)

    def wrap(test):
        @functools.wraps(test)
        def run(*args, **kwargs):
            try:
                test(*args, **kwargs)
            except Exception as error:
                raise AssertionError(f"Keras changed {', '.join(names)}: {type(error).__name__}: {error}") from error

        return run

    return wrap
