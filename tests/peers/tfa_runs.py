"""TensorFlow Addons on the problem: a program for its own environment, which prints trajectories and schedules as JSON."""

import json

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

from .problem import start, trajectory

SGD = tf.keras.optimizers.legacy.SGD
OPTIMIZERS = {
    "lamb": lambda: tfa.optimizers.LAMB(0.02, weight_decay=0.1),
    "lamb_no_decay": lambda: tfa.optimizers.LAMB(0.02),
    "lamb_exclusions": lambda: tfa.optimizers.LAMB(
        0.02, weight_decay=0.1, exclude_from_weight_decay=["bias"], exclude_from_layer_adaptation=["bias"]
    ),
    "radam": lambda: tfa.optimizers.RectifiedAdam(0.02),
    "radam_decay": lambda: tfa.optimizers.RectifiedAdam(0.02, weight_decay=0.1, sma_threshold=6.0),
    "radam_warmup": lambda: tfa.optimizers.RectifiedAdam(0.02, total_steps=50, warmup_proportion=0.2, min_lr=1e-3),
    "lookahead": lambda: tfa.optimizers.Lookahead(SGD(0.05, momentum=0.9), sync_period=5, slow_step_size=0.4),
    "lookahead_radam": lambda: tfa.optimizers.Lookahead(tfa.optimizers.RectifiedAdam(0.02)),
    "adamw": lambda: tfa.optimizers.AdamW(weight_decay=2e-3, learning_rate=0.02, epsilon=1e-12),
    "sgdw": lambda: tfa.optimizers.SGDW(weight_decay=2e-3, learning_rate=0.02, momentum=0.9),
    "cocob": lambda: tfa.optimizers.COCOB(alpha=10),
}
SCHEDULES = {
    "CyclicalLearningRate": {"scale_fn": lambda x: 1 / x, "scale_mode": "cycle"},
    "TriangularCyclicalLearningRate": {},
    "Triangular2CyclicalLearningRate": {},
    "ExponentialCyclicalLearningRate": {"gamma": 0.99},
}


def run(optimizer):
    weights = {name: tf.Variable(value, name=name) for name, value in start().items()}

    def current():
        return {name: weight.numpy() for name, weight in weights.items()}

    def update(t, loss, grads):
        optimizer.apply_gradients([(tf.constant(grads[name]), weight) for name, weight in weights.items()])

    return [{name: value.tolist() for name, value in now.items()} for now in trajectory(current, update)]


def schedule(name):
    made = getattr(tfa.optimizers, name)(1e-3, 6e-3, step_size=7, **SCHEDULES[name])
    return [float(made(np.float32(step))) for step in range(60)]


if __name__ == "__main__":
    answer = {"optimizers": {name: run(make()) for name, make in OPTIMIZERS.items()}}
    print(json.dumps({**answer, "schedules": {name: schedule(name) for name in SCHEDULES}}))
