"""`pymachine network`: managed networks are made, shown, entered, left and removed."""

from __future__ import annotations

import os
import sys

from machinectl_py.cli.parse import closest
from machinectl_py.cli.render import (
    JSON_OPTIONS,
    LEGEND_OPTION,
    json_mode,
    print_json,
    print_table,
    size,
    terminal_width,
)
from machinectl_py.config.managed_network import DEFAULT, check_name, read_subnet_of
from machinectl_py.config.network_values import rate
from machinectl_py.config.option import Option
from machinectl_py.config.spec import FurtherLink
from machinectl_py.config.subnet import usual_address
from machinectl_py.errors import DeniedError, UsageError
from machinectl_py.plan.host_files import host_machine_id
from machinectl_py.plan.managed.definitions import definition_path, need_network, networks
from machinectl_py.plan.managed.leases import read_leases
from machinectl_py.plan.managed.members import read_members
from machinectl_py.runtime.state import running_machines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.managed_network import ManagedNetwork
    from machinectl_py.runtime.network_stats import LinkStats

    Value = TypeVar("Value")

USAGE = "network list|stats|show|create|delete|attach|detach [NAME…] [OPTION…]"
SUMMARY = "Make, show and remove networks, and have machines in them"
DETAILS = """\
  list                       all networks, with the machines in them
  show NETWORK…              its addresses, and those of its machines
  stats [NAME…]              what went over the links of machines: of all, or of these machines
                             and networks
  create NETWORK             define a network
  delete NETWORK…            remove a network that no machine is in
  attach MACHINE [NETWORK]   have a running machine in a network, by a link pm-NETWORK
  detach MACHINE [NETWORK]   have it in the network no more

'boot --network=NETWORK' has a machine in a network from its start: addresses, routes and a resolver
are there before its init runs, and names of the others. Without a name, it is the network
'default', which is made at its first use. A network is up while a machine is in it; networks are
kept apart. What attach and detach change holds until the machine ends, over its reboots too; for
good it stands in its settings file."""
EXAMPLE = "pymachine network create lab --ipv4=10.20.30.1/24"
OPTIONS = (
    Option(
        name="--ipv4",
        value="ADDRESS/PREFIX",
        help="create: the bridge's address with the subnet, or no; by default one that is free",
    ),
    Option(name="--ipv6", value="ADDRESS/PREFIX", help="create: the same of IPv6"),
    Option(
        name="--address",
        value="ADDRESS",
        help="attach: its address in the network, as of 'boot --network-address='",
    ),
    Option(
        name="--rate-in",
        value="BITS",
        help="attach: at most so many bits a second to it by this link, such as 10M",
    ),
    Option(name="--rate-out", value="BITS", help="attach: at most so many from it"),
    Option(name="--no-nat", help="create: do not hide the machines behind the host's address"),
    LEGEND_OPTION,
    *JSON_OPTIONS,
)
COMMAND = -1
_OF_ACT = {
    **dict.fromkeys(("ipv4", "ipv6", "no-nat"), "create"),
    **dict.fromkeys(("address", "rate-in", "rate-out"), "attach"),
}
# What the words after each are, of which there may be more of the last; also for completions.
ACTS: dict[str, tuple[str, ...]] = {
    "list": (),
    "stats": ("machine-or-network",),
    "show": ("network",),
    "create": ("new-network",),
    "delete": ("network",),
    "attach": ("machine", "network"),
    "detach": ("machine", "network"),
}
_STATS = (
    *("MACHINE", "NETWORK", "LINK"),
    *("RECEIVED", "PACKETS", "DROPPED"),
    *("SENT", "PACKETS", "DROPPED"),
)
_COLUMNS = ("network", "bridge", "ipv4", "ipv6", "nat", "machines")


def run(arguments: Arguments) -> int:
    """Do what the first word says."""
    if not arguments.words:
        raise UsageError(f"'network' needs one of {', '.join(ACTS)}")
    act, *names = arguments.words
    if act not in ACTS:
        raise UsageError(f"Unknown verb 'network {act}'" + closest(act, tuple(ACTS)))
    for option in arguments.values:
        if _OF_ACT.get(option, act) != act:
            raise UsageError(f"--{option} goes with 'network {_OF_ACT[option]}' alone")
    for at, name in enumerate(names):
        _check_word(act, at, name)
    running_machines()  # what a killed supervisor left goes first
    done: dict[str, Callable[[Arguments, list[str]], None]] = {
        "list": _list,
        "stats": _stats,
        "show": _show,
        "create": _create,
        "delete": _delete,
        "attach": _attach,
        "detach": _detach,
    }
    done[act](arguments, names)
    return 0


def _check_word(act: str, at: int, name: str) -> None:
    """Hold that a word is a valid name where it is of a network alone."""
    kinds = ACTS[act]
    if kinds and kinds[min(at, len(kinds) - 1)] in ("network", "new-network"):
        try:
            check_name(name)
        except ValueError as error:
            raise UsageError(f"'{name}' is not valid: expected {error}") from error


def _list(arguments: Arguments, names: list[str]) -> None:
    if names:
        raise UsageError("'network list' takes no names", "'network show' does.")
    members = read_members()
    rows: list[tuple[str, ...]] = []
    for network in networks():
        inside = sorted(member.machine for member in members.of(network.name))
        nat = "yes" if network.nat else "no"
        texts = (network.name, network.bridge, network.ipv4, network.ipv6, nat)
        rows.append((*texts, " ".join(inside)))
    if mode := json_mode(arguments):
        print_json([_data(network) for network in networks()], mode)
        return
    legend = not arguments.flag("no-legend")
    if rows:
        heads = tuple(column.upper() for column in _COLUMNS)
        print_table(heads, rows, legend=legend, width=terminal_width())
    if legend:
        sys.stdout.write(f"\n{len(rows)} networks listed.\n" if rows else "No networks.\n")


