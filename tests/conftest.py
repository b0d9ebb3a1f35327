"""Set before any test imports a framework: no start-up notes from TensorFlow, no window from Matplotlib."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
