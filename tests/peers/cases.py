"""The cases of the differential suite: command lines that systemd-nspawn and we are both given.

A case is a name, options, and what a shell inside is asked. Where we differ on purpose the case
says why, and what we do. `SOURCE` stands for a directory of the host with files in it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    # Name, options, script, and why we differ ("" if we do not).
    Case = tuple[str, tuple[str, ...], str, str]

# Shell functions that the scripts may use: a mount as it is seen, without numbers.
PRELUDE = r"""
m() {
    while read -r _ _ _ root target options rest; do
        [ "$target" = "$1" ] || continue
        kinds=
        set -- "$1" $rest
        shift
        while [ "$1" != - ]; do kinds="$kinds ${1%%:*}"; shift; done
        echo "$target $options [$kinds ] $2"
    done </proc/self/mountinfo
}
w() {
    if (: >"$1/w.$$") 2>/dev/null; then
        rm -f "$1/w.$$"
        echo "$1 writable"
    else
        echo "$1 not writable"
    fi
}
s() {
    stat -c '%n %F %a %u:%g' "$@" 2>&1
}
cap() {
    grep '^Cap' /proc/self/status
}
probe_calls() {
    perl -e 'for (@ARGV) {
        $r = syscall($_, 0, 0, 0, 0, 0);
        print "$_ ", $r < 0 ? $!+0 : 0, "\n";
    }' "$@"
}
lim() {
    grep "^Max $1 " /proc/self/limits
}
"""

_LIMITS = {
    "CPU": "cpu time",
    "FSIZE": "file size",
    "DATA": "data size",
    "STACK": "stack size",
    "CORE": "core file size",
    "RSS": "resident set",
    "NOFILE": "open files",
    "AS": "address space",
    "NPROC": "processes",
    "MEMLOCK": "locked memory",
    "LOCKS": "file locks",
    "SIGPENDING": "pending signals",
    "MSGQUEUE": "msgqueue size",
    "NICE": "nice priority",
    "RTPRIO": "realtime priority",
    "RTTIME": "realtime timeout",
}
# Values that neither raise a limit of this process nor keep a shell from running.
_LIMIT_VALUES = {
    "AS": "4G", "DATA": "4G", "STACK": "4M:8M", "NICE": "0:0", "RTPRIO": "0:0", "MEMLOCK": "64K",
    "NOFILE": "100:200", "CPU": "100:200", "RSS": "1G", "MSGQUEUE": "4096", "NPROC": "500",
}  # fmt: skip


def _payload() -> Iterator[Case]:
    for status in (0, 1, 7, 126, 255):
        yield f"exit status {status}", (), f"exit {status}", ""
    yield "no such command", ("/no/such",), "", ""
    yield "a command that is found by PATH", ("hostname",), "", ""
    yield "arguments are kept apart", ("/bin/echo", "a b", "", "c"), "", ""
    yield "a shell if no command is given", (), "STDIN echo $0 $PWD $HOME; exit 3", ""
    yield (
        "environment",
        ("-E", "A=1", "--setenv=B=two words", "--uuid=" + "1" * 32),
        "env | sort",
        "",
    )
    yield "a variable of the caller", ("--setenv=FROM_CALLER",), 'echo "$FROM_CALLER"', ""
    yield (
        "a variable over ours",
        ("--setenv=HOME=/x", "--setenv=container=y"),
        "echo $HOME $container",
        "",
    )
    yield "working directory", ("--chdir=/usr/lib",), "pwd", ""
    yield "no such working directory", ("--chdir=/no/such",), "pwd", ""
    yield "a relative working directory", ("--chdir=usr",), "pwd", ""
    yield "as PID 2", ("--as-pid2",), "echo $$; exit 4", ""
    yield "as PID 2 with -a", ("-a",), "cat /proc/1/comm; exit 0", ""
    yield "PID 1", (), "echo $$; cat /proc/1/comm", ""
    yield "user by number", ("-u", "1"), "id; echo $HOME $USER; pwd", "USER is the name, not 1"
    for user in ("daemon", "nobody", "root", "no-such-user"):
        yield f"user {user}", ("-u", user), "id; echo $HOME $USER $LOGNAME $SHELL; pwd", ""
    yield "options that exclude each other", ("--boot", "--as-pid2"), "true", ""
    yield "an unknown option", ("--no-such-option",), "true", ""
    yield "kill signal", ("--kill-signal=SIGTERM",), "true", ""
    yield "no such kill signal", ("--kill-signal=SIGNONE",), "true", ""
    yield "notify ready", ("--notify-ready=yes",), "true", ""
    yield "standard input", (), "STDIN cat /dev/null; read x; echo got $x\nhello", ""


def _identity() -> Iterator[Case]:
    yield "hostname", ("--hostname=some.name",), "hostname; cat /proc/sys/kernel/hostname", ""
    for bad in ("-a", "a b", "a..b", "x" * 65):
        yield f"hostname {bad[:5]!r}", (f"--hostname={bad}",), "hostname", ""
    yield "machine name as hostname", (), "hostname", ""
    uuid = "0b5e7a51-2b4e-4d3c-9f0a-6a1d3c9e7f42"
    yield "uuid", (f"--uuid={uuid}",), "echo $container_uuid; cat /run/host/container-uuid", ""
    yield "uuid of zeroes", ("--uuid=" + "0" * 32,), "true", ""
    yield "no uuid", ("--uuid=xyz",), "true", ""
    for mode in ("off", "copy-host", "copy-static", "bind-host", "replace-host", "delete", "auto"):
        yield (
            f"resolv.conf {mode}",
            (f"--resolv-conf={mode}",),
            "s /etc/resolv.conf; md5sum /etc/resolv.conf; m /etc/resolv.conf",
            "",
        )
    yield "no such mode of resolv.conf", ("--resolv-conf=never",), "true", ""
    for mode in ("off", "copy", "bind", "symlink", "delete", "auto"):
        yield (
            f"timezone {mode}",
            (f"--timezone={mode}",),
            "s /etc/localtime; readlink /etc/localtime; m /etc/localtime",
            "",
        )
    yield "no such mode of timezone", ("--timezone=never",), "true", ""


def _resources() -> Iterator[Case]:
    for name, title in _LIMITS.items():
        value = _LIMIT_VALUES.get(name, "1000")
        yield f"limit {name}", (f"--rlimit={name}={value}",), f"lim '{title}'", ""
    yield "a limit by its kernel's name", ("--rlimit=RLIMIT_CORE=0",), "lim 'core file size'", ""
    yield "no such limit", ("--rlimit=NONE=1",), "true", ""
    yield "a limit that is no number", ("--rlimit=CORE=much",), "true", ""
    yield "all limits unless told", (), "cat /proc/self/limits", ""
    for score in ("0", "500", "1000"):
        yield (
            f"OOM score {score}",
            (f"--oom-score-adjust={score}",),
            "cat /proc/self/oom_score_adj",
            "",
        )
    yield "OOM score out of range", ("--oom-score-adjust=1001",), "true", ""
    yield "affinity", ("--cpu-affinity=0",), "grep Cpus_allowed_list /proc/self/status", ""
    yield (
        "affinity of a list",
        ("--cpu-affinity=0 1",),
        "grep Cpus_allowed_list /proc/self/status",
        "",
    )
    yield "affinity that is no list", ("--cpu-affinity=x",), "true", ""
    yield "personality", ("--personality=x86",), "uname -m", ""
    yield "no such personality", ("--personality=pdp11",), "uname -m", ""


def _security() -> Iterator[Case]:
    yield "capabilities", (), "cap", "CapInh"
    yield "capability added", ("--capability=CAP_SYS_TIME",), "cap", "CapInh"
    yield "capabilities added", ("--capability=CAP_SYS_TIME,CAP_SYSLOG",), "cap", "CapInh"
    yield "all capabilities", ("--capability=all",), "cap", "CapInh"
    yield "capability dropped", ("--drop-capability=CAP_CHOWN",), "cap", "CapInh"
    yield "all capabilities dropped", ("--drop-capability=all",), "cap", "CapInh"
    yield (
        "dropped wins",
        ("--capability=CAP_SYS_TIME", "--drop-capability=CAP_SYS_TIME"),
        "cap",
        "CapInh",
    )
    yield "no such capability", ("--capability=CAP_NONE",), "true", ""
    yield "a private network has CAP_NET_ADMIN", ("--private-network",), "cap", "CapInh"
    yield "no new privileges", ("--no-new-privileges=yes",), "grep NoNewPrivs /proc/self/status", ""
    yield "new privileges", ("--no-new-privileges=no",), "grep NoNewPrivs /proc/self/status", ""
    calls = "probe_calls "
    probed = (
        "39 103 155 163 165 170 171 172 173 175 246 248 250 298 300 303 304 313 320 321 323 328 "
        "425 438 442 999"
    )
    yield "system calls", (), calls + probed, ""
    yield "a group allowed", ("--system-call-filter=@keyring",), calls + probed, ""
    yield "calls denied", ("--system-call-filter=~getpid mincore",), calls + probed, ""
    yield "a group denied", ("--system-call-filter=~@mount",), calls + probed, ""
    yield (
        "no such call",
        ("--system-call-filter=no_such_call",),
        "true",
        "nspawn passes it over; a mistyped name would deny nothing",
    )
    yield "ambient capability", ("--ambient-capability=CAP_CHOWN", "-u", "daemon"), "cap", ""
    yield (
        "ambient capability that is not retained",
        ("--ambient-capability=CAP_SYS_TIME",),
        "true",
        "",
    )
    yield "suppressed sync", ("--suppress-sync=yes",), "sync; echo $?", ""


def _mounts() -> Iterator[Case]:
    look = "m /mnt; s /mnt; ls /mnt; w /mnt"
    yield "bind", ("--bind=SOURCE:/mnt",), look, ""
    yield "bind read-only", ("--bind-ro=SOURCE:/mnt",), look, ""
    yield (
        "bind on a new directory",
        ("--bind=SOURCE:/new/deep",),
        "s /new /new/deep; ls /new/deep",
        "",
    )
    yield "bind of a file", ("--bind=SOURCE/file:/some/file",), "s /some/file; cat /some/file", ""
    yield "bind of one path", ("--bind-ro=SOURCE",), "cat SOURCE/file", ""
    yield "bind without what is below", ("--bind=SOURCE:/mnt:norbind",), look, ""
    yield "bind with what is below", ("--bind=SOURCE:/mnt:rbind",), look, ""
    yield "bind of what is missing", ("--bind=/no/such:/mnt",), "true", ""
    yield "bind to a relative path", ("--bind=SOURCE:mnt",), "true", ""
    yield "bind with an unknown option", ("--bind=SOURCE:/mnt:sideways",), "true", ""
    yield "bind from inside", ("--bind=+/usr/share:/mnt",), "m /mnt; ls /mnt | head -3", ""
    yield "bind of nothing", ("--bind=:/mnt",), "ls -A /mnt; w /mnt", ""
    yield "bind with a colon in it", ("--bind=SOURCE/co\\:lon:/mnt",), "cat /mnt/in", ""
    yield "two binds of one target", ("--bind=SOURCE:/mnt", "--bind-ro=/usr:/mnt"), "true", ""
    yield (
        "binds in one another",
        ("--bind=/usr:/mnt/deep", "--bind=SOURCE:/mnt"),
        "ls -d /mnt/file /mnt/deep/bin",
        "",
    )
    yield (
        "bind under /dev",
        ("--bind=/dev/zero:/dev/some",),
        "s /dev/some; head -c 3 /dev/some | od -c",
        "",
    )
    yield "bind on /tmp", ("--bind=SOURCE:/tmp",), "ls /tmp", ""
    yield "bind under /run", ("--bind=SOURCE:/run/x",), "ls /run/x", ""
    yield "tmpfs", ("--tmpfs=/mnt",), "m /mnt; s /mnt; w /mnt", ""
    yield "tmpfs with options", ("--tmpfs=/mnt:mode=0700,size=1M",), "m /mnt; s /mnt", ""
    yield "tmpfs on a relative path", ("--tmpfs=mnt",), "true", ""
    yield "tmpfs with an unknown option", ("--tmpfs=/mnt:nonsense=1",), "true", ""
    yield (
        "overlay",
        ("--overlay=SOURCE/lower:SOURCE/upper:/mnt",),
        "ls /mnt; echo x >/mnt/made; ls /mnt",
        "",
    )
    yield (
        "overlay read-only",
        ("--overlay-ro=SOURCE/lower:SOURCE/upper2:/mnt",),
        "ls /mnt; w /mnt",
        "",
    )
    yield "overlay with a temporary upper", ("--overlay=SOURCE/lower::/mnt",), "ls /mnt; w /mnt", ""
    yield "overlay of the tree", ("--overlay=+/etc::/etc",), "ls -d /etc/passwd; w /etc", ""
    yield "overlay of one directory", ("--overlay=/x",), "true", ""
    yield (
        "inaccessible directory",
        ("--inaccessible=/opt",),
        "s /opt; m /opt; ls /opt; true",
        "stricter",
    )
    yield (
        "inaccessible file",
        ("--inaccessible=/etc/passwd",),
        "s /etc/passwd; m /etc/passwd",
        "stricter",
    )
    yield "inaccessible and missing", ("--inaccessible=/no/such",), "true", ""
    yield "read-only", ("--read-only",), "m /; w /; w /tmp; w /run; w /var", ""
    yield "read-only and a bind", ("--read-only", "--bind=SOURCE:/mnt"), "w /; w /mnt", ""
    for mode in ("yes", "state", "overlay", "no"):
        yield (
            f"volatile {mode}",
            (f"--volatile={mode}",),
            "m /; m /usr; m /var; ls /; w /; w /usr; w /var",
            "",
        )
    yield "volatile by itself", ("--volatile",), "ls /", ""
    yield "no such mode of volatile", ("--volatile=maybe",), "true", ""
    yield "ephemeral", ("--ephemeral",), "echo x >/ephemeral; ls /ephemeral", ""
    yield "after ephemeral", (), "ls /ephemeral", ""
    yield "pivot root", ("--pivot-root=/usr:/mnt",), "", ""
    yield "propagation", (), "m /; m /proc; m /sys; m /dev; m /run; m /tmp", "sysfs"


def _network() -> Iterator[Case]:
    yield "network of the host", (), "cut -d: -f1 -s /proc/net/dev", ""
    yield (
        "network of its own",
        ("--private-network",),
        "cut -d: -f1 -s /proc/net/dev; cat /sys/class/net/lo/operstate",
        "",
    )
    yield (
        "writable network settings",
        ("--private-network",),
        "[ -w /proc/sys/net/ipv4/ip_forward ] && echo yes",
        "",
    )
    yield "read-only network settings", (), "[ -w /proc/sys/net/ipv4/ip_forward ] || echo no", ""
    yield "port without a network", ("--port=80",), "true", ""
    yield "no port", ("--port=tcp:x",), "true", ""
    yield "bridge and zone", ("--network-bridge=br0", "--network-zone=z"), "true", ""
    yield "no such namespace", ("--network-namespace-path=/no/such",), "true", ""
    yield "no such link", ("--network-interface=nosuch0",), "true", ""
    yield "no such parent", ("--network-macvlan=nosuch0",), "true", ""
    yield "no such bridge", ("--network-bridge=nosuch0",), "true", ""
    yield "no network namespace", ("--network-namespace-path=/etc/passwd",), "true", ""
    path = "--network-namespace-path=/proc/self/ns/net"
    yield "a network namespace and a link", (path, "--network-veth"), "true", ""
    yield "a network namespace", (path,), "cut -d: -f1 -s /proc/net/dev; cap", "CapInh"
    own = ("--private-network", path)
    yield "a network namespace called private", own, "cut -d: -f1 -s /proc/net/dev; cap", "CapInh"
    twice = ("--private-network", "--port=tcp:80", "--port=80:81")
    yield "a port twice", twice, "true", ""


def _users() -> Iterator[Case]:
    look = "cat /proc/self/?id_map; id -u; stat -c %u / /etc /proc /sys /dev /run; cap"
    yield "no user namespace", ("--private-users=no",), look, "CapInh"
    # Of its capabilities 252 keeps one more, which is of no use to it; 257 and we do not.
    plain = look.removesuffix("; cap")
    yield "identity", ("--private-users=identity",), plain, ""
    alone = ("--private-users=identity", "--private-network")
    yield "identity and a network", alone, look, "CapInh"
    yield (
        "fixed range",
        ("--private-users=524288:65536", "--private-users-ownership=map"),
        look,
        "CapInh",
    )
    yield "no range", ("--private-users=x",), "true", ""
    yield "empty range", ("--private-users=0:0",), "true", ""
    yield "range beyond all", ("--private-users=4294967295",), "true", ""


def _settings() -> Iterator[Case]:
    yield "no settings", ("--settings=no",), "hostname", ""
    yield "settings trusted", ("--settings=trusted",), "hostname", ""
    yield "settings override", ("--settings=override",), "hostname", ""
    yield "no such mode of settings", ("--settings=maybe",), "true", ""
    yield (
        "credential",
        ("--set-credential=some.name:a value",),
        "cat $CREDENTIALS_DIRECTORY/some.name; s $CREDENTIALS_DIRECTORY/some.name",
        "",
    )
    yield (
        "credential with escapes",
        ("--set-credential=a:x\\x41\\n",),
        "od -c $CREDENTIALS_DIRECTORY/a",
        "",
    )
    yield (
        "credential of a file",
        ("--load-credential=b:SOURCE/file",),
        "cat $CREDENTIALS_DIRECTORY/b",
        "",
    )
    yield "no such credential", ("--load-credential=b:/no/such",), "true", ""
    yield "bad name of a credential", ("--set-credential=a/b:c",), "true", ""
    for mode in ("pipe", "read-only", "passive"):
        yield f"console {mode}", (f"--console={mode}",), "exit 3", ""
    yield "no such console", ("--console=other",), "true", ""
    for mode in ("no", "auto", "try-host", "try-guest"):
        yield f"journal {mode}", (f"--link-journal={mode}",), "exit 0", ""
    yield "no such journal", ("--link-journal=maybe",), "true", ""
    yield "slice", ("--slice=machine.slice",), "true", ""


def all_cases() -> list[Case]:
    """Return every case."""
    kinds = (
        _payload, _identity, _resources, _security, _mounts, _network, _users, _settings,
    )  # fmt: skip
    return [case for kind in kinds for case in kind()]
