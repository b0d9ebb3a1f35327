"""Programs around tasks of KerasHub and KerasRS at tiny random size, and with tuners and trackers around `fit`.

Nothing is downloaded. A program whose library is not installed is left out.
"""

import importlib.util
import os
import tempfile

import keras
import numpy as np
from keras import layers

from tests.programs import data
from tests.programs.program import Program, Run, program

EXAMPLES: dict[str, Program] = {}


def example(library, *traits, **settings):
    """Registers a program that needs a library."""
    is_there = importlib.util.find_spec(library) is not None
    return program(*traits, registry=EXAMPLES, **settings) if is_there else lambda make: make


def _mlp():
    return keras.Sequential([keras.Input((6,)), layers.Dense(6, "tanh"), layers.Dense(1)])


def _next_token(model, how, samples=8):
    """A causal language model on random tokens."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(how.optimizer(), loss, weighted_metrics=["accuracy"], **how.mode)
    x = data.tokens(6, 12, samples)[0]
    inputs = {"token_ids": x, "padding_mask": np.ones_like(x)}
    return Run(model, inputs, y=np.roll(x, -1, axis=1), sample_weight=np.ones(x.shape, "float32"))


@example("keras_hub", "arrays", "makes_datasets", optimizer="adamw", rtol=2e-3)
def bert_classifier(how):
    """A BERT classifier of texts."""
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=12, num_layers=1, num_heads=2, hidden_dim=4, intermediate_dim=8, max_sequence_length=6
    )
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(how.optimizer(), loss, metrics=["accuracy"], **how.mode)
    x, y = data.tokens(6, 12, 8)
    return Run(model, {"token_ids": x, "segment_ids": np.zeros_like(x), "padding_mask": np.ones_like(x)}, y=y)


@example("keras_hub", "arrays", "makes_datasets", optimizer="adamw", rtol=2e-3)
def gpt2(how):
    """GPT-2 as a causal language model."""
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=12, num_layers=1, num_heads=2, hidden_dim=4, intermediate_dim=8, max_sequence_length=6
    )
    return _next_token(keras_hub.models.GPT2CausalLM(backbone, preprocessor=None), how)


@example("keras_hub", "arrays", "makes_datasets", rtol=2e-3)
def gemma_lora(how):
    """Gemma as a causal language model, with low-rank adapters."""
    import keras_hub

    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=12,
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=4,
        intermediate_dim=8,
        head_dim=2,
    )
    backbone.enable_lora(2)
    return _next_token(keras_hub.models.GemmaCausalLM(backbone, preprocessor=None), how)


@example("keras_hub", "arrays", "makes_datasets", optimizer="adamw", rtol=2e-3)
def vit_classifier(how):
    """A vision transformer that classifies images."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 3), patch_size=4, num_layers=1, num_heads=2, hidden_dim=4, mlp_dim=8
    )
    model = keras_hub.models.ViTImageClassifier(backbone, num_classes=3, preprocessor=None)
    model.compile(how.optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **how.mode)
    x, y = data.images(8, 3, 8)
    return Run(model, x, y=y)


@example("keras_hub", "arrays", "makes_datasets", rtol=2e-3)
def resnet_classifier(how):
    """A residual network that classifies images."""
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    model = keras_hub.models.ResNetImageClassifier(backbone, num_classes=3, preprocessor=None)
    model.compile(how.optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **how.mode)
    x, y = data.images(16, 3, 8)
    return Run(model, x, y=y)


@example("keras_hub", "arrays", optimizer="adamw", rtol=2e-3)
def whisper(how):
    """The backbone of Whisper, with a head for the next token of a transcript."""
    import keras_hub

    backbone = keras_hub.models.WhisperBackbone(
        vocabulary_size=12,
        num_layers=1,
        num_heads=2,
        hidden_dim=4,
        intermediate_dim=8,
        num_mels=4,
        max_encoder_sequence_length=8,
        max_decoder_sequence_length=6,
    )
    outputs = backbone.token_embedding(backbone.output["decoder_sequence_output"], reverse=True)
    model = keras.Model(backbone.input, outputs)
    model.compile(how.optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **how.mode)
    x = data.tokens(6, 12, 8)[0]
    sounds = np.random.default_rng(0).normal(size=(8, 8, 4)).astype("float32")
    inputs = {"encoder_features": sounds, "decoder_token_ids": x, "decoder_padding_mask": np.ones_like(x)}
    return Run(model, inputs, y=np.roll(x, -1, axis=1))