def _data(network: ManagedNetwork) -> dict[str, object]:
    """Return what there is to know of a network, for JSON."""
    members = {member.machine for member in read_members().of(network.name)}
    leases = sorted(read_leases(network.name), key=lambda lease: lease.number)
    return {
        "network": network.name,
        "bridge": network.bridge,
        "ipv4": network.ipv4 or None,
        "ipv6": network.ipv6 or None,
        "nat": network.nat,
        "up": bool(read_members().find_up(network.name)),
        "file": definition_path(network.name),
        "leases": [
            {
                "machine": lease.machine,
                "addresses": [subnet.at(lease.number) for subnet in network.subnets()],
                "running": lease.machine in members,
            }
            for lease in leases
        ],
    }


def _show(arguments: Arguments, names: list[str]) -> None:
    if not names:
        raise UsageError("'network show' needs the name of a network")
    shown = [_data(need_network(name)) for name in names]
    if mode := json_mode(arguments):
        print_json(shown, mode)
        return
    for number, data in enumerate(shown):
        sys.stdout.write("\n" if number else "")
        leases = data.pop("leases")
        for key, value in data.items():
            text = {True: "yes", False: "no", None: "-"}.get(value, value)  # type: ignore[call-overload]
            sys.stdout.write(f"{key:>10}: {text}\n")
        rows: list[tuple[str, ...]] = [
            (lease["machine"], " ".join(lease["addresses"]), "yes" if lease["running"] else "no")
            for lease in leases  # type: ignore[attr-defined]
        ]
        if rows:
            sys.stdout.write("\n")
            print_table(("MACHINE", "ADDRESSES", "RUNNING"), rows, legend=True)


def _create(arguments: Arguments, names: list[str]) -> None:
    if len(names) != 1:
        raise UsageError("'network create' takes the name of one network")
    _require_root()
    from machinectl_py.plan.managed.administer import create_network

    network = create_network(
        names[0],
        host_machine_id(),
        ipv4=_value(arguments, "ipv4", lambda text: read_subnet_of(4, text)),
        ipv6=_value(arguments, "ipv6", lambda text: read_subnet_of(6, text)),
        nat=not arguments.flag("no-nat"),
    )
    subnets = " and ".join(map(str, network.subnets()))
    sys.stderr.write(f"Network '{network.name}' is defined: {subnets}.\n")


def _value(arguments: Arguments, option: str, read: Callable[[str], Value]) -> Value | None:
    """Return the value of an option, None if it is not given."""
    if not arguments.given(option):
        return None
    text = arguments.text(option)
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"--{option}={text}: expected {error}") from error


def _delete(_arguments: Arguments, names: list[str]) -> None:
    if not names:
        raise UsageError("'network delete' needs the name of a network")
    _require_root()
    from machinectl_py.plan.managed.administer import delete_network

    for name in names:
        delete_network(name)


def _attach(arguments: Arguments, names: list[str]) -> None:
    name, network = _machine_and_network("attach", names)
    from machinectl_py.runtime.live_networks import attach_network

    link = attach_network(name, network, _wanted(arguments, network))
    sys.stderr.write(f"Machine '{name}' is in the network '{network}', by its link {link}.\n")


def _wanted(arguments: Arguments, network: str) -> FurtherLink | None:
    """Return what the options set of the link to a network; None if there are none."""
    wanted = FurtherLink(
        network=network,
        fixed=_value(arguments, "address", usual_address) or "",
        rate_in=_value(arguments, "rate-in", rate) or 0,
        rate_out=_value(arguments, "rate-out", rate) or 0,
    )
    return wanted if wanted != FurtherLink(network=network) else None


def _detach(_arguments: Arguments, names: list[str]) -> None:
    name, network = _machine_and_network("detach", names)
    from machinectl_py.runtime.live_networks import detach_network

    detach_network(name, network)


def _machine_and_network(act: str, names: list[str]) -> tuple[str, str]:
    if not 1 <= len(names) <= 2:
        raise UsageError(f"'network {act}' takes the name of a machine, and of a network")
    _require_root()
    return names[0], names[1] if len(names) > 1 else DEFAULT


def _stats(arguments: Arguments, names: list[str]) -> None:
    if os.geteuid():
        raise DeniedError("Only root may see what machines send and get", "Try again with sudo.")
    from machinectl_py.runtime.network_stats import network_stats

    found = network_stats(tuple(names))
    if mode := json_mode(arguments):
        print_json([_flat(one) for one in found], mode)
        return
    rows: list[tuple[str, ...]] = [
        (
            *(one.machine, one.network or "-", one.link),
            *(size(count.received_bytes), str(count.received_packets), str(count.received_dropped)),
            *(size(count.sent_bytes), str(count.sent_packets), str(count.sent_dropped)),
        )
        for one in found
        for count in (one.counters,)
    ]
    legend = not arguments.flag("no-legend")
    if rows:
        print_table(_STATS, rows, legend=legend, width=terminal_width())
    if legend:
        sys.stdout.write(f"\n{len(rows)} links listed.\n" if rows else "No links.\n")


def _flat(stats: LinkStats) -> dict[str, object]:
    """Return link and counters as one object, for JSON."""
    data = stats.to_data()
    counters: dict[str, object] = data.pop("counters")
    return data | counters


def _require_root() -> None:
    if os.geteuid():
        raise DeniedError("Only root may change networks", "Try again with sudo.")
