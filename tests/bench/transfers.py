"""Images brought in and out, compared with systemd-importd's; wants systemd as PID 1."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.bench.measure import compare, milliseconds
from tests.bench.peers import PYMACHINE
from tests.integration import pools
from tests.integration.webserver import serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
OURS, THEIRS = "bench-ours", "bench-theirs"
MACHINECTL = ("machinectl", "--quiet")


def imported(command: tuple[object, ...], name: str) -> Callable[[], float]:
    """Return what measures a command that makes the image NAME, which is removed again."""

    def measure() -> float:
        os.sync()  # what the other one left to be written is not ours to pay for
        taken = milliseconds(command)
        subprocess.run(["rm", "-rf", f"/var/lib/machines/{name}"], check=True)
        # Of a pull machinectl keeps a copy, which the next would be made of.
        subprocess.run([*MACHINECTL, "clean"], check=True, stdout=subprocess.DEVNULL)
        return taken

    return measure


def exported(command: tuple[object, ...], path: Path) -> Callable[[], float]:
    """Return what measures a command that makes a file, which is removed again."""

    def measure() -> float:
        os.sync()
        taken = milliseconds(command)
        path.unlink()
        return taken

    return measure


def compare_transfers(tree: Path) -> None:
    """Compare imports, exports and pulls of one tree, in a new ext4.

    The host's own may be one without a journal: there files are made ten times as slowly for
    some seconds after others were removed, which the program after a large one would pay for.
    """
    with (
        pools.pool("ext4", megabytes=6000),
        tempfile.TemporaryDirectory(dir="/var/tmp") as directory,
    ):
        work = Path(directory)
        # As machinectl leaves one: each program gets what the other one wrote too.
        subprocess.run([*PYMACHINE, "import-fs", "-q", tree, "bench"], check=True)
        for suffix in ("", ".gz", ".xz"):
            file = work / f"web.tar{suffix}"
            subprocess.run([*PYMACHINE, "export-tar", "-q", "bench", file], check=True)
            _compare_import(file)
        with serving(work) as server:
            _compare_pull(f"{server.url}/web.tar.gz")
        for suffix in ("", ".gz"):  # by xz one takes a minute: theirs has one thread
            _compare_export(work, suffix)
        subprocess.run(["rm", "-rf", "/var/lib/machines/bench"], check=True)


def _compare_import(file: Path) -> None:
    compare(
        f"import-tar {file.name}, machinectl",
        0.8,
        imported((*PYMACHINE, "import-tar", "-q", file, OURS), OURS),
        imported((*MACHINECTL, "import-tar", file, THEIRS), THEIRS),
        ROUNDS,
    )


def _compare_pull(url: str) -> None:
    compare(
        "pull-tar --verify=no .tar.gz, machinectl",
        1.0,
        imported((*PYMACHINE, "pull-tar", "-q", "--verify=no", url, OURS), OURS),
        imported((*MACHINECTL, "pull-tar", "--verify=no", url, THEIRS), THEIRS),
        ROUNDS,
    )


def _compare_export(work: Path, suffix: str) -> None:
    ours, theirs = work / f"ours.tar{suffix}", work / f"theirs.tar{suffix}"
    compare(
        f"export-tar web.tar{suffix}, machinectl",
        0.8,
        exported((*PYMACHINE, "export-tar", "-q", "bench", ours), ours),
        exported((*MACHINECTL, "export-tar", "bench", theirs), theirs),
        ROUNDS,
    )
