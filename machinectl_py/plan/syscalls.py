"""Which system calls a machine may make: systemd's groups, and systemd-nspawn's allow-list.

The groups are those of systemd 257 (systemd.exec(5), SystemCallFilter=; `systemd-analyze
syscall-filter` prints them). A call that is known here and not allowed fails with EPERM, one that
is not known with ENOSYS: a program that tries a newer call then falls back to the older one.

Numbers are libseccomp's business; it passes over what an architecture or its version has not.
"""

from __future__ import annotations

from machinectl_py.errors import ConfigError
from machinectl_py.kernel.capabilities import parse_names
from machinectl_py.kernel.seccomp import Action

GROUPS = {
    # System calls that are always permitted
    "@default": (
        "@sandbox arch_prctl brk cacheflush clock_getres clock_getres_time64 clock_gettime "
        "clock_gettime64 clock_nanosleep clock_nanosleep_time64 execve exit exit_group futex "
        "futex_time64 futex_waitv get_robust_list get_thread_area getegid getegid32 geteuid "
        "geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getrandom "
        "getresgid getresgid32 getresuid getresuid32 getrlimit getsid gettid gettimeofday getuid "
        "getuid32 lsm_get_self_attr lsm_list_modules membarrier mmap mmap2 mprotect mseal munmap "
        "nanosleep pause prlimit64 restart_syscall riscv_flush_icache riscv_hwprobe rseq "
        "rt_sigreturn sched_getaffinity sched_yield set_robust_list set_thread_area "
        "set_tid_address set_tls sigreturn time ugetrlimit uretprobe"
    ),
    # Asynchronous IO
    "@aio": (
        "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit "
        "io_uring_enter io_uring_register io_uring_setup"
    ),
    # Basic IO
    "@basic-io": (
        "_llseek close close_range dup dup2 dup3 llseek lseek pread64 preadv preadv2 pwrite64 "
        "pwritev pwritev2 read readv write writev"
    ),
    # Change ownership of files and directories
    "@chown": "chown chown32 fchown fchown32 fchownat lchown lchown32",
    # Change the system time
    "@clock": "adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday",
    # System calls for CPU emulation functionality
    "@cpu-emulation": "modify_ldt subpage_prot switch_endian vm86 vm86old",
    # Debugging, performance monitoring and tracing functionality
    "@debug": (
        "lookup_dcookie perf_event_open pidfd_getfd ptrace rtas s390_runtime_instr "
        "sys_debug_setcontext"
    ),
    # File system operations
    "@file-system": (
        "access chdir chmod close creat faccessat faccessat2 fallocate fchdir fchmod fchmodat "
        "fchmodat2 fcntl fcntl64 fgetxattr file_getattr file_setattr flistxattr fremovexattr "
        "fsetxattr fstat fstat64 fstatat fstatat64 fstatfs fstatfs64 ftruncate ftruncate64 "
        "futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init "
        "inotify_init1 inotify_rm_watch lgetxattr link linkat listmount listxattr listxattrat "
        "llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat newfstat "
        "newfstatat oldfstat oldlstat oldstat open openat openat2 readlink readlinkat removexattr "
        "removexattrat rename renameat renameat2 rmdir setxattr setxattrat stat stat64 statfs "
        "statfs64 statmount statx symlink symlinkat truncate truncate64 unlink unlinkat utime "
        "utimensat utimensat_time64 utimes"
    ),
    # Event loop system calls
    "@io-event": (
        "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 "
        "epoll_wait epoll_wait_old eventfd eventfd2 poll ppoll ppoll_time64 pselect6 "
        "pselect6_time64 select"
    ),
    # SysV IPC, POSIX Message Queues or other IPC
    "@ipc": (
        "ipc memfd_create mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 "
        "mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 "
        "process_madvise process_vm_readv process_vm_writev semctl semget semop semtimedop "
        "semtimedop_time64 shmat shmctl shmdt shmget"
    ),
    # Kernel keyring access
    "@keyring": "add_key keyctl request_key",
    # Memory locking control
    "@memlock": "mlock mlock2 mlockall munlock munlockall",
    # Loading and unloading of kernel modules
    "@module": "delete_module finit_module init_module",
    # Mounting and unmounting of file systems
    "@mount": (
        "chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree "
        "pivot_root umount umount2"
    ),
    # Network or Unix socket IO, should not be needed if not network facing
    "@network-io": (
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom "
        "recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socket "
        "socketcall socketpair"
    ),
    # Unusual, obsolete or unimplemented system calls
    "@obsolete": (
        "_sysctl afs_syscall bdflush break create_module ftime get_kernel_syms getpmsg gtty idle "
        "lock mpx prof profil putpmsg query_module security sgetmask ssetmask stime stty sysfs "
        "tuxcall ulimit uselib ustat vserver"
    ),
    # System calls used for memory protection keys
    "@pkey": "pkey_alloc pkey_free pkey_mprotect",
    # All system calls which need super-user capabilities
    "@privileged": (
        "@chown @clock @module @raw-io @reboot @swap _sysctl acct bpf capset chroot fanotify_init "
        "fanotify_mark open_by_handle_at pivot_root quotactl quotactl_fd setdomainname setfsuid "
        "setfsuid32 setgroups setgroups32 sethostname setresuid setresuid32 setreuid setreuid32 "
        "setuid setuid32 vhangup"
    ),
    # Process control, execution, namespacing operations
    "@process": (
        "capget clone clone3 execveat fork getrusage kill pidfd_open pidfd_send_signal prctl "
        "rt_sigqueueinfo rt_tgsigqueueinfo setns swapcontext tgkill times tkill unshare vfork "
        "wait4 waitid waitpid"
    ),
    # Raw I/O port access
    "@raw-io": (
        "ioperm iopl pciconfig_iobase pciconfig_read pciconfig_write s390_pci_mmio_read "
        "s390_pci_mmio_write"
    ),
    # Reboot and reboot preparation/kexec
    "@reboot": "kexec_file_load kexec_load reboot",
    # Alter resource settings
    "@resources": (
        "ioprio_set mbind migrate_pages move_pages nice sched_setaffinity sched_setattr "
        "sched_setparam sched_setscheduler set_mempolicy set_mempolicy_home_node setpriority "
        "setrlimit"
    ),
    # Sandbox functionality
    "@sandbox": "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    # Operations for changing user/group credentials
    "@setuid": (
        "setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 "
        "setresuid setresuid32 setreuid setreuid32 setuid setuid32"
    ),
    # Process signal handling
    "@signal": (
        "rt_sigaction rt_sigpending rt_sigprocmask rt_sigsuspend rt_sigtimedwait "
        "rt_sigtimedwait_time64 sigaction sigaltstack signal signalfd signalfd4 sigpending "
        "sigprocmask sigsuspend"
    ),
    # Enable/disable swap devices
    "@swap": "swapoff swapon",
    # Synchronize files and memory to storage
    "@sync": "fdatasync fsync msync sync sync_file_range sync_file_range2 syncfs",
    # General system service operations
    "@system-service": (
        "@aio @basic-io @chown @default @file-system @io-event @ipc @keyring @memlock @network-io "
        "@process @resources @setuid @signal @sync @timer arm_fadvise64_64 capget capset "
        "copy_file_range fadvise64 fadvise64_64 flock get_mempolicy getcpu getpriority ioctl "
        "ioprio_get kcmp madvise mremap name_to_handle_at oldolduname olduname personality "
        "readahead readdir remap_file_pages sched_get_priority_max sched_get_priority_min "
        "sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval "
        "sched_rr_get_interval_time64 sched_yield sendfile sendfile64 setfsgid setfsgid32 "
        "setfsuid setfsuid32 setpgid setsid splice sysinfo tee umask uname userfaultfd vmsplice"
    ),
    # Schedule operations by time
    "@timer": (
        "alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime "
        "timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime "
        "timerfd_gettime64 timerfd_settime timerfd_settime64 times"
    ),
}

