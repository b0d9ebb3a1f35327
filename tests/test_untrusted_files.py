"""Files that may come from anywhere: whatever they hold, a loader gives what was saved or raises `ValueError`."""

import contextlib
import hashlib
import io
import json
import pickle
import re
import string
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_lrsched._core import checkpoint_file
from keras_lrsched._core.npz import read_arrays
from keras_lrsched.laws import LossCurve
from keras_lrsched.laws.law import LAWS, Law
from keras_lrsched.laws.run_law import RUN_LAWS, RunLaw
from keras_lrsched.schedules import RefinedSchedule, Tabulated
from keras_lrsched.study import claims
from keras_lrsched.study.workloads import cifar10
from keras_lrsched.tune.policy import Policy

fuzz = settings(max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(string.ascii_lowercase, max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)
TYPES = st.sampled_from(
    ["float32", "uint8", "bfloat16", "<U3", "object", "|V0", "u1,u1", "(9,)u1", "O", "", "M8[ns]", "|S9"]
)
SHAPES = st.lists(st.integers(-2, 4) | st.integers(10**9, 10**30), max_size=4)
TREES = st.recursive(
    LEAVES | st.builds(lambda kind, shape: {"array": kind, "shape": shape}, TYPES, SHAPES) | st.builds(dict, scalar=TYPES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.builds(dict, dict=st.dictionaries(st.text(max_size=3), inner, max_size=3) | inner)
        | st.builds(dict, tuple=st.lists(inner, max_size=3) | inner)
        | st.builds(dict, numbers=inner)
    ),
    max_leaves=12,
)
PLAIN = st.recursive(
    LEAVES.filter(lambda value: value == value)
    | st.builds(
        lambda kind, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind),
        st.sampled_from(["float32", "int64", "uint8", "bool", "float16", "<U5"]),
        st.lists(st.integers(0, 3), max_size=3),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3, alphabet=string.printable), inner, max_size=3)
    ),
    max_leaves=12,
)


def loads_or_refuses(load, path):
    try:
        return load(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017 - either is right
        return None


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)
    return type(one) is type(other) and one == other


@settings(fuzz, max_examples=25)
@given(PLAIN)
def test_a_state_comes_back(tmp_path, state):
    checkpoint_file.write(tmp_path / "state", state)
    assert same(state, checkpoint_file.read(tmp_path / "state"))


@fuzz
@given(TREES, st.binary(max_size=64))
def test_a_state_that_is_made_up(tmp_path, tree, content):
    """With the right checksum, so that all of the reader is reached."""
    body = checkpoint_file.MAGIC + json.dumps(tree).encode() + b"\n" + content
    (tmp_path / "state").write_bytes(body + hashlib.sha256(body).digest())
    loads_or_refuses(checkpoint_file.read, tmp_path / "state")


@fuzz
@given(st.data())
def test_a_state_that_was_changed(tmp_path, data):
    if not (tmp_path / "whole").exists():
        checkpoint_file.write(tmp_path / "whole", {"weights": [np.ones((2, 3)), "text"], "step": 3})
    content = (tmp_path / "whole").read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    (tmp_path / "state").write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
    with pytest.raises(ValueError, match="Received: path="):
        checkpoint_file.read(tmp_path / "state")


def parameters_of(law):
    return st.fixed_dictionaries(
        {"law": st.just(law), "fitted": st.just({}) | JSON},
        optional={name: st.floats(0.1, 2) | JSON for name in (*LAWS[law].parameters, *LAWS[law].options)},
    )


@pytest.mark.parametrize("law", sorted(LAWS))
@settings(fuzz, max_examples=25)
@given(st.data())
def test_laws(tmp_path, law, data):
    (tmp_path / "law").write_text(json.dumps(data.draw(parameters_of(law))))
    found = loads_or_refuses(Law.load, tmp_path / "law")
    assert found is None or all(np.all(np.isfinite(getattr(found, name))) for name in found.parameters)


def coefficients_of(law):
    return st.fixed_dictionaries(
        {"law": st.just(law), "fitted": st.just({}) | JSON},
        optional={name: st.floats(0.1, 2) | JSON for name in (*RUN_LAWS[law].coefficients, *RUN_LAWS[law].options)},
    )


@pytest.mark.parametrize("law", sorted(RUN_LAWS))
@settings(fuzz, max_examples=25)
@given(st.data())
def test_run_laws(tmp_path, law, data):
    (tmp_path / "law").write_text(json.dumps(data.draw(coefficients_of(law))))
    found = loads_or_refuses(RunLaw.load, tmp_path / "law")
    assert found is None or all(np.all(np.isfinite(getattr(found, name))) for name in found.coefficients)


@pytest.mark.parametrize("load", [Law.load, RunLaw.load, Tabulated.load], ids=["law", "run law", "schedule"])
@fuzz
@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_text_for_a_law_or_schedule(tmp_path, load, content):
    (tmp_path / "file").write_bytes(content)
    loads_or_refuses(load, tmp_path / "file")


