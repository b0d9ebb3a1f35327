"""Laws: what a hyper-parameter should be, or a loss will be, from a formula that was fitted to other runs."""

from keras_lrsched.laws import scaling

__all__ = ["scaling"]
