"""Public names of keras_lrsched.study. Made by `make api`."""

from .trial import Outcome as Outcome
from .results import Results as Results
from .study import Study as Study
from .trial import Trial as Trial
from .statistics import score as score