# In no group; refused with EPERM like the groups that are not allowed.
_UNGROUPED = (
    "breakpoint cachectl cachestat futex_requeue futex_wait futex_wake get_tls lsm_set_self_attr "
    "map_shadow_stack memfd_secret mincore multiplexer process_mrelease s390_guarded_storage "
    "s390_sthyi spu_create spu_run syscall syslog sysmips timerfd usr26 usr32"
)

# systemd-nspawn(1), --system-call-filter=: allowed to every machine. Not among them, as no
# namespace confines them: @keyring, @swap, bpf, perf_event_open, fanotify_*, quotactl*,
# open_by_handle_at and kexec_*; nor what containers do not need: @cpu-emulation, @obsolete, @pkey.
_ALWAYS = (
    "@aio @basic-io @chown @default @file-system @io-event @ipc @mount @network-io @process "
    "@resources @setuid @signal @sync @timer "
    "arm_fadvise64_64 capset copy_file_range fadvise64 fadvise64_64 flock get_mempolicy getcpu "
    "getpriority ioctl ioprio_get kcmp madvise mincore mremap name_to_handle_at oldolduname "
    "olduname personality readahead readdir remap_file_pages sched_get_priority_max "
    "sched_get_priority_min sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval "
    "sched_rr_get_interval_time64 sendfile sendfile64 setdomainname setfsgid setfsgid32 setfsuid "
    "setfsuid32 sethostname setpgid setsid splice sysinfo tee umask uname userfaultfd vmsplice"
)

