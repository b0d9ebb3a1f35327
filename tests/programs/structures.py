"""Models that Keras' own training step trains."""

import keras
import numpy as np
from keras import layers

from tests.programs import data
from tests.programs.program import EVERY, Run, program


@program("arrays", backends=EVERY, optimizer="adamw")
def functional(how):
    """A functional model with dropout and validation data."""
    inputs = keras.Input((6,))
    hidden = layers.Dropout(0.3)(layers.Dense(8, "relu")(inputs))
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(how.optimizer(), "mse", metrics=["mae"], **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y, validation_data=(x[:6], y[:6]))


@program("arrays", "unbuilt", backends=EVERY)
def sequential_without_input(how):
    """A `Sequential` without `Input`."""
    model = keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(3, "softmax")])
    model.compile(how.optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"], **how.mode)
    x, y = data.classes()
    return Run(model, x, y=y)


@keras.saving.register_keras_serializable("programs")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = layers.Dense(8, "tanh")
        self.output_layer = layers.Dense(1)

    def call(self, x):
        return self.output_layer(self.hidden(x))


@program("arrays", "unbuilt", backends=EVERY)
def subclassed(how):
    """A subclassed model with `call(self, x)`."""
    model = Subclassed()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


@keras.saving.register_keras_serializable("programs")
class SubclassedTraining(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = layers.Dense(8, use_bias=False)
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.3)
        self.output_layer = layers.Dense(1)

    def call(self, x, training=None):
        hidden = keras.ops.relu(self.norm(self.hidden(x), training=training))
        return self.output_layer(self.dropout(hidden, training=training))


@program("arrays", "unbuilt", backends=EVERY, optimizer="adamw")
def subclassed_with_training(how):
    """A subclassed model with `call(self, x, training=None)`, dropout and batch normalization."""
    model = SubclassedTraining()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


@program("arrays", backends=EVERY)
def nested(how):
    """A functional model in a `Sequential` in a functional model."""
    inputs = keras.Input((6,))
    inner = keras.Model(inputs, layers.Add()([inputs, layers.Dense(6, "tanh")(inputs)]), name="block")
    middle = keras.Sequential([keras.Input((6,)), inner, layers.Dense(4)], name="encoder")
    outer = keras.Input((6,))
    model = keras.Model(outer, layers.Dense(1)(middle(outer)))
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


@keras.saving.register_keras_serializable("programs")
class Collections(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.blocks = [layers.Dense(6, "tanh") for _ in range(2)]
        self.heads = {"mean": layers.Dense(1), "scale": keras.Sequential([layers.Dense(3, "tanh"), layers.Dense(1)])}

    def call(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.heads["mean"](x) * keras.ops.sigmoid(self.heads["scale"](x))


@program("arrays", "unbuilt", "not_saved", backends=EVERY)
def collections(how):
    """Sublayers in a list, in a dictionary and in a `Sequential`."""
    model = Collections()
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


@program("arrays", backends=EVERY, optimizer="adamw")
def several_outputs(how):
    """Two outputs with losses, weights of losses and metrics of their own."""
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, "relu")(inputs)
    outputs = {"value": layers.Dense(1, name="value")(hidden), "kind": layers.Dense(3, name="kind")(hidden)}
    model = keras.Model(inputs, outputs)
    losses = {"value": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    weights = {"value": 1.0, "kind": 0.3}
    model.compile(how.optimizer(), losses, loss_weights=weights, metrics={"kind": ["accuracy"]}, **how.mode)
    x, y = data.numbers()
    return Run(model, x, y={"value": y, "kind": data.classes()[1]})


@program("arrays", backends=EVERY)
def dictionary_inputs(how):
    """A dictionary of inputs: numbers, and categories that are embedded."""
    inputs = {"number": keras.Input((3,), name="number"), "kind": keras.Input((), name="kind", dtype="int32")}
    hidden = layers.Concatenate()([inputs["number"], layers.Embedding(5, 2)(inputs["kind"])])
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(6, "tanh")(hidden)))
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, {"number": x[:, :3], "kind": np.arange(len(x)) % 5}, y=y)


@program("arrays", backends=EVERY)
def sample_weights(how):
    """Weights of samples, and weighted metrics."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, "tanh"), layers.Dense(1)])
    model.compile(how.optimizer(), "mse", weighted_metrics=["mae"], **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y, sample_weight=np.linspace(0.2, 2, len(x)).astype("float32"))


@program("arrays", backends=EVERY)
def class_weights(how):
    """Weights of classes, and a metric that is no mean (`AUC`)."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, "tanh"), layers.Dense(1, "sigmoid")])
    model.compile(how.optimizer(), "binary_crossentropy", metrics=[keras.metrics.AUC(num_thresholds=5)], **how.mode)
    x, y = data.classes(number=2)
    return Run(model, x, y=y, class_weight={0: 0.5, 1: 3.0})


