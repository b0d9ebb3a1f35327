"""Laws: what a hyper-parameter should be, or a loss will be, from a formula that was fitted to other runs."""

from keras_lrsched.laws import scaling
from keras_lrsched.laws.annealing_law import AnnealingLaw
from keras_lrsched.laws.continual_law import ContinualLaw
from keras_lrsched.laws.convex_bound import ConvexBound, OptimalRate
from keras_lrsched.laws.law import ExtrapolationWarning, Law
from keras_lrsched.laws.loss_curve import LossCurve
from keras_lrsched.laws.multi_power_law import MultiPowerLaw
from keras_lrsched.laws.regime import RegimeWarning

__all__ = [
    "AnnealingLaw",
    "ContinualLaw",
    "ConvexBound",
    "ExtrapolationWarning",
    "Law",
    "LossCurve",
    "MultiPowerLaw",
    "OptimalRate",
    "RegimeWarning",
    "scaling",
]
