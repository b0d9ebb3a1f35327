"""`apply` plans all factors from two models and sets initial values; `check` compares a model with such a plan."""

import dataclasses
import math

import keras
import numpy as np

from keras_lrsched import optimizers
from keras_lrsched._core import keras_private, path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Roles
from keras_lrsched._core.roles import roles as roles_of_model
from keras_lrsched._core.types import Patterns, Variable
from keras_lrsched.optimizers.wrapper import OptimizerLike
from keras_lrsched.transfer._families import family_of
from keras_lrsched.transfer._plan import Plan, planned_optimizer
from keras_lrsched.transfer._planner import Planner, branches_by_path, in_places
from keras_lrsched.transfer._residual_branches import Branches, residual_branches
from keras_lrsched.transfer.parameterizations import ALIGNMENTS, PARAMETERIZATIONS, branch_weights, depth_multipliers


@register(
    title="initial values, learning rates and weight decay of a wider and deeper model: muP, Depth-muP, CompleteP",
    paper="arXiv:2203.03466, arXiv:2310.02244, arXiv:2505.01618",
    code=("microsoft/mup", "EleutherAI/nanoGPT-mup"),
    checked="vectors",
    against="rates and decays of microsoft/mup, which was run; numbers of depth from EleutherAI/nanoGPT-mup, which was read",
    deviations="multipliers of the forward pass are part of the kernels; SGD at other depths, and Muon, are derived",
    kind="rule",
)
def apply(
    model: keras.Model,
    base_model: keras.Model,
    rule: str = "mup",
    optimizer: OptimizerLike = "adam",
    family: str | None = None,
    alignment: str = "full",
    weight_decay_power: float = 1.0,
    depth: tuple[int, int] | None = None,
    depth_power: float = 1.0,
    residual_multiplier: float = 1.0,
    residual_attention_ratio: float = 1.0,
    batch_size: tuple[int, int] | None = None,
    tokens: tuple[float, float] | None = None,
    token_power: float = 0.32,
    folded: bool = True,
    head_size: tuple[int, int] | None = None,
    branches: Patterns = None,
    branch_outputs: Patterns = None,
    roles: Roles | None = None,
    dry_run: bool = False,
) -> Plan:
    """Set the initial values of a model, and return its optimizer, so that hyperparameters of a smaller base model hold.

    With the ratios m of widths and r of depths, for Adam with `rule="mup"`:

                          input, vectors    hidden       output
        initial values    1                 1 / sqrt(m)  1 / m
        learning rate     1                 1 / m        1 / m
        weight decay      1                 m            m
        epsilon           1 / m of all

        queries           initial values and learning rate times sqrt(base head size / head size)
        within branches   learning rate times r^(depth_power - 1), epsilon of all times r^-depth_power
        ends of branches  initial values and learning rate also times r^-depth_power

    See `width_multipliers` for other families and rules. All multipliers of the forward pass (1 / m of the logits, that of
    attention, r^-depth_power of each branch) are part of the kernels: a kernel c W has c times the initial values of W, and
    the learning rate times c (Adam, Muon) or c^2 (SGD), and gives the same steps, except for epsilon, where the gradient of
    c W is larger. So the model itself stays as it is, and is saved and loaded as ever. A model of which that is impossible,
    for it uses its embedding as output kernel, or normalizes its queries, multiplies by itself, with `folded=False`.

    A matrix that is wider than in the base model, or has a factor, is scaled so that its RMS is that in the base model times
    its factor. Both models need the same initializers, and no training. `base_model` has the depth of `model`.

    Batch size and length change all learning rates: by the ratio of batch sizes (SGD) or its root (others), and by
    (base tokens / tokens)^token_power. beta_2 has the ratio of batch sizes as its power. Weight decay changes so that its
    timescale 1 / (learning rate * weight decay) is the same part of the run. These are rules of thumb, unlike the others.

    Args:
        model: A model that is built, and not trained.
        base_model: The same model, with the width for which the hyperparameters were found. Layers correspond by path, or
            if these differ, since Keras numbers layers without a name, in their order.
        rule: `"mup"`, `"mean_field"`, `"standard"` or `"ntk"`. Defaults to `"mup"`.
        optimizer: An optimizer that has made no updates, or its name or config, with the hyperparameters of the base model.
            Weight decay needs one of this package, such as its `AdamW`, that multiplies it by the learning rate, and not in
            the gradient. Defaults to `"adam"`.
        family: `"adam"`, `"sgd"`, `"adafactor"` or `"muon"`, for an optimizer that is not known. Defaults to `None`.
        alignment: `"full"` or `"none"`, see `width_multipliers`. Defaults to `"full"`.
        weight_decay_power: Under Adam and Muon, weight decay is multiplied by the factor of the learning rate to the power
            -weight_decay_power. 1 keeps their product; 0.5 keeps the largest singular values of hidden matrices, and is for
            vectors without weight decay (arXiv:2510.15262). Defaults to `1`.
        depth: (base, new), numbers of blocks. Defaults to `None`, for the same depth.
        depth_power: 1 for CompleteP, 0.5 for Depth-muP. Defaults to `1`.
        residual_multiplier: A factor of all branches, a hyperparameter of u-muP, see `unit_scaled_residuals`; the base model
            needs it, too. Defaults to `1`.
        residual_attention_ratio: The ratio of attention to feed-forward branches, in the same way. Defaults to `1`.
        batch_size: (base, new). Defaults to `None`, for the same one.
        tokens: (base, new), numbers of tokens or examples of the whole run. Defaults to `None`, for the same.
        token_power: The power of the ratio of tokens, see `laws.scaling.token_horizon_ratio`. Defaults to `0.32`.
        folded: Whether multipliers are part of the kernels. If not, `model` multiplies by those of the plan, and the base
            model by none. Defaults to `True`.
        head_size: (base, new), the size of an attention head, where no kernel (features, heads, size) shows it. Defaults to
            `None`.
        branches: Regular expressions, or words such as `"role:feed_forward"`, for all variables in residual branches, if
            these lie in layers of your own. Defaults to `None`: they are found in the graph, as sums of a tensor and one
            that is computed from it.
        branch_outputs: The same for the last layers of branches. Defaults to `None`, as above.
        roles: The table of roles that `roles(model)` returns, corrected; a subclassed model needs the `head` of its last
            layer there if the optimizer is Muon. Defaults to `None`.
        dry_run: Whether to leave the model as it is. Defaults to `False`.

    Returns:
        A `Plan`, to be printed, whose `optimizer` the model is to be compiled with.

    Raises:
        ValueError: If an argument is out of its range; if the models do not correspond, were trained, or have different
            initializers; if there is no rule for how a variable has grown, or a multiplier cannot be part of a kernel.

    Reference:
        Yang et al., Tensor Programs V, arXiv:2203.03466; rates and decays agree with microsoft/mup, which was run. Dey et
        al., CompleteP, arXiv:2505.01618, and Yang et al., Depth-muP, arXiv:2310.02244: EleutherAI/nanoGPT-mup was read.
        Wang and Aitchison, arXiv:2405.13698, for the timescale of weight decay.

    Example:

    >>> def make(width):
    ...     return keras.Sequential([keras.Input((4,)), *[keras.layers.Dense(n) for n in (width, width, 2)]])
    >>> plan = apply(make(256), make(64), optimizer="adam")
    >>> [each.learning_rate for each in plan.variables]
    [1.0, 1.0, 0.25, 1.0, 0.25, 1.0]
    """
    inner = _new_optimizer(optimizer)
    _refuse_trained(model=model, base_model=base_model)
    table, base_table = roles_of_model(model), roles_of_model(base_model)
    known = in_places(base_table, table)
    table = _corrected(table, roles)
    family = family_of(inner, family)
    planner = Planner(
        rule=validation.one_of("rule", rule, tuple(PARAMETERIZATIONS)),
        optimizer=inner,
        family=family,
        alignment=validation.one_of("alignment", alignment, tuple(ALIGNMENTS)),
        weight_decay_power=validation.non_negative_float("weight_decay_power", weight_decay_power),
        depth=depth_multipliers(_ratio("depth", depth), depth_power, family),
        branch_weights=branch_weights(residual_multiplier, residual_attention_ratio),
        batch_size=_ratio("batch_size", batch_size),
        tokens=_ratio("tokens", tokens),
        token_power=token_power,
        folded=folded,
        head_size=None if head_size is None else _ratio("head_size", head_size),
    )
    changes_branches = planner.depth.branch != 1 or planner.branch_weights != (1.0, 1.0)
    found = _branches(model, table, branches, branch_outputs) if changes_branches else Branches(set(), set())
    sequential = {layer.name for layer in keras_private.layers_of(model) if isinstance(layer, keras.Sequential)}
    plan = planner.plan(table, known, found, sequential)
    variables = _initial_values(plan, table, base_table, known)
    if not dry_run:
        for variable, factor, _ in variables:
            variable.assign(variable * keras.ops.cast(factor, variable.dtype))
    return dataclasses.replace(plan, optimizer=planned_optimizer(plan))


