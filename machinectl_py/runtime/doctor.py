"""Looks at what machines need of this host, and tells what is missing and what to do."""

from __future__ import annotations

import os

from machinectl_py.errors import PymachineError, UnsupportedError
from machinectl_py.kernel import cgroupfs, nft
from machinectl_py.managers.choose import has_machined, manager_kind, systemd_runs
from machinectl_py.plan.host_files import host_machine_id
from machinectl_py.plan.managed import dnsmasq
from machinectl_py.record import Record
from machinectl_py.thirdparty import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from machinectl_py.config.managed_network import ManagedNetwork

    Result = Literal["ok", "warning", "failed"]

_KERNEL = (5, 14)  # README, Requirements


class Check(Record):
    """What was looked at, and how it is."""

    check: str
    result: Result
    text: str
    remedy: str = ""


def checks() -> Iterator[Check]:
    """Yield how this host is; none changes anything."""
    yield _kernel()
    yield _cgroups()
    yield _user_namespaces()
    yield from _libraries()
    yield _registration()
    yield _program("nft", nft.find(), "ports and managed networks", "nftables")
    yield _program("dnsmasq", dnsmasq.find(), "managed networks", dnsmasq.PACKAGE)
    yield from _networks()


def _kernel() -> Check:
    release = os.uname().release
    numbers = [int(part) for part in release.partition("-")[0].split(".")[:2] if part.isdigit()]
    if tuple(numbers) >= _KERNEL:
        return Check(check="kernel", result="ok", text=f"Linux {release}")
    needed = ".".join(map(str, _KERNEL))
    return Check(
        check="kernel",
        result="failed",
        text=f"Linux {release} is too old",
        remedy=f"Boot Linux {needed} or later.",
    )


def _cgroups() -> Check:
    try:
        root = cgroupfs.find_cgroup2()
    except FileNotFoundError:
        return Check(
            check="cgroups",
            result="failed",
            text="No cgroup2 hierarchy is mounted",
            remedy="Mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )
    controllers = " ".join(cgroupfs.controllers(root))
    manager = manager_kind("auto", keep_unit=False)
    text = f"cgroup2 on {root}, manager {manager}, controllers {controllers or 'none'}"
    if "memory" in controllers.split() and "pids" in controllers.split():
        return Check(check="cgroups", result="ok", text=text)
    return Check(
        check="cgroups",
        result="warning",
        text=f"{text}: machines cannot be limited in all they use",
        remedy="Boot with systemd.unified_cgroup_hierarchy=1, so that cgroup v1 holds none.",
    )


def _user_namespaces() -> Check:
    try:
        with open("/proc/sys/user/max_user_namespaces", encoding="ascii") as file:
            most = int(file.read())
    except OSError:
        most = 0
    if most:
        return Check(check="user namespaces", result="ok", text=f"up to {most}")
    return Check(
        check="user namespaces",
        result="warning",
        text="There are none: root of a machine is root of this host, less capabilities",
        remedy="sysctl -w user.max_user_namespaces=15000",
    )


def _libraries() -> Iterator[Check]:
    wanted = ["pyroute2", "pyseccomp", *(["pystemd"] if systemd_runs() else [])]
    for name in wanted:
        try:
            need(name)
        except UnsupportedError as error:
            yield Check(
                check=f"python: {name}", result="failed", text=error.message, remedy=error.hint
            )
        else:
            yield Check(check=f"python: {name}", result="ok", text="is installed")


def _registration() -> Check:
    if not systemd_runs():
        text = "there is none, as systemd does not run; machinectl does not see machines"
    elif has_machined():
        text = "is told of machines; machinectl and nss-mymachines know them"
    else:
        return Check(
            check="systemd-machined",
            result="warning",
            text="is not installed or masked: machinectl does not see machines",
            remedy="Install systemd-container.",
        )
    return Check(check="systemd-machined", result="ok", text=text)


def _program(name: str, path: str, purpose: str, package: str) -> Check:
    if path:
        return Check(check=name, result="ok", text=path)
    return Check(
        check=name,
        result="warning",
        text=f"is not installed: there are no {purpose}",
        remedy=f"Install {package}.",
    )


def _networks() -> Iterator[Check]:
    """Yield how the networks that are defined, or the default one, can work."""
    from machinectl_py.plan.managed.definitions import networks
    from machinectl_py.plan.managed.obstacles import legacy_tables, of_firewall, of_forwarding
    from machinectl_py.plan.managed.propose import propose_network

    try:
        found = networks() or (propose_network("default", host_machine_id(), ()),)
    except PymachineError as error:
        yield Check(check="networks", result="failed", text=error.message, remedy=error.hint)
        return
    obstacles = {one.text: one for network in found for one in of_forwarding(network)}
    yield from (
        Check(check="forwarding", result="warning", text=one.text, remedy=one.remedy)
        for one in obstacles.values()
    )
    if not obstacles:
        yield Check(check="forwarding", result="ok", text="is on, or can be switched on")
    if not nft.find():
        return
    for network in found:
        stopped = False
        try:
            for one in of_firewall(network):
                stopped = True
                yield _firewall(network, "failed", one.text, one.remedy)
        except OSError as error:
            yield _firewall(network, "warning", f"cannot be looked at: {error.strerror or error}")
            continue
        if not stopped:
            text = f"stops neither DHCP, DNS nor packets of {network.bridge}"
            yield _firewall(network, "ok", text)
    if tables := legacy_tables():
        yield Check(
            check="iptables-legacy",
            result="warning",
            text=f"has the tables {' '.join(tables)}, whose rules are not looked at here",
            remedy="'iptables-legacy-save' shows them; iptables-nft is the one to use.",
        )


def _firewall(network: ManagedNetwork, result: Result, text: str, remedy: str = "") -> Check:
    return Check(check=f"firewall: {network.name}", result=result, text=text, remedy=remedy)
