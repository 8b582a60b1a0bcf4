"""Ports of the host that a machine gets, or gives up, while it runs."""

from __future__ import annotations

import os

from machinectl_py.config.network_values import from_port, ports_overlap
from machinectl_py.errors import ConfigError, ConflictError, NotFoundError, UnsupportedError
from machinectl_py.kernel import nft, rtnl
from machinectl_py.kernel.namespaces import InNetwork
from machinectl_py.plan.build_network import forward_ports_of
from machinectl_py.plan.port_claims import Claims
from machinectl_py.runtime.changes import Changes
from machinectl_py.runtime.control_client import hand_over_watch
from machinectl_py.runtime.expose import aim
from machinectl_py.runtime.journal import Journal
from machinectl_py.runtime.state import read_facts, read_spec, write_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec, PortSpec
    from machinectl_py.runtime.state import MachineState


def add_ports(name: str, ports: tuple[PortSpec, ...]) -> str:
    """Forward more ports to a running machine, also after it reboots.

    Returns:
        a warning, or "".

    Raises:
        NotFoundError: no such machine runs.
        ConflictError: a port is forwarded already.
        ConfigError: the machine shares its network with the host or others.
        UnsupportedError: nft is missing.
        OSError: the rules cannot be loaded.
    """
    with Changes(name) as changes:
        state = changes.state()
        spec = read_spec(state)
        if spec.network.kind != "private":
            raise ConfigError(f"Machine '{name}' has no network of its own to forward ports to")
        if not nft.find():
            raise UnsupportedError(
                "Ports are forwarded by nft, which is missing", "Install nftables."
            )
        warning = _watch(state) if not spec.network.ports else ""
        for port in ports:
            if taken := _overlapping(spec, port):
                raise ConflictError(f"The port {from_port(taken)} is forwarded to '{name}' already")
            spec = _with_ports(spec, (*spec.network.ports, port))
        _apply(state, spec)
    return warning


def remove_ports(name: str, ports: tuple[PortSpec, ...]) -> None:
    """Forward ports to a running machine no more.

    Raises:
        NotFoundError: no such machine runs, or a port is not forwarded to it.
        OSError: the rules cannot be loaded.
    """
    with Changes(name) as changes:
        state = changes.state()
        spec = read_spec(state)
        for port in ports:
            if port not in spec.network.ports:
                known = " ".join(map(from_port, spec.network.ports))
                raise NotFoundError(
                    f"The port {from_port(port)} is not forwarded to '{name}'",
                    f"These are: {known}" if known else "",
                )
            left = tuple(one for one in spec.network.ports if one != port)
            spec = _with_ports(spec, left)
        _apply(state, spec)


def _apply(state: MachineState, spec: MachineSpec) -> None:
    """Have the claims, and what the machine is made from at its next boot, be those of the spec."""
    name, ports = spec.name, spec.network.ports
    facts = read_facts(name)
    facts = facts.replace(network=facts.network.replace(nft=True))
    step = forward_ports_of(spec, facts)
    journal = Journal(name)
    with Claims() as claims:
        if not ports:
            claims.remove(name)
        elif claims.of(name):
            claims.change(name, ports)
        else:
            journal.before(step)
            claims.add(name, ports, step.link)
            aim(claims, name, state.leader)
    write_plan(spec, facts)
    if not ports:
        journal.struck(step)


def _with_ports(spec: MachineSpec, ports: tuple[PortSpec, ...]) -> MachineSpec:
    return spec.replace(network=spec.network.replace(ports=ports))


def _overlapping(spec: MachineSpec, port: PortSpec) -> PortSpec | None:
    return next((one for one in spec.network.ports if ports_overlap(one, port)), None)


def _watch(state: MachineState) -> str:
    """Have the supervisor look after the machine's addresses, which it had no reason to yet."""
    with InNetwork(f"/proc/{state.leader}/ns/net"):
        fd = rtnl.watch_addresses()
    try:
        hand_over_watch(state.name, fd)
    except ConflictError:  # in the foreground, a command has no control socket
        return f"The ports do not follow if '{state.name}' gets other addresses than it has now"
    finally:
        os.close(fd)
    return ""
