"""Variables of the backend."""

from typing import Any

import keras


def raw_variable(variable: Any) -> Any:
    """The backend's own variable or tensor of a Keras variable; a bare `tf.Variable`, which optimizers take, too, itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable
