"""The C library, loaded once, with prototypes declared once; and one way to fail.

`CDLL(None)` rather than `ctypes.util.find_library`, which starts processes (25 ms).
"""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# PyDLL keeps the interpreter's lock over a call: our processes have one thread, and a clone
# that returns in the child must find the lock as it was.
libc = ctypes.PyDLL(None, use_errno=True)

_int, _long, _ulong = ctypes.c_int, ctypes.c_long, ctypes.c_ulong
_str, _void = ctypes.c_char_p, ctypes.c_void_p

libc.syscall.restype = _long
libc.mount.argtypes = (_str, _str, _str, _ulong, _void)
libc.umount2.argtypes = (_str, _int)
libc.statfs.argtypes = (_str, _void)
libc.renameat2.argtypes = (_int, _str, _int, _str, ctypes.c_uint)
libc.unshare.argtypes = (_int,)
libc.setns.argtypes = (_int, _int)
libc.prctl.argtypes = (_int, _ulong, _ulong, _ulong, _ulong)
libc.reboot.argtypes = (ctypes.c_int,)
libc.sethostname.argtypes = (_str, ctypes.c_size_t)
libc.personality.argtypes = (_ulong,)

# The architecture whose calls this interpreter makes, as uname(2) names it. Not asked of uname(2)
# where the interpreter knows: after personality(2) that says "i686" to a program of x86-64.
MACHINE = getattr(sys.implementation, "_multiarch", "").partition("-")[0] or os.uname().machine
MACHINE = {"powerpc64le": "ppc64le", "powerpc64": "ppc64", "i386": "i686"}.get(MACHINE, MACHINE)


def fail(call: str, *paths: str | bytes) -> NoReturn:
    """Raise `OSError` for the errno that `call` left.

    The built-in classes (`FileNotFoundError`, …) are chosen by `OSError` itself; the call is an
    attribute, `call`, and stands in the message.
    """
    raise_errno(ctypes.get_errno(), call, *paths)


def raise_errno(number: int, call: str, *paths: str | bytes) -> NoReturn:
    """Raise `OSError` for this errno of `call` on up to two paths."""
    first, second = ([os.fsdecode(path) for path in paths] + [None, None])[:2]
    error = OSError(number, f"{call}: {os.strerror(number)}", first, None, second)
    error.call = call  # type: ignore[attr-defined]
    raise error


def check(result: int, call: str, *paths: str | bytes) -> int:
    """Return `result`, or raise `OSError` if it is negative."""
    if result < 0:
        fail(call, *paths)
    return result
