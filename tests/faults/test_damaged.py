"""State files that are cut off, or have a bit that flipped; a disk that is full."""

import errno
import random
import shutil

import numpy as np
import pytest

from keras_lrsched._core import checkpoint_file
from tests.faults.small_run import BATCHES, assert_same, train

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
TRIES = 20


def truncate(content, chance):
    return content[: chance.randrange(len(content))]


def flip_a_bit(content, chance):
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


@pytest.fixture(scope="module")
def undisturbed():
    return train(None, 2)


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """The folder of a run that was cut off a few updates before its end."""
    folder = tmp_path_factory.mktemp("cut_off")
    with pytest.raises(InterruptedError):
        train(folder / "state", 2, cut=2 * BATCHES - 4)
    return folder


@pytest.mark.parametrize(("fault", "damage"), [("truncated", truncate), ("with a flipped bit", flip_a_bit)])
def test_newest_damaged(fault, damage, cut_off, undisturbed, tmp_path, report):
    chance = random.Random(2)
    for number in range(TRIES):
        shutil.copytree(cut_off, tmp_path / str(number))
        path = tmp_path / str(number) / "state"
        path.write_bytes(damage(path.read_bytes(), chance))
        with pytest.warns(UserWarning, match=r"path='.*state'. Read instead: '.*state.old'"):
            assert_same(train(path, 2), undisturbed)
    report(f"State file {fault}", TRIES, "exact resume from the checkpoint before, with a warning that names both files")


def test_both_damaged(cut_off, tmp_path, report):
    chance = random.Random(3)
    for _ in range(TRIES):
        for name in ("state", "state.old"):
            (tmp_path / name).write_bytes(chance.choice([truncate, flip_a_bit])((cut_off / name).read_bytes(), chance))
        with pytest.raises(ValueError, match=r"(damaged|Not a file of training state).*Received: path='.*state'"):
            train(tmp_path / "state", 2)
    report("State file and the one before it damaged", TRIES, "clear error, no fresh start")


def test_a_full_disk(small_disk, undisturbed, report):
    """So many bytes are free that the write stops at its start, in its middle or just before its end."""
    chance, path, filler = random.Random(4), small_disk / "state", small_disk / "filler"
    with pytest.raises(InterruptedError):
        train(path, 2, ballast=2**20, cut=4)
    for cut in range(5, 5 + TRIES):
        kept = checkpoint_file.read(path)["step"]
        free = shutil.disk_usage(small_disk).free
        filler.write_bytes(bytes(free - chance.randrange(2**20)))
        with pytest.raises(OSError, match="saved before is kept") as caught:
            train(path, 2, ballast=2**20)
        assert caught.value.errno == errno.ENOSPC
        assert checkpoint_file.read(path)["step"] == kept
        filler.unlink()
        with pytest.raises(InterruptedError):
            train(path, 2, ballast=2**20, cut=cut)
    assert_same(train(path, 2, ballast=2**20), undisturbed)
    report(
        "Disk full in the middle of a write",
        TRIES,
        "clear error that names the file; the checkpoint before is kept, and with room again the run resumes exactly",
    )
    assert np.isfinite(undisturbed["losses"]).all()
