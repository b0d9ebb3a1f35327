"""JSON: Keras' `history.history`, Hugging Face's `trainer_state.json`, W&B's history, TensorBoard's export, JSON lines."""

import json

from keras_lrsched.laws._logs.log import LogError, RunLog


def read(text) -> RunLog:
    """The rows of a JSON document, or of one with an object on each line."""
    try:
        return of(json.loads(text))
    except json.JSONDecodeError:
        return RunLog([_lines(text)])


def of(content) -> RunLog:
    """The rows of what a JSON document holds."""
    if isinstance(content, dict) and isinstance(content.get("log_history"), list):
        # the summary of a whole run has `train_loss`; rows of evaluations have `eval_loss`
        rows = [row for row in _objects(content["log_history"]) if "train_runtime" not in row]
        return RunLog([rows], first=1, window_mean=True)
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        return RunLog([_epochs(content)], first=0)
    if isinstance(content, dict) and content and all(isinstance(column, dict) for column in content.values()):
        return RunLog([_of_pandas(content)])
    if isinstance(content, list) and content and all(isinstance(row, list) and len(row) == 3 for row in content):
        return RunLog([[dict(zip(("Wall time", "Step", "Value"), row, strict=True)) for row in content]])
    if isinstance(content, list):
        return RunLog([_objects(content)])
    raise LogError(
        "The JSON document must be a `history.history`, a trainer_state.json with `log_history`, or a list of objects with "
        "one for each row"
    )


def _objects(rows):
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise LogError("The JSON document has no rows, or some that are no objects")
    return rows


def _epochs(history):
    """Lists of one value for each epoch, counted from 0."""
    lengths = {name: len(column) for name, column in history.items()}
    epochs = max(lengths.values())
    if not epochs:
        raise LogError("The history has no epochs")
    every = {name: epochs // max(length, 1) for name, length in lengths.items()}  # `validation_freq`
    if any(every[name] != 1 for name in history if not name.startswith("val_")):
        raise LogError(f"The history must have as many values of each metric as epochs. It has: {lengths}")
    rows: list[dict] = [{"epoch": epoch} for epoch in range(epochs)]
    for name, column in history.items():
        for position, value in enumerate(column):
            rows[(position + 1) * every[name] - 1][name] = value
    return rows


def _of_pandas(columns):
    """The rows of a file of `DataFrame.to_json`: objects from the index of a row to its value."""
    index = dict.fromkeys(key for column in columns.values() for key in column)
    return [{name: column.get(key) for name, column in columns.items()} for key in index]


def _lines(text):
    lines = text.splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines) and not text.endswith("\n") and rows:
                break  # cut off
            raise LogError(f"Line {number} of the file is not JSON") from error
    return _objects(rows)
