"""A directory of deduplicated backups, kept by borg(1).

borg sees what it reads and writes, and nothing else of the host, under names that are always the
same: confine.py. It keeps its cache in /var/cache/pymachine/borg. Its locks name processes by
host and PID, so it runs in our PID namespace, and knows which of them are dead.
"""

from __future__ import annotations

import json
import os

from machinectl_py.errors import ConfigError, NotFoundError, PymachineError
from machinectl_py.images.transfer.confine import Confinement, Place, Tool, World, find_program
from machinectl_py.images.transfer.flow import follow
from machinectl_py.kernel import const
from machinectl_py.kernel.mount import open_tree, set_attributes
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from machinectl_py.images.transfer.job import Job

CACHE_DIR = "/var/cache/pymachine/borg"
_SEPARATOR = "@"  # between the name of a machine, which cannot have one, and the time
_WARNING = 1  # status of borg: done, but something was not as it should be; borg(1)
_FORMAT = "{archive}{comment}{time}"
# It wants to know who it is, and would tell names of owners, which are numbers to us.
_USERS = (("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"), ("etc/group", "root:x:0:\n"))
_PASSED_ON = ("BORG_PASSPHRASE",)
_SEALED = const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV | const.MOUNT_ATTR_NOEXEC


class Backup(Record):
    """One backup of one machine."""

    name: str  # of the machine
    version: str  # when it was made
    kind: str  # "directory" or "disk"

    def archive(self) -> str:
        """Return what borg calls it."""
        return f"{self.name}{_SEPARATOR}{self.version}"


class Statistics(Record):
    """What a backup came to, in bytes."""

    original: int
    added: int  # what the repository did not have yet, compressed


class Repository:
    """A directory of backups."""

    def __init__(self, path: str, job: Job) -> None:
        """Mean the directory.

        Raises:
            UnsupportedError: borg is not installed.
            OSError: the cache cannot be made.
        """
        self.path, self.job = os.path.realpath(path), job
        self.program = find_program("borg", package="borgbackup")
        os.makedirs(CACHE_DIR, 0o700, exist_ok=True)

    def require(self) -> None:
        """Refuse a directory that is none.

        Raises:
            NotFoundError: there is no repository.
        """
        if not os.path.isfile(f"{self.path}/config"):
            raise NotFoundError(f"{self.path} is no directory of backups")

    def make(self) -> None:
        """Make the repository if the directory is missing or empty.

        With BORG_PASSPHRASE in the environment what it holds is encrypted.

        Raises:
            ConfigError: there is something else in the directory.
            PymachineError: it cannot be made.
            OSError: with the path.
        """
        os.makedirs(self.path, 0o700, exist_ok=True)
        entries = os.listdir(self.path)
        if "config" in entries:
            return
        if entries:
            raise ConfigError(f"{self.path} is neither empty nor a directory of backups")
        encryption = "repokey-blake2" if os.environ.get("BORG_PASSPHRASE") else "none"
        self._run(("init", f"--encryption={encryption}"), (), "making the repository")

    def create(
        self, backup: Backup, places: tuple[Place, ...], capabilities: int
    ) -> tuple[Statistics, tuple[str, ...]]:
        """Add a backup of these places; return what it came to, and what was not as it should be.

        Raises:
            PymachineError: it cannot be read or written; interrupted. Nothing is added then.
        """
        words = (
            *("create", "--numeric-ids", "--noflags", "--compression=auto,zstd", "--json"),
            *("--comment", backup.kind, f"::{backup.archive()}"),
            *(place.name for place in places),
        )
        own = (("BORG_FILES_CACHE_SUFFIX", backup.name),)  # each has its paths below the same name
        told, output = self._run(words, places, "backing up", capabilities, own)
        stats = json.loads(output)["archive"]["stats"]
        return (
            Statistics(original=stats["original_size"], added=stats["deduplicated_size"]),
            tuple(line for line in told if not line.startswith(("-", "{"))),
        )

    def backups(self, name: str = "") -> tuple[Backup, ...]:
        """Return the backups of a machine, or all, the oldest first.

        Raises:
            PymachineError: the repository cannot be read; interrupted.
        """
        words = ("list", "--json", "--format", _FORMAT, "--sort-by=timestamp")
        _, output = self._run(words, (), "reading the list of backups")
        found = (_parse(entry) for entry in json.loads(output)["archives"])
        return tuple(b for b in found if b is not None and name in ("", b.name))

    def extract(self, backup: Backup, place: Place, capabilities: int) -> tuple[str, ...]:
        """Write what a backup has below a place; return what was not as it should be.

        Raises:
            PymachineError: it cannot be read or written; interrupted.
        """
        words = (
            *("extract", "--numeric-ids", "--noflags", "--sparse"),
            f"::{backup.archive()}",
        )
        told, _ = self._run(words, (place,), "restoring", capabilities, directory=place.name)
        return told

    def keep_last(self, name: str, count: int) -> None:
        """Throw away all but the last backups of a machine, and what only those had.

        Raises:
            PymachineError: the repository cannot be written; interrupted.
        """
        glob = f"{name}{_SEPARATOR}*"
        words = ("prune", f"--keep-last={count}", "--glob-archives", glob)
        self._run(words, (), "removing old backups")
        self._run(("compact",), (), "removing old backups")

    def _run(
        self,
        words: tuple[str, ...],
        places: tuple[Place, ...],
        phase: str,
        capabilities: int = 0,
        environment: tuple[tuple[str, str], ...] = (),
        *,
        directory: str = "",
    ) -> tuple[tuple[str, ...], str]:
        command = (self.program, *words)
        own = {"repository": self.path, "cache": CACHE_DIR}
        mounts = {name: open_tree(path, recursive=False) for name, path in own.items()}
        output = os.memfd_create("borg")
        try:
            for mount in mounts.values():
                set_attributes(mount, _SEALED, recursive=False)
            ours = tuple(Place(name=name, mount=mount) for name, mount in mounts.items())
            tool = Tool(
                command=command,
                stdin=-1,
                stdout=output,
                capabilities=capabilities,
                environment=(*_environment(), *environment),
                directory=directory,
            )
            world = World(places=(*ours, *places), files=_USERS, processes=False)
            told = _finish(self.job.start((tool,), world), self.job, phase)
            os.lseek(output, 0, os.SEEK_SET)
            with open(output, encoding="utf-8", closefd=False) as file:
                return told, file.read()
        finally:
            for fd in (*mounts.values(), output):
                os.close(fd)


