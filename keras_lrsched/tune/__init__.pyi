"""Public names of keras_lrsched.tune. Made by `make api`."""

from .population_based_training import Discovery as Discovery
from .parallel_autolrs import ParallelAutoLRS as ParallelAutoLRS
from .policy import Policy as Policy
from .population_based_training import PopulationBasedTraining as PopulationBasedTraining
