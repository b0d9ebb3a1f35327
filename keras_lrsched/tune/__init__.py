"""Searches on many workers, population based training and parallel candidates on Ray, whose result is a schedule."""

from keras_lrsched.tune.parallel_autolrs import ParallelAutoLRS
from keras_lrsched.tune.policy import Policy
from keras_lrsched.tune.population_based_training import Discovery, PopulationBasedTraining

__all__ = ["Discovery", "ParallelAutoLRS", "Policy", "PopulationBasedTraining"]
