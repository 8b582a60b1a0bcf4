"""From a target and values to what a plan is made of: the machine's spec and the host's facts."""

from __future__ import annotations

import os

from machinectl_py.config.assemble import Frame, has_user_namespace, make_spec, root_spec
from machinectl_py.config.spec import UsersSpec
from machinectl_py.errors import DeniedError, PymachineError, UnsupportedError
from machinectl_py.images import store
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES
from machinectl_py.kernel.idmap import why_unmappable
from machinectl_py.layout import SERVICE
from machinectl_py.log import warn
from machinectl_py.managers.choose import has_machined, manager_kind, refuse_dead_bus
from machinectl_py.plan.facts import probe_facts
from machinectl_py.plan.host_files import host_machine_id
from machinectl_py.plan.mount_facts import probe_mounts
from machinectl_py.plan.network_facts import probe_network
from machinectl_py.plan.root_facts import default_users, image_users
from machinectl_py.record import Record
from machinectl_py.runtime.payload import check_tree
from machinectl_py.runtime.root_view import view_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.merge import Values
    from machinectl_py.config.spec import ConsoleMode, MachineSpec, PayloadKind
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.runtime.root_view import RootView
    from machinectl_py.runtime.target import Target

_NO_MACHINED = "systemd-machined does not run on this host"


class Way(Record):
    """How a verb starts machines."""

    kind: PayloadKind
    argv: tuple[str, ...]  # the payload
    console: ConsoleMode
    foreground: bool  # the machine ends with this process
    # The manager that the machine is told to have. Ours gives it, where nobody says anything of it
    # and it can be, a user namespace; systemd-nspawn does not.
    service: str = SERVICE

    @property
    def is_ours(self) -> bool:
        """Whether the defaults are ours, not systemd-nspawn's."""
        return self.service == SERVICE


def make_machine(target: Target, values: Values, way: Way) -> tuple[MachineSpec, HostFacts]:
    """Return spec and facts of the machine that the settings describe.

    Args:
        target: the machine; one that was made to be used once is removed by an error.
        values: what options and files say.
        way: how it is to be started.

    Raises:
        DeniedError: the caller is not root.
        ConfigError, UnsupportedError: settings do not go together, or are not supported here.
    """
    if os.geteuid():
        raise DeniedError("Only root may start machines", "Try again with sudo.")
    try:
        return _make_machine(target, values, way)
    except PymachineError:
        if target.machine is not None and target.machine.ephemeral:
            from machinectl_py.images.machines import remove_machine

            remove_machine(target.name)
        raise


def _make_machine(target: Target, values: Values, way: Way) -> tuple[MachineSpec, HostFacts]:
    ids = has_user_namespace(values, default=way.is_ours)
    with view_root(target.root, root_spec(values), ids=ids) as view:
        # systemd-nspawn looks for os-release only if it boots; we do in a directory that is given.
        whole = view.image is None and view.inner == view.tree
        check_tree(view, os_release=way.kind == "boot" or (way.is_ours and whole))
        if view.notice:
            warn(view.notice)
        users = _default_users(view, values) if way.is_ours else None
        spec = make_spec(values, _frame(target, way, view), users)
        if not spec.rootfs.image and spec.rootfs.image_policy:
            from machinectl_py.images.policy import parse_policy

            parse_policy(spec.rootfs.image_policy)  # of no use for a directory, but to be valid
        manager = manager_kind(spec.cgroup.manager, values.flag("keep_unit"))
        if manager == "unit" and "slice" in values.values:
            warn("--slice= has no effect, as the machine stays in the unit that this runs in")
        facts = probe_facts(
            target.root,
            manager=manager,
            register=_registers(spec, values, manager),
            foreground=way.foreground,
            bind_users=spec.bind_users.names,
            users=spec.users,
            mounts=probe_mounts(spec, view.tree),
            image=view.image,
            network=probe_network(spec.network, host_machine_id()),
        )
    return spec, facts


def _frame(target: Target, way: Way, view: RootView) -> Frame:
    return Frame(
        service=way.service,
        name=target.name,
        root=target.root,
        kind=way.kind,
        argv=way.argv,
        console=way.console,
        tree_id=store.machine_id(view.inner),
        new_id=os.urandom(16).hex(),
        environment=dict(os.environ),
        capability_numbers={name: number for number, name in enumerate(CAPABILITY_NAMES)},
    )


def _default_users(view: RootView, values: Values) -> UsersSpec:
    layer, mounts = values.get("layer", ""), values.get("mounts", ())
    if view.image is None:
        return default_users(view.root, layer, mounts)
    return UsersSpec() if layer and why_unmappable(layer) else image_users(view.image, mounts)


def _registers(spec: MachineSpec, values: Values, manager: str) -> bool:
    """Say whether systemd-machined is told of the machine: it takes those in a unit alone.

    Raises:
        UnsupportedError: it is to be, and cannot; or the message bus has stopped.
    """
    possible = manager != "embedded" and has_machined()
    registers = spec.cgroup.register and possible
    if values.get("register", "auto") == "yes" and not registers:
        raise UnsupportedError(
            "The machine cannot be registered (--register=yes): "
            + ("it is in no unit of systemd" if manager == "embedded" else _NO_MACHINED)
        )
    if registers:
        refuse_dead_bus()
    return registers
