"""Public names of keras_lrsched.transfer. Made by `make api`."""

from .coordinates import CoordinateCheck as CoordinateCheck
from .parameterizations import Exponents as Exponents
from ._plan import Plan as Plan
from .parameterizations import Residual as Residual
from ._plan import VariablePlan as VariablePlan
from ._apply import apply as apply
from ._apply import check as check
from .coordinates import coordinate_check as coordinate_check
from .parameterizations import exponents as exponents
from .parameterizations import unit_scaled_residuals as unit_scaled_residuals
from .parameterizations import width_multipliers as width_multipliers
