"""Roles of variables in their layers: kernels, biases, embeddings, and which axes are inputs and outputs.

Variables of Keras have no reference to their layers, and optimizers are given variables only. So the layers of the process
are recorded as they are made (`keras_private.record_layers`), and looked through for the owners of some variables.
"""

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_lrsched._core import keras_private, role_rules

keras_private.record_layers()

KINDS = (
    "kernel",
    "convolution_kernel",
    "recurrent_kernel",
    "depthwise_kernel",
    "embedding",
    "lora_a",
    "lora_b",
    "bias",
    "normalization",
    "scale",
    "other",
)
BLOCKS = ("query", "key", "value", "query_key_value", "attention_output", "feed_forward", "router")
SOURCES = ("layer", "name", "shape", "given")


@dataclasses.dataclass(frozen=True)
class Role:
    """The role of a variable in its layer.

    Attributes:
        path: The path of the variable.
        shape: Its shape.
        kind: `"kernel"` for matrices from inputs to outputs, `"convolution_kernel"`, `"recurrent_kernel"`,
            `"depthwise_kernel"`; `"embedding"` for tables with a row for each token or position; `"lora_a"` and `"lora_b"`,
            the factors of LoRA; `"bias"`; `"normalization"` for the scales and offsets of normalization layers; `"scale"`
            for other gains and slopes; `"other"`.
        inputs: The axes that are summed over, the fan-in. Empty for what is no matrix.
        outputs: The axes of the outputs, the fan-out.
        stack: The axes that number independent matrices, such as the experts of a mixture.
        block: Its part in a block of a Transformer: `"query"`, `"key"`, `"value"`, `"query_key_value"`,
            `"attention_output"`, `"feed_forward"`, `"router"`. `None` for others.
        head: Whether it belongs to an output layer of the model, as far as its graph shows it.
        depth: The number of its layer from input to output. `None` where only variables were given.
        layer: The class of its layer. `None` if no layer has it.
        source: Where this comes from: the class of the `"layer"`, the `"name"`, the `"shape"`, or `"given"` by the user.
    """

    path: str
    shape: tuple[int, ...]
    kind: str
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    stack: tuple[int, ...] = ()
    block: str | None = None
    head: bool = False
    depth: int | None = None
    layer: str | None = None
    source: str = "shape"

    def __post_init__(self) -> None:
        for name in ("shape", "inputs", "outputs", "stack"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check("kind", self.kind, KINDS)
        _check("block", self.block, (None, *BLOCKS))
        axes = sorted((*self.inputs, *self.outputs, *self.stack))
        if axes and axes != list(range(len(self.shape))):
            raise ValueError(
                "`inputs`, `outputs` and `stack` must have each axis of a variable once. Received: "
                f"inputs={self.inputs}, outputs={self.outputs}, stack={self.stack}, for {self.path} of shape {self.shape}"
            )

    def size(self, axes: Sequence[int]) -> int:
        """The product of the lengths of some axes, 1 of none."""
        return math.prod(self.shape[axis] for axis in axes)


def _check(name: str, value: Any, known: Iterable) -> None:
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}. Received: {name}={value!r}")