def _environment() -> tuple[tuple[str, str], ...]:
    with open("/etc/machine-id", encoding="ascii") as file:
        host = file.read().strip()
    return (
        ("LC_ALL", "C.UTF-8"),
        ("TMPDIR", "/cache"),
        ("BORG_BASE_DIR", "/cache"),
        ("BORG_REPO", "/repository"),
        ("BORG_HOST_ID", f"pymachine@{host}"),  # which borg would make of network interfaces
        ("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes"),
        ("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes"),
        *((name, os.environ[name]) for name in _PASSED_ON if name in os.environ),
    )


def _finish(confinement: Confinement, job: Job, phase: str) -> tuple[str, ...]:
    try:
        told = follow(confinement, (), lambda: job.progress(phase, ""), job.interruption)[0]
        status = confinement.statuses[0]
    finally:
        confinement.close()
    if status not in (0, _WARNING):
        if any("No space left on device" in line for line in told):
            raise PymachineError(f"borg failed while {phase}: no space left")
        raise PymachineError(f"borg failed while {phase}: {_reason(told) or f'status {status}'}")
    return told if status else ()


def _reason(told: tuple[str, ...]) -> str:
    """Return the line that says why: the last one of a traceback, else the first."""
    lines = [line for line in told if line.strip()]
    if not lines:
        return ""
    traced = any(line.startswith("Traceback") for line in lines)
    errors = [line for line in lines if "Error" in line and not line.startswith(" ")]
    return errors[-1] if traced and errors else lines[0]


def _parse(entry: dict[str, Any]) -> Backup | None:
    """Return a backup of ours; None for what others keep in the repository."""
    name, _, version = str(entry["archive"]).partition(_SEPARATOR)
    kind = str(entry.get("comment", ""))
    if not version or kind not in ("directory", "disk"):
        return None
    return Backup(name=name, version=version, kind=kind)
