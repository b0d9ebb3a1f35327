"""Public names of keras_lrsched.precision.layers. Made by `make api`."""

from ._base import QUANTIZED as QUANTIZED
from ._base import Quantized as Quantized
from .convolution import QuantizedConv1D as QuantizedConv1D
from .convolution import QuantizedConv2D as QuantizedConv2D
from .dense import QuantizedDense as QuantizedDense
from .einsum_dense import QuantizedEinsumDense as QuantizedEinsumDense
from .attention import QuantizedGroupQueryAttention as QuantizedGroupQueryAttention
from .attention import QuantizedMultiHeadAttention as QuantizedMultiHeadAttention
from .embedding import QuantizedReversibleEmbedding as QuantizedReversibleEmbedding
from ._conversion import convert as convert
from ._base import convert_in_place as convert_in_place
from ._gemm_layer import fits as fits
from ._conversion import flattened as flattened
from ._conversion import forget_in_configuration as forget_in_configuration
from ._conversion import keep_in_configuration as keep_in_configuration
from .einsum_dense import matrix_form as matrix_form
from .attention import projections as projections
from ._conversion import quantized_base as quantized_base
from ._conversion import resume_rematerialization as resume_rematerialization
from ._conversion import stop_rematerialization as stop_rematerialization
