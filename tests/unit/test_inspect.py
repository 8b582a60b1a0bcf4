"""How what was read of a machine is put in order."""

from __future__ import annotations

import os

import pytest

from machinectl_py.cli import render
from machinectl_py.kernel.procfs import parse_mount
from machinectl_py.runtime import inspect_os
from machinectl_py.runtime.inspect_mounts import find_holder, in_tree_order, path_through
from machinectl_py.runtime.inspect_processes import NOBODY, inside_id
from machinectl_py.runtime.state import MachineState


def state(root, **fields):
    defaults = {
        "name": "m",
        "leader": 0,
        "leader_start": 0,
        "supervisor": 0,
        "phase": "opening",
        "root": str(root),
        "machine_id": "",
        "kind": "boot",
        "manager": "embedded",
        "unit": "",
        "cgroup": "",
        "registered": False,
        "private_network": False,
        "capabilities": 0,
        "no_new_privileges": False,
        "seccomp": "",
        "started": 0,
        "started_monotonic": 0,
        "clock_offset": 0,
    }
    return MachineState(**(defaults | fields))


def mount(mount_id, parent_id, target, root="/"):
    return parse_mount(f"{mount_id} {parent_id} 8:1 {root} {target} rw - ext4 /dev/vda rw")


def test_os_release_is_read_with_the_shells_quoting(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(
        '# comment\nID=debian\nVERSION_ID="12"\nNAME=\'A B\'\nX="a\\"b\\\\c"\n\nnonsense\n'
    )
    assert inspect_os.os_release(state(tmp_path)) == {
        "ID": "debian",
        "VERSION_ID": "12",
        "NAME": "A B",
        "X": 'a"b\\c',
    }


def test_os_release_of_usr_serves_where_etc_has_none(tmp_path):
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("ID=fedora\n")
    assert inspect_os.os_release(state(tmp_path)) == {"ID": "fedora"}


def test_a_link_in_the_root_does_not_lead_out_of_it(tmp_path):
    outside = tmp_path / "secret"
    outside.write_text("ID=host\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for target in (outside, "../../secret"):
        (root / "etc/os-release").symlink_to(target)
        assert inspect_os.os_release(state(root)) == {}
        (root / "etc/os-release").unlink()


def test_a_fifo_in_the_root_holds_nothing_up(tmp_path):
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/os-release")
    assert inspect_os.os_release(state(tmp_path)) == {}


def test_the_first_name_of_a_uid_counts(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nbad:x:one:1::/:/bin/sh\n"
    )
    assert inspect_os.user_names(state(tmp_path)) == {0: "root"}


@pytest.mark.parametrize(
    ("outside", "inside"), [(100000, 0), (165535, 65535), (165536, NOBODY), (0, NOBODY), (7, 70007)]
)
def test_ids_are_mapped_to_the_inside(outside, inside):
    assert inside_id(((0, 100000, 65536), (70007, 7, 1)), outside) == inside


def test_mounts_stand_after_the_one_they_are_on_in_the_order_of_mounting():
    mounts = [
        mount(1, 99, "/"),
        mount(5, 1, "/b"),
        mount(3, 1, "/a"),
        mount(4, 5, "/b/c"),
        mount(6, 4, "/b/c"),  # over it
    ]
    order = [(found.mount_id, depth) for found, depth in in_tree_order(mounts)]
    assert order == [(1, 0), (5, 1), (4, 2), (6, 3), (3, 1)]


def test_the_hosts_side_of_a_mount_is_its_narrowest_holder():
    whole, part = mount(1, 0, "/"), mount(2, 1, "/srv", root="/var/lib")
    assert find_holder("/var/lib/x", [whole, part]) is part
    assert find_holder("/var/library", [whole, part]) is whole
    assert find_holder("/etc", [part]) is None


@pytest.mark.parametrize(
    ("holder_root", "target", "root", "path"),
    [
        ("/", "/", "/var/lib/x", "/var/lib/x"),
        ("/", "/mnt", "/", "/mnt"),
        ("/var/lib", "/srv", "/var/lib/x", "/srv/x"),
        ("/var/lib", "/srv", "/var/lib", "/srv"),
        ("/var/lib", "/srv", "/etc", "/srv"),  # what it shows is not below: name the mount
    ],
)
def test_a_path_of_a_file_system_is_named_through_a_mount(holder_root, target, root, path):
    assert path_through(mount(1, 0, target, root=holder_root), root) == path


def test_trees_are_drawn_with_bars_only_where_a_sibling_follows():
    assert render.tree_indents([0, 1, 2, 2, 1, 2, 0, 1]) == [
        "",
        "├─",
        "│ ├─",
        "│ └─",
        "└─",
        "  └─",
        "",
        "└─",
    ]


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0ms"),
        (530_000, "530ms"),
        (12_345_678, "12s"),
        (75_000_000, "1min 15s"),
        (7_200_000_000, "2h"),
        (90_061_000_000, "1d 1h"),
    ],
)
def test_durations_are_told_by_their_two_largest_units(microseconds, text):
    assert render.timespan(microseconds) == text


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0B"), (1023, "1023B"), (1536, "1.5K"), (3 << 30, "3.0G")]
)
def test_sizes_have_binary_units(amount, text):
    assert render.size(amount) == text


def test_a_machine_cannot_drive_the_terminal(capsys):
    render.print_table(("A",), [("x\x1b[2J",)], legend=False)
    assert capsys.readouterr().out == "x\\x1b[2J\n"


def test_cells_of_several_lines_continue_below(capsys):
    render.print_table(("A", "B"), [("one", "1\n2"), ("", "3")], legend=True)
    assert capsys.readouterr().out == "A   B\none 1\n    2\n-   3\n"


def test_lines_are_cut_at_the_width(capsys):
    render.print_table(("A",), [("123456",)], legend=False, width=4)
    assert capsys.readouterr().out == "123…\n"
