#!/usr/bin/python3
"""Debian trees to test with: built once by mmdebstrap, kept under /var/cache/pymachine-tests.

    trees.py KIND...    build the trees that are missing, and print their paths

KIND is "machine" (what the tests boot), "host" (what boots as a container host, with systemd as
PID 1 and all that the tests need), "bench" and "resolved" (hosts with more), or one of them with
a suite, as in "machine:trixie"; else it is of the suite that this host is, or
$PYMACHINE_TEST_SUITE. A tree's name holds a hash of what it is made of, so that a changed list
makes a new tree. Trees are never written to: see `overlay.py`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path("/var/cache/pymachine-tests/trees")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What a bootable machine needs; as the README's image has it.
MACHINE = ("systemd", "systemd-sysv", "dbus", "libpam-systemd", "iproute2", "procps", "login")
HOST = (
    *MACHINE,
    *("systemd-container", "udev", "kmod", "polkitd", "nftables", "strace", "runc"),
    *("dnsmasq-base", "busybox", "iptables", "libnss-systemd"),
    *("e2fsprogs", "btrfs-progs", "xfsprogs", "erofs-utils", "squashfs-tools", "fdisk"),
    *("dosfstools", "cryptsetup-bin", "qemu-utils"),
    *("skopeo", "umoci", "docker-registry", "borgbackup"),
    *("python3", "python3-pytest", "python3-hypothesis"),
    *("python3-pystemd", "python3-dbus-next", "python3-pyroute2", "python3-seccomp"),
    *("acl", "libcap2-bin", "bzip2", "isal", "pigz", "xz-utils", "zstd"),
    *("gpg", "gpg-agent", "gpgv"),
)
# Hosts for networks alone: with lxc to compare with, and with systemd-resolved.
NETWORKED = (
    *MACHINE,
    *("systemd-container", "udev", "kmod", "polkitd", "nftables", "dnsmasq-base", "runc"),
    *("python3", "python3-pytest"),
    *("python3-pystemd", "python3-dbus-next", "python3-pyroute2", "python3-seccomp"),
)
BENCH = (*NETWORKED, "lxc", "iperf3")
RESOLVED = (*NETWORKED, "systemd-resolved", "libnss-mymachines")
# Its resolv.conf leads to /run.
FIRST = {"resolved": ("--customize-hook=mkdir -p $1/run/systemd/resolve",)}
PACKAGES = {"machine": MACHINE, "host": HOST, "bench": BENCH, "resolved": RESOLVED}
# Manuals and translations are a third of a small tree.
OPTIONS = (
    "--variant=minbase",
    "--quiet",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    # mmdebstrap copies the builder's; a machine has its own.
    "--customize-hook=rm -f $1/etc/hostname && : >$1/etc/resolv.conf",
)


class TreeError(Exception):
    """A tree cannot be built here."""


def host_suite() -> str:
    """Return the code name of the Debian that we run on, or of the stable one known here."""
    with open("/etc/os-release", encoding="utf-8") as file:
        values = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    name = values.get("VERSION_CODENAME", "").strip('"')
    return name if values.get("ID") == "debian" and name else "bookworm"


def tree_path(kind: str, suite: str = "") -> Path:
    """Return where the tree of this kind and suite is, or will be."""
    suite = suite or os.environ.get("PYMACHINE_TEST_SUITE") or host_suite()
    content = "\0".join((suite, *OPTIONS, *PACKAGES[kind]))
    return CACHE / f"{kind}-{suite}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def sources(suite: str) -> list[str]:
    """Return apt's lines for a suite, by the mirrors that this host is configured with.

    Raises:
        TreeError: it has none, or no apt.
    """
    if not shutil.which("apt-get"):
        raise TreeError("trees are built from apt's mirrors, and this host has no apt")
    ours = host_suite()
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format=$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = []
    for line in dict.fromkeys(shown.stdout.splitlines()):
        uri, _, release = line.partition(" ")
        if release == ours or release.startswith(f"{ours}-"):
            release = suite + release.removeprefix(ours)
            lines.append(f"deb [signed-by={KEYRING}] {uri} {release} main")
    if not lines:
        raise TreeError(
            f"apt has no mirror of '{ours}' configured to build the tree of '{suite}' from: "
            "give a tree that is there, as PYMACHINE_TEST_TREE, or build it on a Debian host"
        )
    return lines


def build(kind: str, suite: str = "") -> Path:
    """Return the tree, built if it is not there: aside, then renamed.

    Raises:
        TreeError: there is no mirror to build it from.
        subprocess.CalledProcessError: mmdebstrap failed; it has said why.
    """
    path = tree_path(kind, suite)
    if path.is_dir():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_dir():
            suite = path.name.split("-")[1]
            print(f"building the {kind} tree of {suite}", file=sys.stderr, flush=True)
            aside = Path(f"{path}.new")
            subprocess.run(["rm", "-rf", "--one-file-system", aside], check=True)
            include = f"--include={','.join(PACKAGES[kind])}"
            subprocess.run(
                [
                    "mmdebstrap",
                    *FIRST.get(kind, ()),
                    *OPTIONS,
                    include,
                    suite,
                    aside,
                    *sources(suite),
                ],
                check=True,
                stdout=sys.stderr,
            )
            aside.rename(path)
    return path


if __name__ == "__main__":
    try:
        for word in sys.argv[1:]:
            print(build(*word.split(":")))
    except TreeError as error:
        sys.exit(f"trees.py: {error}")
