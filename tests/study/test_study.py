"""A study makes the runs that `compile` and `fit` would make, keeps them, and refuses what would spoil a comparison."""

import gc
import os
import signal

import keras
import numpy as np
import pytest

from keras_lrsched import optimizers, schedules
from keras_lrsched.study import Study, Trial
from keras_lrsched.study.journal import Journal
from keras_lrsched.study.trial import Outcome
from tests.nightly import nightly, some

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
Y = (X[:, :1] ** 2).astype("float32")
TRAIN, VALIDATION = (X[:40], Y[:40]), (X[40:], Y[40:])
EAGER = {"run_eagerly": True}


def build_model():
    layers = [keras.layers.Dense(6, "tanh"), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    return keras.Sequential([keras.layers.Input((4,)), *layers])


def study(build=build_model, train=TRAIN, validation=VALIDATION, **options):
    usual = {
        "loss": "mse",
        "batch_size": 8,
        "optimizers": ["sgd"],
        "schedules": ["constant"],
        "learning_rates": 0.05,
        "budget": 6,
        "seeds": 1,
        "evaluations": 3,
        "compile_options": EAGER,
    }
    return Study(build, train, validation, **{**usual, **options})


class Weights(keras.callbacks.Callback):
    """The weights at the end of the last run."""

    last: list

    def on_train_end(self, logs=None):
        Weights.last = self.model.get_weights()


class Lazy(keras.Model):
    """A model whose layers are made, and whose weights are drawn, when it sees data."""

    def build(self, shape):
        self.hidden, self.out = keras.layers.Dense(6, "tanh"), keras.layers.Dense(1)
        self.hidden.build(shape)
        self.out.build((None, 6))
        self.built = True

    def call(self, x):
        return self.out(self.hidden(x))


def draws(learning_rate):
    """An optimizer whose constructor takes random numbers from the global generators."""
    import random

    random.random()
    np.random.random(3)
    keras.random.normal((2,))
    return keras.optimizers.SGD(learning_rate)


def drawn(*shape):
    return keras.random.normal(shape)


class TestRun:
    @pytest.mark.parametrize(
        ("optimizer", "schedule", "options"),
        some(
            [
                pytest.param("adamw", "cosine", {}),
                pytest.param("muon", "rex", {}),
                pytest.param(lambda learning_rate: keras.optimizers.SGD(learning_rate, momentum=0.9), "wsd", {}),
                pytest.param("lion", "linear", {"jit_compile": True}),
            ]
        ),
    )
    def test_is_what_compile_and_fit_do(self, optimizer, schedule, options):
        made = study(
            optimizers=[optimizer],
            schedules=[schedule],
            budget=12,
            warmup_steps=2,
            metrics=["mae"],
            callbacks=lambda: [Weights()],
            compile_options=options,
        )
        (outcome,) = made.outcomes(verbose=0)

        keras.utils.set_random_seed(made.keras_seed(0))
        model = build_model()
        rate = schedules.get(schedule, 0.05, 12, warmup_steps=2)
        by_hand = optimizers.get(optimizer, learning_rate=rate) if isinstance(optimizer, str) else optimizer(rate)
        model.compile(by_hand, loss="mse", metrics=["mae"], **options)
        history = model.fit(
            made.batches(0), steps_per_epoch=4, epochs=3, validation_data=VALIDATION, validation_batch_size=8, verbose=0
        ).history

        assert outcome.status == "finished"
        assert outcome.trial == Trial(*made.pairs[0], 0.05, 12, 0)
        assert {name: values.tolist() for name, values in outcome.evaluations.items()} == {
            name: values for name, values in history.items() if name.startswith("val_")
        }
        np.testing.assert_allclose(outcome.loss.reshape(3, 4).mean(axis=1), history["loss"], rtol=1e-5)
        np.testing.assert_allclose(outcome.learning_rate, schedules.get(schedule, 0.05, 12, 2).values(12), rtol=1e-6)
        for left, right in zip(Weights.last, model.get_weights(), strict=True):
            np.testing.assert_array_equal(left, right)

    @pytest.mark.parametrize("build", some([Lazy, build_model]))
    def test_a_seed_has_its_weights_and_batches(self, build):
        """Whatever the optimizer draws, and also if weights are made with the first batch."""
        made = study(build, optimizers=["sgd", draws], seeds=2, budget=1, evaluations=1)
        outcomes = made.outcomes(verbose=0)
        first = {(each.trial.optimizer, each.trial.seed): each.loss[0] for each in outcomes}
        assert not [each.error for each in outcomes if each.error]
        assert first["sgd", 0] == first["draws", 0] != first["sgd", 1] == first["draws", 1]

    def test_budget_is_in_optimizer_steps(self):
        def accumulating(learning_rate):
            return keras.optimizers.SGD(learning_rate, gradient_accumulation_steps=2)

        made = study(optimizers=[accumulating], schedules=["linear"], budget=5, evaluations=2, warmup_steps=0)
        (outcome,) = made.outcomes(verbose=0)
        assert outcome.error == ""
        assert outcome.evaluated_at.tolist() == [3, 5]
        assert outcome.loss.shape == (5,)
        np.testing.assert_allclose(outcome.learning_rate, schedules.get("linear", 0.05, 5).values(5), rtol=1e-6)

    @nightly
    def test_a_compiled_model_keeps_its_loss(self):
        def compiled():
            model = build_model()
            model.compile("adam", loss="mae", metrics=["mse"], run_eagerly=True)
            return model

        made = study(compiled, loss=None, compile_options=None, budget=2, evaluations=1)
        (outcome,) = made.outcomes(verbose=0)
        reference = study(loss="mae", metrics=["mse"], budget=2, evaluations=1).outcomes(verbose=0)[0]
        assert outcome.evaluations.keys() == {"val_loss", "val_mse"}
        assert outcome.loss.tolist() == reference.loss.tolist()

    def test_a_train_step_of_its_own(self):
        class Model(Lazy):
            def train_step(self, *arguments):
                made = super().train_step(*arguments)
                if isinstance(made, tuple):  # on JAX, with the state
                    return {"my_loss": made[0]["loss"]}, made[1]
                return {"my_loss": made["loss"]}

        made = study(Model, monitor="my_loss", budget=2, evaluations=1)
        reference = study(Lazy, budget=2, evaluations=1).outcomes(verbose=0)[0]
        (outcome,) = made.outcomes(verbose=0)
        assert outcome.error == ""
        assert outcome.loss.tolist() == reference.loss.tolist()

    def test_errors_and_divergence_are_recorded(self, tmp_path):
        def broken(learning_rate):
            if not isinstance(learning_rate, float):
                raise RuntimeError("no\nmemory")
            return keras.optimizers.SGD(learning_rate)

        made = study(optimizers=["sgd", broken], learning_rates=[1e30, 0.05], directory=tmp_path)
        with pytest.warns(UserWarning, match=r"2 of 4 runs failed, the first one \(broken.*RuntimeError: no memory"):
            outcomes = made.outcomes(verbose=0)
        assert [each.status for each in outcomes] == ["diverged", "finished", "failed", "failed"]
        assert len(outcomes[0].loss) < 6
        assert outcomes[2].error == "RuntimeError: no memory"
        assert [each.status for each in Journal(tmp_path).outcomes()] == [each.status for each in outcomes]
        with pytest.warns(UserWarning, match=r"1 of 1 runs failed, the first one \(broken"):
            made.run_trials([outcomes[2].trial])

    def test_random_numbers_of_the_program_go_on(self):
        made = study(budget=1, evaluations=1)
        keras.utils.set_random_seed(1)
        expected = np.random.random(), np.asarray(drawn(2)).tolist()
        keras.utils.set_random_seed(1)
        made.outcomes(verbose=0)
        assert (np.random.random(), np.asarray(drawn(2)).tolist()) == expected


class Noisy(Lazy):
    """A model with state besides its weights: of batch normalization, and of the random numbers of dropout."""

    def build(self, shape):
        super().build(shape)
        rate = 0.0 if keras.backend.backend() == "torch" else 0.3  # drawn from one generator for all there
        self.normalization, self.dropout = keras.layers.BatchNormalization(), keras.layers.Dropout(rate)
        self.normalization.build((None, 6))

    def call(self, x, training=False):
        return self.out(self.dropout(self.normalization(self.hidden(x), training=training), training=training))


class TestReusedModel:
    """Two seeds and two peaks, of which the first is run again at the end."""

    TRIALS = ((0.05, 0), (0.01, 1), (0.05, 0))

    @pytest.mark.parametrize(
        "optimizer",
        some(
            [
                pytest.param(lambda rate: optimizers.get("schedule_free_sgd", learning_rate=rate), id="state from weights"),
                pytest.param(lambda rate: keras.optimizers.Adam(rate, gradient_accumulation_steps=2), id="accumulation"),
                pytest.param(lambda rate: optimizers.get("prodigy", learning_rate=rate), id="learning-rate-free"),
            ]
        ),
    )
    def test_runs_are_those_of_new_models(self, optimizer):
        new, reused = (
            study(Noisy, optimizers={"mine": optimizer}, schedules=["cosine"], reuse_model=reuse) for reuse in (False, True)
        )
        trials = [Trial("mine", "cosine", rate, 6, seed) for rate, seed in self.TRIALS]
        expected, found = ([made._runner(trial) for trial in trials] for made in (new, reused))
        for one, other in zip(expected, found, strict=True):
            assert one.error == other.error == ""
            np.testing.assert_allclose(other.learning_rate, one.learning_rate, rtol=1e-6)
            np.testing.assert_allclose(other.loss, one.loss, rtol=1e-5)
            np.testing.assert_allclose(other.evaluations["val_loss"], one.evaluations["val_loss"], rtol=1e-5)
            assert other.evaluated_at.tolist() == one.evaluated_at.tolist()
        assert found[0].loss.tolist() == found[-1].loss.tolist()
        assert reused._runner._shared_model("mine") is reused._runner._shared_model("mine")

    @nightly
    def test_a_compiled_step_is_traced_once(self):
        def counting():
            model = build_model()
            call = model.call

            def counted(*arguments, **options):
                traces.append(1)
                return call(*arguments, **options)

            model.call = counted
            return model

        traces: list = []
        made = study(counting, reuse_model=True, compile_options=None, seeds=3)
        traces.clear()
        made._runner(Trial("sgd", "constant", 0.05, 6, 0))
        first = len(traces)
        for seed in (1, 2):
            made._runner(Trial("sgd", "constant", 0.05, 6, seed))
        assert len(traces) == first + 2  # the shapes of each new model, whose values are taken

    @nightly
    def test_a_run_that_raises_leaves_no_trace(self):
        made = study(reuse_model=True)
        good, bad = (Trial("sgd", "constant", rate, 6, 0) for rate in (0.05, 1e30))
        first = made._runner(good)
        assert made._runner(bad).status == "diverged"
        assert made._runner(good).loss.tolist() == first.loss.tolist()

    def test_steps_per_execution(self):
        with pytest.raises(ValueError, match=r"`reuse_model` sets the learning rate .* Received: steps_per_execution=2"):
            study(reuse_model=True, compile_options={"steps_per_execution": 2})


def halves(peak_learning_rate, total_steps):
    return keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)


