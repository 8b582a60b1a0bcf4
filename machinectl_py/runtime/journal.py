"""The journal: a line for each act on the host, written before it, with what it gave after."""

from __future__ import annotations

import os
import sys

from machinectl_py.codec import decode, encode
from machinectl_py.errors import PymachineError
from machinectl_py.layout import machine_dir
from machinectl_py.plan.context import Context, Hooks, is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machinectl_py.plan.step import Step


class Journal:
    """Appends lines; several processes may, since O_APPEND writes are whole."""

    def __init__(self, name: str) -> None:
        """Write to the journal of this machine."""
        self.path = f"{machine_dir(name)}/journal"

    def before(self, step: Step) -> None:
        """Note an act that is about to be done."""
        if step.lifetime == "host":
            self._append({"step": step.name, "act": step.label(), "data": step.to_data()})

    def after(self, step: Step, context: Context) -> None:
        """Note what it gave."""
        if step.lifetime == "host":
            gave = {slot: context.slots[slot] for slot in step.given_slots()}
            self._append({"act": step.label(), "gave": gave})

    def struck(self, step: Step) -> None:
        """Note that an act has been undone."""
        self._append({"act": step.label(), "undone": 1})

    def _append(self, line: dict[str, object]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        os.write(fd, (encode(line) + "\n").encode())
        os.close(fd)


# Where the steps of lifetime "host" are, below plan/steps; imported one by one.
_STEPS = {
    "lock-root": "host.LockRoot",
    "make-cgroup": "cgroup.MakeCgroup",
    "start-scope": "cgroup.StartScope",
    "register-machine": "birth.RegisterMachine",
    "dig-tunnel": "tunnel.DigTunnel",
    "mount-unix-export": "unix_export.MountUnixExport",
    "forward-journal": "journal_forward.ForwardJournal",
    "make-zone": "links.MakeZone",
    "add-veth": "links.AddVeth",
    "enter-network": "managed_network.EnterNetwork",
    "limit-rate": "limit_rate.LimitRate",
    "hold-network": "links.HoldNetwork",
    "move-link": "links.MoveLink",
    "forward-ports": "forward_ports.ForwardPorts",
    "hold-id-range": "users.HoldIdRange",
    "make-temporaries": "overlay.MakeTemporaries",
    "make-work-directories": "overlay.MakeWorkDirectories",
    "own-machine": "ephemeral.OwnMachine",
    "make-layer": "ephemeral.MakeLayer",
    "lock-snapshot": "ephemeral.LockSnapshot",
    "snapshot-root": "ephemeral.SnapshotRoot",
    "lock-image": "disk.LockImage",
    "attach-loops": "disk.AttachLoops",
}


def step_class(name: str) -> type[Step]:
    """Return the class of a step that the journal names.

    Raises:
        PymachineError: there is none of that name.
    """
    if name not in _STEPS:
        raise PymachineError(f"The journal names a step '{name}' that is not known")
    file, _, kind = _STEPS[name].partition(".")
    module = f"machinectl_py.plan.steps.{file}"
    __import__(module)
    found: type[Step] = getattr(sys.modules[module], kind)
    return found


def undo_journal(
    name: str, hooks: Hooks, slots: dict[str, int | str], *, per_boot: bool = False
) -> None:
    """Undo what the journal holds, in reverse.

    Args:
        name: of the machine.
        hooks: the doors to managers and registrar.
        slots: descriptors that this process still holds, such as "root-lock".
        per_boot: undo only what is done anew at each boot.
    """
    pending, gave = _read(name)
    context = Context(hooks)
    context.slots |= gave | slots
    problems = []
    for step in reversed(pending):
        if per_boot and not step.per_boot:
            continue
        try:
            step.undo(context)
            Journal(name).struck(step)
        except (OSError, PymachineError) as error:
            problems.append(str(error))
    if problems:
        raise PymachineError(f"Machine '{name}' left something behind: {'; '.join(problems)}")


def pending_steps(name: str) -> tuple[Step, ...]:
    """Return the acts in a machine's journal that are not undone, in their order."""
    return tuple(_read(name)[0])


def journaled_slots(name: str) -> dict[str, int | str]:
    """Return what the acts in a machine's journal gave, as far as it outlives a process."""
    return _read(name)[1]


def _read(name: str) -> tuple[list[Step], dict[str, int | str]]:
    """Return the steps not undone, and the slots that survive a process.

    Raises:
        PymachineError: a line says nothing that we know: another version has written it.
    """
    path = f"{machine_dir(name)}/journal"
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return [], {}
    pending: dict[str, Step] = {}
    gave: dict[str, int | str] = {}
    for number, line in enumerate(lines, 1):
        try:
            _take_up(decode(line), pending, gave)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PymachineError(
                f"{path}, line {number}: not an act of this version of pymachine",
                f"What it tells of is to be undone by hand, and {machine_dir(name)} removed.",
            ) from error
    return list(pending.values()), gave


def _take_up(line: dict[str, Any], pending: dict[str, Step], gave: dict[str, int | str]) -> None:
    if "data" in line:
        step = pending[line["act"]] = step_class(line["step"]).from_data(line["data"])
        for slot in step.given_slots():  # by an act of that name that was undone
            gave.pop(slot, None)
    elif "undone" in line:
        pending.pop(line["act"], None)
    else:
        gave |= {key: value for key, value in line["gave"].items() if not _is_own(key)}


def _is_own(slot: str) -> bool:
    """Say whether a slot is a descriptor, which means nothing in another process."""
    return slot == "root-lock" or is_held(slot)


def remove_state(name: str) -> None:
    """Remove the state directory; the lock is the caller's to drop after it."""
    directory = machine_dir(name)
    try:
        for entry in os.listdir(directory):
            os.unlink(f"{directory}/{entry}")
        os.rmdir(directory)
    except FileNotFoundError:
        pass
