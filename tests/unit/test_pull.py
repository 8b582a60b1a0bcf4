"""What a pull is made of: the host's mirrors, mmdebstrap's output, the finished tree."""

from __future__ import annotations

import pytest

from machinectl_py.errors import ConfigError, NotFoundError, PymachineError, UnsupportedError
from machinectl_py.images import aside, finish, pull, store
from machinectl_py.images.builders import (
    arch,
    centos,
    debian,
    dnf,
    fedora,
    mirror,
    mmdebstrap,
    ubuntu,
)
from machinectl_py.images.builders.mirror import Source
from machinectl_py.images.builders.mmdebstrap import Watcher
from machinectl_py.images.builders.recipe import Request
from machinectl_py.images.builders.table import DISTRIBUTIONS, find_builder
from machinectl_py.kernel.locks import drop_lock, take_lock

TARGETS = """\
http://m/debian/|bookworm|bookworm|main|Debian|/nonexistent:1
http://m/debian/|bookworm|bookworm|contrib|Debian|/nonexistent:1
http://m/debian/|bookworm-updates|bookworm-updates|main|Debian|/nonexistent:1
http://s/debian-security/|bookworm-security|bookworm-security|main|Debian|/nonexistent:2
http://other/deb/|bookworm|bookworm|main|Other|/nonexistent:1
"""
ROOT = Request(root="/root")
CONFIGURED = mirror.parse_targets(TARGETS)


def test_sources_of_others_are_left_out_and_components_joined():
    assert [source.line() for source in CONFIGURED] == [
        "deb http://m/debian/ bookworm main contrib",
        "deb http://m/debian/ bookworm-updates main",
        "deb http://s/debian-security/ bookworm-security main",
    ]


def test_before_the_first_update_the_component_main_passes_for_debian():
    text = (
        "http://m/debian/|bookworm|$(CODENAME)|main|$(ORIGIN)|/nonexistent:1\n"
        "http://node/|nodistro|$(CODENAME)|nodejs|$(ORIGIN)|/nonexistent:1\n"
        "no line of ours\n"
    )
    assert mirror.parse_targets(text) == (
        Source(uri="http://m/debian/", suite="bookworm", components=("main",)),
    )


def test_own_suite_comes_from_the_host_as_configured():
    assert mirror.choose_sources("bookworm", CONFIGURED) == CONFIGURED


def test_other_suite_comes_from_the_same_mirrors():
    lines = [source.line() for source in mirror.choose_sources("trixie", CONFIGURED)]
    assert lines == [
        "deb http://m/debian/ trixie main",
        "deb http://m/debian/ trixie-updates main",
        "deb http://s/debian-security/ trixie-security main",
    ]


def test_rolling_suite_has_neither_updates_nor_security():
    lines = [source.line() for source in mirror.choose_sources("sid", CONFIGURED)]
    assert lines == ["deb http://m/debian/ sid main"]


def test_host_without_a_debian_mirror_leaves_the_choice_to_mmdebstrap():
    assert mirror.choose_sources("stable", ()) == ()


def test_keyring_is_that_of_the_entry(tmp_path):
    first, second = tmp_path / "first.gpg", tmp_path / "second.gpg"
    first.touch()
    second.touch()
    stanzas = tmp_path / "x.sources"
    stanzas.write_text(
        f"Types: deb\nURIs: http://a\nSigned-By: {first}\n\n"
        f"Types: deb\n# a comment\nURIs: http://b\nSigned-By: {second}\n\n"
        "Types: deb\nURIs: http://c\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
    )
    assert mirror.keyring_of(f"{stanzas}:1") == str(first)
    assert mirror.keyring_of(f"{stanzas}:2") == str(second)
    assert mirror.keyring_of(f"{stanzas}:3") == ""
    lines = tmp_path / "x.list"
    lines.write_text(f"# comment\ndeb [arch=amd64 signed-by={second}] http://a bookworm main\n")
    assert mirror.keyring_of(f"{lines}:2") == str(second)
    assert mirror.keyring_of(f"{lines}:1") == ""
    assert mirror.keyring_of("/nonexistent:1") == ""


