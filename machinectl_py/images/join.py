"""Joining layers of overlays that are only ever used together: fewer to look through.

Each snapshot of a machine that does not run leaves a layer. Once it is thrown away, two layers may
be one. The one is made aside of links, so it takes no room for content; records are changed one
by one, and each is true before and after.
"""

from __future__ import annotations

import os
import stat

from machinectl_py.errors import PymachineError
from machinectl_py.images.copying import Copy, link_tree
from machinectl_py.images.diff import differences
from machinectl_py.images.drivers import upper_of
from machinectl_py.images.held import Stopped
from machinectl_py.images.machine_view import open_layers
from machinectl_py.images.machines import Change
from machinectl_py.images.records import all_machines, write_machine
from machinectl_py.kernel.remove_tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from machinectl_py.images.records import Machine

_OPAQUE, _REDIRECT = "trusted.overlay.opaque", "trusted.overlay.redirect"
# Of a lower directory, whatever lies over it: where it gets its content from.
_STAYS = (_OPAQUE, _REDIRECT)


class NotJoined(Exception):
    """Two layers cannot be made one."""


def chains(machine: Machine) -> tuple[tuple[str, ...], ...]:
    """Return the layers that a machine uses over one another, the topmost first."""
    kept = (snapshot.layers for snapshot in machine.snapshots)
    return ((machine.own, *machine.layers), machine.origin, *kept)


def find_pairs(machines: Iterable[Machine]) -> list[tuple[str, str]]:
    """Return the pairs of layers, upper and lower, that are used by all who use either so."""
    all_chains = [chain for machine in machines for chain in chains(machine)]
    owned = {machine.own for machine in machines}
    below: dict[str, set[str]] = {}
    above: dict[str, set[str]] = {}
    for chain in all_chains:
        for upper, lower in zip(("", *chain), (*chain, ""), strict=True):
            below.setdefault(upper, set()).add(lower)
            above.setdefault(lower, set()).add(upper)
    return [
        (upper, lower)
        for upper, lowers in below.items()
        for lower in lowers
        if upper and lower and upper not in owned and lowers == {lower} and above[lower] == {upper}
    ]


def join_layers(names: tuple[str, ...] = ()) -> int:
    """Join what can be joined of the layers of machines that do not run; say how many are fewer.

    Args:
        names: of the machines; () for all.

    Raises:
        PymachineError: a record is damaged, or a layer cannot be made; all is as before.
    """
    count, failed = 0, set[tuple[str, str]]()
    while True:
        machines = tuple(machine for machine in all_machines() if machine.driver == "overlay")
        pairs = [pair for pair in find_pairs(machines) if pair not in failed]
        pairs = [pair for pair in pairs if not names or _users(machines, pair, names)]
        if not pairs:
            return count
        try:
            _join(machines, *pairs[0])
            count += 1
        except (NotJoined, PymachineError, OSError, RecursionError):  # too deep, or no room
            failed.add(pairs[0])


def _users(machines: tuple[Machine, ...], pair: tuple[str, str], names: tuple[str, ...]) -> bool:
    return any(pair[0] in machine.references() and machine.name in names for machine in machines)


def _join(machines: tuple[Machine, ...], upper: str, lower: str) -> None:
    users = [machine for machine in machines if upper in machine.references()]
    with Stopped(*(machine.name for machine in users)), Copy() as copy:
        target = copy.make("upper")
        copy.make("work")
        link_tree(upper_of(lower), target, keep=(copy.lock,))
        merge(upper_of(upper), target, keep=(copy.lock,))
        _check(users[0], upper, lower, target)
        with Change():
            made = copy.commit()
            now = {machine.name: machine for machine in all_machines()}
            # What has come meanwhile knows the two layers, which stay for it.
            for machine in users:
                if machine.name in now:
                    write_machine(_replace(now[machine.name], upper, lower, made))


def _replace(machine: Machine, upper: str, lower: str, made: str) -> Machine:
    def changed(chain: tuple[str, ...]) -> tuple[str, ...]:
        if upper not in chain:
            return chain
        at = chain.index(upper)
        return (
            (*chain[:at], made, *chain[at + 2 :]) if chain[at + 1 : at + 2] == (lower,) else chain
        )

    return machine.replace(
        layers=changed(machine.layers),
        origin=changed(machine.origin),
        snapshots=tuple(
            snapshot.replace(layers=changed(snapshot.layers)) for snapshot in machine.snapshots
        ),
    )


def _check(machine: Machine, upper: str, lower: str, made: str) -> None:
    """Hold that the one shows what the two did, before any record says so.

    Raises:
        NotJoined: it does not.
    """
    chain = next(chain for chain in chains(machine) if upper in chain)
    chain = chain[chain.index(upper) :]
    layers = tuple(map(upper_of, (upper, lower)))
    with open_layers(machine, chain) as old, open_layers(machine, chain[2:], above=made) as new:
        if next(differences(old, new, layers), None) is not None:
            raise NotJoined


def merge(upper: str, target: str, *, keep: tuple[int, ...]) -> None:
    """Put what is in one layer over another, by links.

    Args:
        upper: the layer's directory.
        target: a copy of the lower layer, which becomes both.
        keep: as of `link_tree`.

    Raises:
        NotJoined: the upper layer shows directories by other names.
        OSError: with the path.
    """
    with os.scandir(upper) as entries:
        for entry in entries:
            path = f"{target}/{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                _clear(path)
                os.link(entry.path, path, follow_symlinks=False)
                continue
            marks = os.listxattr(entry.path, follow_symlinks=False)
            if _REDIRECT in marks:
                raise NotJoined
            if _OPAQUE in marks or not _is_directory(path):
                hidden = os.path.lexists(path)
                _clear(path)
                os.mkdir(path)
                link_tree(entry.path, path, keep=keep)
                if hidden:  # what that hid of the layers below stays hidden
                    os.setxattr(path, _OPAQUE, b"y", follow_symlinks=False)
            else:
                merge(entry.path, path, keep=keep)
    _take_over(upper, target)  # last, as the time of its change is a part of it


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _clear(path: str) -> None:
    if os.path.lexists(path):
        remove_tree(path)


def _take_over(source: str, target: str) -> None:
    """Give a directory the owner, mode, times and attributes of the one over it."""
    status = os.lstat(source)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    ours = set(os.listxattr(target, follow_symlinks=False))
    theirs = set(os.listxattr(source, follow_symlinks=False))
    for name in ours - theirs - set(_STAYS):
        os.removexattr(target, name, follow_symlinks=False)
    for name in theirs:
        value = os.getxattr(source, name, follow_symlinks=False)
        os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
