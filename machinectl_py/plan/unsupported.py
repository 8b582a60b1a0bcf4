"""What a spec can say and no step does yet: refused before anything is touched."""

from __future__ import annotations

from machinectl_py.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec


def check_supported(spec: MachineSpec) -> None:
    """Refuse what no step does.

    Raises:
        UnsupportedError: the setting, by the name of its option.
    """
    for is_wanted, what in _of_the_network(spec):
        if is_wanted:
            raise UnsupportedError(f"{what} is not supported yet")


def _of_the_network(spec: MachineSpec) -> tuple[tuple[object, str], ...]:
    network = spec.network
    return (
        (network.kind == "path", "--network-namespace-path="),
        (network.veth or network.veth_extra, "--network-veth"),
        (network.interfaces, "--network-interface="),
        (network.macvlan or network.ipvlan, "--network-macvlan="),
        (network.ports, "--port="),
    )
