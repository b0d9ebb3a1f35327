"""Public names of keras_lrsched.precision.layers. Made by `make api`."""

from .base import QUANTIZED as QUANTIZED
from .base import Quantized as Quantized
from .convolution import QuantizedConv1D as QuantizedConv1D
from .convolution import QuantizedConv2D as QuantizedConv2D
from .dense import QuantizedDense as QuantizedDense
from .einsum_dense import QuantizedEinsumDense as QuantizedEinsumDense
from .attention import QuantizedGroupQueryAttention as QuantizedGroupQueryAttention
from .attention import QuantizedMultiHeadAttention as QuantizedMultiHeadAttention
from .embedding import QuantizedReversibleEmbedding as QuantizedReversibleEmbedding
from .base import become as become
from .saved import convert as convert
from .product import fits as fits
from .saved import flattened as flattened
from .saved import forget_in_configuration as forget_in_configuration
from .saved import keep_in_configuration as keep_in_configuration
from .einsum_dense import matrix_form as matrix_form
from .attention import projections as projections
from .saved import quantized_base as quantized_base
