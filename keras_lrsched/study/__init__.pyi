"""Public names of keras_lrsched.study. Made by `make api`."""

from .multiverse import Effect as Effect
from .multiverse import Multiverse as Multiverse
from .trial import Outcome as Outcome
from .recommend import Recommendation as Recommendation
from .results import Results as Results
from .study import Study as Study
from .trial import Trial as Trial
from .profiles import score as score
