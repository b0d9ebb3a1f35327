"""Public names of keras_lrsched.precision.recipes. Made by `make api`."""

from .aqt_int4 import AQTInt4 as AQTInt4
from .coat import Coat as Coat
from .double_rounding import DoubleRounding as DoubleRounding
from .fp4_dge import FP4DGE as FP4DGE
from .fp4_target_precision import FP4TargetPrecision as FP4TargetPrecision
from .fp8_current import FP8Current as FP8Current
from .fp8_delayed import FP8Delayed as FP8Delayed
from .forward_only import ForwardOnly as ForwardOnly
from .int8_jetfire import INT8Jetfire as INT8Jetfire
from .int8_switchback import INT8Switchback as INT8Switchback
from .mxfp8 import MXFP8 as MXFP8
from .nvfp4 import NVFP4 as NVFP4
from .quartet_mxfp4 import QuartetMXFP4 as QuartetMXFP4
from .quest import Quest as Quest
from .wta_crs import WtaCrs as WtaCrs
