"""Optimizers of the package in the place of Keras', schedules of settings, and models that are saved and go on."""

import keras
import numpy as np

from keras_lrsched import callbacks
from keras_lrsched import optimizers as ours
from tests.programs import references
from tests.programs.bench import EAGER, KERAS, assert_close, constant, schedule, weights
from tests.programs.observers import refused


def in_place_of_keras(bench):
    """Our optimizer does what Keras' does by the same formula."""
    cls, settings = KERAS[bench.program.optimizer]
    cls = references.AdamW if cls is keras.optimizers.AdamW else cls
    bench.ours = bench.our_run().train()
    if bench.program.has("stateful_random"):  # which draws other numbers where it is not compiled
        assert_close(bench.ours, bench.baseline, bench.rtol)
        return
    assert_close(bench.ours, bench.run(cls, bench.schedule_of_steps, mode=EAGER, **settings).train(), bench.rtol)


def save_and_load(bench, folder):
    """A model that is saved, loaded and trained further does what the model itself does."""
    goes_on_when_loaded(getattr(bench, "ours", None) or bench.our_run().train(), folder)


def goes_on_when_loaded(run, folder):
    """The model of a run that has ended, saved, loaded and trained further, has the bits of the one that trains on."""
    run.model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    for one, other in zip(loaded.non_trainable_variables, run.model.non_trainable_variables, strict=True):
        if "seed_generator" in one.path:  # Keras saves no seeds
            one.assign(np.array(other.numpy()))  # a copy: JAX gives the memory of its state away
    # On PyTorch, dropout without a seed draws from a generator that is not the model's, as does building the loaded one.
    seeded = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: keras.utils.set_random_seed(2))
    run.fit([seeded], epochs=1)
    kept, run.models = run.models, [loaded]
    run.fit([seeded], epochs=1)
    expected = [np.array(variable.numpy()) for variable in kept[-1].variables]
    for one, other in zip(expected, weights(run), strict=True):
        np.testing.assert_array_equal(one, other)


def lookahead(bench):
    def around(cls, *args, **options):
        return ours.Lookahead(cls(*args, **options), sync_period=references.PERIOD)

    run = bench.sgd_run(schedule, make=around).train()
    assert_close(run, bench.run(references.Lookahead, schedule, mode=EAGER).train(), bench.rtol)


def schedule_free(bench):
    has_one = not bench.program.has("no_fit", "several_optimizers")
    evaluation = [callbacks.ScheduleFreeEvaluation()] if has_one else []
    run = bench.run(ours.ScheduleFreeSGD, schedule, momentum=references.ScheduleFree.beta).train(evaluation)
    back = [references.BackToTraining()] if has_one else []
    assert_close(run, bench.run(references.ScheduleFree, bench.schedule_of_steps, mode=EAGER).train(back), bench.rtol)


def schedule_hyperparameter(bench):
    """A learning rate that is set is one that the optimizer was constructed with."""
    scheduled = [callbacks.ScheduleHyperparameter(f"{path}.learning_rate", schedule()) for path in bench.program.optimizers]
    expected = bench.baseline if bench.accumulated == 1 else bench.keras_run(bench.schedule_of_steps).train()
    assert_close(bench.keras_run(constant).train(scheduled), expected, 1e-5)


def refuse_schedule_hyperparameter(bench):
    refused(bench, callbacks.ScheduleHyperparameter("optimizer.learning_rate", schedule()), bench.keras_run(constant))
