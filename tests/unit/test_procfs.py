"""What /proc tells, against what Python and the kernel know by other ways."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from machinectl_py.kernel import procfs


def mount(**fields):
    line = "36 35 98:0 {root} {target} rw,noatime {tags}- ext3 {source} rw,errors=continue"
    defaults = {"root": "/", "target": "/mnt", "tags": "", "source": "/dev/root"}
    return procfs.parse_mount(line.format(**(defaults | fields)))


@pytest.mark.parametrize(
    ("tags", "propagation"),
    [
        ("", "private"),
        ("shared:7 ", "shared:7"),
        ("master:3 ", "slave:3"),
        ("shared:7 master:3 ", "shared:7,slave:3"),
        ("master:3 propagate_from:2 ", "slave:3"),
        ("unbindable ", "unbindable"),
    ],
)
def test_propagation_is_read_from_the_optional_fields(tags, propagation):
    assert mount(tags=tags).propagation == propagation


def test_every_field_of_a_mountinfo_line_is_found():
    found = mount(root="/sub", tags="master:3 propagate_from:2 ")
    assert found.to_data() == {
        "mount_id": 36,
        "parent_id": 35,
        "device": "98:0",
        "root": "/sub",
        "target": "/mnt",
        "options": "rw,noatime",
        "shared": 0,
        "master": 3,
        "propagate_from": 2,
        "unbindable": False,
        "fstype": "ext3",
        "source": "/dev/root",
        "super_options": "rw,errors=continue",
    }


def test_an_empty_source_shifts_no_field():
    found = mount(source="")
    assert (found.source, found.super_options) == ("", "rw,errors=continue")


def test_a_target_may_look_like_the_separator():
    assert mount(target=r"/a\040-\040b").target == "/a - b"


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        (r"/a\040b", "/a b"),
        (r"/tab\011end", "/tab\tend"),
        (r"/line\012end", "/line\nend"),
        (r"/back\134slash", "/back\\slash"),
        (r"/back\134040", "/back\\040"),  # undone once, not twice
        (r"/\999", r"/\999"),
        ("/plain", "/plain"),
    ],
)
def test_octal_escapes_are_undone_once(escaped, plain):
    assert procfs.unescape(escaped) == plain


def test_own_mounts_hold_one_root():
    mounts = procfs.mountinfo("self")
    ids = {found.mount_id for found in mounts}
    assert [found.target for found in mounts if found.parent_id not in ids] == ["/"]


def test_stat_bears_a_name_with_parentheses_and_blanks():
    with subprocess.Popen(
        ["sh", "-c", "printf 'a) R (b' >/proc/self/comm; read line"], stdin=subprocess.PIPE
    ) as process:
        # `printf` is a builtin, so self is the shell.
        deadline = time.monotonic() + 5
        while procfs.comm(process.pid) != "a) R (b" and time.monotonic() < deadline:
            time.sleep(0.01)
        found = procfs.stat(process.pid)
        process.stdin.close()
    assert found.comm == "a) R (b"
    assert found.parent == os.getpid()
    assert found.state in "RS"


def test_cmdline_keeps_empty_arguments_in_the_middle():
    expected = ("sh", "-c", "read line", "", "x")
    with subprocess.Popen(expected, stdin=subprocess.PIPE) as process:
        # execve(2) closes what tells Popen of it before it sets the arguments.
        deadline = time.monotonic() + 5
        while (found := procfs.cmdline(process.pid)) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        process.stdin.close()
    assert found == expected


def test_own_status_names_us():
    fields = procfs.status_fields("self")
    assert int(fields["Pid"]) == os.getpid()
    assert procfs.nspid(fields)[0] == os.getpid()


def test_namespaces_are_those_of_ns_without_those_for_children():
    links = procfs.namespace_links("self")
    assert links["mnt"] == os.readlink("/proc/self/ns/mnt")
    assert not [name for name in links if "children" in name]


def test_a_process_that_is_gone_raises_oserror():
    process = subprocess.Popen(["true"])
    process.wait()
    for reader in (
        procfs.comm,
        procfs.cmdline,
        procfs.stat,
        procfs.status_fields,
        procfs.mountinfo,
    ):
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            reader(process.pid)
