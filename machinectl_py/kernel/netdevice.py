"""Flags of network links by ioctl(2); netdevice(7)."""

from __future__ import annotations

import fcntl
import struct

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IFREQ = "16sH22x"


def set_up(link: str) -> None:
    """Set a link of this network namespace up.

    Raises:
        OSError: there is no such link, or not allowed.
    """
    import _socket

    handle = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = struct.pack(_IFREQ, link.encode(), 0)
        flags = struct.unpack(_IFREQ, fcntl.ioctl(handle, _SIOCGIFFLAGS, request))[1]
        request = struct.pack(_IFREQ, link.encode(), flags | _IFF_UP)
        fcntl.ioctl(handle, _SIOCSIFFLAGS, request)
    finally:
        handle.close()
