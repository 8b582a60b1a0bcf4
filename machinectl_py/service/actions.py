"""What the methods do: they read what the verbs read, and change things by the verbs themselves.

A verb that changes something is a process of its own: it forks, changes its signals and may wait
for minutes, which is nothing for a process that answers others meanwhile.
"""

from __future__ import annotations

import asyncio
import sys

from machinectl_py.config.table import SETTINGS
from machinectl_py.errors import ConfigError, NotFoundError, PymachineError
from machinectl_py.images.listing import all_images
from machinectl_py.kernel.cgroupfs import directory_of
from machinectl_py.layout import CLASS
from machinectl_py.plan.managed.definitions import networks
from machinectl_py.plan.managed.members import read_members
from machinectl_py.runtime.properties import PROPERTIES
from machinectl_py.runtime.state import require_running, running_machines
from machinectl_py.service.interfaces import MACHINE_PROPERTIES, machine_path
from machinectl_py.service.library import Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_VERBS = {"PowerOff": "poweroff", "Reboot": "reboot", "Terminate": "terminate"}


async def manage(member: str, arguments: list[Any]) -> list[Any]:
    """Do what a method of the manager is for, and return what it gives.

    Raises:
        PymachineError: it failed.
    """
    if member in _LISTS:
        return [_LISTS[member]()]
    if member == "GetMachine":
        return [machine_path(require_running(arguments[0]).name)]
    if member == "GetMachineByPID":
        return [machine_path(_machine_of_process(arguments[0]))]
    name = arguments[0]
    if member in ("BootMachine", "BootMachineWithSettings"):
        settings = arguments[1] if len(arguments) > 1 else []
        await _run_verb("boot", "--quiet", *_options(settings), "--", name)
        return [machine_path(name)]
    return await act(name, member.removesuffix("Machine"), arguments[1:])


async def act(name: str, member: str, arguments: list[Any]) -> list[Any]:
    """Do what a method of a machine is for; it gives nothing.

    Raises:
        PymachineError: it failed.
    """
    if member == "Kill":
        whom, number = arguments
        await _run_verb("kill", f"--whom={whom or 'all'}", f"--signal={number}", "--", name)
    else:
        await _run_verb(_VERBS[member], "--", name)
    return []


def properties(name: str, wanted: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return properties of a machine as D-Bus variants; all by default.

    Raises:
        PymachineError: it does not run, or has ended meanwhile.
    """
    state = require_running(name)
    found = {}
    try:
        for word in wanted or PROPERTIES:
            value = PROPERTIES[word](state)
            found[word] = Variant(
                MACHINE_PROPERTIES[word], list(value) if isinstance(value, tuple) else value
            )
    except OSError as error:
        raise NotFoundError(f"Machine '{name}' has ended meanwhile") from error
    return found


def _options(settings: list[tuple[str, str]]) -> list[str]:
    """Return options of the verb for settings that a settings file may hold.

    What says which root it is, or how the verb behaves, is not among these.

    Raises:
        ConfigError: there is no such setting.
    """
    known = {row.name.removeprefix("--") for row in SETTINGS if row.name and row.key}
    for name, _ in settings:
        if name not in known:
            raise ConfigError(f"There is no setting '{name}'")
    return [f"--{name}={text}" for name, text in settings]


def _listed_machines() -> list[list[Any]]:
    return [
        [state.name, CLASS, state.service, machine_path(state.name)] for state in running_machines()
    ]


def _listed_images() -> list[list[Any]]:
    return [
        [one.name, one.type, one.read_only, one.created, one.modified, max(one.usage, 0)]
        for one in all_images()
    ]


def _listed_networks() -> list[list[Any]]:
    members = read_members()
    return [
        [
            network.name,
            network.bridge,
            network.ipv4,
            network.ipv6,
            network.nat,
            sorted(member.machine for member in members.of(network.name)),
        ]
        for network in networks()
    ]


_LISTS: dict[str, Callable[[], list[list[Any]]]] = {
    "ListMachines": _listed_machines,
    "ListImages": _listed_images,
    "ListNetworks": _listed_networks,
}


def _machine_of_process(pid: int) -> str:
    try:
        cgroup = directory_of(pid)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NotFoundError(f"There is no process {pid}") from error
    for state in running_machines():
        if f"{cgroup}/".startswith(f"{state.cgroup}/"):
            return state.name
    raise NotFoundError(f"Process {pid} is of no machine")


async def _run_verb(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-SI",
        sys.argv[0],
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        lines = said.decode(errors="replace").splitlines() or ["It was killed"]
        hint = lines[1].removeprefix("hint: ") if len(lines) > 1 else ""
        raise PymachineError(lines[0].removeprefix("pymachine: "), hint)
