"""The order of the steps: `MachineSpec` and `HostFacts` in, `Plan` out; a pure function."""

from __future__ import annotations

from machinectl_py.config.spec import BindMount, TmpfsMount
from machinectl_py.kernel import const
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES
from machinectl_py.layout import tunnel_dir, unix_export_dir
from machinectl_py.plan import build_identity, build_network
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
    user,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec
    from machinectl_py.plan.facts import HostFacts
    from machinectl_py.plan.step import Step

_TMPFS = const.MS_NOSUID | const.MS_NODEV | const.MS_STRICTATIME
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
    steps = (
        *_launcher_steps(spec, facts),
        *_supervisor_steps(spec, facts),
        *_root_steps(spec, facts),
        *_api_steps(spec, facts),
        *_own_steps(spec, facts),
        *_confining_steps(spec),
        execute.ExecutePayload(
            payload=spec.payload,
            argv=spec.payload.argv,
            environment=_environment(spec, facts),
            listen_fds=facts.listen_fds,
        ),
    )
    check_slots(steps)
    return Plan(steps=steps)


def _launcher_steps(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
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
        start = cgroup.StartScope(manager=facts.manager, request=request)
    else:
        start = cgroup.MakeCgroup(manager=facts.manager, request=request)
    return (
        host.LockMachine(machine=spec.name),
        host.MakeStateDirectory(machine=spec.name),
        host.LockRoot(root=spec.root, device=facts.root_device, inode=facts.root_inode),
        tunnel.DigTunnel(machine=spec.name),
        unix_export.MountUnixExport(machine=spec.name),
        birth.StartSupervisor(foreground=facts.foreground),
        start,
    )


def _supervisor_steps(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    steps: list[Step] = [birth.OpenNotifySocket()]
    if not facts.foreground or spec.payload.kind == "boot" or spec.console == "passive":
        steps.append(birth.OpenControlSocket(machine=spec.name))
    if spec.seccomp.enabled:
        steps.append(birth.PrepareSeccomp(capabilities=spec.capabilities, seccomp=spec.seccomp))
    steps.append(cgroup.DivideCgroup())
    own_time = build_identity.own_time(spec, facts)
    if own_time:
        steps.append(
            birth.NewTimeNamespace(monotonic=spec.time.monotonic, boottime=spec.time.boottime)
        )
    steps += build_identity.prepare_journal(spec, facts)
    flags = const.CLONE_NEWNS | const.CLONE_NEWPID | const.CLONE_NEWIPC | const.CLONE_NEWUTS
    if spec.private_network:
        flags |= const.CLONE_NEWNET
    steps += build_network.join(spec)
    steps.append(birth.ClonePayload(flags=flags, own_time=own_time))
    steps += build_network.connect(spec, facts)
    if not facts.foreground or facts.manager == "systemd":
        steps.append(cgroup.EnterSupervisorCgroup())
    steps += build_identity.forward_journal(spec, facts)
    steps.append(cgroup.DelegateControllers())
    steps.append(birth.PublishState(machine=spec.name))
    if facts.register:
        request = RegisterRequest(
            name=spec.name, machine_id=spec.machine_id, leader=0, root=spec.root
        )
        steps.append(birth.RegisterMachine(request=request, has_link=spec.network.veth))
    return tuple(steps)


def _binds(spec: MachineSpec) -> tuple[BindMount, ...]:
    return tuple(mount for mount in spec.mounts if isinstance(mount, BindMount))


def _root_steps(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
    steps: list[Step] = [root.DieWithSupervisor(), confine.NewKeyring(), root.EnslaveMounts()]
    sources = {facts.os_release: False} | {bind.source: bind.recursive for bind in _binds(spec)}
    steps += [
        root.CloneSource(source=source, recursive=recursive)
        for source, recursive in sources.items()
    ]
    for shared in (tunnel_dir(spec.name), unix_export_dir(spec.name)):
        steps.append(root.CloneSource(source=shared, recursive=False))
    if not _makes_devices(spec, facts):
        steps.append(devices.CloneDeviceNodes(nodes=facts.devices))
    steps += build_identity.host_file_sources(spec, facts)
    steps += build_identity.clone_journal(spec, facts)
    steps += build_identity.clone_homes(spec, facts)
    if spec.seccomp.enabled:
        steps.append(confine.ReadSeccomp())
    steps += [root.BindRoot(root=spec.root), root.PivotRoot(root=spec.root)]
    if spec.read_only:
        steps.append(root.RemountReadOnly(target="/", recursive=True))
    return tuple(steps)


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
        _mount("proc", "/proc", _SEALED),
        _mount("sysfs", "/sys", _SEALED) if spec.api_writable else api.MountSys(),
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
        _mount("tmpfs", "/tmp", _TMPFS, "mode=01777,size=10%,nr_inodes=400k"),
        _mount("tmpfs", "/run/host", _TMPFS | const.MS_NOEXEC, "mode=0755,size=4m,nr_inodes=1k"),
        api.FillRunHost(machine_id=spec.machine_id),
    )


def _own_steps(spec: MachineSpec, facts: HostFacts) -> tuple[Step, ...]:
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
        api.OwnBootId(),
        api.OwnKmsg(),
    ]
    if not spec.api_writable:
        steps.append(
            api.ProtectProc(
                read_only=_READ_ONLY_PROC,
                writable=("/proc/sys/net",) if spec.private_network else (),
                hidden=_HIDDEN_PROC,
            )
        )
    steps += [
        *build_identity.credentials(spec),
        *build_identity.attach_journal_socket(spec),
        *build_identity.bind_users(spec, facts),
        root.RemountReadOnly(target="/run/host"),
        cgroup.UnshareCgroup(),
        _mount("cgroup2", "/sys/fs/cgroup", _SEALED, "nsdelegate,memory_recursiveprot"),
    ]
    if not spec.api_writable:
        steps.append(root.RemountReadOnly(target="/sys"))
    for mount in spec.mounts:
        if isinstance(mount, BindMount):
            steps.append(
                root.AttachSource(
                    source=mount.source,
                    target=mount.target,
                    read_only=mount.read_only,
                    recursive=mount.recursive,
                )
            )
        elif isinstance(mount, TmpfsMount):
            steps.append(_mount("tmpfs", mount.target, _TMPFS, mount.options))
    steps += build_identity.host_files(spec, facts)
    steps += build_identity.attach_journal(spec, facts)
    return (*steps, root.ShareMounts(), tunnel.OpenTunnel())


def _confining_steps(spec: MachineSpec) -> tuple[Step, ...]:
    steps: list[Step] = [confine.SetHostname(hostname=spec.hostname)]
    if spec.private_network:
        steps.append(confine.LoopbackUp())
        steps += build_network.await_links(spec)
    steps.append(confine.SetRlimits(rlimits=spec.rlimits))
    if spec.console != "pipe":
        steps.append(devices.OpenStdio(controlling=spec.payload.kind == "command"))
    if spec.no_new_privileges:
        steps.append(confine.NoNewPrivileges())
    if spec.payload.user:
        own = spec.console != "pipe"
        steps.append(user.BecomeUser(user=spec.payload.user, own_terminal=own))
    limit = confine.LimitCapabilities(capabilities=spec.capabilities)
    if not spec.seccomp.enabled:
        return (*steps, limit)
    # Loading a filter wants CAP_SYS_ADMIN or no_new_privs; seccomp(2).
    admin = spec.capabilities >> CAPABILITY_NAMES.index("CAP_SYS_ADMIN") & 1
    if admin or spec.no_new_privileges:
        return (*steps, limit, confine.LoadSeccomp())
    return (*steps, confine.LoadSeccomp(), limit)


def _environment(spec: MachineSpec, facts: HostFacts) -> tuple[tuple[str, str], ...]:
    """Return the environment of PID 1; https://systemd.io/CONTAINER_INTERFACE."""
    own: dict[str, str] = {
        "PATH": _PATH,
        "container": "pymachine",
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