@keras.saving.register_keras_serializable(package="keras_lrsched")
class Roles:
    """A table of the roles of variables, which `roles(model)` makes: to be printed, corrected, and given to an optimizer.

    Attributes:
        rows: A list of `Role`.
        variables: The variables of the rows. `None` for a table that was loaded, which goes by their paths.

    Example:

    >>> inputs = keras.Input((4,))
    >>> table = roles(keras.Model(inputs, keras.layers.Dense(2, name="logits")(inputs)))
    >>> table["logits/kernel"].inputs, table["logits/kernel"].head
    ((0,), True)
    >>> table.correct("logits/kernel", head=False)["logits/kernel"].head
    False
    """

    def __init__(self, rows: Any, variables: Iterable | None = None) -> None:
        self.rows = list(rows)
        self.variables = variables

    def __iter__(self) -> Iterator[Role]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, path: str) -> Role:
        return self._by_path(path)

    def correct(self, pattern: str, **fields: Any) -> "Roles":
        """Replace fields of the rows in whose paths a regular expression is found; return the table.

        Raises:
            ValueError: If it is found in no path, or a value does not fit.
        """
        found = [bool(re.search(pattern, row.path)) for row in self.rows]
        if not any(found):
            raise ValueError(f"{pattern!r} is found in none of {len(self.rows)} paths; {nearest(pattern, self._paths())}.")
        self.rows = [
            dataclasses.replace(row, **fields, source="given") if is_found else row
            for row, is_found in zip(self.rows, found, strict=True)
        ]
        return self

    def of(self, variables: Iterable) -> list:
        """The role of each variable: by identity for those that the table was made from, by path for others."""
        places = {id(each): i for i, each in enumerate(self.variables or ())}
        return [
            self.rows[places[id(each)]] if id(each) in places else self._by_path(path_of(each), each) for each in variables
        ]

    def _by_path(self, path: str, variable: Any = None) -> Role:
        rows = [row for row in self.rows if row.path == path]
        if not rows:
            raise ValueError(
                f"The table of roles has no row for {path!r}; {nearest(path, self._paths())}. {NUMBERED}, so make it from "
                "this model: `roles(model)`."
            )
        if len({dataclasses.replace(row, depth=None) for row in rows}) > 1:
            raise ValueError(
                f"{len(rows)} variables of different roles have the path {path!r}: {'; '.join(map(str, rows))}. Give their "
                "layers names of their own."
            )
        if variable is not None and tuple(variable.shape) != rows[0].shape:
            raise ValueError(
                f"The table of roles is of another model: {path!r} has the shape {rows[0].shape} there, and "
                f"{tuple(variable.shape)} here."
            )
        return rows[0]

    def _paths(self) -> list:
        return [row.path for row in self.rows]

    def get_config(self) -> dict:
        return {"rows": [dataclasses.asdict(row) for row in self.rows]}

    @classmethod
    def from_config(cls, config: dict) -> "Roles":
        return cls([Role(**row) for row in config["rows"]])

    def __str__(self) -> str:
        names = ("path", "shape", "kind", "inputs", "outputs", "stack", "block", "head", "depth", "layer", "source")
        lines = [names, *([_cell(getattr(row, name)) for name in names] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def __repr__(self) -> str:
        return f"<Roles of {len(self.rows)} variables; print it to see the table>"


def _cell(value: Any) -> str:
    return "" if value is None or value == () or value is False else str(value)


NUMBERED = "Keras numbers layers without a name on in each process (dense, dense_1), also those of the models of other folds"


def nearest(pattern: str, paths: Iterable[str]) -> str:
    """The beginning of an error's second half: the nearest paths."""
    return f"the nearest are {', '.join(difflib.get_close_matches(pattern, paths, n=3, cutoff=0))}"


def path_of(variable: Any) -> str:
    """The path of a Keras variable; the name of a bare `tf.Variable`, which has none."""
    return variable.path if hasattr(variable, "path") else variable.name


def roles(model: keras.Model) -> Roles:
    """The table of roles of a model's variables: what each is to its layer, by the class of that.

    Known are the layers of Keras with their subclasses, and those of KerasHub; the equation of an `EinsumDense` determines
    the axes of its kernel. What else there is has its role from its name or shape, and the column `source` shows it. Correct
    it by `Roles.correct`. Output layers are found in functional and sequential models.

    Args:
        model: A model, or another layer, that is built.

    Returns:
        A `Roles`, to be printed, or given to an optimizer as its `roles`.

    Raises:
        ValueError: If there are no variables yet.

    Example:

    >>> inputs = keras.Input((8, 8, 3))
    >>> print(roles(keras.Model(inputs, keras.layers.Conv2DTranspose(4, 2, name="up")(inputs))))
    path       shape         kind                inputs  outputs    stack  block  head  depth  layer            source
    up/kernel  (2, 2, 4, 3)  convolution_kernel  (3,)    (0, 1, 2)                True  0      Conv2DTranspose  layer
    up/bias    (4,)          bias                                                 True  0      Conv2DTranspose  layer
    """
    layers = keras_private.layers_of(model)
    owned = _Owners(layers)
    variables = list({id(v): v for layer in layers for v in keras_private.own_trainable_variables(layer)}.values())
    if not variables:
        raise ValueError(f"The model has no trainable variables: build it first. Received: model={model.name}")
    heads, depths = _heads(model), _depths(model)
    rows = [owned.role(v) for v in variables]
    return Roles(
        [
            dataclasses.replace(row, head=row.head or id(v) in heads, depth=depths.get(id(v)))
            for row, v in zip(rows, variables, strict=True)
        ],
        variables,
    )


WORDS: dict[str, tuple[str, tuple]] = {
    **{kind: ("kind", (kind,)) for kind in KINDS},
    **{block: ("block", (block,)) for block in BLOCKS},
    "head": ("head", (True,)),
    "query_key": ("block", ("query", "key")),
    "value_output": ("block", ("value", "attention_output", "query_key_value")),
}
"""Words after `"role:"` in the rules of optimizers: a field of `Role`, and its values that are found."""


def is_found(word: str, role: Any) -> bool:
    """Return `True` if a variable of some role is found by one of `WORDS`."""
    field, values = WORDS[word]
    return getattr(role, field) in values


def deferred(variables: Iterable, table: Any = None) -> Callable[[], list[Role]]:
    """A function that returns the roles of some variables, and looks for them when it is first called."""
    return functools.cache(lambda: roles_of(variables, table))


def roles_of(variables: Iterable, table: Any = None) -> list[Role]:
    """The roles of some variables: those of a table, or by the layers that have them.

    A layer is found as long as it lives. A variable of none has its role from its name or shape. Output layers are found
    where all of the variables are in the graph of one functional or sequential model.
    """
    if table is not None:
        return table.of(variables)
    owned = _Owners(keras_private.recorded_layers(), variables)
    # Variables that a layer has made have its name in their paths.
    if any(owned.layer(v) is None and "/" in path_of(v) for v in variables) and keras_private.record_earlier_layers():
        owned = _Owners(keras_private.recorded_layers(), variables)
    heads = _heads_around(keras_private.recorded_layers(), variables)
    return [dataclasses.replace(row, head=row.head or id(v) in heads) for v in variables for row in [owned.role(v)]]


OUTSIDE_OF_BLOCKS = ("normalization", "embedding", "scale")
"""Kinds of variables that have no part in the work of a block, wherever they lie."""


def role_by_path(path: str, shape: tuple[int, ...]) -> Role:
    """The role of a variable of which nothing but its path and shape is known."""
    fields, source = _fields_by_path(path, shape)
    block = None if fields["kind"] in OUTSIDE_OF_BLOCKS else role_rules.block_by_name(path)
    return Role(path, shape, **fields, block=block, source=source)


def _fields_by_path(path: str, shape: Sequence[int]) -> tuple:
    found = role_rules.by_name(path, shape)
    return (found, "name") if found else (role_rules.by_shape(shape), "shape")


class _Owners:
    """The layers that have variables, and the layers around them."""

    def __init__(self, layers: Sequence[keras.Layer], variables: Iterable | None = None) -> None:
        wanted = None if variables is None else {id(each) for each in variables}
        self._layers: dict[int, list] = {}
        self._parents: dict[int, list] = {}
        self._blocks: dict[int, str | None] = {}
        for layer in layers:
            for each in keras_private.own_trainable_variables(layer):
                if wanted is None or id(each) in wanted:
                    self._layers.setdefault(id(each), []).append(layer)
            for child in keras_private.children(layer):
                self._parents.setdefault(id(child), []).append(layer)

    def layer(self, variable: Any) -> Any:
        """The layer that made a variable, of several that have it: the longest path that its own begins with is theirs."""
        layers = self._layers.get(id(variable), ())
        if len(layers) < 2:
            return layers[0] if layers else None
        makers = [each for each in layers if each.path and path_of(variable).startswith(f"{each.path}/")]
        return max(makers, key=lambda each: len(each.path)) if makers else layers[0]

    def role(self, variable: Any) -> Role:
        path, shape = path_of(variable), tuple(variable.shape)
        layer = self.layer(variable)
        if layer is None:
            return role_by_path(path, shape)
        fields, source = role_rules.by_layer(layer, variable.name.split(":")[0], shape), "layer"
        if fields is None:
            fields, source = _fields_by_path(path, shape)
        is_part = fields["kind"] not in OUTSIDE_OF_BLOCKS and not fields.get("head")
        block = self._block(layer) or role_rules.block_by_name(path) if is_part else None
        return Role(path, shape, **fields, block=block, layer=type(layer).__name__, source=source)

    def _block(self, layer: keras.Layer) -> Any:
        if id(layer) not in self._blocks:
            self._blocks[id(layer)] = role_rules.block_of(layer, self._around)
        return self._blocks[id(layer)]

    def _around(self, layer: keras.Layer) -> Any:
        return self._parents.get(id(layer), ())


def layers_in_order(model: keras.Model) -> Iterator:
    """The layers of a model from input to output, and in the place of a model among them, its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_in_order(layer)
        else:
            yield layer


def _depths(model: keras.Model) -> Any:
    """The number of the layer of each variable, as `layer_decay` counts: layers with trainable variables."""
    depths: dict[int, int] = {}
    number = 0
    for layer in layers_in_order(model) if hasattr(model, "layers") else [model]:
        new = [v for v in _all_trainable(layer) if id(v) not in depths]
        depths |= {id(v): number for v in new}
        number += bool(new)
    return depths


def _heads(model: keras.Model) -> Any:
    """The ids of the variables of output layers, as far as the graph of a model shows them."""
    if not keras_private.is_graph(model) or not model.built:
        return set()
    found = set()
    for tensor in model.outputs:
        found |= _head_of(tensor)
    return found


def _heads_around(layers: Sequence[keras.Layer], variables: Iterable) -> set[int]:
    """The ids of the variables of output layers, of those graphs that have all of some variables; of several, of each."""
    wanted = {id(v) for v in variables}
    graphs = [each for each in layers if keras_private.is_graph(each) and each.built]
    around = [each for each in graphs if wanted <= {id(v) for v in _all_trainable(each)}]
    return set.intersection(*map(_heads, around)) if around else set()


def _head_of(tensor: Any) -> Any:
    operation, arguments = keras_private.producer(tensor)
    if keras_private.is_graph(operation):
        return _heads(operation)
    variables = _all_trainable(operation) if isinstance(operation, keras.layers.Layer) else []
    if variables:
        return {id(v) for v in variables} if isinstance(operation, role_rules.LINEAR) else set()
    return _head_of(arguments[0]) if len(arguments) == 1 else set()


def _all_trainable(layer: keras.Layer) -> list:
    return [v for each in keras_private.layers_of(layer) for v in keras_private.own_trainable_variables(each)]