class TestCallbacksAsSchedules:
    @pytest.mark.parametrize("reuse", some([False, True]))
    def test_they_set_the_learning_rate_from_the_peak_on(self, reuse):
        made = study(schedules=["constant", halves], seeds=2, reuse_model=reuse)
        outcomes = [each for each in made.outcomes(verbose=0) if each.trial.schedule == "halves"]
        for each in outcomes:
            assert each.error == ""
            np.testing.assert_allclose(each.learning_rate, np.repeat([0.05, 0.025, 0.0125], 2), rtol=1e-6)
        assert made.settings["schedules"]["halves"] == "LearningRateScheduler"

    def test_one_callback_for_several_runs(self):
        with pytest.raises(ValueError, match="give a function that returns a new one"):
            study(schedules=[keras.callbacks.ReduceLROnPlateau()])

    def test_no_recommendation(self):
        with pytest.raises(ValueError, match=r"leave them out of `schedules`. Received: \['halves'\]"):
            study(schedules=["constant", halves]).recommend(0.5, verbose=0)


class Counted:
    """A stand-in for training: the loss is a parabola in the logarithm of the learning rate."""

    def __init__(self, ends_after=None):
        self.trials, self.ends_after = [], ends_after

    def __call__(self, trial, after_step=None):
        self.trials.append(trial)
        if len(self.trials) == self.ends_after:
            os.kill(os.getpid(), signal.SIGTERM)
            after_step()
        loss = np.array([1 + np.log2(trial.learning_rate / 0.04) ** 2 + trial.seed / 100])
        return Outcome(trial, "finished", loss, loss, np.array([trial.budget]), {"val_loss": loss}, 0.1)