def test_names_are_no_options_of_mmdebstrap():
    source = Source(uri="http://m", suite="trixie", components=("main",))
    words = mmdebstrap.command("mmdebstrap", ROOT, "trixie", ("a", "b"), (source,))
    end = words[words.index("--") :]
    assert end == ("--", "trixie", "/root", "deb http://m trixie main")
    assert "--include=a,b" in words
    assert "--variant=minbase" in words


def test_progress_counts_the_packages_of_each_part():
    watcher = Watcher()
    seen = []
    for line in (
        "I: running apt-get update...",
        "Get:1 http://m/debian bookworm InRelease [1 kB]",
        "I: downloading packages with apt...",
        "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
        "Get:1 http://m/debian bookworm/main amd64 a amd64 1 [1 kB]",
        "I: installing essential packages...",
        "Unpacking a (1) ...",
        "Setting up a (1) ...",
        "Unpacking b (1) ...",
        "I: installing remaining packages inside the chroot...",
        "0 upgraded, 7 newly installed, 0 to remove and 0 not upgraded.",
        "Get:1 http://m/debian bookworm/main amd64 c amd64 1 [1 kB]",
        "I: cleaning package lists and apt cache...",
    ):
        watcher.see(line)
        seen.append((watcher.doing(), watcher.detail()))
    assert seen[1] == ("reading package lists", "")
    assert seen[4] == ("downloading the essential packages", "1 of 2")
    assert seen[5] == ("installing the essential packages", "")
    assert seen[6] == ("unpacking the essential packages", "1 of 2")
    assert seen[7] == ("configuring the essential packages", "1 of 2")
    assert seen[8] == ("unpacking the essential packages", "2 of 2")
    assert seen[9] == ("choosing the other packages", "")
    assert seen[11] == ("downloading the other packages", "1 of 7")
    assert seen[12] == ("cleaning up", "")


def test_cause_of_a_failure_is_its_first_error_not_the_echo():
    watcher = Watcher()
    for line in (
        "Err:2 http://m/debian nosuite Release",
        "E: The repository 'http://m/debian nosuite Release' does not have a Release file.",
        "E: apt-get update --error-on=any failed",
        "E: mmdebstrap failed to run",
    ):
        watcher.see(line)
    assert watcher.cause.startswith("The repository")
    assert not watcher.no_space


@pytest.mark.parametrize(
    "line",
    [
        "E: You don't have enough free space in /x/var/cache/apt/archives/.",
        "  Write error - write (28: No space left on device)",
    ],
)
def test_full_disk_is_recognized(line):
    watcher = Watcher()
    watcher.see(line)
    assert watcher.no_space


@pytest.mark.parametrize("word", ["--setup-hook=x", "a b", "a,b", "a\n", "../x", "[trusted=yes]"])
def test_words_that_are_no_suite_or_package_are_refused(word):
    for distribution in DISTRIBUTIONS:
        for request in (ROOT.replace(suite=word), ROOT.replace(include=(word,))):
            with pytest.raises(ConfigError):
                pull.pull(distribution, "x", print, request=request)


