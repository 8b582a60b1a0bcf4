"""Labels of security modules that a process takes by its next execve(2); proc_pid_attr(5).

The files are opened and written apart: they are found where /proc is to be trusted, and written
where the label is wanted. The kernel lets only the very process that a file is about write it.
"""

from __future__ import annotations

import os

ATTRIBUTES = "/proc/self/attr"


def open_selinux_exec() -> int:
    """Open the file that takes the SELinux context for the next execve(2).

    Raises:
        OSError: with errno and the path.
    """
    return os.open(f"{ATTRIBUTES}/exec", os.O_WRONLY | os.O_CLOEXEC)


def open_apparmor_exec() -> int:
    """Open the file that takes the AppArmor profile for the next execve(2).

    Raises:
        OSError: with errno and the path.
    """
    try:
        return os.open(f"{ATTRIBUTES}/apparmor/exec", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # before Linux 5.8, where one module has the files for itself
        return os.open(f"{ATTRIBUTES}/exec", os.O_WRONLY | os.O_CLOEXEC)


def write_selinux_exec(fd: int, label: str) -> None:
    """Have the next execve(2) of this process take an SELinux context; setexeccon(3).

    Raises:
        OSError: EINVAL if the policy has no such context, EACCES if it denies it.
    """
    os.write(fd, label.encode())


def write_apparmor_exec(fd: int, profile: str) -> None:
    """Have the next execve(2) of this process take an AppArmor profile; aa_change_onexec(2).

    Raises:
        OSError: ENOENT if no such profile is loaded, EACCES if we may not change to it.
    """
    os.write(fd, f"exec {profile}".encode())
