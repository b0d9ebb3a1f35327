"""The folder of compiled libraries: where it is, and whether what it holds may be loaded.

Loading a library runs its code. So only this user and root may be able to write to the folder, the folders above it and the
library, as OpenSSH requires of its files, and the library must have the SHA-256 that was stored when it was built.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path

try:
    import fcntl
    import grp
    import pwd
except ImportError:  # on Windows, where nothing is built
    fcntl = grp = pwd = None  # type: ignore[assignment]

BUILD = ".build-"
"""In the name of a folder in which a library is being built, after that of the library."""

UNMAPPED_USER = 65534
"""Owner, as seen from a container that maps users, of the files of users that it does not map, such as root's."""


class BuildError(Exception):
    """Raised where there is no library, with the reason."""


def folder():
    """`KERAS_LRSCHED_CACHE`, or `keras_lrsched` in the user's cache, as an absolute path.

    Raises:
        BuildError: If there is neither.
    """
    named, base = os.environ.get("KERAS_LRSCHED_CACHE"), os.environ.get("XDG_CACHE_HOME", "")
    try:
        if named:
            return Path(named).expanduser().absolute()
        # XDG's specification: a relative path is ignored
        return Path(base if os.path.isabs(base) else Path.home() / ".cache", "keras_lrsched").absolute()
    except (OSError, RuntimeError) as error:
        raise BuildError(
            f"There is no folder for compiled libraries: {error} Name a folder in KERAS_LRSCHED_CACHE."
        ) from error


def has(path):
    """Whether a library was built, all of it."""
    return path.exists() and _digest_file(path).exists()


def verify(path):
    """Check that a library is the one that was built.

    Raises:
        BuildError: If somebody else can have written it, or its SHA-256 is another one.
    """
    _refuse_others_folder(path.parent)
    for file in (path, _digest_file(path)):
        _refuse_others(file, stat.S_ISREG, "regular file")
    if _digest(path) != _digest_file(path).read_text(errors="replace"):
        raise BuildError(f"{path} is not what was built: its SHA-256 is another one. Remove it, and it is built again.")


@contextlib.contextmanager
def locked(path, on_wait=lambda: None):
    """While no other process builds this library; the folder is made if it is missing.

    Args:
        path: The library.
        on_wait: A function that is called if another process builds it now.

    Raises:
        BuildError: If somebody else can write to the folder.
    """
    if fcntl is None:
        raise BuildError("Compiled code is built on Linux and macOS only.")
    _make(path.parent)
    _refuse_others_folder(path.parent)
    with _lock_file(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def store(built, path):
    """Move a library to its place, after its SHA-256 was put beside it: what has both is complete."""
    new = built.with_suffix(".sha256")
    new.write_text(_digest(built))
    for file, mode in ((new, 0o600), (built, 0o700)):
        file.chmod(mode)
    path.unlink(missing_ok=True)
    new.replace(_digest_file(path))
    built.replace(path)
    _failure_file(path).unlink(missing_ok=True)


def store_failure(path, reason, log):
    """Remember that a library cannot be built, and return the reason in one line, with the path of the log."""
    file = _failure_file(path)
    message = f"{' '.join(reason.split())} The log is {file}; `keras-lrsched doctor --build` tries again."
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as output:
        output.write(f"{message}\n\n{log}")
    return message


def failure(path):
    """The reason for which a library could not be built before, or `None`."""
    try:
        return _failure_file(path).read_text(encoding="utf-8", errors="replace").partition("\n")[0] or None
    except FileNotFoundError:
        return None


def remove_leftovers(path):
    """Remove the folders of builds that were killed: of this library, which is locked, and of those that nobody builds."""
    for left in path.parent.glob(f"*{BUILD}*"):
        library = path.parent / (left.name.partition(BUILD)[0] + ".so")
        with contextlib.suppress(BlockingIOError), contextlib.ExitStack() as stack:
            if library != path:
                fcntl.flock(stack.enter_context(_lock_file(library)), fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


def _make(folder):
    for each in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        each.mkdir(mode=0o700, exist_ok=True)


def _lock_file(path):
    return open(os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "w")


def _failure_file(path):
    return path.with_name(f"{path.stem}.failed")


def _digest_file(path):
    return path.with_suffix(".sha256")


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Who can have written


def _refuse_others_folder(folder):
    """The folders above count, too: who can rename one of them can put another one in its place."""
    _refuse_others(folder, stat.S_ISDIR, "folder of its own")
    for parent in (resolved := folder.parent.resolve(), *resolved.parents):
        found = os.lstat(parent)
        if found.st_uid not in (0, os.geteuid(), UNMAPPED_USER):
            raise BuildError(f"{parent}, above compiled libraries, belongs to another user, {found.st_uid}. {REMEDY}")
        if _others_may_write(found) and not found.st_mode & stat.S_ISVTX:
            raise BuildError(f"Others may write to {parent}, above compiled libraries. {REMEDY}")


def _refuse_others(path, is_kind, kind):
    found = os.lstat(path)
    if not is_kind(found.st_mode):
        raise BuildError(f"{path} is no {kind}, but a link or the like. {REMEDY}")
    if found.st_uid not in (0, os.geteuid()):
        raise BuildError(f"{path} belongs to another user, {found.st_uid}. {REMEDY}")
    if _others_may_write(found):
        raise BuildError(f"Others may write to {path}: `chmod go-w` takes that from them. {REMEDY}")


REMEDY = "Name a folder that is only yours in KERAS_LRSCHED_CACHE."


def _others_may_write(found):
    return bool(found.st_mode & stat.S_IWOTH) or (bool(found.st_mode & stat.S_IWGRP) and not _is_own_group(found.st_gid))


def _is_own_group(number):
    """Whether a group has this user alone: by convention, the one with the user's name."""
    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(number)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}