@program("arrays", backends=EVERY)
def conv_batch_norm(how):
    """A convolutional network with batch normalization, compiled by XLA."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile(how.optimizer(), "sparse_categorical_crossentropy", metrics=["accuracy"], **how.xla_mode)
    x, y = data.images()
    return Run(model, x, y=y)


@program("arrays", "no_form")
def unet(how):
    """A U-Net: down, up, and concatenations across."""
    inputs = keras.Input((8, 8, 1))
    down = layers.Conv2D(3, 3, padding="same", activation="relu")(inputs)
    low = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.MaxPooling2D()(down))
    up = layers.Conv2DTranspose(3, 2, strides=2)(low)
    model = keras.Model(inputs, layers.Conv2D(1, 1)(layers.Concatenate()([down, up])))
    model.compile(how.optimizer(), keras.losses.BinaryCrossentropy(from_logits=True), **how.mode)
    x, _ = data.images()
    return Run(model, x, y=(x > 0.5).astype("float32"))


@program("arrays", optimizer="adamw")
def augmentation_in_model(how):
    """Augmentation layers in the model."""
    augment = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomTranslation(0.2, 0.2)])
    head = [layers.Conv2D(3, 3, activation="relu"), layers.Flatten(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), augment, layers.Rescaling(2.0, -1.0), *head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(how.optimizer(), loss, metrics=["accuracy"], **how.mode)
    x, y = data.images()
    return Run(model, x, y=y)


@program("arrays", "stateful_random", "noise_in_step", "not_saved")
def noise_of_tensorflow(how):
    """A `Lambda` layer that draws from TensorFlow's own generator."""
    import tensorflow as tf

    inputs = keras.Input((6,))
    noisy = layers.Lambda(lambda x: x + 0.1 * tf.random.normal(tf.shape(x)))(inputs)
    model = keras.Model(inputs, layers.Dense(1)(noisy))
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


@keras.saving.register_keras_serializable("programs")
class TransformerBlock(layers.Layer):
    def __init__(self, width, heads, rate=0.1, **options):
        super().__init__(**options)
        self.width, self.heads, self.rate = width, heads, rate
        self.attention = layers.MultiHeadAttention(heads, width // heads)
        self.feed_forward = keras.Sequential([layers.Dense(2 * width, "relu"), layers.Dense(width)])
        self.norms = layers.LayerNormalization(), layers.LayerNormalization()
        self.dropouts = layers.Dropout(rate), layers.Dropout(rate)

    def call(self, x, training=None):
        attended = self.dropouts[0](self.attention(x, x, use_causal_mask=True), training=training)
        x = self.norms[0](x + attended)
        return self.norms[1](x + self.dropouts[1](self.feed_forward(x), training=training))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads, "rate": self.rate}


@keras.saving.register_keras_serializable("programs")
class TokensAndPositions(layers.Layer):
    def __init__(self, length, vocabulary, width, **options):
        super().__init__(**options)
        self.length, self.vocabulary, self.width = length, vocabulary, width
        self.tokens, self.positions = layers.Embedding(vocabulary, width), layers.Embedding(length, width)

    def call(self, x):
        return self.tokens(x) + self.positions(keras.ops.arange(self.length))

    def get_config(self):
        return {**super().get_config(), "length": self.length, "vocabulary": self.vocabulary, "width": self.width}


@program("arrays", "not_saved", backends=EVERY, optimizer="adamw")
def transformer(how):
    """A transformer block behind embeddings of tokens and positions, which predicts the next token."""
    inputs = keras.Input((6,), dtype="int32")
    hidden = TransformerBlock(4, 2)(TokensAndPositions(6, 12, 4)(inputs))
    model = keras.Model(inputs, layers.Dense(12)(hidden))
    model.compile(how.optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **how.mode)
    x, _ = data.tokens()
    return Run(model, x, y=np.roll(x, -1, axis=1))


@keras.saving.register_keras_serializable("programs")
class Recommender(keras.Model):
    def __init__(self, users=5, items=7, width=3, **options):
        super().__init__(**options)
        options = {"embeddings_initializer": "he_normal", "embeddings_regularizer": keras.regularizers.L2(1e-2)}
        self.users, self.items = layers.Embedding(users, width, **options), layers.Embedding(items, width, **options)
        self.user_bias, self.item_bias = layers.Embedding(users, 1), layers.Embedding(items, 1)

    def call(self, x):
        user, item = x[:, 0], x[:, 1]
        product = keras.ops.sum(self.users(user) * self.items(item), axis=1, keepdims=True)
        return keras.ops.sigmoid(product + self.user_bias(user) + self.item_bias(item))


