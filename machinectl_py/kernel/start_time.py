"""When a process started: with its PID, what names it for good, as PIDs are used again."""

from __future__ import annotations


def start_ticks(pid: int) -> int:
    """Return when the process started, in clock ticks since boot; field 22 of proc_pid_stat(5).

    Raises:
        FileNotFoundError: there is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    return int(text[text.rindex(b")") + 2 :].split()[19])
