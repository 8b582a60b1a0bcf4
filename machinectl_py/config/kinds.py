"""How the text of each kind of setting is read, and written again."""

from __future__ import annotations

from machinectl_py.config import (
    id_values,
    managed_network,
    mount_values,
    network_settings,
    network_values,
    traffic_values,
    values,
)
from machinectl_py.config.spec import BindMount, InaccessibleMount, OverlayMount, Rlimit, TmpfsMount
from machinectl_py.config.words import join_words, split_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_JOURNAL_SIZES = ("MaxUse", "KeepFree", "MaxFileSize")
_JOURNAL = (*_JOURNAL_SIZES, "MaxFiles")

_READERS: dict[str, Callable[[str], Any]] = {
    "boolean": values.boolean,
    "text": values.clean,
    "path": values.path,
    "absolute-path": values.absolute_path,
    "words": split_words,
    "environment": values.environment,
    "variable": values.variable,
    "number": values.number,
    "volatile": values.volatile,
    "root-hash": values.root_hash,
    "pivot-root": mount_values.pivot_root,
    "user": values.user,
    "signal": values.signal,
    "hostname": values.hostname,
    "id128": values.id128,
    "slice": values.slice_name,
    "assignment": values.assignment,
    "register": values.register,
    "manager": values.one_of("auto", "systemd", "unit", "embedded"),
    "rlimit": id_values.rlimit,
    "oom-score": values.oom_score,
    "numbers": values.numbers,
    "personality": values.personality,
    "private-users": id_values.private_users,
    "pick": id_values.pick,
    "ownership": values.one_of(*values.OWNERSHIP),
    "chown": id_values.chown,
    "interface": network_values.interface,
    "zone": network_values.zone,
    "network-name": lambda text: (managed_network.check_name(text),),
    "network-address": network_settings.address,
    "mac": network_values.mac,
    "network-rate": network_settings.rate,
    "traffic": traffic_values.traffic,
    "interface-pair": network_values.interface_pair,
    "macvlan-pair": network_values.macvlan_pair,
    "ipvlan-pair": network_values.ipvlan_pair,
    "veth-pair": network_values.veth_pair,
    "port": network_values.port,
    "capabilities": id_values.names,
    "filter": id_values.filter_words,
    "families": id_values.families,
    "resolv-conf": values.one_of(*values.RESOLV_CONF),
    "timezone": values.one_of(*values.TIMEZONE),
    "link-journal": values.one_of(*values.LINK_JOURNAL),
    "try-guest": lambda text: "try-guest" if values.boolean(text) else "no",
    "bind": mount_values.bind,
    "bind-ro": mount_values.bind_read_only,
    "inaccessible": mount_values.inaccessible,
    "tmpfs": mount_values.tmpfs,
    "overlay": mount_values.overlay,
    "overlay-ro": mount_values.overlay_read_only,
    "user-list": lambda text: tuple(values.user(word) for word in text.split()),
    "shell": values.shell,
    "console": values.one_of(*values.CONSOLE),
    "pipe": lambda text: "pipe" if values.boolean(text) else "interactive",
    "background": values.background,
    "credential": id_values.credential,
    "credential-file": id_values.credential_file,
    "span": values.span,
}

_WRITERS: dict[str, Callable[[Any], str]] = {
    "boolean": values.from_boolean,
    "words": lambda word: join_words((word,)),
    "environment": lambda pair: join_words((f"{pair[0]}={pair[1]}",)),
    "pivot-root": mount_values.from_pivot_root,
    "assignment": "=".join,
    "rlimit": lambda limit: f"{limit.name}={id_values.from_rlimit(limit)}",
    "numbers": lambda numbers: ",".join(map(str, numbers)),
    "private-users": id_values.from_private_users,
    "interface-pair": network_values.from_pair,
    "macvlan-pair": network_values.from_pair,
    "ipvlan-pair": network_values.from_pair,
    "veth-pair": network_values.from_pair,
    "port": network_values.from_port,
    "network-address": network_settings.from_address,
    "network-rate": network_settings.from_rate,
    "traffic": traffic_values.from_traffic,
    "bind": mount_values.from_bind,
    "bind-ro": mount_values.from_bind,
    "inaccessible": mount_values.from_inaccessible,
    "tmpfs": mount_values.from_tmpfs,
    "overlay": mount_values.from_overlay,
    "overlay-ro": mount_values.from_overlay,
    "credential": id_values.from_credential,
    "credential-file": ":".join,
    "shell": lambda shell: {"host": "yes", "": "no"}.get(shell, shell),
    "span": values.from_span,
}


def read(kind: str, text: str) -> Any:
    """Return the value of a text; of a setting that adds up, a tuple of what is added.

    Raises:
        ValueError: it is not valid; the argument says what is expected.
    """
    name, _, argument = kind.partition("-")
    if name == "limit":
        return id_values.limit_of(argument, text)
    if name == "journal" and argument in _JOURNAL:
        reader = values.size if argument in _JOURNAL_SIZES else values.number
        reader(text)
        return ((argument, text),)
    return _READERS[kind](text)


def write(kind: str, value: Any) -> str:
    """Return the text of a value, or of one of those that add up."""
    if kind.startswith("limit-"):
        return id_values.from_rlimit(value)
    if kind.startswith("journal-"):
        return str(value[1])
    writer = _WRITERS.get(kind)
    return writer(value) if writer else str(value)


def is_of(kind: str, item: object) -> bool:
    """Say whether a setting of this kind says this item of its field, which others may share."""
    if isinstance(item, (BindMount, OverlayMount, TmpfsMount, InaccessibleMount)):
        return kind_of_mount(item) == kind
    if isinstance(item, Rlimit) and kind.startswith("limit-"):
        return item.name == kind.removeprefix("limit-")
    if kind.startswith("journal-"):
        return isinstance(item, tuple) and item[0] == kind.removeprefix("journal-")
    return True


def kind_of_mount(mount: object) -> str:
    """Return the kind of the setting that says this mount."""
    if isinstance(mount, BindMount):
        return "bind-ro" if mount.read_only else "bind"
    if isinstance(mount, OverlayMount):
        return "overlay-ro" if mount.read_only else "overlay"
    if isinstance(mount, TmpfsMount):
        return "tmpfs"
    assert isinstance(mount, InaccessibleMount)
    return "inaccessible"
