"""`pymachine set-limit`: how much of the disk a machine may take."""

from __future__ import annotations

from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments
    from machinectl_py.config.option import Option

USAGE = "set-limit [NAME] BYTES"
SUMMARY = "Limit what a machine or image may take on the disk"
DETAILS = """\
BYTES with K, M, G or T, to the base of 1024; '-' is no limit. It takes a file system with quotas:
btrfs, whose quotas it enables, or ext4 and xfs mounted with prjquota. A machine that is a layer
over its image is limited in what it writes from its last snapshot on. The machine must not run.
Without NAME it is the limit of all images together, where /var/lib/machines is a subvolume of
btrfs."""
EXAMPLE = "pymachine set-limit web 10G"
OPTIONS: tuple[Option, ...] = ()
COMMAND = -1
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def run(arguments: Arguments) -> int:
    """Set it."""
    if not 1 <= len(arguments.words) <= 2:
        raise UsageError("'set-limit' takes the name of a machine or image, and a size")
    from machinectl_py.images.limits import set_limit, set_pool_limit
    from machinectl_py.runtime.state import find_running

    limit = _bytes(arguments.words[-1])
    if len(arguments.words) == 1:
        set_pool_limit(limit)
        return 0
    find_running(arguments.words[0])  # what a killed supervisor left goes first
    set_limit(arguments.words[0], limit)
    return 0


def _bytes(text: str) -> int:
    if text in ("-", "infinity"):
        return 0
    number, unit = (text, "") if text[-1:].isdigit() else (text[:-1], text[-1:].upper())
    if not (number.isascii() and number.isdigit() and unit in _UNITS and int(number)):
        raise UsageError(f"'{text}' is no size, such as 10G")
    return int(number) * _UNITS[unit]
