"""The three policies of CLR (Smith 2017), under the names and arguments of TensorFlow Addons."""

from keras_lrsched._core.registry import register
from keras_lrsched.schedules.cyclical_learning_rate import CyclicalLearningRate


@register(
    "cyclical",
    title="cyclical, equal triangles (CLR)",
    paper="arXiv:1506.01186",
    code=("bckenstler/CLR", "tensorflow/addons"),
    checked="vectors",
    against="the community's Keras callback, which was run; the arguments of TensorFlow Addons, which were read",
    deviations="`step_size` must be whole, and the maximum no less than the minimum; the paper was not read",
    kind="learning rate",
    choices={"cycles": ((1, 2, 4, 8), 4)},
)
class TriangularCyclicalLearningRate(CyclicalLearningRate):
    """`CyclicalLearningRate` whose cycles are all equal: scale 1. Arguments, errors and reference as there.

    Example:

    >>> TriangularCyclicalLearningRate(0.001, 0.006, step_size=2).values(5)
    array([0.001 , 0.0035, 0.006 , 0.0035, 0.001 ])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        maximal_learning_rate: float,
        step_size: int,
        scale_mode: str = "cycle",
        name: str = "TriangularCyclicalLearningRate",
    ) -> None:
        super().__init__(initial_learning_rate, maximal_learning_rate, step_size, "triangular", scale_mode, name)


@register(
    "cyclical2",
    title="cyclical, halving triangles (CLR)",
    paper="arXiv:1506.01186",
    code=("bckenstler/CLR", "tensorflow/addons"),
    checked="vectors",
    against="the community's Keras callback, which was run; the arguments of TensorFlow Addons, which were read",
    deviations="`step_size` must be whole, and the maximum no less than the minimum; the paper was not read",
    kind="learning rate",
    choices={"cycles": ((1, 2, 4, 8), 4)},
)
class Triangular2CyclicalLearningRate(CyclicalLearningRate):
    """`CyclicalLearningRate` whose cycles halve: scale 2^(1 - c). Arguments, errors and reference as there.

    Example:

    >>> Triangular2CyclicalLearningRate(0.0, 1.0, step_size=1).values(6)
    array([0.  , 1.  , 0.  , 0.5 , 0.  , 0.25])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        maximal_learning_rate: float,
        step_size: int,
        scale_mode: str = "cycle",
        name: str = "Triangular2CyclicalLearningRate",
    ) -> None:
        super().__init__(initial_learning_rate, maximal_learning_rate, step_size, "triangular2", scale_mode, name)


@register(
    title="cyclical, exponentially shrinking triangles (CLR)",
    paper="arXiv:1506.01186",
    code=("bckenstler/CLR", "tensorflow/addons"),
    checked="vectors",
    against="the community's Keras callback, which was run; the arguments of TensorFlow Addons, which were read",
    deviations="`step_size` must be whole, and the maximum no less than the minimum; the paper was not read",
    kind="learning rate",
)
class ExponentialCyclicalLearningRate(CyclicalLearningRate):
    """`CyclicalLearningRate` that shrinks with every update: scale gamma^c. Arguments, errors and reference as there.

    Example:

    >>> ExponentialCyclicalLearningRate(0.0, 1.0, step_size=1, gamma=0.5).values(6)
    array([0.     , 0.5    , 0.     , 0.125  , 0.     , 0.03125])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        maximal_learning_rate: float,
        step_size: int,
        scale_mode: str = "iterations",
        gamma: float = 1.0,
        name: str = "ExponentialCyclicalLearningRate",
    ) -> None:
        super().__init__(initial_learning_rate, maximal_learning_rate, step_size, "exp_range", scale_mode, name, gamma)