def check(model: keras.Model, plan: Plan, base_model: keras.Model) -> list[str]:
    """List where a model that is about to be trained differs from its plan; an empty list where it does not.

    The RMS of each matrix is compared with that in the base model times its factor, and the optimizer that the model is
    compiled with to that of the plan.

    Args:
        model: The model, before its training.
        plan: What `apply` has returned for it, perhaps with `dry_run`.
        base_model: The base model, before its training.

    Raises:
        ValueError: If a model was trained, or they do not correspond.

    Example:

    >>> def make(width):
    ...     return keras.Sequential([keras.Input((4,)), *[keras.layers.Dense(n) for n in (width, width, 2)]])
    >>> model, base_model = make(256), make(64)
    >>> plan = apply(model, base_model)
    >>> check(model, plan, base_model)
    ['The model is not compiled with the optimizer of the plan.']
    """
    _refuse_trained(model=model, base_model=base_model)
    table, base_table = roles_of_model(model), roles_of_model(base_model)
    known = in_places(base_table, table)
    findings = [
        f"{variable.path}: the RMS of the initial values is {1 / factor:.3g} times what the plan has."
        for variable, factor, error in _initial_values(plan, table, base_table, known)
        if abs(math.log(factor)) > 4 * error
    ]
    if getattr(model, "optimizer", None) is not plan.optimizer:
        findings.append("The model is not compiled with the optimizer of the plan.")
    return findings


