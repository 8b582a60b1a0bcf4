"""From a spec back to settings: what `show --settings` prints, and a `.nspawn` file can hold."""

from __future__ import annotations

from machinectl_py.config.assemble import DEFAULT_CAPABILITIES
from machinectl_py.config.kinds import is_of, write
from machinectl_py.config.table import SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machinectl_py.config.spec import MachineSpec, NetworkSpec
    from machinectl_py.config.table import Setting


def spec_values(spec: MachineSpec, capability_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values, by field, that make this spec.

    Args:
        spec: a machine.
        capability_names: those of this kernel, by number.
    """

    def names(mask: int) -> tuple[str, ...]:
        return tuple(name for bit, name in enumerate(capability_names) if mask >> bit & 1)

    rootfs, users, network, seccomp = spec.rootfs, spec.users, spec.network, spec.seccomp
    sign = "~" if seccomp.families_deny else ""
    prefix = "try-" if spec.link_journal_try else ""
    return {
        "ephemeral": rootfs.ephemeral,
        "read_only": rootfs.read_only,
        "volatile": rootfs.volatile,
        "pivot_root": (rootfs.pivot_new, rootfs.pivot_old) if rootfs.pivot_new else None,
        "image_policy": rootfs.image_policy or None,
        "root_hash": rootfs.root_hash or None,
        "boot": spec.payload.kind == "boot",
        "as_pid2": spec.payload.kind == "as-pid2",
        # The init itself is found, not asked for.
        "parameters": spec.payload.argv[1 if spec.payload.kind == "boot" else 0 :],
        "chdir": spec.payload.working_directory or None,
        "environment": spec.payload.environment,
        "user": spec.payload.user or None,
        "kill_signal": spec.payload.kill_signal,
        "notify_ready": spec.payload.notify_ready,
        "suppress_sync": seccomp.suppress_sync,
        "hostname": spec.hostname,
        "uuid": spec.machine_id,
        "slice": spec.cgroup.slice,
        "properties": spec.cgroup.properties,
        "cgroup_manager": spec.cgroup.manager,
        "rlimits": spec.rlimits,
        "oom_score_adjust": spec.oom_score_adjust,
        "cpu_affinity": spec.cpu_affinity or None,
        "personality": spec.personality or None,
        "private_users": (users.mode, users.base, users.count),
        "users_ownership": users.ownership,
        "users_delegate": users.delegate,
        "private_network": network.kind == "private",
        "network_namespace_path": network.namespace_path or None,
        "network_interface": network.interfaces,
        "network_macvlan": network.macvlan,
        "network_ipvlan": network.ipvlan,
        "network_veth": network.veth,
        "network_veth_extra": network.veth_extra,
        "network_bridge": network.bridge or None,
        "network_zone": network.zone or None,
        "network_managed": (*((network.managed,) if network.managed else ()), *network.attached),
        "network_rate_in": _of_networks(network, "rate_in"),
        "network_rate_out": _of_networks(network, "rate_out"),
        "network_allow": network.allow,
        "network_deny": network.deny,
        "network_address": _of_networks(network, "fixed"),
        "network_mac": network.address or None,
        "ports": network.ports,
        "capability": names(spec.capabilities),
        "drop_capability": tuple(
            f"CAP_{name}"
            for name in DEFAULT_CAPABILITIES.split()
            if f"CAP_{name}" not in names(spec.capabilities)
        ),
        "ambient_capability": names(spec.ambient),
        "no_new_privileges": spec.no_new_privileges,
        "system_call_filter": (*seccomp.allow, *(f"~{word}" for word in seccomp.deny)),
        "address_families": tuple(f"{sign}{word}" for word in seccomp.families),
        "selinux_context": spec.labels.selinux or None,
        "selinux_apifs_context": spec.labels.selinux_apifs or None,
        "apparmor_profile": spec.labels.apparmor or None,
        "resolv_conf": spec.resolv_conf,
        "timezone": spec.timezone,
        "link_journal": prefix + spec.link_journal,
        "mounts": spec.mounts,
        "bind_user": spec.bind_users.names,
        "bind_user_shell": spec.bind_users.shell,
        "private_time": spec.time.private,
        "monotonic": spec.time.monotonic,
        "boottime": spec.time.boottime,
    }


def _of_networks(network: NetworkSpec, field: str) -> tuple[tuple[str, Any], ...]:
    """Return a setting of the link to each managed network, the first of them without a name."""
    values = {"": getattr(network, field)}
    values |= {link.network: getattr(link, field) for link in network.further}
    return tuple((name, value) for name, value in values.items() if value)


def lines(spec: MachineSpec, capability_names: tuple[str, ...]) -> list[tuple[str, str, str, str]]:
    """Return section, key, text and field of each setting of a spec, as a `.nspawn` file has them.

    Credentials are left out: they are secrets.
    """
    values = spec_values(spec, capability_names)
    found = []
    for row in SETTINGS:
        if not row.key or values.get(row.field) is None or row.kind == "chown":
            continue
        found += [(row.section, row.key, text, row.field) for text in _texts(row, values)]
    return sorted(found, key=lambda line: _SECTIONS.index(line[0]))


_SECTIONS = list(dict.fromkeys(row.section for row in SETTINGS if row.key))


def _texts(row: Setting, values: dict[str, Any]) -> list[str]:
    value = values[row.field]
    if row.many:
        return [write(row.kind, item) for item in value if is_of(row.kind, item)]
    return [write(row.kind, value)]
