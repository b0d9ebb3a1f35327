"""Models with a `train_step` of their own, in the forms that are usual with Keras. They need TensorFlow."""

import keras
from keras import layers, ops

from tests.programs import data
from tests.programs.program import Run, program


def _tape(**options):
    import tensorflow as tf

    return tf.GradientTape(**options)


def _mlp(*widths, name=None):
    """Dense layers of these widths, the first of which is that of the input."""
    first, *others, last = widths
    hidden = [layers.Dense(width, "relu") for width in others]
    return keras.Sequential([keras.Input((first,)), *hidden, layers.Dense(last)], name=name)


@keras.saving.register_keras_serializable("programs")
class OwnStep(keras.Model):
    """Puts the scalar loss of a batch into a mean, and updates the compiled metrics."""

    def train_step(self, data):
        x, y = data
        with _tape() as tape:
            loss = self.compute_loss(y=y, y_pred=(y_pred := self(x, training=True)))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


@program("arrays", "own_train_step")
def own_step(how):
    """A functional model with the step of Keras' guide: the scalar loss goes into a `Mean` named `loss`."""
    inputs = keras.Input((6,))
    model = OwnStep(inputs, layers.Dense(1)(layers.Dropout(0.2)(layers.Dense(6, "tanh")(inputs))))
    model.compile(how.optimizer(), "mse", metrics=["mae"], **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


class LossTracked(keras.Model):
    """Compiled without a loss; its step has one of its own, and trackers of its own."""

    def __init__(self, *trackers):
        super().__init__()
        self.trackers = [keras.metrics.Mean(name=name) for name in trackers]

    @property
    def metrics(self):
        return self.trackers

    def minimize(self, loss, tape, variables=None):
        variables = self.trainable_variables if variables is None else variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def tracked(self, *losses):
        for tracker, loss in zip(self.trackers, losses, strict=True):
            tracker.update_state(loss)
        return {tracker.name: tracker.result() for tracker in self.trackers}


class Variational(LossTracked):
    def __init__(self):
        super().__init__("total_loss", "reconstruction_loss", "kl_loss")
        self.encoder, self.decoder = _mlp(6, 5, 4, name="encoder"), _mlp(2, 5, 6, name="decoder")
        self.seed_generator = keras.random.SeedGenerator(5)

    def call(self, x):
        return self.decoder(self.encoder(x)[:, :2])

    def train_step(self, x):
        with _tape() as tape:
            mean, log_variance = ops.split(self.encoder(x), 2, axis=1)
            z = mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed_generator)
            reconstruction = ops.mean(ops.sum(ops.square(self.decoder(z) - x), axis=1))
            divergence = -0.5 * ops.mean(1 + log_variance - ops.square(mean) - ops.exp(log_variance))
            total = reconstruction + divergence
        self.minimize(total, tape)
        logs = self.tracked(total, reconstruction, divergence)
        return {"loss": logs["total_loss"], "reconstruction_loss": logs["reconstruction_loss"], "kl_loss": logs["kl_loss"]}


@program("arrays", "own_train_step", "no_compiled_loss", "no_targets", "unbuilt", "not_saved", optimizer="adamw")
def vae(how):
    """A variational autoencoder with its own step: the log `loss` is the mean of a tracker named `total_loss`."""
    model = Variational()
    model.compile(how.optimizer(), **how.mode)
    return Run(model, data.numbers()[0])


class ByParts(LossTracked):
    def __init__(self):
        super().__init__("loss")
        self.encoder, self.decoder = _mlp(6, 4, 2), _mlp(2, 4, 6)

    def train_step(self, x):
        with _tape() as tape:
            loss = ops.mean(ops.square(self.decoder(self.encoder(x)) - x))
        self.minimize(loss, tape)
        return self.tracked(loss)


@program("arrays", "own_train_step", "no_compiled_loss", "no_targets", "no_call", "not_saved")
def autoencoder_by_parts(how):
    """An autoencoder whose model has no `call`: its step uses the encoder and the decoder."""
    model = ByParts()
    model.compile(how.optimizer(), **how.mode)
    return Run(model, data.numbers()[0])


