"""Families of optimizers: how the length of a step depends on the gradient and the weights."""

import dataclasses
import re

import keras

from keras_lrsched import optimizers
from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.roles import Role
from keras_lrsched.transfer.parameterizations import FAMILIES, muon_multiplier

KERAS_ADAM = ("Adam", "Adamax", "AdamW", "Lion", "Nadam", "RMSprop")
OUR_ADAM = (
    "ADOPT",
    "AdEMAMix",
    "AdaBelief",
    "AdaMomentum",
    "AdamAtan2",
    "AdamMini",
    "AdamW",
    "Adan",
    "LaProp",
    "Lion",
    "NAdamW",
    "RectifiedAdam",
    "StableSPAM",
    "Yogi",
)
MATRIX_KINDS = ("kernel", "convolution_kernel", "recurrent_kernel")


def family_of(optimizer: keras.optimizers.Optimizer, family: str | None) -> str:
    """The family that the user gives, or that of a known class.

    Raises:
        ValueError: If neither is there; if Muon is one that takes output layers for hidden matrices.
    """
    is_muon = isinstance(optimizer, optimizers.Muon)
    if is_muon or family == "muon":
        if not is_muon or family not in (None, "muon"):
            raise ValueError(f"The family 'muon' is for Muon of keras_lrsched. Received: {optimizer!r}, family={family!r}")
        return "muon"
    if family is not None:
        return validation.one_of("family", family, FAMILIES)
    for name, classes in {
        "adam": (*keras_private.existing(keras.optimizers, *KERAS_ADAM), *(vars(optimizers)[each] for each in OUR_ADAM)),
        "sgd": (keras.optimizers.SGD, optimizers.SGD),
        "adafactor": (keras.optimizers.Adafactor, optimizers.Adafactor),
    }.items():
        if isinstance(optimizer, classes):
            return name
    raise ValueError(
        "`family` must be given for this optimizer: 'adam' if the length of its steps does not depend on that of the "
        f"gradient, 'sgd' if it is proportional to it, 'adafactor' if it is to that of the weights. Received: {optimizer!r}"
    )


def muon_factor(optimizer: optimizers.Muon, base: Role, role: Role) -> float | None:
    """The factor of the learning rate of a matrix of Muon; `None` for what it leaves to AdamW."""
    excluded = any(re.search(rule, role.path) for rule in optimizer.exclude_layers or ())
    if role.kind not in MATRIX_KINDS or role.head or excluded:
        return None
    narrow = dataclasses.replace(role, shape=base.shape)  # whose axes may have been corrected
    base_shape, shape = ((each.size(each.inputs), each.size(each.outputs)) for each in (narrow, role))
    return muon_multiplier(base_shape, shape, optimizer.scale_of(*base_shape), optimizer.scale_of(*shape))
