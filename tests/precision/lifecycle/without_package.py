"""A process without this package: `without_package.py FOLDER`. Loads the exported model, and writes what it computes."""

import pickle
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

folder = Path(sys.argv[1])
x = pickle.loads((folder / "x.pickle").read_bytes())
loaded = tf.saved_model.load(str(folder / "exported"))
np.save(folder / "exported.npy", np.asarray(loaded.serve(tf.nest.map_structure(tf.constant, x))))
assert not any(name.startswith("keras_lrsched") for name in sys.modules)