class TestSearch:
    def test_tuned_peaks(self, tmp_path):
        made = study(learning_rates="tuned", optimizers=["sgd", "adamw"], seeds=3, budget=40, directory=tmp_path)
        made._runner = Counted()
        results = made.run(verbose=0)
        assert results.tuned
        counts = [sum(trial.pair == pair for trial in made._runner.trials) for pair in made.pairs]
        assert counts[0] == counts[1] >= 20
        assert made.starts() == {"sgd": 0.01, "adamw": 0.001}
        assert study(optimizers=["sgd", "adamw"], grid_center={"sgd": 0.3}).starts() == {"sgd": 0.3, "adamw": 0.001}
        assert results.best().learning_rate in (0.04, 0.032)
        again = study(learning_rates="tuned", optimizers=["sgd", "adamw"], seeds=3, budget=40, directory=tmp_path)
        again._runner = Counted()
        assert str(again.run(verbose=0).table()) == str(results.table())
        assert not again._runner.trials

    def test_short_runs_do_not_belong_to_the_results(self, tmp_path):
        made = study(directory=tmp_path)
        made._runner = Counted()
        trial = Trial("sgd", "constant", 0.1, 2, 0)
        assert made.run_trials([trial])[0].trial == made.run_trials([trial])[0].trial == trial
        assert made._runner.trials == [trial]
        assert len(made.outcomes(verbose=0)) == len(Journal(tmp_path).outcomes()) == 1


