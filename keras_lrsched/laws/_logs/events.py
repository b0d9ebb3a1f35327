"""TensorBoard's event files."""

from pathlib import Path

from keras_lrsched.laws._logs.log import LogError, RunLog

NAME = "*tfevents*"


def read(path) -> RunLog:
    """The scalars of an event file or a folder; several folders below it are runs of their names."""
    files = [path] if path.is_file() else sorted(path.rglob(NAME))
    if not files:
        raise LogError("The folder has no event files, *tfevents*")
    by_folder: dict[Path, list[list[dict]]] = {}
    for file in files:
        by_folder.setdefault(file.parent, []).append(_rows(file))
    if len(by_folder) == 1:
        return RunLog([_joined(next(iter(by_folder.values())))])
    return RunLog(named={str(folder.relative_to(path)): [_joined(parts)] for folder, parts in by_folder.items()})


def _joined(parts):
    return [row for part in parts for row in part]


def _rows(file):
    """A row for each value; values of one step that follow one another are in one row."""
    loader, make_ndarray = _reader()
    rows: list[dict] = []
    for event in loader(str(file)).Load():
        for value in event.summary.value:
            array = make_ndarray(value.tensor) if value.HasField("tensor") else None
            if array is None or array.size != 1 or array.dtype.kind not in "iuf":
                continue
            name = value.tag.removeprefix("epoch_")  # Keras counts these in epochs
            counter = "step" if name == value.tag else "epoch"
            if not rows or rows[-1].get(counter) != event.step or name in rows[-1]:
                rows.append({counter: event.step})
            rows[-1][name] = float(array.reshape(()))
    return rows


def _reader():
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError as error:
        raise LogError(
            "Event files are read by the package tensorboard: pip install tensorboard, or export the scalar as CSV"
        ) from error
    return EventFileLoader, make_ndarray
