"""Who has which port of the host: a file that all machines share, and the table made of it.

The table is made anew of the file at each change, in one transaction. So what anybody did to it
meanwhile is mended, and no rule can be left over by a process that was killed.
"""

from __future__ import annotations

import os

from machinectl_py.codec import decode, encode
from machinectl_py.config.network_values import from_port, ports_overlap
from machinectl_py.errors import ConflictError
from machinectl_py.kernel import nft
from machinectl_py.kernel.locks import drop_lock, wait_lock
from machinectl_py.layout import LOCK_DIR, RUN_DIR
from machinectl_py.plan.port_table import Forward, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from machinectl_py.config.spec import PortSpec

_FILE = f"{RUN_DIR}/ports"
_LOCK = f"{LOCK_DIR}/.ports"  # no machine is called so


class Claims:
    """All forwarded ports, held by a lock while it is open."""

    def __enter__(self) -> Self:
        """Lock and read them."""
        os.makedirs(LOCK_DIR, mode=0o755, exist_ok=True)
        self._lock = wait_lock(_LOCK)
        self._network = os.stat("/proc/self/ns/net").st_ino
        try:
            with open(_FILE, encoding="utf-8") as file:
                self._all = [Forward.from_data(data) for data in decode(file.read())]
        except FileNotFoundError:
            self._all = []
        return self

    def __exit__(self, *_: object) -> None:
        """Let them go."""
        drop_lock(_LOCK, self._lock)

    def of(self, machine: str) -> Forward | None:
        """Return those of a machine, or None."""
        return next((forward for forward in self._all if forward.machine == machine), None)

    def change(self, machine: str, ports: tuple[PortSpec, ...]) -> None:
        """Give a machine that has ports others in their place.

        Raises:
            ConflictError: another machine has one of them.
            OSError: the rules cannot be loaded.
        """
        forward = self.of(machine)
        assert forward
        self._check(machine, ports)
        self._replace(machine, forward.replace(ports=ports))

    def add(self, machine: str, ports: tuple[PortSpec, ...], link: str) -> bool:
        """Take ports for a machine, with the host's link to it or "".

        Returns:
            whether the host itself can use them by 127.0.0.1.

        Raises:
            ConflictError: another machine has one of them.
            OSError: the rules cannot be loaded.
        """
        self._check(machine, ports)
        opened, was_open = _open_for_loopback(link) if link else (False, False)
        forward = Forward(
            machine=machine,
            network=self._network,
            ports=ports,
            link=link,
            opened=opened and not was_open,
        )
        self._replace(machine, forward)
        return opened

    def _check(self, machine: str, ports: tuple[PortSpec, ...]) -> None:
        for other in self._here():
            for port in ports if other.machine != machine else ():
                if taken := next((one for one in other.ports if ports_overlap(one, port)), None):
                    raise ConflictError(
                        f"The port {from_port(port)} goes to machine '{other.machine}' already,"
                        f" by {from_port(taken)}"
                    )

    def aim(self, machine: str, ipv4: str, ipv6: str) -> None:
        """Lead a machine's ports to these addresses, "" for none; nothing if it has no ports.

        Raises:
            OSError: the rules cannot be loaded.
        """
        forward = self.of(machine)
        if forward and (forward.ipv4, forward.ipv6) != (ipv4, ipv6):
            self._replace(machine, forward.replace(ipv4=ipv4, ipv6=ipv6))

    def remove(self, machine: str) -> None:
        """Give up a machine's ports.

        Raises:
            OSError: the rules cannot be loaded.
        """
        forward = self.of(machine)
        if forward and forward.opened:
            self._close(forward)
        self._replace(machine, None)

    def _here(self) -> list[Forward]:
        return [forward for forward in self._all if forward.network == self._network]

    def _close(self, closing: Forward) -> None:
        """Close a link that we opened, or leave that to another machine that it leads to."""
        for at, other in enumerate(self._all):
            if other.machine != closing.machine and other.link == closing.link:
                self._all[at] = other.replace(opened=True)
                return
        _write_localnet(closing.link, "0")

    def _replace(self, machine: str, forward: Forward | None) -> None:
        """Write the file first: what stands in the table can then be told from it."""
        self._all = [other for other in self._all if other.machine != machine]
        self._all += [forward] if forward else []
        temporary = f"{_FILE}.new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(fd, encode([one.to_data() for one in self._all]).encode())
        os.close(fd)
        os.rename(temporary, _FILE)
        nft.load(render(self._here()))
        if not self._all:
            os.unlink(_FILE)


def _open_for_loopback(link: str) -> tuple[bool, bool]:
    """Have the host's 127.0.0.0/8 reach a link; return whether it does, and whether it did."""
    try:
        with open(_localnet(link), encoding="utf-8") as file:
            was_open = file.read().strip() == "1"
        if not was_open:
            _write_localnet(link, "1")
    except OSError:  # /proc/sys is read-only in most containers
        return False, False
    return True, was_open


def _write_localnet(link: str, value: str) -> None:
    try:
        with open(_localnet(link), "w", encoding="utf-8") as file:
            file.write(value)
    except FileNotFoundError:  # gone with its machine
        pass


def _localnet(link: str) -> str:
    return f"/proc/sys/net/ipv4/conf/{link}/route_localnet"
