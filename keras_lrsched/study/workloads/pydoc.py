"""The character model on English that every Python brings along: the help texts of `pydoc_data.topics`."""

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.characters import Characters


@register("pydoc", title="Python help texts, character transformer", kind="language model")
class PydocTopics(Characters):
    """About 700,000 characters of the Python language reference. They differ a little between versions of Python.

    Target: a validation loss of 2.3 nats a character.
    """

    target = 2.3

    def __init__(self, data_dir=None):
        self._use(help_texts())


def help_texts() -> str:
    """The Python language reference as `help()` shows it, about 700,000 characters."""
    from pydoc_data.topics import topics

    return "\n".join(topics[topic] for topic in sorted(topics))
