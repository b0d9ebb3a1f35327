"""Public names of keras_lrsched.data. Made by `make api`."""

from .masked_language_model_masking import MaskedLanguageModelMasking as MaskedLanguageModelMasking
from .scheduled_batches import ScheduledBatches as ScheduledBatches
