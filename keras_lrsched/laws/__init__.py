"""Laws: what a hyper-parameter should be, or a loss will be, from a formula that was fitted to other runs."""

from keras_lrsched._core import registry
from keras_lrsched.laws import scaling
from keras_lrsched.laws._forecast import forecast
from keras_lrsched.laws._uncertainty import Interval, LeaveOneOut
from keras_lrsched.laws.convex_bound import OptimalRate
from keras_lrsched.laws.diagnostics import IdentifiabilityWarning, RegimeWarning
from keras_lrsched.laws.law import ExtrapolationWarning, Law
from keras_lrsched.laws.loss_curve import LossCurve
from keras_lrsched.laws.run_law import FitWarning, RunLaw
from keras_lrsched.laws.run_table import RunTable

globals().update(registry.import_methods(__name__))
__all__ = registry.public_names(globals(), modules=("scaling",))
