"""What happens to machines, as it happens: they come, get ready, stop and go.

The files in /run/pymachine/machines tell of all of it, and are written whole and renamed, so that
inotify(7) tells when to look; the end of a supervisor that was killed is its pidfd's to tell.
"""

from __future__ import annotations

import os
import select

from machinectl_py.kernel import inotify
from machinectl_py.kernel.process import pidfd_open
from machinectl_py.layout import MACHINES_DIR, machine_dir
from machinectl_py.record import Record
from machinectl_py.runtime.state import find_running, machine_names, read_notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Self

    from machinectl_py.runtime.state import MachineState

    Kind = Literal["new", "changed", "removed"]

_TOLD = ("state.json", "notify")


class Event(Record):
    """A change of a machine."""

    kind: Kind
    machine: str
    state: str = ""  # "opening", "running", "closing"; "" of one that is gone
    leader: int = 0  # 0 before it is born
    ready: bool = False
    status: str = ""  # what its init says


class MachineEvents:
    """The stream of events; a context manager that closes it.

    Only root sees what a killed supervisor left removed: who is not root sees it stay.
    """

    def __init__(self) -> None:
        """Begin: machines that are there already give no event.

        Raises:
            OSError: the kernel has no more watches for this user.
        """
        os.makedirs(MACHINES_DIR, mode=0o755, exist_ok=True)
        self._poll = select.epoll()
        self._inotify = inotify.open_inotify()
        self._poll.register(self._inotify, select.EPOLLIN)
        self._names: dict[int, str] = {}  # by watch
        self._pidfds: dict[int, tuple[str, int]] = {}  # name and PID of supervisors
        self._known: dict[str, Event] = {}
        mask = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_ONLYDIR
        self._root = inotify.add_watch(self._inotify, MACHINES_DIR, mask)
        for name in machine_names():
            self._look(name)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close all descriptors."""
        for fd in (*self._pidfds, self._inotify):
            os.close(fd)
        self._poll.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable when something may have happened."""
        return self._poll.fileno()

    def machines(self) -> tuple[Event, ...]:
        """Return the machines that run as they are known, by name."""
        return tuple(self._known[name] for name in sorted(self._known))

    def read(self, timeout: float | None = 0) -> tuple[Event, ...]:
        """Return what has happened since the last call, in the order of the machines' names.

        Args:
            timeout: seconds to wait for something to happen; None waits for ever.
        """
        touched: set[str] = set()
        for fd, _mask in self._poll.poll(timeout):
            if fd == self._inotify:
                touched |= self._touched()
            else:
                touched.add(self._pidfds[fd][0])
                self._forget(fd)
        found = (self._look(name) for name in sorted(touched))
        return tuple(event for event in found if event)

    def _touched(self) -> set[str]:
        touched = set()
        for change in inotify.read_changes(self._inotify):
            if change.watch == self._root:
                touched.add(change.name)
            elif change.watch < 0:  # changes were lost
                touched |= {*machine_names(), *self._known}
            elif change.mask & inotify.IN_IGNORED:
                self._names.pop(change.watch, None)
            elif change.name in _TOLD and change.watch in self._names:
                touched.add(self._names[change.watch])
        return touched

    def _look(self, name: str) -> Event | None:
        """Watch a machine, and return what has become of it since it was looked at last."""
        self._watch(name)
        before, state = self._known.get(name), find_running(name)
        if state and not self._watch_supervisor(state):
            state = find_running(name)
        if state is None:
            self._known.pop(name, None)
            return Event(kind="removed", machine=name) if before else None
        notify = read_notify(name)
        now = Event(
            kind="new" if before is None else "changed",
            machine=name,
            state=state.phase,
            leader=state.leader,
            ready=bool(notify.ready),
            status=notify.status,
        )
        self._known[name] = now
        return None if before and before.replace(kind="changed") == now else now

    def _watch(self, name: str) -> None:
        """Watch its directory; the same watch again if it is watched already."""
        mask = inotify.IN_MOVED_TO | inotify.IN_ONLYDIR
        try:
            self._names[inotify.add_watch(self._inotify, machine_dir(name), mask)] = name
        except FileNotFoundError:  # it has gone
            pass

    def _watch_supervisor(self, state: MachineState) -> bool:
        """Have its end be told; say whether it has not ended already."""
        watched = (state.name, state.supervisor)
        if watched in self._pidfds.values() or state.supervisor <= 0:
            return True
        try:
            fd = pidfd_open(state.supervisor)
        except ProcessLookupError:
            return False
        self._pidfds[fd] = watched
        self._poll.register(fd, select.EPOLLIN)
        return True

    def _forget(self, fd: int) -> None:
        self._poll.unregister(fd)
        os.close(fd)
        del self._pidfds[fd]