class Contrastive(LossTracked):
    """Two noisy views of a batch; a view is to be recognized among all others."""

    def __init__(self):
        super().__init__("loss")
        self.noise = keras.Sequential([keras.Input((6,)), layers.GaussianNoise(0.2, seed=4)])
        self.encoder, self.projection = _mlp(6, 5, 4), _mlp(4, 3)

    def train_step(self, x):
        first, second = self.noise(x, training=True), self.noise(x, training=True)
        with _tape() as tape:
            one, other = (ops.normalize(self.projection(self.encoder(view))) for view in (first, second))
            similarity = ops.matmul(one, ops.transpose(other)) / 0.5
            labels = ops.arange(ops.shape(similarity)[0])
            loss = ops.mean(keras.losses.sparse_categorical_crossentropy(labels, similarity, from_logits=True))
        self.minimize(loss, tape, self.encoder.trainable_weights + self.projection.trainable_weights)
        return self.tracked(loss)


@program("arrays", "own_train_step", "no_compiled_loss", "no_targets", "no_call", "not_saved")
def contrastive(how):
    """Contrastive pretraining: two augmented views, and `self.encoder(x)` without `training`."""
    model = Contrastive()
    model.compile(how.optimizer(), **how.mode)
    return Run(model, data.numbers()[0])


class Adversaries(keras.Model):
    def __init__(self):
        super().__init__()
        self.discriminator, self.generator = _mlp(6, 5, 1), _mlp(3, 5, 6)
        self.seed_generator = keras.random.SeedGenerator(6)

    def compile(self, d_optimizer, g_optimizer, loss_fn, **mode):
        super().compile(**mode)
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn
        self.d_loss_tracker = keras.metrics.Mean(name="d_loss")
        self.g_loss_tracker = keras.metrics.Mean(name="g_loss")

    @property
    def metrics(self):
        return [self.d_loss_tracker, self.g_loss_tracker]

    def train_step(self, real):
        batch = ops.shape(real)[0]
        fake = self.generator(keras.random.normal((batch, 3), seed=self.seed_generator))
        both, labels = ops.concatenate([fake, real]), ops.concatenate([ops.ones((batch, 1)), ops.zeros((batch, 1))])
        with _tape() as tape:
            d_loss = self.loss_fn(labels, self.discriminator(both))
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply_gradients(zip(tape.gradient(d_loss, weights), weights, strict=True))
        latent = keras.random.normal((batch, 3), seed=self.seed_generator)
        with _tape() as tape:
            g_loss = self.loss_fn(ops.zeros((batch, 1)), self.discriminator(self.generator(latent)))
        weights = self.generator.trainable_weights
        self.g_optimizer.apply_gradients(zip(tape.gradient(g_loss, weights), weights, strict=True))
        self.d_loss_tracker.update_state(d_loss)
        self.g_loss_tracker.update_state(g_loss)
        return {"d_loss": self.d_loss_tracker.result(), "g_loss": self.g_loss_tracker.result()}


@program(
    *(
        "arrays",
        "own_train_step",
        "no_compiled_loss",
        "no_targets",
        "no_call",
        "not_saved",
        "several_optimizers",
        "no_loss_in_logs",
        "part_trained",
    ),
    optimizer="adamw",
    optimizers=("d_optimizer", "g_optimizer"),
)
def gan(how):
    """A generative adversarial network: two optimizers, `compile` of its own, logs of `d_loss` and `g_loss`."""
    model = Adversaries()
    model.compile(how.optimizer(), how.optimizer(), keras.losses.BinaryCrossentropy(from_logits=True), **how.mode)
    return Run(model, data.numbers()[0])


class Distiller(keras.Model):
    def __init__(self):
        super().__init__()
        self.teacher, self.student = _mlp(6, 8, 3, name="teacher"), _mlp(6, 4, 3, name="student")

    def compile(self, optimizer, student_loss, distillation_loss, **mode):
        super().compile(optimizer=optimizer, loss=student_loss, metrics=["accuracy"], **mode)
        self.distillation_loss = distillation_loss

    def call(self, x):
        return self.student(x)

    def train_step(self, data):
        x, y = data
        teacher = self.teacher(x, training=False)
        with _tape() as tape:
            logits = self.student(x, training=True)
            hard = self.compute_loss(x, y, logits)
            soft = self.distillation_loss(ops.softmax(teacher / 3.0), ops.softmax(logits / 3.0))
            loss = 0.1 * hard + 0.9 * soft
        weights = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {**self.compute_metrics(x, y, logits), "loss": loss}


