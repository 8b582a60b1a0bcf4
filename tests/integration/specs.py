"""Machines of a `MachineSpec` made in a test: what no verb's options say yet, too.

Executed, this file is the command that starts the machine: argv[1] is a file with the spec as
JSON, which it removes, the others say how to start it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from machinectl_py.codec import decode, encode  # noqa: E402
from machinectl_py.config.spec import MachineSpec, Payload, Rlimit, SeccompSpec  # noqa: E402
from machinectl_py.kernel.capabilities import parse_names  # noqa: E402

RETAINED = (
    "AUDIT_CONTROL AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_OWNER KILL"
    " LEASE LINUX_IMMUTABLE MKNOD NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP"
    " SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE SYS_PTRACE SYS_RESOURCE SYS_TTY_CONFIG"
)
INIT = "/usr/lib/systemd/systemd"
SIGRTMIN_3 = 37


def make_spec(root, name, *argv, payload=None, **changes) -> MachineSpec:
    """Return the spec of a command, or of an init if `payload` has this kind."""
    payload = {"kind": "command", "argv": tuple(argv)} | (payload or {})
    if payload["kind"] == "boot":
        payload["argv"] = (INIT, *argv)
        payload.setdefault("kill_signal", SIGRTMIN_3)
    fields = {
        "name": name,
        "root": str(root),
        "payload": Payload(**payload),
        "hostname": name,
        "machine_id": "0123456789abcdef0123456789abcdef",
        "console": "pipe",
        "capabilities": parse_names(tuple(RETAINED.split())),
        "seccomp": SeccompSpec(),
        "rlimits": (Rlimit(name="NOFILE", soft=1024, hard=4096),),
        "timezone": "off",
        "resolv_conf": "off",
        "link_journal": "no",
    }
    return MachineSpec(**(fields | changes))


def command(spec: MachineSpec, *how: str) -> list[str]:
    """Return the command line that starts a machine of this spec.

    Args:
        spec: of the machine.
        how: "nspawn", "background" or "sleeping" (idem, but no init that tells when it is
            ready) for another way than `run`'s, and "keep-unit".
    """
    with tempfile.NamedTemporaryFile("w", prefix="pymachine-spec-", delete=False) as file:
        file.write(encode(spec.to_data()))
    return ["/usr/bin/python3", "-SI", __file__, file.name, *how]


def run(spec: MachineSpec, *how: str, **keywords) -> subprocess.CompletedProcess[str]:
    """Run a machine to its end, as `subprocess.run` does."""
    settings = {"timeout": 60, "text": True, "capture_output": True, "check": False}
    settings |= {} if "input" in keywords else {"stdin": subprocess.DEVNULL}
    return subprocess.run(command(spec, *how), **(settings | keywords))  # noqa: PLW1510 - in them


def main() -> int:
    """Start the machine of the file argv[1]."""
    from machinectl_py.errors import PymachineError
    from machinectl_py.managers.choose import has_machined, manager_kind
    from machinectl_py.plan.facts import probe_facts
    from machinectl_py.plan.mount_facts import probe_mounts
    from machinectl_py.runtime import foreground as in_foreground
    from machinectl_py.runtime import launcher
    from machinectl_py.runtime.root_view import view_root

    file = Path(sys.argv[1])
    spec = MachineSpec.from_data(decode(file.read_text()))
    file.unlink()
    how = sys.argv[2:]
    foreground = not {"background", "sleeping"} & set(how)
    manager = manager_kind(spec.cgroup.manager, "keep-unit" in how)
    with view_root(spec.root, spec.rootfs, ids=spec.users.mode != "no") as view:
        facts = probe_facts(
            spec.root,
            manager=manager,
            register=spec.cgroup.register and has_machined(),
            foreground=foreground,
            bind_users=spec.bind_users.names,
            users=spec.users,
            mounts=probe_mounts(spec, view.tree),
            image=view.image,
        )
    try:
        if "nspawn" in how:
            ending = in_foreground.follow_foreground(
                spec, facts, signals="stop", title=f"Container {spec.name}"
            )
            return ending.nspawn_exit_status
        if foreground:
            return in_foreground.run_foreground(spec, facts)
        launcher.Background(spec, facts).start(wait="sleeping" not in how, timeout=60)
    except PymachineError as error:
        print(f"pymachine: {error.message}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
