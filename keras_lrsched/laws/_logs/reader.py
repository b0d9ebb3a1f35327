"""The log in a file, whatever its form."""

from pathlib import Path

from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.laws._logs import events, lines, structured, table
from keras_lrsched.laws._logs.log import LogError, RunLog

FORMS = (
    "a table with a header (CSV, TSV), JSON (history.history, trainer_state.json, a list of rows), JSON lines, a text with "
    "lines such as 'iter 100: loss 2.3', or TensorBoard's event files"
)


def read(source) -> RunLog:
    """The rows of a log.

    Args:
        source: A file, a folder with event files, a Keras `History`, or its `.history`.

    Raises:
        LogError: If the content is of no known form.
    """
    history = getattr(source, "history", source)
    if isinstance(history, dict):
        return structured.of(history)
    path = Path(source).expanduser()
    with refused("log of a run", path, passing=(LogError,)):
        if path.is_dir() or "tfevents" in path.name:
            return events.read(path)
        log = _of_text(path.read_text(encoding="utf-8-sig"))
    if not log.named and not any(log.parts):
        raise LogError(f"The file has no rows of a known form, which are {FORMS}")
    return log


def _of_text(text):
    start = text.lstrip()[:1]
    if start in ("{", "["):
        try:
            return structured.read(text)
        except LogError:
            if start == "{":
                raise
    printed = lines.read(text)  # which may begin as JSON does: "[2024-01-01 00:00:00] iteration 100/ 1000 | lm loss: 9.2"
    return table.read(text) if table.begins(text) or not any(printed.parts) else printed