@program("arrays", "own_train_step", "unbuilt", "not_saved", "part_trained")
def distillation(how):
    """Distillation: one optimizer that trains the student, beside a teacher whose weights are trainable, too."""
    model = Distiller()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(how.optimizer(), loss, keras.losses.KLDivergence(), **how.mode)
    x, y = data.classes()
    return Run(model, x, y=y)


class FrozenTeacher(LossTracked):
    def __init__(self, teacher):
        super().__init__("loss")
        self.teacher, self.student = teacher, _mlp(6, 4, 3)
        self.teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def train_step(self, x):
        with _tape() as tape:
            loss = ops.mean(ops.square(self.student(x) - self.teacher(x)))
        self.minimize(loss, tape)
        return self.tracked(loss)


@program("arrays", "own_train_step", "no_compiled_loss", "no_targets", "unbuilt", "not_saved", optimizer="adamw")
def frozen_teacher(how):
    """A student that follows a frozen teacher."""
    model = FrozenTeacher(_mlp(6, 8, 3))
    model.compile(how.optimizer(), **how.mode)
    return Run(model, data.numbers()[0])


class Denoiser(keras.Model):
    """A diffusion model in little, with a twin of its network that follows by a moving average."""

    def __init__(self):
        super().__init__()
        self.normalizer = layers.Normalization()
        self.network = _mlp(7, 6, 6)
        self.twin = keras.models.clone_model(self.network)
        self.seed_generator = keras.random.SeedGenerator(7)

    def compile(self, **options):
        super().compile(**options)
        self.noise_loss_tracker = keras.metrics.Mean(name="n_loss")
        self.image_loss_tracker = keras.metrics.Mean(name="i_loss")

    @property
    def metrics(self):
        return [self.noise_loss_tracker, self.image_loss_tracker]

    def train_step(self, images):
        images = self.normalizer(images, training=True)
        shape = ops.shape(images)
        noise = keras.random.normal(shape, seed=self.seed_generator)
        rate = keras.random.uniform((shape[0], 1), 0.1, 0.9, seed=self.seed_generator)
        noisy = ops.sqrt(1 - rate) * images + ops.sqrt(rate) * noise
        with _tape() as tape:
            predicted = self.network(ops.concatenate([noisy, rate], axis=1), training=True)
            noise_loss = self.loss(noise, predicted)
            image_loss = self.loss(images, (noisy - ops.sqrt(rate) * predicted) / ops.sqrt(1 - rate))
        weights = self.network.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(noise_loss, weights), weights, strict=True))
        self.noise_loss_tracker.update_state(noise_loss)
        self.image_loss_tracker.update_state(image_loss)
        for weight, average in zip(self.network.weights, self.twin.weights, strict=True):
            average.assign(0.9 * average + 0.1 * weight)
        return {metric.name: metric.result() for metric in self.metrics}


@program(
    *("arrays", "own_train_step", "no_targets", "no_call", "not_saved", "part_trained", "no_loss_in_logs"), optimizer="adamw"
)
def diffusion(how):
    """A diffusion model whose twin is a moving average of its network; logs of `n_loss` and `i_loss`."""
    model = Denoiser()
    model.normalizer.adapt(data.numbers()[0])
    model.compile(optimizer=how.optimizer(), loss=keras.losses.MeanSquaredError(), **how.mode)
    return Run(model, data.numbers()[0])


@keras.saving.register_keras_serializable("programs")
class AdversarialPairs(keras.Model):
    def train_step(self, data):
        x, y = data
        with _tape() as tape:
            tape.watch(x)
            loss = self.compute_loss(x, y, self(x, training=True))
        near = x + 0.1 * ops.sign(tape.gradient(loss, x))
        with _tape() as tape:
            pairs = self(ops.concatenate([x, near]), training=True)
            loss = self.compute_loss(x, ops.concatenate([y, y]), pairs)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {**self.compute_metrics(x, y, pairs[: ops.shape(x)[0]]), "loss": loss}