def test_other_distributions_are_refused_with_what_is_supported():
    with pytest.raises(UnsupportedError) as error:
        pull.pull("plan9", "x", print, request=ROOT)
    assert "debian" in error.value.hint


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"variant": "standard"}, "no variant 'standard' of fedora"),
        ({"mirrors": ("/srv/mirror",)}, "is no URL"),
        ({"mirrors": ("http://x/\n[evil]",)}, "is no URL"),
        ({"keyring": "/nonexistent"}, "There is no keyring /nonexistent"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(change, text):
    with pytest.raises(PymachineError) as error:
        pull.pull("fedora", "x", print, request=ROOT.replace(**change))
    assert text in error.value.message


@pytest.fixture
def programs(monkeypatch):
    """All programs that builders look for."""
    for module in (mmdebstrap, dnf, arch):
        monkeypatch.setattr(module, "find_program", lambda name, **_package: f"/usr/bin/{name}")
    monkeypatch.setattr(mirror, "host_sources", lambda _origin: ())
    monkeypatch.setattr(mirror, "host_release", lambda: ("debian", "bookworm"))


def lines_of(recipe):
    return [word for word in recipe.commands[-1] if word.startswith("deb ")]


def test_ubuntu_comes_from_its_archive_by_its_own_keyring(programs, monkeypatch, tmp_path):
    with pytest.raises(NotFoundError) as error:
        ubuntu.recipe(ROOT)
    assert "ubuntu-keyring" in error.value.hint
    assert "--mirror=" in error.value.hint
    monkeypatch.setattr(ubuntu, "_KEYRING", str(tmp_path / "ubuntu.gpg"))
    (tmp_path / "ubuntu.gpg").touch()
    recipe = ubuntu.recipe(ROOT.replace(suite="jammy"))
    options = f"[signed-by={tmp_path}/ubuntu.gpg]"
    expected = [
        f"deb {options} {ubuntu._archive('jammy')[0].uri} {suite} main universe"
        for suite in ("jammy", "jammy-updates", "jammy-security")
    ]
    assert lines_of(recipe) == expected
    assert recipe.keyrings == (f"{tmp_path}/ubuntu.gpg",)


def test_a_host_that_is_ubuntu_has_its_own_mirrors(programs, monkeypatch):
    source = Source(uri="http://m", suite="noble", components=("main",), keyring="/k.gpg")
    monkeypatch.setattr(mirror, "host_sources", {"Ubuntu": (source,), "Debian": ()}.get)
    monkeypatch.setattr(mirror, "host_release", lambda: ("ubuntu", "noble"))
    assert lines_of(ubuntu.recipe(ROOT)) == ["deb [signed-by=/k.gpg] http://m noble main"]
    assert lines_of(debian.recipe(ROOT)) == []


def test_mirrors_that_a_user_names(programs):
    request = ROOT.replace(mirrors=("http://a", "file:///b sid main contrib"), keyring="/k.gpg")
    assert lines_of(debian.recipe(request)) == [
        "deb [signed-by=/k.gpg] http://a bookworm main",
        "deb [signed-by=/k.gpg] file:///b sid main contrib",
    ]
    assert lines_of(ubuntu.recipe(request))[0].endswith(" noble main universe")
    unsigned = ubuntu.recipe(request.replace(verified=False))
    assert lines_of(unsigned)[0] == "deb [trusted=yes] http://a noble main universe"
    with pytest.raises(ConfigError):
        debian.recipe(ROOT.replace(mirrors=("http://a sid",)))


def test_fedora_and_centos_ask_for_their_keys(programs, monkeypatch, tmp_path):
    monkeypatch.setattr(dnf, "_KEY_DIRS", (str(tmp_path),))
    for module in (fedora, centos):
        with pytest.raises(NotFoundError) as error:
            module.recipe(ROOT)
        assert "--keyring=" in error.value.hint
    key = tmp_path / f"RPM-GPG-KEY-fedora-{fedora.FEDORA.release}-primary"
    key.touch()
    recipe = fedora.recipe(ROOT)
    config = dict(recipe.files)["dnf.conf"]
    assert "gpgcheck=1\n" in config
    assert config.count(f"gpgkey=file://{key}\n") == 2
    assert config.count("metalink=https://") == 2
    assert "--installroot=/root" in recipe.commands[0]
    assert f"--releasever={fedora.FEDORA.release}" in recipe.commands[0]


def test_a_repository_that_a_user_names_is_the_only_one(programs):
    request = ROOT.replace(mirrors=("file:///a",), verified=False, suite="9", include=("x",))
    recipe = centos.recipe(request)
    config = dict(recipe.files)["dnf.conf"]
    assert "baseurl=file:///a\n" in config
    assert "metalink" not in config
    assert "gpgcheck=0\n" in config
    assert recipe.commands[0][-1] == "x"


def test_arch_is_verified_by_its_own_keys_or_by_those_given(programs, monkeypatch, tmp_path):
    monkeypatch.setattr(arch, "_KEYRING_DIRS", (str(tmp_path),))
    request = ROOT.replace(mirrors=("file:///a/$repo",))
    with pytest.raises(NotFoundError) as error:
        arch.recipe(request)
    assert "archlinux-keyring" in error.value.hint
    (tmp_path / "archlinux.gpg").touch()
    recipe = arch.recipe(request)
    assert [command[0] for command in recipe.commands[1:3]] == ["/usr/bin/pacman-key"] * 2
    config = dict(recipe.files)["pacman.conf"]
    assert "SigLevel = Required DatabaseOptional TrustedOnly\n" in config
    assert "[core]\nServer = file:///a/$repo\n[extra]\nServer = file:///a/$repo\n" in config
    given = arch.recipe(ROOT.replace(mirrors=("file:///a",), keyring="/k.gpg"))
    assert given.commands[1][-2:] == ("--import", "/k.gpg")
    assert "TrustAll" in dict(given.files)["pacman.conf"]
    assert "[extra]" not in dict(given.files)["pacman.conf"]
    unsigned = arch.recipe(request.replace(verified=False))
    assert len(unsigned.commands) == 2
    assert "SigLevel = Never\n" in dict(unsigned.files)["pacman.conf"]
    with pytest.raises(ConfigError):
        arch.recipe(ROOT.replace(suite="rolling"))


def test_each_distribution_has_a_builder():
    for distribution in DISTRIBUTIONS:
        builder = find_builder(distribution)
        assert callable(builder.recipe)
        assert builder.follower().doing().startswith("starting ")


def test_packages_that_are_counted():
    counter = dnf.follower()
    seen = []
    for line in (
        "Dependencies resolved.",
        "Downloading Packages:",
        "(3/12): systemd-257.rpm    1.0 MB/s | 4 MB  00:01",
        "Running transaction",
        "  Installing       : systemd-257-1.noarch          4/12 ",
        "Error: Transaction failed",
        "Error: and so on",
    ):
        counter.see(line)
        seen.append((counter.doing(), counter.detail()))
    assert seen[0] == ("choosing the packages", "")
    assert seen[2] == ("downloading the packages", "3 of 12")
    assert seen[4] == ("installing the packages", "4 of 12")
    assert counter.cause == "Transaction failed"


def test_stale_trees_go_and_those_of_a_pull_under_way_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MACHINES_DIR", str(tmp_path))
    for name in (".#dead.new", ".#alive.new", "image", ".hidden"):
        (tmp_path / name / "etc").mkdir(parents=True)
    lock = take_lock(str(tmp_path / ".#alive.lck"))
    aside.remove_stale()
    drop_lock(str(tmp_path / ".#alive.lck"), lock)
    assert {path.name for path in tmp_path.iterdir()} == {".#alive.new", "image", ".hidden"}


@pytest.fixture
def tree(tmp_path):
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "shadow").write_text("daemon:*:1:0:99999:7:::\nroot:*:1:0:99999:7:::\n")
    (etc / "shadow").chmod(0o640)
    (etc / "hostname").write_text("builder\n")
    (etc / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (etc / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    (etc / "resolv.conf").chmod(0o755)
    return tmp_path


def test_finished_tree_is_nobodys(tree):
    finish.finish_tree(str(tree))
    assert (tree / "etc/machine-id").read_text() == ""
    assert not (tree / "etc/hostname").exists()
    assert (tree / "etc/shadow").read_text() == (
        "daemon:*:1:0:99999:7:::\nroot:!unprovisioned:1:0:99999:7:::\n"
    )
    assert (tree / "etc/shadow").stat().st_mode & 0o777 == 0o640
    assert (tree / "etc/resolv.conf").stat().st_mode & 0o777 == 0o644


def test_keyring_that_the_tree_lacks_is_copied(tree, tmp_path):
    keyring = tmp_path / "corporate.gpg"
    keyring.write_bytes(b"key")
    finish.finish_tree(str(tree), (str(keyring),))
    assert (tree / str(keyring)[1:]).read_bytes() == b"key"


def test_finishing_never_writes_outside_the_tree(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "victim"
    outside.write_text("whole")
    (tree / "etc/machine-id").unlink()
    (tree / "etc/machine-id").symlink_to(outside)
    with pytest.raises(FileExistsError):  # a link that, inside, leads nowhere
        finish.finish_tree(str(tree))
    assert outside.read_text() == "whole"
