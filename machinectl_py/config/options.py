"""Options of `boot` and `run`, and what they make of a `MachineSpec`; pure."""

from __future__ import annotations

from machinectl_py.config.spec import (
    BindMount,
    CgroupSpec,
    MachineSpec,
    NetworkSpec,
    Payload,
    Rlimit,
    RootSpec,
    SeccompSpec,
    TmpfsMount,
)
from machinectl_py.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What systemd-nspawn retains, in its words: https://systemd.io and systemd-nspawn(1).
_DEFAULT_CAPABILITIES = (
    "AUDIT_CONTROL AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_OWNER KILL"
    " LEASE LINUX_IMMUTABLE MKNOD NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP"
    " SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE SYS_PTRACE SYS_RESOURCE SYS_TTY_CONFIG"
)
# The kernel's limits for PID 1, NOFILE as systemd raises it; getrlimit(2).
_DEFAULT_RLIMITS = {
    "CORE": (0, -1),
    "CPU": (-1, -1),
    "DATA": (-1, -1),
    "FSIZE": (-1, -1),
    "MEMLOCK": (8 << 20, 8 << 20),
    "MSGQUEUE": (819200, 819200),
    "NICE": (0, 0),
    "NOFILE": (1024, 524288),
    "RSS": (-1, -1),
    "RTPRIO": (0, 0),
    "STACK": (8 << 20, -1),
}
_INIT_STOP_SIGNAL = 37  # SIGRTMIN+3: halt.target; systemd(1), "Signals"
_COMMAND_STOP_SIGNAL = 15


