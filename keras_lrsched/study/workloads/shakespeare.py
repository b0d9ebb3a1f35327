"""The character model on Tiny Shakespeare (Karpathy 2015)."""

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.base import required_file
from keras_lrsched.study.workloads.characters import Characters


@register("shakespeare", title="Tiny Shakespeare, character transformer", kind="language model", code=("karpathy/char-rnn",))
class TinyShakespeare(Characters):
    """1,115,394 characters of plays, from `tinyshakespeare.txt` or the `shakespeare.txt` that Keras' tutorials cache.

    Target: a validation loss of 2.0 nats a character.
    """

    needs_data_dir = True
    target = 2.0

    def __init__(self, data_dir=None):
        path = required_file(self.name, data_dir, "tinyshakespeare.txt", "shakespeare.txt")
        self._use(path.read_text(encoding="utf-8"))
