"""The order of the steps: `MachineSpec` and `HostFacts` in, `Plan` out; a pure function."""

from __future__ import annotations

from machinectl_py.kernel import const
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES
from machinectl_py.layout import tunnel_dir, unix_export_dir
from machinectl_py.plan import (
    build_identity,
    build_mounts,
    build_root,
    build_security,
    build_users,
)
from machinectl_py.plan.context import APART
from machinectl_py.plan.network_steps import network_steps
from machinectl_py.plan.ports import CgroupRequest, RegisterRequest
from machinectl_py.plan.step import Plan, check_slots
from machinectl_py.plan.steps import (
    api,
    birth,
    cgroup,
    confine,
    devices,
    execute,
    host,
    root,
    tunnel,
    unix_export,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.network_steps import NetworkSteps
    from machinectl_py.plan.step import Step

_TMPFS = const.MS_NOSUID | const.MS_NODEV | const.MS_STRICTATIME
_TMP = "mode=01777,size=10%,nr_inodes=400k"
_SEALED = const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC
_READ_ONLY_PROC = (
    "/proc/sys",
    "/proc/acpi",
    "/proc/apm",
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/scsi",
)
_HIDDEN_PROC = (
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_plan(spec: MachineSpec, facts: HostFacts) -> Plan:
    """Return the steps that turn `spec` into a running machine on a host of these `facts`."""
    build_identity.check_looks(spec)
    build_mounts.check_mounts(spec, facts)
    network = network_steps(spec, facts)
    build_root.check_root(spec, facts)
    build_security.check_security(spec, facts.security)
    steps: tuple[Step, ...] = (
        *_launcher_steps(spec, facts, network),
        *_supervisor_steps(spec, facts, network),
        *_root_steps(spec, facts),
        *_api_steps(spec, facts),
        *_own_steps(spec, facts, network),
        *_confining_steps(spec, facts, network),
        *_directory_steps(spec),
        execute.ExecutePayload(
            payload=spec.payload,
            argv=spec.payload.argv,
            environment=_environment(spec, facts),
            listen_fds=facts.listen_fds,
            # In the background an init begins meanwhile, and is ended if that fails.
            is_registered=facts.foreground and facts.register,
        ),
    )
    steps = build_security.label_mounts(steps, spec.labels)
    check_slots(steps)
    return Plan(steps=steps)


def _directory_steps(spec: MachineSpec) -> tuple[Step, ...]:
    path = spec.payload.working_directory
    return (execute.ChangeDirectory(path=path),) if path else ()


def _launcher_steps(spec: MachineSpec, facts: HostFacts, network: NetworkSteps) -> tuple[Step, ...]:
    request = CgroupRequest(
        name=spec.name,
        slice=spec.cgroup.slice,
        description=f"Machine {spec.name}",
        root=spec.root,
        pids=(),
        properties=spec.cgroup.properties,
    )
    start: Step
    if facts.manager == "systemd":
        devices = build_root.devices(facts)
        start = cgroup.StartScope(manager=facts.manager, request=request, devices=devices)
    else:
        start = cgroup.MakeCgroup(manager=facts.manager, request=request)
    return (
        host.LockMachine(machine=spec.name),
        host.MakeStateDirectory(machine=spec.name),
        *network.launcher,
        *build_root.prepare(spec, facts),
        *build_mounts.prepare(spec, facts),
        *build_users.hold_range(spec, facts),
        tunnel.DigTunnel(machine=spec.name),
        unix_export.MountUnixExport(machine=spec.name),
        birth.StartSupervisor(foreground=facts.foreground),
        start,
    )


def _supervisor_steps(
    spec: MachineSpec, facts: HostFacts, network: NetworkSteps
) -> tuple[Step, ...]:
    steps: list[Step] = [birth.OpenNotifySocket()]
    if not facts.foreground or spec.payload.kind == "boot" or spec.console == "passive":
        steps.append(birth.OpenControlSocket(machine=spec.name))
    steps += network.early
    if spec.seccomp.enabled:
        steps.append(birth.PrepareSeccomp(capabilities=spec.capabilities, seccomp=spec.seccomp))
    steps.append(cgroup.DivideCgroup())
    steps += build_identity.time_namespace(spec, facts)
    steps += build_identity.prepare_journal(spec, facts)
    prepared = (
        *build_root.take_up(spec, facts),
        *_sources(spec, facts),
        *build_root.make_up_outside(spec, facts),
    )
    steps += prepared
    outside = build_security.limit_from_outside(spec)
    # The embedded manager's cgroup is empty until the birth; a scope has the supervisor in it.
    delegate_early = facts.manager == "embedded" and not outside
    if delegate_early:
        steps.append(cgroup.DelegateControllers())
    flags = const.CLONE_NEWNS | const.CLONE_NEWPID | const.CLONE_NEWIPC | const.CLONE_NEWUTS
    if spec.private_network:
        flags |= const.CLONE_NEWNET
    if spec.users.mode != "no":
        flags |= const.CLONE_NEWUSER
    steps += network.before_birth
    own_time = any(isinstance(step, birth.NewTimeNamespace) for step in steps)
    handed = (APART, *(slot for step in prepared for slot in step.given_slots()))
    steps.append(birth.ClonePayload(flags=flags, own_time=own_time, handed=handed))
    steps += build_users.after_birth(spec, facts)
    steps += network.after_birth
    if not facts.foreground or facts.manager == "systemd":
        steps.append(cgroup.EnterSupervisorCgroup())
    steps += build_identity.forward_journal(spec, facts)
    steps += outside
    if not delegate_early:
        steps.append(cgroup.DelegateControllers())
    steps.append(birth.PublishState(machine=spec.name))
    if facts.register:
        request = RegisterRequest(
            name=spec.name,
            machine_id=spec.machine_id,
            leader=0,
            root=spec.root,
            service=spec.service,
        )
        steps.append(birth.RegisterMachine(request=request, has_link=spec.network.veth))
    return (*steps, *network.last)


def _sources(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    """Return the steps that take up what of the host is shown inside, as descriptors."""
    sources = (facts.os_release, tunnel_dir(spec.name), unix_export_dir(spec.name))
    steps: list[Step] = [root.CloneSource(source=source, recursive=False) for source in sources]
    if not _makes_devices(spec, facts):
        steps.append(devices.CloneDeviceNodes(nodes=facts.devices))
    steps += build_identity.host_file_sources(spec, facts)
    steps += build_identity.clone_journal(spec, facts)
    steps += build_identity.clone_homes(spec, facts)
    if spec.seccomp.enabled:
        steps.append(confine.OpenSeccomp())
    return (*steps, *build_mounts.clone_binds(spec, facts))


def _root_steps(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    return (
        *build_identity.enter_time(spec, facts),
        *build_users.become_root(spec),
        root.DieWithSupervisor(),
        confine.NewKeyring(),
        root.EnslaveMounts(),
        *build_identity.clone_journal_socket(spec),
        *build_security.open_labels(spec),
        *build_root.make_up(spec, facts),
        *build_root.cover(spec, facts),
        root.PivotRoot(root=build_mounts.place_inside(spec, facts)),
        *build_root.finish(spec, facts),
    )


def _mount(fstype: str, target: str, flags: int, data: str = "") -> Step:
    return api.MountFileSystem(
        fstype=fstype, target=target, flags=flags, data=data, optional=fstype == "mqueue"
    )


def _makes_devices(spec: MachineSpec, facts: HostFacts) -> bool:
    """Say whether nodes can be made inside: in a user namespace they could not be opened."""
    return facts.can_make_devices and spec.users.mode == "no"


def _device_steps(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    make = _makes_devices(spec, facts)
    kind = devices.MakeDeviceNodes if make else devices.BindDeviceNodes
    return (kind(nodes=facts.devices), devices.LinkDevices(nodes=facts.devices))


def _api_steps(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    console = spec.console != "pipe"
    return (
        *build_users.mount_proc(spec, facts, _mount("proc", "/proc", _SEALED)),
        *build_users.mount_sys(spec, facts, _mount("sysfs", "/sys", _SEALED)),
        _mount(
            "tmpfs",
            "/dev",
            const.MS_NOSUID | const.MS_STRICTATIME,
            "mode=0755,size=4m,nr_inodes=64k",
        ),
        *_device_steps(spec, facts),
        _mount(
            "devpts",
            "/dev/pts",
            const.MS_NOSUID | const.MS_NOEXEC,
            "newinstance,ptmxmode=0666,mode=0600,gid=5",
        ),
        _mount("tmpfs", "/dev/shm", _TMPFS, "mode=01777,size=10%,nr_inodes=400k"),
        _mount("mqueue", "/dev/mqueue", _SEALED),
        *((devices.AllocateConsole(),) if console else ()),
        _mount("tmpfs", "/run", _TMPFS, "mode=0755,size=20%,nr_inodes=800k"),
        *((_mount("tmpfs", "/tmp", _TMPFS, _TMP),) if spec.tmpfs_tmp else ()),
        _mount("tmpfs", "/run/host", _TMPFS | const.MS_NOEXEC, "mode=0755,size=4m,nr_inodes=1k"),
        api.FillRunHost(machine_id=spec.machine_id, service=spec.service),
        *build_users.show_whole(spec),
    )


def _own_steps(spec: MachineSpec, facts: HostFacts, network: NetworkSteps) -> tuple[Step, ...]:
    steps: list[Step] = [
        root.AttachSource(
            source=facts.os_release,
            target="/run/host/os-release",
            read_only=True,
            recursive=False,
            sealed=True,
        ),
        root.AttachSource(
            source=tunnel_dir(spec.name),
            target=tunnel.INCOMING,
            read_only=True,
            recursive=False,
        ),
        root.AttachSource(
            source=unix_export_dir(spec.name), target=unix_export.INSIDE, recursive=False
        ),
        *build_identity.credentials(spec),
        *build_identity.attach_journal_socket(spec),
        *build_identity.bind_users(spec, facts),
        *build_mounts.attach(spec, facts, "early"),
        root.RemountReadOnly(target="/run/host"),
        cgroup.UnshareCgroup(),
        _mount("cgroup2", "/sys/fs/cgroup", _SEALED, "nsdelegate,memory_recursiveprot"),
    ]
    if not spec.api_writable:
        steps.append(root.RemountReadOnly(target="/sys"))
    steps += build_mounts.attach(spec, facts, "late")
    steps += build_identity.host_files(spec, facts)
    steps += network.mounts
    steps += build_identity.attach_journal(spec, facts)
    steps += build_users.lock_mounts(spec)
    steps += _own_proc(spec)
    steps += build_mounts.attach(spec, facts, "proc")
    return (*steps, root.ShareMounts(), tunnel.OpenTunnel())


def _own_proc(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the steps that cover parts of /proc; locked, no other proc could be mounted inside."""
    steps: tuple[Step, ...] = (api.OwnBootId(), api.OwnKmsg())
    if spec.api_writable:
        return steps
    protect = api.ProtectProc(
        read_only=_READ_ONLY_PROC, writable=_writable_proc(spec), hidden=_HIDDEN_PROC
    )
    return (*steps, protect)


def _writable_proc(spec: MachineSpec) -> tuple[str, ...]:
    writable = spec.private_network or spec.api_writable_network
    return ("/proc/sys/net",) if writable else ()


def _confining_steps(
    spec: MachineSpec, facts: HostFacts, network: NetworkSteps
) -> tuple[Step, ...]:
    steps: list[Step] = [confine.SetHostname(hostname=spec.hostname)]
    if spec.private_network:
        steps.append(confine.LoopbackUp())
        steps += network.awaited
    steps += build_security.attributes(spec, facts.security)
    steps += build_users.await_outside(spec)
    if spec.console != "pipe":
        steps.append(devices.OpenStdio(controlling=spec.payload.kind == "command"))
    if spec.no_new_privileges:
        steps.append(confine.NoNewPrivileges())
    if spec.payload.user:
        from machinectl_py.plan.steps.user import BecomeUser

        own = spec.console != "pipe"
        steps.append(BecomeUser(user=spec.payload.user, own_terminal=own))
    limit = build_security.capabilities(spec)
    if not spec.seccomp.enabled:
        return (*steps, *limit)
    # Loading a filter wants CAP_SYS_ADMIN or no_new_privs; seccomp(2).
    admin = spec.capabilities >> CAPABILITY_NAMES.index("CAP_SYS_ADMIN") & 1
    if admin or spec.no_new_privileges:
        return (*steps, *limit, confine.LoadSeccomp())
    return (*steps, confine.LoadSeccomp(), *limit)


def _environment(spec: MachineSpec, facts: HostFacts) -> tuple[tuple[str, str], ...]:
    """Return the environment of PID 1; https://systemd.io/CONTAINER_INTERFACE."""
    own: dict[str, str] = {
        "PATH": _PATH,
        "container": spec.service,
        "container_uuid": "-".join(spec.machine_id[a:b] for a, b in api.UUID_PARTS),
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "NOTIFY_SOCKET": "/run/host/notify",
    }
    if facts.listen_fds:
        own["LISTEN_FDS"] = str(facts.listen_fds)
        own["LISTEN_PID"] = "2" if spec.payload.kind == "as-pid2" else "1"
    own |= build_identity.more_environment(spec, facts)
    return tuple((own | dict(spec.payload.environment)).items())
