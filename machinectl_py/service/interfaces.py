"""The D-Bus API as tables: what objects have which methods, properties and signals.

Names and signatures are those of org.freedesktop.machine1 where it has the same thing; an object
is told apart from machined's by its path and interface alone.
"""

from __future__ import annotations

from machinectl_py.record import Record
from machinectl_py.runtime.properties import PROPERTIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUS_NAME = "org.pymachine1"
MANAGER_PATH = "/org/pymachine1"
MANAGER = "org.pymachine1.Manager"
MACHINE = "org.pymachine1.Machine"
MACHINES_PATH = f"{MANAGER_PATH}/machine"
# Actions of polkit. Who may set what a machine is given of the host may do anything to it.
MANAGE = "org.pymachine1.manage-machines"
BOOT_WITH_SETTINGS = "org.pymachine1.boot-with-settings"

_PIDS = ("Leader", "Supervisor", "UIDShift", "UIDCount", "Boots")


class Method(Record):
    """A method; who calls one that changes something needs polkit's leave."""

    name: str
    takes: tuple[tuple[str, str], ...] = ()  # name and signature
    gives: tuple[tuple[str, str], ...] = ()
    action: str = ""  # polkit's, that the caller needs its leave for

    @property
    def signature(self) -> str:
        """The signature of what it takes."""
        return "".join(kind for _, kind in self.takes)

    @property
    def result(self) -> str:
        """The signature of what it gives."""
        return "".join(kind for _, kind in self.gives)


_NAME = ("name", "s")
_PATH = ("machine", "o")
MANAGER_METHODS = (
    Method(name="ListMachines", gives=(("machines", "a(ssso)"),)),
    Method(name="ListImages", gives=(("images", "a(ssbttt)"),)),
    Method(name="ListNetworks", gives=(("networks", "a(ssssbas)"),)),
    Method(name="GetMachine", takes=(_NAME,), gives=(_PATH,)),
    Method(name="GetMachineByPID", takes=(("pid", "u"),), gives=(_PATH,)),
    Method(name="BootMachine", takes=(_NAME,), gives=(_PATH,), action=MANAGE),
    Method(
        name="BootMachineWithSettings",
        takes=(_NAME, ("settings", "a(ss)")),
        gives=(_PATH,),
        action=BOOT_WITH_SETTINGS,
    ),
    Method(name="PowerOffMachine", takes=(_NAME,), action=MANAGE),
    Method(name="RebootMachine", takes=(_NAME,), action=MANAGE),
    Method(name="TerminateMachine", takes=(_NAME,), action=MANAGE),
    Method(name="KillMachine", takes=(_NAME, ("whom", "s"), ("signal", "i")), action=MANAGE),
)
MACHINE_METHODS = (
    Method(name="PowerOff", action=MANAGE),
    Method(name="Reboot", action=MANAGE),
    Method(name="Terminate", action=MANAGE),
    Method(name="Kill", takes=(("whom", "s"), ("signal", "i")), action=MANAGE),
)
SIGNALS = ("MachineNew", "MachineRemoved")  # of the manager, with name and path
MANAGER_PROPERTIES = {"Version": "s"}


def _signature_of(name: str) -> str:
    """Return the D-Bus type of a machine's property."""
    if name in _PIDS:
        return "u"
    if name in _OTHERS:
        return _OTHERS[name]
    return "s"


_OTHERS = {
    "NetworkInterfaces": "ai",
    "Addresses": "as",
    "CapabilityBoundingSet": "as",
    **dict.fromkeys(
        ("Registered", "Ready", "Frozen", "PrivateUsers", "PrivateNetwork", "NoNewPrivileges"), "b"
    ),
    **dict.fromkeys(
        (
            "Timestamp", "TimestampMonotonic", "LeaderPIDFDId", "ReadyTimestampMonotonic",
            "ReadyUSec", "UptimeUSec", "TasksCurrent",
        ),
        "t",
    ),
}  # fmt: skip
MACHINE_PROPERTIES = {name: _signature_of(name) for name in PROPERTIES}
# Told by PropertiesChanged; the others are to be asked for.
CHANGING = ("State", "Leader", "Ready", "StatusText")


def machine_path(name: str) -> str:
    """Return the object path of a machine, escaped as by sd_bus_path_encode(3)."""
    encoded = "".join(
        chr(byte)
        if chr(byte).isascii() and chr(byte).isalnum() and (at or not chr(byte).isdigit())
        else f"_{byte:02x}"
        for at, byte in enumerate(name.encode())
    )
    return f"{MACHINES_PATH}/{encoded}"


def machine_of(path: str) -> str:
    """Return the name of the machine that an object path stands for; "" if it is none."""
    encoded = path.removeprefix(f"{MACHINES_PATH}/")
    if encoded == path or "/" in encoded:
        return ""
    name, *escaped = encoded.split("_")
    try:
        name += "".join(chr(int(part[:2], 16)) + part[2:] for part in escaped)
    except ValueError:
        return ""
    return name if machine_path(name) == path else ""


def introspect(path: str, machines: tuple[str, ...]) -> str:
    """Return the XML of an object, or of a node above it.

    Args:
        path: of the object.
        machines: the names of those that run.
    """
    from machinectl_py.service.library import introspection as lib

    node = lib.Node.default()
    if path == MANAGER_PATH:
        node.interfaces.append(_manager())
        node.nodes.append(lib.Node("machine", is_root=False))
    elif machine_of(path) in machines:
        node.interfaces.append(_interface(MACHINE, MACHINE_METHODS, MACHINE_PROPERTIES))
    elif path == MACHINES_PATH:
        for name in machines:
            node.nodes.append(lib.Node(machine_path(name).rpartition("/")[2], is_root=False))
    elif MANAGER_PATH.startswith(path.rstrip("/") + "/"):
        below = MANAGER_PATH.removeprefix(path.rstrip("/") + "/").partition("/")[0]
        node.nodes.append(lib.Node(below, is_root=False))
    text: str = node.tostring()
    return text


def _manager() -> Any:
    from machinectl_py.service.library import introspection as lib

    interface = _interface(MANAGER, MANAGER_METHODS, MANAGER_PROPERTIES)
    for name in SIGNALS:
        arguments = [lib.Arg("s", name="name"), lib.Arg("o", name="machine")]
        interface.signals.append(lib.Signal(name, arguments))
    return interface


def _interface(name: str, methods: tuple[Method, ...], properties: dict[str, str]) -> Any:
    from machinectl_py.service.library import constants
    from machinectl_py.service.library import introspection as lib

    into, out = constants.ArgDirection.IN, constants.ArgDirection.OUT
    return lib.Interface(
        name,
        methods=[
            lib.Method(
                method.name,
                [lib.Arg(kind, into, word) for word, kind in method.takes],
                [lib.Arg(kind, out, word) for word, kind in method.gives],
            )
            for method in methods
        ],
        properties=[
            lib.Property(word, kind, constants.PropertyAccess.READ)
            for word, kind in properties.items()
        ],
    )
