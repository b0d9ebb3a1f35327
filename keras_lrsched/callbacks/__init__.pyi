"""Public names of keras_lrsched.callbacks. Made by `make api`."""

from .adaptive_batch_size import AdaptiveBatchSize as AdaptiveBatchSize
from .autolrs import AutoLRS as AutoLRS
from .batch_size_schedule import BatchSizeSchedule as BatchSizeSchedule
from .controller import Controller as Controller
from .critical_batch_size import CriticalBatchSize as CriticalBatchSize
from .gradient_controller import GradientController as GradientController
from .gradient_noise_scale import GradientNoiseScale as GradientNoiseScale
from .gradient_norm_recorder import GradientNormRecorder as GradientNormRecorder
from .hypergradient_learning_rate import HypergradientLearningRate as HypergradientLearningRate
from .learning_rate_finder import LearningRateFinder as LearningRateFinder
from .learning_rate_logger import LearningRateLogger as LearningRateLogger
from .loss_forecast import LossForecast as LossForecast
from .loss_recorder import LossRecorder as LossRecorder
from .magnitude_pruning import MagnitudePruning as MagnitudePruning
from .operator_norm_recorder import OperatorNormRecorder as OperatorNormRecorder
from .precision_schedule import PrecisionSchedule as PrecisionSchedule
from .qk_clip import QKClip as QKClip
from .schedule_free_evaluation import ScheduleFreeEvaluation as ScheduleFreeEvaluation
from .schedule_hyperparameter import ScheduleHyperparameter as ScheduleHyperparameter
from .snapshot import Snapshot as Snapshot
from .stability_monitor import StabilityMonitor as StabilityMonitor
from .training_state import TrainingState as TrainingState
from .volsched import VolSched as VolSched
from .weight_averaging import WeightAveraging as WeightAveraging