@example("keras_rs", "arrays", "unbuilt", "no_form", rtol=2e-3)
def two_towers(how):
    """Retrieval with two towers of KerasRS: the items of a batch are each other's negatives."""
    import keras_rs

    class Retrieval(keras.Model):
        def __init__(self):
            super().__init__()
            self.users, self.items = layers.Embedding(5, 3), layers.Embedding(7, 3)
            self.correction = keras_rs.layers.RemoveAccidentalHits()

        def call(self, x):
            users, items = self.users(x[:, 0]), self.items(x[:, 1])
            logits = keras.ops.matmul(users, keras.ops.transpose(items))
            labels = keras.ops.eye(keras.ops.shape(x)[0])
            loss = keras.losses.categorical_crossentropy(labels, self.correction(logits, labels, x[:, 1]), from_logits=True)
            self.add_loss(keras.ops.mean(loss))
            return logits

    model = Retrieval()
    model.compile(how.optimizer(), **how.mode)
    random = np.random.default_rng(0)
    return Run(model, np.stack([random.integers(0, 5, 8), random.integers(0, 7, 8)], axis=1).astype("int32"))


@example("keras_tuner", "several_fits", "several_models", "copies_callbacks")
def keras_tuner_search(how):
    """A random search of KerasTuner, which copies the callbacks for each trial and adds some of its own."""
    import keras_tuner

    def build(options):
        options.Int("units", 4, 6, step=2)
        keras.utils.set_random_seed(1)
        model = _mlp()
        model.compile(how.optimizer(), "mse", **how.mode)
        run.models.append(model)
        return model

    def script(run, callbacks):
        tuner = keras_tuner.RandomSearch(
            build, "loss", max_trials=2, seed=1, directory=tempfile.mkdtemp(), project_name="search"
        )
        tuner.search(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)

    x, y = data.numbers()
    run = Run(None, x, y=y, script=script)
    return run


@example("optuna", "arrays", "several_fits", "several_models")
def optuna_study(how):
    """A study of Optuna with a model for each trial."""
    import optuna

    def script(run, callbacks):
        def objective(trial):
            trial.suggest_int("units", 4, 6)
            keras.utils.set_random_seed(1)
            model = _mlp()
            model.compile(how.optimizer(), "mse", **how.mode)
            run.models.append(model)
            run.fit(callbacks, epochs=1)
            return run.history.history["loss"][-1]

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).optimize(objective, n_trials=2)

    x, y = data.numbers()
    return Run(None, x, y=y, script=script)


@example("mlflow", "arrays")
def mlflow_run(how):
    """A run of MLflow, whose callback logs to a folder."""
    import mlflow

    def script(run, callbacks):
        folder = tempfile.mkdtemp()
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        with mlflow.start_run(experiment_id=mlflow.create_experiment("fit", artifact_location=folder)):
            run.fit([*callbacks, mlflow.keras.MlflowCallback() if hasattr(mlflow, "keras") else Logs(mlflow)])

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y, script=script)


class Logs(keras.callbacks.Callback):
    """Logs metrics at the end of each epoch, as MLflow's callback does."""

    def __init__(self, mlflow):
        super().__init__()
        self.mlflow = mlflow

    def on_epoch_end(self, epoch, logs=None):
        self.mlflow.log_metrics({name: float(value) for name, value in logs.items()}, step=epoch)


@example("wandb", "arrays")
def wandb_run(how):
    """A run of Weights & Biases, offline, with its callback for metrics."""
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    def script(run, callbacks):
        os.environ["WANDB_SILENT"] = "true"
        with wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=wandb.Settings(console="off")):
            run.fit([*callbacks, WandbMetricsLogger()])

    model = _mlp()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y, script=script)
