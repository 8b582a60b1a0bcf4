"""Machines as units: pymachine@NAME.service, by systemctl(1), which says what it does itself."""

from __future__ import annotations

import os

from machinectl_py.errors import DeniedError, UnsupportedError
from machinectl_py.images import store
from machinectl_py.images.listing import find_image
from machinectl_py.managers.choose import systemd_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NoReturn

    Act = Literal["start", "enable", "disable"]

_SYSTEMCTL = "/usr/bin/systemctl"


def unit_of(name: str) -> str:
    """Return the unit that runs a machine."""
    return f"pymachine@{name}.service"


def run_systemctl(act: Act, names: list[str], *, now: bool = False) -> NoReturn:
    """Become systemctl(1) for the units of machines.

    Args:
        act: its verb.
        names: of machines or images, which must be there but for "disable".
        now: start or stop them as well.

    Raises:
        ConfigError: a name is not valid.
        NotFoundError: there is no such machine or image.
        DeniedError: the caller is not root.
        UnsupportedError: no systemd manages this host.
    """
    for name in names:
        if act == "disable":
            store.check_name(name)
        else:
            find_image(name)
    if os.geteuid():
        raise DeniedError(f"Only root may {act} units", "Try again with sudo.")
    if not systemd_runs():
        raise UnsupportedError(
            f"No systemd manages this host, whose units could be {act}d",
            "'pymachine boot' starts a machine.",
        )
    words = [_SYSTEMCTL, act, *(["--now"] if now else []), *map(unit_of, names)]
    os.execv(_SYSTEMCTL, words)