# Allowed to a machine that has the capability.
_BY_CAPABILITY = {
    "CAP_IPC_LOCK": "@memlock",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_MODULE": "@module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "@raw-io",
    "CAP_SYS_TIME": "@clock",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}


EVERY_CALL = "@known"  # all that is named here


def known_calls() -> frozenset[str]:
    """Return every system call named here."""
    return _expand((*GROUPS, *_UNGROUPED.split()))


def allowed_calls(
    capabilities: int, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the calls that a machine may make, sorted; systemd-nspawn(1) --system-call-filter=.

    Args:
        capabilities: the machine's bounding set, bit per capability.
        allow: names and @groups to be allowed beside the default.
        deny: names and @groups to be taken away; these win over `allow`. See `answers`.

    Raises:
        ConfigError: there is no call or group of that name.
    """
    denied = tuple(name for name, _ in map(split_action, deny))
    check_names(allow, deny)
    names = [*_ALWAYS.split(), *allow]
    for capability, calls in _BY_CAPABILITY.items():
        if capabilities & parse_names((capability,)):
            names += calls.split()
    return tuple(sorted(_expand(tuple(names)) - _expand(denied)))


def _expand(names: tuple[str, ...]) -> frozenset[str]:
    """Replace groups, which may hold groups, by their calls."""
    calls: set[str] = set()
    for name in names:
        if name == EVERY_CALL:
            calls |= known_calls()
        elif name.startswith("@"):
            calls |= _expand(tuple(GROUPS[name].split()))
        else:
            calls.add(name)
    return frozenset(calls)


def answers(deny: tuple[str, ...]) -> dict[str, Action]:
    """Return what denied calls get that are not merely refused, by their names.

    Args:
        deny: names and @groups; "ptrace:ENOSYS", "ptrace:38" and "ptrace:kill" say what happens
            to who calls it. Of several for one call, the last holds.

    Raises:
        ConfigError: there is no such call, group, errno or action.
    """
    check_names((), deny)
    found: dict[str, Action] = {}
    for name, action in map(split_action, deny):
        for call in _expand((name,)):
            if action:
                found[call] = action
            else:
                found.pop(call, None)
    return found


def split_action(entry: str) -> tuple[str, Action | None]:
    """Return the name in an entry of a list and the action behind it, if there is one.

    Raises:
        ConfigError: there is no such errno or action.
    """
    name, colon, text = entry.partition(":")
    if not colon:
        return name, None
    if text == "kill":
        return name, Action(kind="KILL_PROCESS")
    import errno

    number = int(text) if text.isascii() and text.isdigit() else -1
    if text.startswith("E"):
        number = getattr(errno, text, -1)
    if not 0 <= number <= _MAX_ERRNO:
        raise ConfigError(
            f"'{text}' in '{entry}' is neither an errno nor 'kill'",
            f"Such as {name}:EPERM or {name}:kill.",
        )
    return name, Action(kind="ERRNO", number=number)


_MAX_ERRNO = 4095  # <linux/err.h>


def check_names(allow: tuple[str, ...], deny: tuple[str, ...]) -> None:
    """Hold that these lists name calls and groups that there are.

    Raises:
        ConfigError: one does not, or has an action where none can be.
    """
    valid = known_calls() | GROUPS.keys() | {EVERY_CALL}
    for entry in allow:
        if ":" in entry:
            raise ConfigError(f"'{entry}' allows a call, so it can have no errno or action")
    for name in (*allow, *(name for name, _ in map(split_action, deny))):
        if name in valid:
            continue
        import difflib

        kind = "group of system calls" if name.startswith("@") else "system call"
        closest = difflib.get_close_matches(name, valid, n=1)
        raise ConfigError(
            f"There is no {kind} '{name}'", f"Did you mean '{closest[0]}'?" if closest else ""
        )