@pytest.mark.parametrize("load", [Law.load, Tabulated.load], ids=["law", "schedule"])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"values": [1' + "0" * 400 + "]}", '{"values": ' + "9" * 5000 + "}"])
def test_texts_that_are_hard_to_read(load, content, tmp_path):
    (tmp_path / "file").write_text(content)
    with pytest.raises(ValueError, match="Received: path="):
        load(tmp_path / "file")


@fuzz
@given(JSON)
def test_schedules(tmp_path, values):
    (tmp_path / "schedule").write_text(json.dumps({"values": values}))
    found = loads_or_refuses(Tabulated.load, tmp_path / "schedule")
    assert found is None or np.all(found.values(3) >= 0)


CELLS = st.sampled_from(["0", "1", "2", "0.5", "nan", "inf", "-1", "", "1e999", '"', "\0", "9" * 30, "é"])
TABLES = st.lists(st.lists(CELLS, min_size=3, max_size=5).map(",".join), max_size=6).map("\n".join)
HEADERS = {
    "curve": (LossCurve.load, "step,loss,learning_rate,batch_size,tokens\n"),
    "norms": (RefinedSchedule.from_run, "step,gradient_norm\n"),
    "claims": (claims.load, "claim,source,paper,measure,workload,advantages,margin\n"),
}


@pytest.mark.parametrize("kind", HEADERS)
@fuzz
@given(st.booleans(), TABLES | st.text(max_size=40), st.binary(max_size=8))
def test_tables(tmp_path, kind, with_header, rows, end):
    load, header = HEADERS[kind]
    (tmp_path / "file.csv").write_bytes((header * with_header + rows).encode("utf-8", "replace") + end)
    with contextlib.suppress(ValueError):
        load(tmp_path / "file.csv")


def npz(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name + ".npy", content)


def npy(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=(1, 0))
    return content.getvalue()


@fuzz
@given(st.data())
def test_arrays_that_were_changed(tmp_path, data):
    npz(tmp_path / "run.npz", loss=npy(np.ones(3)), rates=npy(np.ones(3)), step=npy(np.arange(3)))
    content = bytearray((tmp_path / "run.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "run.npz").write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    loads_or_refuses(LossCurve.load, tmp_path / "run.npz")


@fuzz
@given(
    st.binary(max_size=100) | st.text(max_size=60).map(lambda text: npy(np.ones(1))[:10] + text.encode("utf-8", "replace"))
)
def test_arrays_with_any_header(tmp_path, content):
    npz(tmp_path / "run.npz", loss=content, rates=npy(np.ones(3)), step=npy(np.arange(3)))
    loads_or_refuses(LossCurve.load, tmp_path / "run.npz")


HEADER = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"


def header(kind, shape, order="False"):
    text = HEADER.format(repr(kind), order, shape).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        header("<f8", "(1000000000000,)"),
        header("<f8", "(-1,)") + bytes(8),
        header("|O", "(1,)") + b"cos\nsystem\n(S'echo'\ntR.",
        header("<f8", "(2, 2)", "True") + bytes(32),
        header("<f8", "(" * 2000),
    ],
)
def test_an_array_with_a_false_header(content, tmp_path):
    npz(tmp_path / "run.npz", gradient_norm=content)
    with pytest.raises(ValueError, match=r"no recorded run.*run\.npz"):
        RefinedSchedule.from_run(tmp_path / "run.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "run.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("loss.npy", "w") as member:
        member.write(header("<f8", f"({2**28 // 8},)"))
        for _ in range(2**8):
            member.write(bytes(2**20))
    assert path.stat().st_size < 2**19
    tracemalloc.start()
    with pytest.raises(ValueError, match="an array of 268435584 bytes, above 268435456"):
        read_arrays(path, ["loss"])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


# Files of all kinds, each changed a little at many places


def write_law(name):
    return lambda path: LAWS[name](**dict.fromkeys(LAWS[name].parameters, 0.5)).save(path)


def write_run_law(name):
    return lambda path: RUN_LAWS[name](**dict.fromkeys(RUN_LAWS[name].coefficients, 0.5)).save(path)


def write_state(path):
    checkpoint_file.write(path, {"weights": [np.ones((2, 3)), "text"], "step": 3, "deque": (1, None)})


def write_table(header, *rows):
    return lambda path: path.write_text("\n".join([header, *rows, ""]))


def write_batch(path):
    path.write_bytes(pickle.dumps({b"data": np.ones((2, 3072), "uint8"), b"labels": [3, 7]}, protocol=2))


KINDS = {
    "images": (write_batch, cifar10._load_batch, "data_batch_1"),
    "state": (write_state, checkpoint_file.read, "state"),
    **{name: (write_law(name), Law.load, "law.json") for name in LAWS},
    **{name: (write_run_law(name), RunLaw.load, "law.json") for name in RUN_LAWS},
    "schedule": (Tabulated([0.5, 0.25, 1e-3]).save, Tabulated.load, "schedule.json"),
    "policy": (Policy([{"a": 0.1}, {"a": 0.2}], [3, 6], seed=1).save, Policy.load, "policy.json"),
    "curve": (LossCurve([2.0, 1.5, 1.25], [0.1, 0.1, 0.05]).save, LossCurve.load, "curve.npz"),
    "curve, table": (
        write_table("step,loss,learning_rate,run", "0,2.0,0.1,0", "1,1.5,0.1,0", "2,1.25,0.05,0"),
        LossCurve.load,
        "curve.csv",
    ),
    "norms": (write_table("step,gradient_norm", "0,2.0", "1,1.5", "2,1.25"), RefinedSchedule.from_run, "norms.csv"),
    "claims": (
        write_table("claim,source,paper,measure,workload,advantages,margin", "a,b,c,d,e,0.1 0.2,0.0"),
        claims.load,
        "claims.csv",
    ),
}
HOSTILE = [b"1e308", b"-1e308", b"1e999", b"9" * 400, b"9" * 5000, b"NaN", b"-0", b"null", b'"x"', b"[" * 3000, b"{" * 3000]
HOSTILE += [b"[[1]]", b"\0", b"\xff\xfe", b",", b"\n", b'"', b"\xff" * 4, b"\x00" * 8, b"PK\x05\x06", b"true", b"1e-320"]


def changed(content, chance):
    """One to three changes of a byte, a piece, or a number."""
    for _ in range(chance.integers(1, 4)):
        begin, size = int(chance.integers(len(content) + 1)), int(chance.integers(0, 12))
        match chance.integers(6):
            case 0:
                content = content[:begin] + bytes([chance.integers(256)]) + content[begin + 1 :]
            case 1:
                content = content[:begin] + HOSTILE[chance.integers(len(HOSTILE))] + content[begin + size :]
            case 2:
                content = content[:begin] + content[begin + size :]
            case 3:
                content = content[:begin] + content[begin : begin + 8 * size] + content[begin:]
            case 4:
                content = content[:begin]
            case 5:
                numbers = [*re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", content)]
                if numbers:
                    one = numbers[chance.integers(len(numbers))]
                    content = content[: one.start()] + HOSTILE[chance.integers(len(HOSTILE))] + content[one.end() :]
    return content


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tries", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_files_that_were_changed(tmp_path, kind, tries):
    """A file that is read can be used, and one that cannot raises a `ValueError`; with all slow tests, 12,000 files."""
    write, load, name = KINDS[kind]
    write(tmp_path / name)
    content, chance = (tmp_path / name).read_bytes(), np.random.default_rng(tries)
    assert load(tmp_path / name) is not None
    refused = 0
    for _ in range(tries):
        new = changed(content, chance)
        if kind == "state" and chance.integers(2):
            new = new[:-32] + hashlib.sha256(new[:-32]).digest()  # so that all of the reader is reached
        (tmp_path / name).write_bytes(new)
        found = loads_or_refuses(load, tmp_path / name)
        refused += found is None
        if isinstance(found, Law):
            with contextlib.suppress(ValueError):
                assert np.all(np.isfinite(found.predict([1e-3, 1e-3, 5e-4])))
    assert refused > 0


@pytest.mark.parametrize("number", ["A", "alpha", "L0"])
def test_a_law_whose_numbers_cannot_be_used(tmp_path, number):
    """Each is finite; what it predicts is not."""
    law = {"law": "AnnealingLaw", "fitted": {}, "L0": 1.0, "A": 0.5, "alpha": 0.5, "C": 1.0}
    (tmp_path / "law").write_text(json.dumps({**law, number: 1e308, **({"A": 1e308} if number == "L0" else {})}))
    with pytest.raises(ValueError, match=r"predicts losses from .* inf.*law'"):
        Law.load(tmp_path / "law")


@pytest.mark.parametrize("place", [12, 16])
@pytest.mark.parametrize("number", [0, 2**16, 2**31, 2**32 - 1])
def test_arrays_whose_directory_lies(tmp_path, place, number):
    """About its size or its place: `zipfile` raises OSError for some."""
    path = tmp_path / "run.npz"
    LossCurve([2.0, 1.5], [0.1, 0.1]).save(path)
    content = path.read_bytes()
    end = content[-22:]
    path.write_bytes(content[:-22] + end[:place] + number.to_bytes(4, "little") + end[place + 4 :])
    with pytest.raises(ValueError, match=r"holds no curve.*run\.npz"):
        LossCurve.load(path)


@pytest.mark.parametrize("load", [Law.load, Tabulated.load, Policy.load, LossCurve.load, claims.load, checkpoint_file.read])
def test_a_file_that_is_not_there(load, tmp_path):
    for path in (tmp_path / "none", tmp_path / "none.npz"):
        with pytest.raises(FileNotFoundError):
            load(path)
