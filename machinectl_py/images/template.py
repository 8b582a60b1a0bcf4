"""Fills a missing root from a tree: a snapshot where that is possible, else a copy."""

from __future__ import annotations

import errno
import os
import subprocess

from machinectl_py.errors import NotFoundError, PymachineError
from machinectl_py.kernel import btrfs
from machinectl_py.kernel.remove_tree import remove_tree
from machinectl_py.kernel.statfs import BTRFS, filesystem_magic, is_subvolume


def fill_root(template: str, root: str) -> bool:
    """Make `root` from the tree `template`, if there is nothing; say whether it was made.

    It is made under a hidden name beside, and renamed when it is whole. What is mounted in the
    template is not copied, hostname and machine ID are, as systemd-nspawn's --template= does.

    Raises:
        NotFoundError: there is no such template.
        PymachineError: it cannot be copied; nothing is left of the try.
    """
    if os.path.lexists(root):
        return False
    if not os.path.isdir(template):
        raise NotFoundError(f"There is no directory {template} to make {root} from")
    directory, name = os.path.split(root)
    aside = f"{directory}/.#{name}{os.urandom(8).hex()}"
    try:
        _make(template, aside)
        os.rename(aside, root)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another made it meanwhile
            return False
        raise PymachineError(
            f"Cannot make {root} from {template}: {error.strerror or error}"
        ) from error
    finally:
        if os.path.lexists(aside):
            _remove(aside)
    return True


def _make(template: str, aside: str) -> None:
    if is_subvolume(template):
        try:
            btrfs.snapshot(template, aside)
        except OSError as error:
            if error.errno not in btrfs.NO_SNAPSHOT:
                raise
        else:
            return
    if filesystem_magic(os.path.dirname(aside)) == BTRFS:
        btrfs.create(aside)  # of which snapshots can be taken then
    else:
        os.mkdir(aside)
    words = ("cp", "--archive", "--reflink=auto", "--one-file-system", "--", f"{template}/.", aside)
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise PymachineError(
            f"Cannot copy {template} to {aside}: cp ended with status {done.returncode}",
            told[-1] if told else "",
        )


def _remove(aside: str) -> None:
    if is_subvolume(aside):
        btrfs.delete(aside)
    else:
        remove_tree(aside)
