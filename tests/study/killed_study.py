"""Program that is killed by tests: a study of small runs, in the directory and by the number of workers that are given."""

import sys

from keras_lrsched.study import Study
from tests.study import test_study


def make(directory=None, workers=1, executor=None):
    return Study(
        test_study.build_model,
        test_study.TRAIN,
        test_study.VALIDATION,
        loss="mse",
        batch_size=8,
        optimizers=["sgd", "adamw"],
        schedules=["constant", "linear"],
        learning_rates=[0.01, 0.03],
        budget=12,
        seeds=5,
        evaluations=2,
        compile_options=test_study.EAGER,
        directory=directory,
        workers=workers,
        executor=executor,
    )


if __name__ == "__main__":
    study = make(sys.argv[1], int(sys.argv[2]))
    print("ready", flush=True)
    study.outcomes(verbose=0)
    print("done", flush=True)
