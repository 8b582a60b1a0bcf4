"""Terminals: pseudo-terminals, modes and window sizes; pty(7), termios(3), ioctl_tty(2)."""

from __future__ import annotations

import fcntl
import os
import struct

from machinectl_py.kernel import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Attributes = list[Any]  # as termios.tcgetattr returns them

# <asm-generic/ioctls.h>
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
TIOCGPTN = 0x80045430
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441

_IUTF8 = 0o40000  # <asm-generic/termbits.h>

_INT = struct.Struct("i")
_WINSIZE = struct.Struct("HHHH")  # rows, columns, and two that nobody uses


def open_pty_in(devpts: int) -> tuple[int, str]:
    """Open a new pseudo-terminal of this instance of devpts.

    Args:
        devpts: descriptor of a directory on which devpts is mounted.

    Returns:
        The master, close-on-exec, and the slave's path where devpts is at /dev/pts.

    Raises:
        OSError: ENOSPC, no pseudo-terminal is left; ENOTTY, it is no devpts.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
    master = os.open("ptmx", flags, dir_fd=devpts)
    try:
        fcntl.ioctl(master, TIOCSPTLCK, _INT.pack(0))
        number = _INT.unpack(fcntl.ioctl(master, TIOCGPTN, bytes(_INT.size)))[0]
    except OSError:
        os.close(master)
        raise
    return master, f"/dev/pts/{number}"


def open_slave(master: int) -> int:
    """Open the slave of a master, by no path, so that nothing can stand in its way; close-on-exec.

    Raises:
        OSError: with errno.
    """
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def set_controlling_terminal(fd: int) -> None:
    """Make a terminal that of this session, whose leader the caller is.

    Raises:
        OSError: EPERM, no session leader, or it is another session's.
    """
    fcntl.ioctl(fd, const.TIOCSCTTY, 0)


def window_size(fd: int) -> tuple[int, int] | None:
    """Return rows and columns of a terminal; None if it is no terminal."""
    try:
        data = fcntl.ioctl(fd, TIOCGWINSZ, bytes(_WINSIZE.size))
    except OSError:
        return None
    rows, columns, _, _ = _WINSIZE.unpack(data)
    return rows, columns


def set_window_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground processes get SIGWINCH if it changes.

    Raises:
        OSError: with errno.
    """
    fcntl.ioctl(fd, TIOCSWINSZ, _WINSIZE.pack(rows, columns, 0, 0))


def attributes(fd: int) -> Attributes:
    """Return the modes of a terminal, for `set_attributes`.

    Raises:
        OSError: it is no terminal, or has been hung up.
    """
    import termios

    try:
        return termios.tcgetattr(fd)
    except termios.error as error:
        raise OSError(*error.args) from None


def set_attributes(fd: int, attributes: Attributes) -> None:
    """Set the modes of a terminal, at once: what is still to be written is left alone.

    Raises:
        OSError: with errno.
    """
    import termios

    try:
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error as error:
        raise OSError(*error.args) from None


def is_canonical(fd: int) -> bool:
    """Say whether input comes by lines, and VEOF ends it; of a master: at its slave; termios(3)."""
    import termios

    try:
        return bool(attributes(fd)[3] & termios.ICANON)
    except OSError:  # nobody has the slave open
        return True


def raw(attributes: Attributes) -> Attributes:
    """Return these modes made raw, as cfmakeraw(3) does: bytes pass untouched both ways."""
    import termios

    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = attributes
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]


def set_utf8(fd: int) -> None:
    """Have the line discipline erase whole UTF-8 characters: IUTF8, off in a new terminal.

    Raises:
        OSError: with errno.
    """
    modes = attributes(fd)
    modes[0] |= _IUTF8
    set_attributes(fd, modes)