@program("arrays", "own_train_step")
def adversarial_pairs(how):
    """Each sample together with its adversarial neighbor, so that the model sees batches of twice the size."""
    inputs = keras.Input((6,))
    model = AdversarialPairs(inputs, layers.Dense(1)(layers.Dense(6, "tanh")(inputs)))
    model.compile(how.optimizer(), "mse", metrics=["mae"], **how.mode)
    x, y = data.numbers()
    return Run(model, x, y=y)


class NeighborQueue(LossTracked):
    def __init__(self):
        super().__init__("c_loss")
        self.encoder = _mlp(6, 5, 3)
        queue = keras.random.normal((8, 3), seed=8)
        self.feature_queue = keras.Variable(ops.normalize(queue), trainable=False, name="feature_queue")

    def compile(self, contrastive_optimizer, **mode):
        super().compile(**mode)
        self.contrastive_optimizer = contrastive_optimizer

    def train_step(self, x):
        with _tape() as tape:
            one, other = ops.normalize(self.encoder(x)), ops.normalize(self.encoder(x[:, ::-1]))
            nearest = ops.argmax(ops.matmul(one, ops.transpose(self.feature_queue)), axis=1)
            neighbors = ops.take(ops.convert_to_tensor(self.feature_queue), nearest, axis=0)
            similarity = ops.matmul(ops.stop_gradient(neighbors), ops.transpose(other)) / 0.5
            labels = ops.arange(ops.shape(similarity)[0])
            loss = ops.mean(keras.losses.sparse_categorical_crossentropy(labels, similarity, from_logits=True))
        weights = self.encoder.trainable_weights
        self.contrastive_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.feature_queue.assign(ops.concatenate([one, ops.convert_to_tensor(self.feature_queue)])[:8])
        return self.tracked(loss)


@program(
    *(
        "arrays",
        "own_train_step",
        "no_compiled_loss",
        "no_targets",
        "no_call",
        "not_saved",
        "several_optimizers",
        "no_loss_in_logs",
    ),
    optimizers=("contrastive_optimizer",),
)
def neighbor_queue(how):
    """Contrastive learning with a queue of features as a non-trainable weight; one optimizer with a name of its own."""
    model = NeighborQueue()
    model.compile(how.optimizer(), **how.mode)
    return Run(model, data.numbers()[0])