class TestInterruption:
    @pytest.fixture(autouse=True)
    def signals_of_a_terminal(self):
        """A shell has processes in the background ignore Ctrl-C."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("number", some([signal.SIGINT, signal.SIGTERM]))
    def test_a_signal_loses_the_run_in_flight_only(self, tmp_path, number):
        class Ends(keras.callbacks.Callback):
            left = 3  # in the second of three runs

            def on_train_batch_end(self, batch, logs=None):
                Ends.left -= 1
                if Ends.left == 0:
                    os.kill(os.getpid(), number)

        options = {"seeds": 3, "budget": 2, "evaluations": 1, "directory": tmp_path, "callbacks": lambda: [Ends()]}
        made = study(**options)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit):
            made.outcomes(verbose=0)
        assert len(Journal(tmp_path).outcomes()) == 1
        outcomes = study(**options).outcomes(verbose=0)
        undisturbed = study(**{**options, "directory": None}).outcomes(verbose=0)
        assert [each.loss.tolist() for each in outcomes] == [each.loss.tolist() for each in undisturbed]
        assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 3

    def test_an_option_that_a_new_version_adds(self, tmp_path):
        class Newer(keras.optimizers.SGD):
            def __init__(self, learning_rate=0.01, patterns=(), scale=1.0, **options):
                super().__init__(learning_rate, **options)
                self.patterns, self.scale = list(patterns), scale

            def get_config(self):
                return super().get_config() | {"patterns": self.patterns, "scale": self.scale}

        Newer.__name__ = "SGD"
        study(directory=tmp_path, optimizers={"mine": keras.optimizers.SGD})
        study(directory=tmp_path, optimizers={"mine": Newer})
        with pytest.raises(ValueError, match=r"optimizers\['mine'\]='SGD\(scale=2.0\)', there .*='SGD\(\)'"):
            study(directory=tmp_path, optimizers={"mine": lambda rate: Newer(rate, scale=2.0)})

    def test_another_program_that_runs_it(self, tmp_path):
        made = study(directory=tmp_path)
        import fcntl

        with (tmp_path / "runs.jsonl.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(ValueError, match=r"Another program is running this study\. Received: directory="):
                made.outcomes(verbose=0)

    def test_other_settings(self, tmp_path):
        study(directory=tmp_path)
        study(directory=tmp_path, workers=1, executor="serial")
        message = r"study of other settings.*Received: {}={}, there {}={}"
        for options, name, ours, theirs in (
            ({"budget": 7}, "budget", 7, 6),
            ({"schedules": ["cosine"]}, r"schedules\['cosine'\]", "'.*'", None),
            ({"train": (X[:40], Y[:40] + 1)}, "train", "'.*'", "'.*'"),
            ({"loss": "mae"}, r"model\['initial'\]\['val_loss'\]", ".*", ".*"),
        ):
            with pytest.raises(ValueError, match=message.format(name, ours, name, theirs)):
                study(directory=tmp_path, **options)

    def test_a_directory_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=r"cannot be written to: .*Received: directory="):
            study(directory=tmp_path / "file" / "study")


MODEL = build_model()


def seeded():
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, kernel_initializer=keras.initializers.Ones())])


SHARED = keras.layers.Dense(1)


def sharing():
    return keras.Sequential([keras.layers.Input((4,)), SHARED])


def random_anyway():
    model = build_model()
    model.layers[0].kernel.assign(np.random.default_rng().normal(size=(4, 6)))
    return model


def with_nan(array):
    array = array.copy()
    array[3] = np.nan
    return array


class TestBadInput:
    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: MODEL, "must return a new model each time. Received: twice the same object"),
            (seeded, "weights of `build_model` must depend on the seed .*same_weights=True"),
            (sharing, "layers of its own. Received: models that share weights"),
            (random_anyway, "the same weights after the same `keras.utils.set_random_seed`"),
            (lambda: 3, "`build_model` must return a keras.Model. Received: 3"),
            (MODEL, "`build_model` must be a function that returns a model. Received: <Sequential"),
        ],
    )
    def test_model(self, build, message):
        with pytest.raises(ValueError, match=message):
            study(build)

    def test_pretrained_weights(self):
        assert study(seeded, same_weights=True).facts.initial["val_loss"] > 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"validation": None}, "`validation` is missing.*Received: validation=None"),
            ({"validation": (X[30:], Y[30:])}, r"overlaps `train`: 10 of its 30 .*allow_overlap=True"),
            ({"validation": (X[39:].copy(), Y[39:].copy()), "train": (X[:20], Y[:20]), "metric": "val_x"}, "val_x"),
            ({"train": (with_nan(X[:40]), Y[:40])}, r"train: x with 4 values that are NaN or infinite, the first .* 3"),
            ({"validation": ({"a": with_nan(X[40:])}, Y[40:])}, r"validation: x\['a'\] with 4 values"),
            ({"train": (X[:40], Y[:39])}, r"same number of examples.*\(40, 4\), \(39, 1\)"),
            ({"train": [X[:40], Y[:40]]}, r"A list stands for several inputs in Keras.*Received: train of <class 'list'>"),
            ({"train": "data"}, "Received: train of <class 'str'>"),
            ({"metric": "val_accuracy"}, "'val_accuracy' does not exist. Those that do: val_loss. Received: metric="),
            ({"warmup_steps": 6}, "`warmup_steps` must be less than `budget`. Received: warmup_steps=6, budget=6"),
            ({"schedules": [schedules.LinearDecay(1.0, 9)]}, "'LinearDecay' of `schedules` is one for 9 steps"),
            ({"schedules": ["lineer"]}, "Unknown schedule 'lineer'. Did you mean linear"),
            ({"schedules": [lambda peak, steps: peak]}, "'lambda' of `schedules` must return a LearningRateSchedule"),
            ({"schedules": ["cosine", "cosine"]}, "`schedules` must be different ones. Received: 'cosine' twice"),
            ({"optimizers": ["sdg"]}, "Unknown optimizer 'sdg'"),
            ({"optimizers": [lambda learning_rate: 3]}, "must return an optimizer for a learning rate. Received: 3"),
            ({"optimizers": []}, "`optimizers` must have one or more"),
            ({"optimizers": [3]}, "`optimizers` must be names, optimizers, or functions of the learning rate. Received: 3"),
            ({"learning_rates": "best"}, "`learning_rates` must be one of 'tuned'. Received: learning_rates='best'"),
            ({"learning_rates": [0.1, 0.1]}, "one or more different ones"),
            ({"grid_center": {"adam": 0.1}}, r"labels of optimizers: sgd. Received: grid_center for \['adam'\]"),
            ({"grid_center": -1.0}, "`grid_center` must be a positive number"),
            ({"learning_rates": {"adam": 0.1}}, "those of each optimizer: sgd. Received: learning_rates for adam"),
            ({"budget": None}, "either `budget` or `epochs`. Received: budget=None, epochs=None"),
            ({"budget": 0}, "`budget` must be a positive integer"),
            ({"seeds": 0}, "`seeds` must be a positive integer"),
            ({"mode": "least"}, "`mode` must be one of 'min', 'max'"),
            ({"executor": "threads"}, "`executor` must be one of"),
            ({"compile_options": {"loss": "mse"}}, "sets 'loss' itself: leave it out of `compile_options`"),
            ({"fit_options": {"epochs": 3}}, "sets 'epochs' itself: leave it out of `fit_options`"),
            ({"callbacks": [Weights()]}, "`callbacks` must be a function"),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            study(**options)

    def test_a_few_equal_examples_are_a_warning(self):
        x, y = X[40:].copy(), Y[40:].copy()
        x[0], y[0] = X[0], Y[0]
        with pytest.warns(UserWarning, match="1 examples of `validation` are in `train`, too"):
            study(validation=(x, y))

    def test_data_that_are_no_function_of_the_seed(self):
        def unseeded(seed):
            order = np.random.default_rng().permutation(40)
            return ((X[order[i : i + 8]], Y[order[i : i + 8]]) for i in range(0, 40, 8))

        with pytest.raises(ValueError, match=r"other batches each time .* give a function of the seed"):
            study(train=unseeded)


class TestChoices:
    def test_labels(self):
        made = study(
            optimizers=[
                "adamw:weight_decay=0.1",
                keras.optimizers.Adam,
                keras.optimizers.SGD(0.1, momentum=0.5),
                lambda learning_rate: keras.optimizers.SGD(learning_rate, momentum=0.9),
                lambda learning_rate: keras.optimizers.SGD(learning_rate, momentum=0.9, weight_decay=None),
                draws,
            ],
            schedules={"mine": keras.optimizers.schedules.CosineDecay(0.3, 6), "half": halved},
        )
        assert list(made.optimizers) == [
            "adamw:weight_decay=0.1",
            "Adam",
            "SGD(momentum=0.5)",
            "SGD(momentum=0.9)",
            "SGD(momentum=0.9) (2)",
            "draws",
        ]
        assert list(made.schedules) == ["mine", "half"]
        assert made.starts() == {
            "adamw:weight_decay=0.1": 0.001,
            "Adam": 0.001,
            "SGD(momentum=0.5)": pytest.approx(0.1),
            "SGD(momentum=0.9)": 0.01,
            "SGD(momentum=0.9) (2)": 0.01,
            "draws": 0.01,
        }

    def test_a_schedule_is_scaled_and_stretched(self):
        given = schedules.LinearDecay(0.5, 6)
        made = study(schedules=[given]).schedules["LinearDecay"]
        assert made(0.5, 6) is given
        np.testing.assert_allclose(made(1.0, 6).values(6), 2 * given.values(6))
        np.testing.assert_allclose(made(0.5, 3).values(3), given.values(6)[::2])

    def test_a_function_gets_the_warmup_if_it_takes_it(self):
        made = study(schedules=[halved], budget=10, warmup_steps=2).schedules["halved"]
        assert made(1.0, 10).values(4).tolist() == [0.0, 0.25, 0.5, 0.5]
        assert made(1.0, 5).values(3).tolist() == [0.0, 0.5, 0.5]

    def test_epochs(self):
        assert study(budget=None, epochs=3).budget == 15


def halved(peak_learning_rate, total_steps, warmup_steps):
    return schedules.Warmup(peak_learning_rate / 2, warmup_steps)


class Numbers(keras.utils.PyDataset):
    """Batches with their number, which are shuffled at the end of an epoch, too."""

    def __init__(self):
        super().__init__()
        self.order = np.arange(4)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return np.full((2, 1), self.order[index]), np.zeros((2, 1))

    def on_epoch_end(self):
        self.order[:] = self.order[::-1]


def numbers(data, seed=0, count=8):
    """The first numbers of the batches of a run."""
    from keras_lrsched.study import _batches

    batches = _batches.endless("train", data, 2, 7, seed, 99)
    if isinstance(batches, keras.utils.PyDataset):
        taken = [batches[i] for i in range(count)]
    else:
        iterator = iter(batches)
        taken = [next(iterator) for _ in range(count)]
    return [int(np.ravel(np.asarray(batch[0]))[0]) for batch in taken]


class TestBatches:
    def test_arrays(self):
        x = np.arange(7)
        order = [np.random.default_rng([7, 1, epoch]).permutation(7)[::2].tolist() for epoch in range(2)]
        assert numbers((x, x), seed=1) == order[0] + order[1]

    def test_py_dataset(self):
        data = Numbers()
        made = numbers(data)
        assert sorted(made[:4]) == sorted(made[4:]) == [0, 1, 2, 3]
        second = 3 - np.random.default_rng([7, 0, 1]).permutation(4)
        assert made[4:] == second.tolist()
        assert numbers(data) == made != numbers(data, seed=1)
        assert data.order.tolist() == [0, 1, 2, 3]

    def test_functions_of_the_seed(self):
        def generator(seed):
            assert seed == 99
            yield from ((np.full((2, 1), i), np.zeros(2)) for i in range(3))

        assert numbers(generator) == [0, 1, 2, 0, 1, 2, 0, 1]
        assert numbers(lambda seed: [(np.full((2, 1), i),) for i in range(3)].__iter__()) == [0, 1, 2, 0, 1, 2, 0, 1]

    def test_an_iterator_ends(self):
        with pytest.raises(ValueError, match="`train` has no more batches"):
            numbers(iter([(np.zeros((2, 1)),)]))

    @nightly
    def test_tf_dataset(self):
        tf = pytest.importorskip("tensorflow")
        x = np.arange(6)
        data = tf.data.Dataset.from_tensor_slices((x, x)).batch(2)
        assert numbers(data, count=5) == [0, 2, 4, 0, 2]

        def shuffled(seed):
            return tf.data.Dataset.from_tensor_slices((x, x)).shuffle(6, seed=seed).batch(1)

        assert sorted(numbers(shuffled, count=6)) == x.tolist()
        assert numbers(shuffled) == numbers(shuffled)

    @nightly
    def test_torch_loader(self):
        data = pytest.importorskip("torch.utils.data")
        import torch

        loader = data.DataLoader(data.TensorDataset(torch.arange(8), torch.arange(8)), batch_size=1, shuffle=True)
        before = torch.get_rng_state()
        made = numbers(loader, count=16)
        assert sorted(made[:8]) == sorted(made[8:]) == list(range(8))
        assert made[:8] != made[8:]
        assert numbers(loader, count=16) == made != numbers(loader, seed=1, count=16)
        assert torch.equal(torch.get_rng_state(), before)


@nightly
@pytest.mark.parametrize("kind", ["dataset", "function", "tf"])
def test_training_on_other_data(kind):
    if kind == "dataset":
        data = Batches()
    elif kind == "function":
        data = generated
    else:
        tf = pytest.importorskip("tensorflow")
        data = tf.data.Dataset.from_tensor_slices(TRAIN).batch(8)
    made = study(train=data, seeds=2, compile_options=None)
    outcomes = made.outcomes(verbose=0)
    assert [each.error for each in outcomes] == ["", ""]
    assert all(len(each.loss) == 6 for each in outcomes)
    del made
    gc.collect()


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[index * 8 : index * 8 + 8], Y[index * 8 : index * 8 + 8]


def generated(seed):
    order = np.random.default_rng(seed).permutation(40)
    for i in range(0, 40, 8):
        yield X[order[i : i + 8]], Y[order[i : i + 8]]
