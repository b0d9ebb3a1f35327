"""TensorFlow Addons' part of fused_step.py, which starts it in the environment that `make test-peers` makes.

It takes the shapes of the variables as JSON. For each line that it reads it makes one update, and then writes a line.
"""

import json
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import tensorflow as tf
import tensorflow_addons as tfa

shapes = json.loads(sys.argv[1])
variables = [tf.Variable(tf.random.stateless_normal(shape, (0, i), stddev=0.02)) for i, shape in enumerate(shapes)]
gradients = [tf.Variable(tf.random.stateless_normal(shape, (1, i), stddev=1e-3)) for i, shape in enumerate(shapes)]
optimizer = tfa.optimizers.LAMB(1e-3, weight_decay=0.1)


@tf.function
def step():
    optimizer.apply_gradients(zip([gradient.read_value() for gradient in gradients], variables, strict=True))


for _ in sys.stdin:
    step()
    variables[-1].numpy()
    print("done", flush=True)