@program("arrays", "unbuilt", "no_kernels", "no_form", backends=EVERY)
def recommender(how):
    """Embeddings of users and items with regularizers and biases."""
    model = Recommender()
    model.compile(how.optimizer(), "binary_crossentropy", **how.mode)
    random = np.random.default_rng(0)
    x = np.stack([random.integers(0, 5, 14), random.integers(0, 7, 14)], axis=1).astype("int32")
    return Run(model, x, y=random.uniform(size=(14, 1)).astype("float32"))


def _mixed(how, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((6,))
        hidden = layers.Dense(8, "relu")(inputs)
        model = keras.Model(inputs, layers.Activation("linear", dtype="float32")(layers.Dense(1)(hidden)))
        model.compile(how.optimizer(), "mse", **how.mode)
    finally:
        keras.config.set_dtype_policy(before)
    x, y = data.numbers()
    return Run(model, x, y=y)


@program("arrays", "low_precision", rtol=0.05)
def mixed_bfloat16(how):
    """Mixed precision in bfloat16."""
    return _mixed(how, "mixed_bfloat16")


@program("arrays", "low_precision", "loss_scale", "wrapped", "not_saved", rtol=0.02)
def mixed_float16(how):
    """Mixed precision in float16, for which Keras scales the loss."""
    return _mixed(how, "mixed_float16")


@program("arrays", "no_kernels", "not_saved", optimizer="adamw")
def lora(how):
    """Low-rank adapters beside frozen kernels (`enable_lora`)."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)])
    for layer in model.layers:
        layer.enable_lora(2)
    model.compile(how.optimizer(), "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


@program("arrays", "accumulates", backends=EVERY)
def accumulation(how):
    """Gradients that the optimizer accumulates over two batches."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, "tanh"), layers.Dense(1)])
    model.compile(how.optimizer(gradient_accumulation_steps=2), "mse", **how.mode)
    x, y = data.numbers(samples=16)
    return Run(model, x, y=y)


@program("arrays", "loss_scale", "wrapped", backends=EVERY)
def wrapped_optimizer(how):
    """An optimizer inside of a `LossScaleOptimizer`."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(6, "tanh"), layers.Dense(1)])
    optimizer = keras.optimizers.LossScaleOptimizer(how.optimizer(), initial_scale=128.0)
    model.compile(optimizer, "mse", **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


class DivergenceSampling(layers.Layer):
    """Draws from a normal distribution, and adds its divergence to the loss."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, mean, log_variance):
        divergence = -0.5 * keras.ops.mean(1 + log_variance - mean**2 - keras.ops.exp(log_variance))
        self.add_loss(0.1 * divergence)
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seed_generator)
        return mean + keras.ops.exp(0.5 * log_variance) * noise


@program("arrays", "not_saved", backends=EVERY)
def vae_by_add_loss(how):
    """A variational autoencoder whose divergence a layer adds by `add_loss`."""
    inputs = keras.Input((6,))
    hidden = layers.Dense(6, "tanh")(inputs)
    latent = DivergenceSampling()(layers.Dense(2)(hidden), layers.Dense(2)(hidden))
    model = keras.Model(inputs, layers.Dense(6)(latent))
    model.compile(how.optimizer(), "mse", **how.mode)
    x, _ = data.numbers()
    return Run(model, x, y=x)


class GraphNetwork(keras.Model):
    """Classifies nodes of one graph, which it holds as tensors."""

    def __init__(self, features, edges, weights):
        super().__init__()
        self.features, self.edges = keras.ops.convert_to_tensor(features), keras.ops.convert_to_tensor(edges)
        self.edge_weights = keras.ops.convert_to_tensor(weights / weights.sum())
        self.message, self.update, self.head = layers.Dense(4, "relu"), layers.Dense(4, "relu"), layers.Dense(3)

    def call(self, nodes):
        target, source = self.edges[0], self.edges[1]
        messages = keras.ops.take(self.message(self.features), source, axis=0) * self.edge_weights[:, None]
        gathered = keras.ops.segment_sum(messages, target, num_segments=self.features.shape[0])
        hidden = self.update(keras.ops.concatenate([self.features, gathered], axis=1))
        return self.head(keras.ops.take(hidden, nodes, axis=0))


@program("arrays", "unbuilt", "not_saved")
def graph_network(how):
    """A graph network with the graph as tensors in its attributes; the data are numbers of nodes."""
    random = np.random.default_rng(0)
    features = random.normal(size=(10, 4)).astype("float32")
    model = GraphNetwork(features, random.integers(0, 10, (2, 30)), random.uniform(size=30).astype("float32"))
    model.compile(how.optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **how.mode)
    nodes = np.arange(14) % 10
    return Run(model, nodes, y=nodes % 3)