class MaskedAutoencoder(keras.Model):
    """Reconstructs what is hidden of its input; computes loss and metrics by what it was compiled with."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = _mlp(6, 5, 4), _mlp(4, 5, 6)
        self.seed_generator = keras.random.SeedGenerator(9)

    def calculate_loss(self, x):
        hidden = ops.cast(keras.random.uniform(ops.shape(x), seed=self.seed_generator) < 0.5, "float32")
        decoded = self.decoder(self.encoder(x * (1 - hidden)))
        return self.compute_loss(y=x * hidden, y_pred=decoded * hidden), x, decoded

    def train_step(self, x):
        with _tape() as tape:
            loss, target, decoded = self.calculate_loss(x)
        weights = self.encoder.trainable_variables + self.decoder.trainable_variables
        gradients = tape.gradient(loss, weights)
        pairs = [(g, v) for g, v in zip(gradients, weights, strict=True)]
        self.optimizer.apply_gradients(pairs)
        results = {}
        for metric in self.metrics:
            metric.update_state(target, decoded) if metric.name == "compile_metrics" else metric.update_state(loss)
            results |= metric.result() if isinstance(metric.result(), dict) else {metric.name: metric.result()}
        return results


@program("arrays", "own_train_step", "no_targets", "no_call", "not_saved")
def masked_autoencoder(how):
    """A masked autoencoder without `call`, which uses the loss and the metrics that it was compiled with."""
    model = MaskedAutoencoder()
    model.compile(how.optimizer(), "mse", metrics=["mae"], **how.mode)
    return Run(model, data.numbers()[0])


class Translators(keras.Model):
    """Two generators and two discriminators, trained by four optimizers from one tape."""

    def __init__(self):
        super().__init__()
        self.forward, self.backward = _mlp(3, 4, 3), _mlp(3, 4, 3)
        self.judge_x, self.judge_y = _mlp(3, 4, 1), _mlp(3, 4, 1)

    def call(self, inputs):
        return self.judge_x(inputs), self.judge_y(inputs), self.forward(inputs), self.backward(inputs)

    def compile(self, forward_optimizer, backward_optimizer, judge_x_optimizer, judge_y_optimizer, **mode):
        super().compile(**mode)
        self.forward_optimizer, self.backward_optimizer = forward_optimizer, backward_optimizer
        self.judge_x_optimizer, self.judge_y_optimizer = judge_x_optimizer, judge_y_optimizer

    def train_step(self, batch):
        x, y = batch
        with _tape(persistent=True) as tape:
            fake_y, fake_x = self.forward(x), self.backward(y)
            cycle = ops.mean(ops.abs(self.backward(fake_y) - x)) + ops.mean(ops.abs(self.forward(fake_x) - y))
            forward_loss = ops.mean(ops.square(self.judge_y(fake_y) - 1)) + cycle
            backward_loss = ops.mean(ops.square(self.judge_x(fake_x) - 1)) + cycle
            judge_x_loss = ops.mean(ops.square(self.judge_x(x) - 1)) + ops.mean(ops.square(self.judge_x(fake_x)))
            judge_y_loss = ops.mean(ops.square(self.judge_y(y) - 1)) + ops.mean(ops.square(self.judge_y(fake_y)))
        steps = [
            (self.forward_optimizer, self.forward, forward_loss),
            (self.backward_optimizer, self.backward, backward_loss),
            (self.judge_x_optimizer, self.judge_x, judge_x_loss),
            (self.judge_y_optimizer, self.judge_y, judge_y_loss),
        ]
        gradients = [tape.gradient(loss, part.trainable_variables) for _, part, loss in steps]
        for (optimizer, part, _), values in zip(steps, gradients, strict=True):
            optimizer.apply_gradients(zip(values, part.trainable_variables, strict=True))
        return {"G_loss": forward_loss, "F_loss": backward_loss, "D_X_loss": judge_x_loss, "D_Y_loss": judge_y_loss}


@program(
    *(
        "own_train_step",
        "no_compiled_loss",
        "no_targets",
        "unbuilt",
        "not_saved",
        "several_optimizers",
        "no_loss_in_logs",
        "part_trained",
    ),
    optimizers=("forward_optimizer", "backward_optimizer", "judge_x_optimizer", "judge_y_optimizer"),
)
def cycle_gan(how):
    """Two generators and two discriminators with an optimizer each, pairs from `tf.data.Dataset.zip`."""
    import tensorflow as tf

    model = Translators()
    model.compile(*(how.optimizer() for _ in range(4)), **how.mode)
    x, y = data.numbers(3)[0], data.numbers(3, seed=1)[0]
    pairs = tf.data.Dataset.zip((tf.data.Dataset.from_tensor_slices(x), tf.data.Dataset.from_tensor_slices(y)))
    return Run(model, pairs.batch(4))


class Accumulator(keras.Model):
    """Accumulates gradients in variables of its own, and applies them every two batches."""

    def make_sums(self):
        self.batches = self.add_weight(shape=(), dtype="int32", trainable=False, initializer="zeros", name="batches")
        self.sums = [keras.Variable(ops.zeros(v.shape), trainable=False, name="sum") for v in self.trainable_variables]

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with _tape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        for each, gradient in zip(self.sums, tape.gradient(loss, self.trainable_variables), strict=True):
            each.assign_add(gradient / 2)
        self.batches.assign_add(1)
        tf.cond(ops.equal(self.batches % 2, 0), self.apply_sums, lambda: None)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(x)[0])
        return self.compute_metrics(x, y, y_pred)

    def apply_sums(self):
        values = [ops.convert_to_tensor(each) for each in self.sums]
        self.optimizer.apply_gradients(zip(values, self.trainable_variables, strict=True))
        for each in self.sums:
            each.assign(ops.zeros_like(each))


@program("arrays", "own_train_step", "not_saved", "accumulates_by_hand", "lists_variables")
def accumulation_by_hand(how):
    """Gradients that the step accumulates itself, so that it applies them to the weights at every second batch."""
    inputs = keras.Input((6,))
    model = Accumulator(inputs, layers.Dense(1)(layers.Dense(6, "tanh")(inputs)))
    model.make_sums()
    optimizer = how.optimizer()
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse", **how.mode)
    x, y = data.numbers(samples=16)
    return Run(model, x, y=y)
