"""Study: which learning rate, schedule and optimizer for a model, answered by runs.

    study = Study(build_model, (x, y), (x_val, y_val), loss="mse", schedules=["constant", "cosine"], budget=1000)
    results = study.run()

`Study` makes runs, and `Results` compares them. `workloads` holds the built-in tasks.
"""

from keras_lrsched.study.multiverse import Effect, Multiverse
from keras_lrsched.study.profiles import score
from keras_lrsched.study.recommend import Recommendation
from keras_lrsched.study.results import Results
from keras_lrsched.study.study import Study
from keras_lrsched.study.trial import Outcome, Trial

__all__ = ["Effect", "Multiverse", "Outcome", "Recommendation", "Results", "Study", "Trial", "score"]
