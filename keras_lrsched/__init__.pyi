"""Public names of keras_lrsched. Made by `make api`."""

from .version import __version__ as __version__
from . import callbacks as callbacks
from . import data as data
from . import laws as laws
from . import optimizers as optimizers
from . import precision as precision
from ._core.registry import register as register
from . import schedules as schedules
from . import transfer as transfer