def _new_optimizer(optimizer: OptimizerLike) -> keras.optimizers.Optimizer:
    inner = keras.optimizers.get(optimizer)
    if inner.built and int(inner.iterations):
        raise ValueError(f"`optimizer` must be new. Received: one that has made {int(inner.iterations)} updates")
    is_coupled = isinstance(inner, optimizers.Optimizer) and inner.couples_weight_decay()
    if inner.weight_decay and (is_coupled or getattr(inner, "independent_weight_decay", False)):
        raise ValueError(
            "`optimizer` must multiply its weight decay by the learning rate, and keep it out of the gradient. Received: "
            f"{type(inner).__name__} with weight_decay={inner.weight_decay!r}"
        )
    return inner


def _refuse_trained(**models: keras.Model) -> None:
    for name, model in models.items():
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and int(optimizer.iterations):
            raise ValueError(f"`{name}` must not be trained. Received: a model after {int(optimizer.iterations)} updates")


def _corrected(table: Roles, roles: Roles | None) -> Roles:
    """The table of the model, with the rows of a given one."""
    if path_rules.table(roles) is None:
        return table
    return Roles(roles.of(table.variables or ()), table.variables)  # type: ignore[union-attr]


def _ratio(name: str, pair: tuple[float, float] | None) -> float:
    if pair is None:
        return 1.0
    base, new = validation.each(name, pair, validation.positive_float)
    return new / base


def _branches(model: keras.Model, table: Roles, inside: Patterns, last: Patterns) -> Branches:
    found = residual_branches(model) if inside is None and last is None else branches_by_path(table, inside, last)
    if not found.inside or not found.last:
        raise ValueError(
            "The graph of the model shows no residual branches: list the variables in them as `branches`, and those of "
            f"their last layers as `branch_outputs`. Received: model={model.name}, branches={inside!r}, "
            f"branch_outputs={last!r}"
        )
    return found


def _initial_values(plan: Plan, table: Roles, base_table: Roles, known: list) -> list[tuple[Variable, float, float]]:
    """The variables whose values a plan determines, each with the factor that they lack and its relative standard error.

    Variables of the same shape that have no factor are left as they are, so that a model in the place of its own base model
    does not change.
    """
    values = {id(role): variable for role, variable in zip(base_table, base_table.variables or (), strict=True)}
    result = []
    for each, role, base, variable in zip(plan.variables, table, known, table.variables or (), strict=True):
        is_scaled = each.initial != 1 or (each.kind != "vector" and role.shape != base.shape)
        rms, base_rms = _rms(variable), _rms(values[id(base)])
        if is_scaled and (rms == 0) != (base_rms == 0):
            raise ValueError(
                f"Both models must have the same initializers. Received: an RMS of {rms} and {base_rms} in {role.path}"
            )
        if is_scaled and rms:
            error = math.sqrt(sum(1 / (2 * math.prod(shape)) for shape in (role.shape, base.shape)))  # of n normal numbers
            result.append((variable, each.initial * base_rms / rms, error))
    return result


def _rms(variable: Variable) -> float:
    return float(np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(variable).astype("float64")))))
