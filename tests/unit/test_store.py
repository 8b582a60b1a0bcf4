"""The names, places and trees of images."""

from __future__ import annotations

import os

import pytest

from machinectl_py.errors import ConfigError, ConflictError, NotFoundError
from machinectl_py.images import store


@pytest.fixture
def tree(tmp_path):
    for directory in ("etc", "usr/lib/systemd", "sbin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("ID=test\n")
    init = tmp_path / "usr/lib/systemd/systemd"
    init.write_text("")
    init.chmod(0o755)
    return tmp_path


@pytest.fixture
def places(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.setattr(store, "SEARCH_PATH", (str(first), str(second), "/nonexistent"))
    monkeypatch.setattr(store, "MACHINES_DIR", str(first))
    return first, second


# What `systemd-nspawn --machine=` takes and refuses.
REFUSED = [
    "",
    ".",
    "..",
    ".a",
    "a.",
    "a..b",
    "-a",
    "a-",
    "a.-b",
    "a-.b",
    "a_b",
    "a b",
    "a/b",
    "a\n",
]
REFUSED += ["../etc", "é", "a\0", "--help", "a" * 65, ".host"]


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_systemd_refuses(name):
    assert not store.is_valid_name(name)
    with pytest.raises(ConfigError, match="no valid machine name"):
        store.check_name(name)


def test_error_of_a_name_is_one_printable_line():
    with pytest.raises(ConfigError) as error:
        store.check_name("a\x1b[31m\nb")
    assert error.value.message.isprintable()


def test_root_is_found_in_the_first_place_that_has_it(places):
    first, second = places
    (second / "only").mkdir()
    (first / "both").mkdir()
    (second / "both").mkdir()
    assert store.find_root("only") == str(second / "only")
    assert store.find_root("both") == str(first / "both")


def test_root_is_told_without_symbolic_links(places, tmp_path):
    (tmp_path / "real").mkdir()
    (places[0] / "link").symlink_to(tmp_path / "real")
    assert store.find_root("link") == str(tmp_path / "real")


def test_missing_image_says_how_to_get_one(places):
    with pytest.raises(NotFoundError) as error:
        store.find_root("absent")
    assert "pymachine pull debian --name=absent" in error.value.hint
    assert "pymachine images" in error.value.hint


def test_disk_image_is_found_by_its_name(places):
    (places[0] / "disk.raw").write_bytes(b"")
    assert store.find_root("disk") == str(places[0] / "disk.raw")


def test_hidden_directories_and_files_are_no_images(places):
    (places[0] / ".pull-x-123").mkdir()
    (places[0] / "file").write_text("")
    (places[0] / "b").mkdir()
    (places[1] / "a").mkdir()
    assert store.image_names() == ("a", "b")


def test_existing_name_is_refused_even_as_a_dangling_link(places):
    store.refuse_existing("x")
    (places[0] / "x").symlink_to("nowhere")
    with pytest.raises(ConflictError, match="exists already"):
        store.refuse_existing("x")


def test_tree_with_an_os_release_passes(tree):
    store.check_tree(str(tree))


def test_tree_without_os_release_is_refused(tree):
    (tree / "usr/lib/os-release").unlink()
    with pytest.raises(ConfigError, match="no os-release"):
        store.check_tree(str(tree))


def test_os_release_is_resolved_inside_the_tree(tree):
    (tree / "usr/lib/os-release").unlink()
    (tree / "etc/os-release").symlink_to("../../../../../../etc/hostname")  # exists outside alone
    with pytest.raises(ConfigError, match="no os-release"):
        store.check_tree(str(tree))
    (tree / "etc/hostname").write_text("")
    store.check_tree(str(tree))


def test_host_root_missing_directory_and_file_are_refused(tree):
    with pytest.raises(ConfigError, match="root of this host"):
        store.check_tree("/")
    with pytest.raises(NotFoundError, match="No such file"):
        store.check_tree(str(tree / "absent"))
    with pytest.raises(ConfigError, match="not a directory"):
        store.check_tree(str(tree / "usr/lib/os-release"))


def test_init_is_the_first_that_can_be_executed(tree):
    assert store.find_init(str(tree)) == "/usr/lib/systemd/systemd"
    (tree / "usr/lib/systemd/systemd").chmod(0o644)
    (tree / "sbin/init").symlink_to("/etc/init")  # inside: absolute links start at the root
    with pytest.raises(NotFoundError, match="no init"):
        store.find_init(str(tree))
    (tree / "etc/init").write_text("")
    (tree / "etc/init").chmod(0o755)
    assert store.find_init(str(tree)) == "/sbin/init"


def test_init_is_never_one_of_the_host(tree):
    (tree / "usr/lib/systemd/systemd").unlink()
    (tree / "sbin/init").symlink_to("../" * 20 + "bin/sh")
    with pytest.raises(NotFoundError):
        store.find_init(str(tree))


@pytest.mark.parametrize("text", ["", "uninitialized\n", "0" * 32, "zz", "f" * 33, "F" * 32])
def test_machine_id_that_is_none(tree, text):
    (tree / "etc/machine-id").write_text(text)
    assert store.machine_id(str(tree)) == ""


def test_machine_id_is_read_inside_the_tree(tree):
    assert store.machine_id(str(tree)) == ""
    (tree / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    assert store.machine_id(str(tree)) == "0123456789abcdef0123456789abcdef"
    (tree / "etc/machine-id").unlink()
    os.mkfifo(tree / "etc/machine-id")  # must not hang
    assert store.machine_id(str(tree)) == ""


def test_the_link_is_told_by_which_an_image_is_found(places, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "elsewhere.raw").touch()
    (tmp_path / "first/plain").mkdir()
    (tmp_path / "second/plain").symlink_to(elsewhere)
    (tmp_path / "first/gone").symlink_to("/nonexistent")
    (tmp_path / "second/gone").symlink_to(elsewhere)
    (tmp_path / "first/disk.raw").symlink_to(tmp_path / "elsewhere.raw")
    assert store.find_entry("plain") == store.find_root("plain") == str(tmp_path / "first/plain")
    assert store.find_entry("gone") == str(tmp_path / "second/gone")
    assert store.find_entry("disk") == str(tmp_path / "first/disk.raw")
    assert store.find_root("disk") == str(tmp_path / "elsewhere.raw")


def test_a_link_that_leads_nowhere_is_no_image(places, tmp_path):
    (tmp_path / "first/gone.raw").symlink_to("/nonexistent")
    (tmp_path / "first/gone").symlink_to("/nonexistent")
    assert store.image_paths() == ()
