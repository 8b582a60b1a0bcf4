"""The options of mount(8): those of every mount as MS_ flags, the rest for the file system."""

from __future__ import annotations

from machinectl_py.kernel import const

# What sets a flag, and what clears it; mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS".
_FLAGS = (
    ("ro", "rw", const.MS_RDONLY),
    ("nosuid", "suid", const.MS_NOSUID),
    ("nodev", "dev", const.MS_NODEV),
    ("noexec", "exec", const.MS_NOEXEC),
    ("sync", "async", const.MS_SYNCHRONOUS),
    ("dirsync", "", const.MS_DIRSYNC),
    ("nosymfollow", "symfollow", const.MS_NOSYMFOLLOW),
    ("noatime", "atime", const.MS_NOATIME),
    ("nodiratime", "diratime", const.MS_NODIRATIME),
    ("relatime", "norelatime", const.MS_RELATIME),
    ("strictatime", "nostrictatime", const.MS_STRICTATIME),
    ("lazytime", "nolazytime", const.MS_LAZYTIME),
)
_SETTING = {name: flag for name, _, flag in _FLAGS}
_CLEARING = {name: flag for _, name, flag in _FLAGS if name}


def split_options(options: str, flags: int = 0) -> tuple[int, str]:
    """Return MS_ flags and the options that are left for the file system.

    Args:
        options: separated by commas; one within double quotes separates nothing.
        flags: those set before; an option may clear them.
    """
    left = []
    for option in _words(options):
        if option in _SETTING:
            flags |= _SETTING[option]
        elif option in _CLEARING:
            flags &= ~_CLEARING[option]
        elif option and option != "defaults":
            left.append(option)
    return flags, ",".join(left)


def _words(options: str) -> list[str]:
    words, quoted = [""], False
    for character in options:
        quoted ^= character == '"'
        if character == "," and not quoted:
            words.append("")
        else:
            words[-1] += character
    return words
