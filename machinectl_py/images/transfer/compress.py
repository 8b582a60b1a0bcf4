"""Compressed streams: known by their first bytes, made and undone by the formats' own programs.

Where a program that uses all processors is installed, it is taken: pigz(1), lbzip2(1). Gzip, which
is undone in one thread, is undone twice as fast by igzip(1) as by pigz(1).
"""

from __future__ import annotations

import os

from machinectl_py.errors import ConfigError
from machinectl_py.images.transfer.confine import find_program
from machinectl_py.record import Record

UNCOMPRESSED = "uncompressed"


class Format(Record):
    """A format of compression."""

    name: str  # as machinectl --format= has it
    magic: bytes
    suffixes: tuple[str, ...]  # of file names, the usual one first
    programs: tuple[str, ...]  # the best first
    package: str  # of Debian, that has the last of the programs
    unpackers: tuple[str, ...] = ()  # programs that are better at undoing it
    packing: tuple[str, ...] = ()  # options
    unpacking: tuple[tuple[str, str], ...] = ()  # the same of single programs

    def unpacker(self) -> tuple[str, ...]:
        """Return the command that undoes it, from standard input to standard output.

        Raises:
            UnsupportedError: its program is not installed.
        """
        program = find_program(*self.unpackers, *self.programs, package=self.package)
        own = dict(self.unpacking).get(os.path.basename(program), "")
        return (program, "-dc", own) if own else (program, "-dc")

    def packer(self) -> tuple[str, ...]:
        """Return the command that compresses standard input to standard output.

        Raises:
            UnsupportedError: its program is not installed.
        """
        return (find_program(*self.programs, package=self.package), "-c", *self.packing)


FORMATS = (
    Format(
        name="gzip",
        magic=b"\x1f\x8b",
        suffixes=(".gz", ".tgz"),
        programs=("pigz", "gzip"),
        package="gzip",
        unpackers=("igzip",),
        packing=("-n",),  # neither name nor time: the same tree gives the same file
        unpacking=(("pigz", "-p1"),),  # more threads only pass blocks to each other here
    ),
    Format(
        name="bzip2",
        magic=b"BZh",
        suffixes=(".bz2", ".tbz2", ".tbz"),
        programs=("lbzip2", "bzip2"),
        package="bzip2",
    ),
    Format(
        name="xz",
        magic=b"\xfd7zXZ\0",
        suffixes=(".xz", ".txz"),
        programs=("xz",),
        package="xz-utils",
        packing=("-T0",),
        unpacking=(("xz", "-T0"),),  # of several blocks, as xz -T0 makes them
    ),
    Format(
        name="zstd",
        magic=b"\x28\xb5\x2f\xfd",
        suffixes=(".zst", ".zstd", ".tzst"),
        programs=("zstd",),
        package="zstd",
        packing=("-T0", "-q"),
    ),
)
NAMES = (UNCOMPRESSED, *(format_.name for format_ in FORMATS))
# What is cut from a file's name to have an image's, besides the suffixes of compression.
_SUFFIXES = (".tar", ".raw", ".img", ".qcow2", ".rootfs", ".root")


def detect(head: bytes) -> Format | None:
    """Return the format whose magic number the data begins with; None if it is no known one."""
    return next((format_ for format_ in FORMATS if head.startswith(format_.magic)), None)


def choose(name: str, path: str) -> Format | None:
    """Return the format that a file is to be written in; None for none.

    Args:
        name: one of NAMES, or "" to go by the file's suffix.
        path: of the file; "-" for standard output.

    Raises:
        ConfigError: there is no format of this name.
    """
    if name and name not in NAMES:
        raise ConfigError(f"--format={name}: must be one of {', '.join(NAMES)}")
    if name:
        return next((format_ for format_ in FORMATS if format_.name == name), None)
    return next((format_ for format_ in FORMATS if path.endswith(format_.suffixes)), None)


def image_name(path: str) -> str:
    """Return the name that an image of this file or URL gets: without directory and suffixes."""
    name = os.path.basename(path.rstrip("/"))
    suffixes = (*_SUFFIXES, *(suffix for format_ in FORMATS for suffix in format_.suffixes))
    while (suffix := next((s for s in suffixes if name.endswith(s)), "")) and name != suffix:
        name = name.removesuffix(suffix)
    return name
