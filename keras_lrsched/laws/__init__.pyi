"""Public names of keras_lrsched.laws. Made by `make api`."""

from .annealing_law import AnnealingLaw as AnnealingLaw
from .continual_law import ContinualLaw as ContinualLaw
from .convex_bound import ConvexBound as ConvexBound
from .law import ExtrapolationWarning as ExtrapolationWarning
from .functional_law import FunctionalLaw as FunctionalLaw
from .diagnostics import IdentifiabilityWarning as IdentifiabilityWarning
from ._uncertainty import Interval as Interval
from .law import Law as Law
from ._uncertainty import LeaveOneOut as LeaveOneOut
from .loss_curve import LossCurve as LossCurve
from .multi_power_law import MultiPowerLaw as MultiPowerLaw
from .convex_bound import OptimalRate as OptimalRate
from .diagnostics import RegimeWarning as RegimeWarning
from .sized_annealing_law import SizedAnnealingLaw as SizedAnnealingLaw
from . import scaling as scaling
