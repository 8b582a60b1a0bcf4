"""The same settings file, beside the same command line, comes to the same with systemd-nspawn."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.hosts.apart import systemd_runs
from tests.hosts.overlay import private_copy
from tests.hosts.trees import build

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
# Inside a machine it cannot give a user namespace its own proc; we can.
_ITS_FAILURE = "Failed to mount proc (type proc)"
DIRECTORY = Path("/run/systemd/nspawn")
OVERRIDE = "--settings=override"
LINKS = "cut -d: -f1 /proc/net/dev | sort"
CAPS = "grep CapBnd /proc/self/status"
LIMIT = "grep 'Max {}' /proc/self/limits"
SHOW = r"""sh -c 'printf "<%s>" "$@"' sh """
# Name, file, options, and what a shell is asked; "" leaves the command to the file.
CASES = [
    ("empty", "", (),
     f"hostname; {LINKS}; {CAPS}; pwd; env | grep -v uuid | sort"),
    ("comments", "# c\n; d\n\n[Exec]\n  # e\nHostname=in-file\n", (), "hostname"),
    ("blanks around", "[Exec]\n  Hostname  =  in-file  \n", (), "hostname"),
    ("continued", "[Exec]\nEnvironment=A=1 \\\n# c\n  B=2\n", (), "echo $A $B"),
    ("windows", "[Exec]\r\nHostname=in-file\r\n", (), "hostname"),
    ("byte order mark", "\ufeff[Exec]\nHostname=in-file\n", (), "hostname"),
    ("unknown", "[Exec]\nNonsense=1\nHostname=in-file\n[Odd]\nA=1\n[X-Odd]\nA=1\n", (), "hostname"),
    ("not valid", "[Exec]\nHostname=-x-\nBoot=perhaps\n", (), "hostname"),
    ("no section", "Hostname=in-file\n", (), "hostname"),
    ("no equals", "[Exec]\nHostname\nUser=nobody\n", (), "hostname; id -un"),
    ("last counts", "[Exec]\nHostname=one\nHostname=two\n", (), "hostname"),
    ("taken back", "[Exec]\nEnvironment=A=1\nEnvironment=\nEnvironment=B=2\n", (),
     "echo [$A] [$B]"),
    ("quotes", "[Exec]\nEnvironment=\"A=1 2\" 'B=3 4' C=\"5 6\"\n", (), 'echo "$A|$B|$C"'),
    ("escapes", '[Exec]\nEnvironment=A=x\\ny B=\\x41 "C=q\\\\q" D=\\\\\n', (), "env | grep ^.="),
    ("both quotes", "[Exec]\nEnvironment=A='\"'x\"'\"\n", (), "env | grep ^A="),
    ("parameters add up", f"[Exec]\nBoot=no\nParameters={SHOW}a\nParameters=b\n", (), ""),
    ("parameters taken back", "[Exec]\nBoot=no\nParameters=x\nParameters=\nParameters=echo b\n", (),
     ""),
    ("percent", "[Exec]\nEnvironment=A=%n B=%%\n", (), "echo $A $B"),
    ("parameters", f"[Exec]\nBoot=no\nParameters={SHOW}a 'b c' \"\" d\\ e f\\tg\n", (), ""),
    ("second process", "[Exec]\nProcessTwo=yes\nParameters=sh -c 'echo $$'\n", (), ""),
    ("words win", "[Exec]\nBoot=no\nParameters=/bin/echo file\n", (), "echo typed"),
    ("limits", "[Exec]\nLimitCPU=5min\nLimitNICE=+5:-5\n", (), LIMIT.format("cpu time")),
    ("nice limit", "[Exec]\nLimitNICE=+5:-5\n", (), LIMIT.format("nice")),
    ("size limit", "[Exec]\nLimitFSIZE=1G:2G\n", (), LIMIT.format("file size")),
    ("limits by name", "[Exec]\nLimitFSIZE=1G\n", ("--rlimit=CPU=9",), "cat /proc/self/limits"),
    ("option wins", "[Exec]\nHostname=in-file\n", ("--hostname=mine",), "hostname"),
    ("network hidden", "[Network]\nVirtualEthernet=yes\n", ("--private-network",), LINKS),
    ("mounts hidden", "[Files]\nTemporaryFileSystem=/srv\n", ("--tmpfs=/opt",),
     "stat -f -c%T /srv"),
    ("capabilities hidden", "[Exec]\nCapability=CAP_SYS_TIME\n", ("--capability=CAP_SYSLOG",),
     CAPS),
    ("capabilities", "[Exec]\nCapability=CAP_SYS_TIME\nDropCapability=CAP_CHOWN\n", (), CAPS),
    ("of a network", "[Network]\nPrivate=yes\n", (), CAPS),
    ("network override", "[Network]\nPrivate=yes\n", ("--network-veth", OVERRIDE), LINKS),
    ("host override", "[Network]\nPrivate=no\n", ("--network-veth", OVERRIDE), LINKS),
    ("no veth", "[Network]\nVirtualEthernet=no\n", ("--network-veth", OVERRIDE), LINKS),
    ("hostname override", "[Exec]\nHostname=in-file\n", ("--hostname=x", OVERRIDE), "hostname"),
    ("mounts override", "[Files]\nTemporaryFileSystem=/srv\n", ("--tmpfs=/opt", OVERRIDE),
     "stat -f -c%T /srv /opt"),
    ("capabilities override", "[Exec]\nCapability=CAP_SYS_TIME\n",
     ("--capability=CAP_SYSLOG", OVERRIDE), CAPS),
    ("environment override", "[Exec]\nEnvironment=A=1\n", ("--setenv=B=2", OVERRIDE),
     "echo [$A] [$B]"),
    ("words override", "[Exec]\nBoot=no\nParameters=/bin/echo file\n", (OVERRIDE,), "echo typed"),
    ("parameters alone", "[Exec]\nParameters=/bin/echo file\n", (OVERRIDE,), "echo typed"),
    ("ids", "[Exec]\nPrivateUsers=524288:65536\n", (), f"{CAPS}; cat /proc/self/uid_map"),
    ("ids and network", "[Exec]\nPrivateUsers=524288:65536\n[Network]\nPrivate=yes\n", (), CAPS),
    ("identity", "[Exec]\nPrivateUsers=identity\n", (), "cat /proc/self/uid_map"),
    ("ids hidden", "[Exec]\nPrivateUsers=524288\n", ("--private-users=no",),
     "cat /proc/self/uid_map"),
    ("filter", "[Exec]\nSystemCallFilter=~uname\n", (), "uname -s"),
    ("read-only", "[Files]\nReadOnly=yes\n", (), "touch /x 2>/dev/null || echo no"),
    ("volatile", "[Files]\nVolatile=state\n", (), "stat -f -c%T /var"),
    ("directory", "[Exec]\nWorkingDirectory=/usr\n", (), "pwd"),
    ("no new privileges", "[Exec]\nNoNewPrivileges=yes\n", (), "grep NoNew /proc/self/status"),
    ("out of memory", "[Exec]\nOOMScoreAdjust=123\n", (), "cat /proc/self/oom_score_adj"),
    ("processors", "[Exec]\nCPUAffinity=0\n", (), "grep Cpus_allowed_list /proc/self/status"),
    ("personality", "[Exec]\nPersonality=x86\n", (), "uname -m"),
    ("machine ID", "[Exec]\nMachineID=0123456789abcdef0123456789abcdef\n", (),
     "echo $container_uuid"),
    ("timezone", "[Exec]\nTimezone=off\nResolvConf=off\n", (), "ls -l /etc/localtime | cut -c1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trees():
    """Two equal trees, without a machine ID of their own."""
    pristine = build("machine")
    with private_copy(pristine) as one, private_copy(pristine) as other:
        for tree in (one, other):
            (tree / "etc/machine-id").unlink(missing_ok=True)
        yield one, other


def run(words, tree, name, options, script):
    command = ["/bin/sh", "-c", script] if script else []
    return subprocess.run(
        [*words, "-D", tree, "-M", name, "--console=pipe", *options, *command],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "LC_ALL": "C"},
    )


@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_a_file_means_the_same_to_both(trees, machine, case):
    _, text, options, script = case
    alone = [] if systemd_runs() else ["--register=no", "--keep-unit"]
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = DIRECTORY / f"{machine}.nspawn"
    path.write_text(text)
    try:
        theirs = run(["systemd-nspawn", "--quiet", *alone], trees[0], machine, options, script)
        ours = run([*COMMAND, "nspawn", "--quiet"], trees[1], machine, options, script)
    finally:
        path.unlink()
    if theirs.returncode and _ITS_FAILURE in theirs.stderr:
        assert ours.returncode == 0, ours.stderr
        return
    told = f"\nours: {ours.stderr}\ntheirs: {theirs.stderr}"
    assert "Traceback" not in ours.stderr
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), told