class Choices:
    """What the command line says, by option name, before defaults."""

    def __init__(self, values: dict[str, Any], environment: dict[str, str]) -> None:
        """Hold the options' values and the caller's environment."""
        self.values, self.environment = values, environment

    def flag(self, name: str) -> bool:
        """Say whether a flag was given."""
        return bool(self.values.get(name))

    def text(self, name: str, default: str = "") -> str:
        """Return the last value given."""
        return str(self.values.get(name, default))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all values given."""
        return tuple(self.values.get(name, ()))


def make_spec(
    choices: Choices,
    *,
    name: str,
    root: str,
    machine_id: str,
    payload: Payload,
    console: str,
    capability_numbers: dict[str, int],
) -> MachineSpec:
    """Return the complete description of a machine.

    Args:
        choices: the options.
        name: of the machine.
        root: absolute path of its root.
        machine_id: 32 hexadecimal digits, the tree's or a new one.
        payload: kind, argv and stop signal as far as given.
        console: a `ConsoleMode`.
        capability_numbers: "CAP_CHOWN" → 0, of this kernel.

    Raises:
        ConfigError: a value is not valid; names the option.
    """
    private = choices.flag("private-network")
    variables: dict[str, str] = {}
    if "TERM" in choices.environment:
        variables["TERM"] = choices.environment["TERM"]
    elif console == "interactive" or payload.kind == "boot":
        variables["TERM"] = "vt220"
    for setting in choices.texts("setenv"):
        key, equals, value = setting.partition("=")
        if not key:
            raise ConfigError(f"--setenv={setting}: the name is missing")
        variables[key] = value if equals else choices.environment.get(key, "")
    stop = _INIT_STOP_SIGNAL if payload.kind == "boot" else _COMMAND_STOP_SIGNAL
    return MachineSpec(
        name=name,
        root=root,
        payload=payload.replace(
            environment=tuple(variables.items()),
            working_directory=choices.text("chdir"),
            kill_signal=payload.kill_signal or stop,
        ),
        hostname=choices.text("hostname", name),
        machine_id=_machine_id(choices.text("uuid", machine_id)),
        console=console,  # type: ignore[arg-type]  # a literal of the callers
        network=NetworkSpec(kind="private" if private else "host"),
        rootfs=RootSpec(read_only=choices.flag("read-only")),
        api_writable=choices.environment.get("SYSTEMD_NSPAWN_API_VFS_WRITABLE") in _TRUE,
        capabilities=_capabilities(choices, private, capability_numbers),
        no_new_privileges=choices.flag("no-new-privileges"),
        seccomp=SeccompSpec(
            enabled=choices.environment.get("SYSTEMD_SECCOMP") not in _FALSE,
            allow=tuple(
                word
                for words in choices.texts("system-call-filter")
                for word in words.split()
                if not word.startswith("~")
            ),
            deny=tuple(
                word.lstrip("~")
                for words in choices.texts("system-call-filter")
                for word in words.split()
                if word.startswith("~")
            ),
        ),
        mounts=_mounts(choices),
        rlimits=_rlimits(choices),
        cgroup=CgroupSpec(
            manager=choices.text("cgroup-manager", "auto"),  # type: ignore[arg-type]
            slice=choices.text("slice", "machine.slice"),
            properties=tuple(_property(text) for text in choices.texts("property")),
            register=choices.text("register", "yes") in _TRUE,
        ),
    )


_TRUE = ("1", "yes", "true", "on")
_FALSE = ("0", "no", "false", "off")


def _machine_id(text: str) -> str:
    plain = text.replace("-", "").lower()
    if len(plain) != 32 or plain.strip("0123456789abcdef"):
        raise ConfigError(f"--uuid={text} is not a UUID")
    return plain


def _capabilities(choices: Choices, private_network: bool, numbers: dict[str, int]) -> int:
    def mask(option: str) -> int:
        found = 0
        for words in choices.texts(option):
            for word in words.replace(",", " ").split():
                if word.lower() == "all":
                    found |= (1 << len(numbers)) - 1
                    continue
                full = word.upper() if word.upper().startswith("CAP_") else f"CAP_{word.upper()}"
                if full not in numbers:
                    raise ConfigError(f"--{option}={word}: there is no such capability")
                found |= 1 << numbers[full]
        return found

    default = sum(1 << numbers[f"CAP_{name}"] for name in _DEFAULT_CAPABILITIES.split())
    if private_network:
        default |= 1 << numbers["CAP_NET_ADMIN"]
    return (default | mask("capability")) & ~mask("drop-capability")


def _mounts(choices: Choices) -> tuple[BindMount | TmpfsMount, ...]:
    found: list[BindMount | TmpfsMount] = []
    for option in ("bind", "bind-ro"):
        for text in choices.texts(option):
            source, _, target = text.partition(":")
            target = target or source
            if not source.startswith("/") or not target.startswith("/"):
                raise ConfigError(f"--{option}={text}: both paths must be absolute")
            found.append(BindMount(source=source, target=target, read_only=option == "bind-ro"))
    for text in choices.texts("tmpfs"):
        target, _, options = text.partition(":")
        if not target.startswith("/"):
            raise ConfigError(f"--tmpfs={text}: the path must be absolute")
        found.append(TmpfsMount(target=target, options=options or "mode=0755"))
    return tuple(found)


def _rlimits(choices: Choices) -> tuple[Rlimit, ...]:
    limits = dict(_DEFAULT_RLIMITS)
    for text in choices.texts("rlimit"):
        name, equals, value = text.partition("=")
        name = name.upper().removeprefix("RLIMIT_").removeprefix("LIMIT")
        soft, _, hard = value.partition(":")
        if not equals or name not in (*_DEFAULT_RLIMITS, "AS", "LOCKS", "NPROC", "SIGPENDING"):
            raise ConfigError(f"--rlimit={text}: must be NAME=SOFT[:HARD], such as NOFILE=1024")
        limits[name] = (_limit(text, soft), _limit(text, hard or soft))
    return tuple(Rlimit(name=n, soft=soft, hard=hard) for n, (soft, hard) in limits.items())


def _limit(text: str, value: str) -> int:
    if value == "infinity":
        return -1
    if not value.isascii() or not value.isdigit():
        raise ConfigError(f"--rlimit={text}: '{value}' is neither a number nor infinity")
    return int(value)


def _property(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--property={text}: must be NAME=VALUE")
    return name, value
