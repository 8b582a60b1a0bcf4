"""The managers that we compare with, and ourselves, as commands on one tree."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
PYMACHINE = ("/usr/bin/python3", "-SI", f"{REPOSITORY}/packaging/pymachine")
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit")
READY_TIMEOUT = 60


def pymachine(*words: object) -> str:
    """Run one of our verbs; return what it prints.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [*PYMACHINE, *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@contextmanager
def runc_bundle(root: Path) -> Iterator[Path]:
    """Give an OCI bundle that runs /bin/true in a tree, as `runc spec` would have it isolated."""
    with tempfile.TemporaryDirectory(prefix="pymachine-bundle-") as directory:
        subprocess.run(["runc", "spec"], check=True, cwd=directory)
        path = Path(directory, "config.json")
        config = json.loads(path.read_text())
        config["process"] |= {"args": ["/bin/true"], "terminal": False}
        config["root"] = {"path": str(root), "readonly": False}
        path.write_text(json.dumps(config))
        yield Path(directory)


def boot_ours(root: Path, name: str, *options: str) -> float:
    """Boot a machine of ours until its init is ready; return the milliseconds, stop it."""
    begun = time.monotonic()
    pymachine("boot", "-q", "-D", root, "-M", name, *options)
    taken = (time.monotonic() - begun) * 1000
    pymachine("poweroff", name)
    return taken


def boot_nspawn(root: Path, name: str, *options: str) -> float:
    """Boot one by systemd-nspawn until it passes on READY=1; return the milliseconds, stop it."""
    with tempfile.TemporaryDirectory(prefix="pymachine-notify-") as directory:
        address = f"{directory}/notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(address)
            listener.settimeout(READY_TIMEOUT)
            begun = time.monotonic()
            process = subprocess.Popen(
                [*NSPAWN, "--boot", "--notify-ready=yes", "-D", root, "-M", name, *options],
                env=os.environ | {"NOTIFY_SOCKET": address},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                while b"READY=1" not in listener.recv(4096).split(b"\n"):
                    pass
                return (time.monotonic() - begun) * 1000
            finally:
                process.send_signal(signal.SIGTERM)  # an orderly poweroff
                process.wait()
