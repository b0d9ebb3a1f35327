"""Public names of keras_lrsched.precision.recipes. Made by `make api`."""

from .coat import Coat as Coat
from .double_rounding import DoubleRounding as DoubleRounding
from .fp4_msr2025 import FP4Msr2025 as FP4Msr2025
from .fp4_zhou2025 import FP4Zhou2025 as FP4Zhou2025
from .fp8_current import FP8Current as FP8Current
from .fp8_delayed import FP8Delayed as FP8Delayed
from .forward_only import ForwardOnly as ForwardOnly
from .int8_jetfire import INT8Jetfire as INT8Jetfire
from .int8_switchback import INT8Switchback as INT8Switchback
from .mxfp8 import MXFP8 as MXFP8
from .nvfp4_2025 import NVFP4_2025 as NVFP4_2025
from .pareto_resnet_int4 import ParetoResnetInt4 as ParetoResnetInt4
from .quartet_mxfp4 import QuartetMXFP4 as QuartetMXFP4
from .quest import Quest as Quest
from .wta_crs import WtaCrs as WtaCrs
