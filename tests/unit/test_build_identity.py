"""What the planner makes of a machine's identity, for hosts that we do not have."""

from __future__ import annotations

import pytest

from machinectl_py.config import credentials
from machinectl_py.config.spec import (
    BindUserSpec,
    CredentialSpec,
    JournalForwardSpec,
    MachineSpec,
    NetworkSpec,
    Payload,
    RootSpec,
    TimeSpec,
    UsersSpec,
)
from machinectl_py.errors import ConfigError, ConflictError, NotFoundError, UnsupportedError
from machinectl_py.plan import bind_users
from machinectl_py.plan.bind_users import HostUser, UserFacts, bound_users, map_rows
from machinectl_py.plan.build import build_plan
from machinectl_py.plan.facts import HostFacts
from machinectl_py.plan.host_files import HostFiles

ID = "0123456789abcdef0123456789abcdef"
RESOLVED = HostFiles(resolved_stub=True, resolv_conf=True)


def facts(**changes):
    fields = {
        "manager": "embedded",
        "register": False,
        "time_namespace": True,
        "foreground": True,
        "os_release": "/etc/os-release",
        "os_ids": (("id", "debian"), ("version_id", "12")),
        "devices": (),
        "can_make_devices": True,
        "listen_fds": 0,
        "root_device": 1,
        "root_inode": 2,
    }
    return HostFacts(**(fields | changes))


def spec(**changes):
    fields = {
        "name": "m",
        "root": "/root/of/m",
        "payload": Payload(argv=("/sbin/init",)),
        "hostname": "m",
        "machine_id": ID,
        "timezone": "off",
        "resolv_conf": "off",
        "link_journal": "no",
    }
    return MachineSpec(**(fields | changes))


def labels(spec_, facts_=None):
    return [step.label() for step in build_plan(spec_, facts_ or facts()).steps]


def acts(spec_, facts_):
    """Return the steps on files of /etc."""
    names = ("copy-file", "bind-file", "remove-file", "link-timezone")
    return [step for step in build_plan(spec_, facts_).steps if step.name in names]


READ_ONLY = RootSpec(read_only=True)
VOLATILE = RootSpec(read_only=True, volatile="overlay")
PRIVATE = NetworkSpec(kind="private")


@pytest.mark.parametrize(
    ("files", "rootfs", "network", "act", "source"),
    [
        (RESOLVED, RootSpec(), NetworkSpec(), "copy-file", "/run/systemd/resolve/stub-resolv.conf"),
        (RESOLVED, READ_ONLY, NetworkSpec(), "bind-file", "/run/systemd/resolve/stub-resolv.conf"),
        (RESOLVED, VOLATILE, NetworkSpec(), "copy-file", "/run/systemd/resolve/stub-resolv.conf"),
        (HostFiles(resolv_conf=True), RootSpec(), NetworkSpec(), "copy-file", "/etc/resolv.conf"),
        (HostFiles(resolv_conf=True), READ_ONLY, NetworkSpec(), "bind-file", "/etc/resolv.conf"),
        (HostFiles(), RootSpec(), NetworkSpec(), "remove-file", ""),
        (HostFiles(), READ_ONLY, NetworkSpec(), "", ""),
        (RESOLVED, RootSpec(), PRIVATE, "", ""),
        (RESOLVED, RootSpec(), NetworkSpec(kind="path", namespace_path="/run/x"), "", ""),
    ],
)
def test_resolv_conf_by_itself(files, rootfs, network, act, source):
    found = acts(spec(resolv_conf="auto", rootfs=rootfs, network=network), facts(files=files))
    assert [step.name for step in found] == ([act] if act else [])
    assert [getattr(step, "source", "") for step in found] == ([source] if act else [])


BERLIN = HostFiles(localtime="../usr/share/zoneinfo/Europe/Berlin")


@pytest.mark.parametrize(
    ("files", "rootfs", "act"),
    [
        (BERLIN, RootSpec(), "link-timezone"),
        (BERLIN, READ_ONLY, "bind-file"),
        (HostFiles(localtime_file=True), RootSpec(), "copy-file"),
        (HostFiles(localtime_file=True), READ_ONLY, "bind-file"),
        (HostFiles(), RootSpec(), "remove-file"),
        (HostFiles(), READ_ONLY, ""),
    ],
)
def test_the_time_zone_by_itself(files, rootfs, act):
    found = acts(spec(timezone="auto", rootfs=rootfs), facts(files=files))
    assert [step.name for step in found] == ([act] if act else [])


def test_the_zone_is_the_hosts():
    (step,) = acts(spec(timezone="symlink"), facts(files=BERLIN))
    assert step.zone == "Europe/Berlin"


@pytest.mark.parametrize("field", ["resolv_conf", "timezone"])
@pytest.mark.parametrize("mode", ["", "no-such-mode", "copy-nothing", "bind-"])
def test_modes_that_there_are_not(field, mode):
    with pytest.raises(ConfigError):
        build_plan(spec(**{field: mode}), facts())


def test_clocks_need_a_time_namespace():
    assert "new-time-namespace" in labels(spec())
    assert "new-time-namespace" not in labels(spec(time=TimeSpec(private=False)))
    assert "new-time-namespace" not in labels(spec(), facts(time_namespace=False))
    with pytest.raises(UnsupportedError):
        build_plan(spec(time=TimeSpec(monotonic=1)), facts(time_namespace=False))


@pytest.mark.parametrize("color", ["44", "48;2;0;0;80", "48:5:17", ""])
def test_backgrounds(color):
    assert build_plan(spec(background=color), facts())


@pytest.mark.parametrize("color", ["blue", "44m\x1b]0;x", "44 "])
def test_backgrounds_that_there_are_not(color):
    with pytest.raises(ConfigError):
        build_plan(spec(background=color), facts())


# Credentials


def test_credentials_are_the_same_after_their_way():
    data = bytes(range(256))
    assert credentials.decode(credentials.encode("x", data)) == data


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a:b", "ä", "a b", "x" * 256, "a\n"])
def test_names_that_no_credential_has(name):
    assert not credentials.is_valid_name(name)


def test_a_plan_shows_names_of_credentials_alone():
    secret = credentials.encode("pass", b"swordfish")
    plan = build_plan(spec(credentials=(secret,)), facts())
    text = repr(plan.rows())
    assert "pass" in text
    assert "swordfish" not in text
    assert secret.data not in text


def test_credentials_of_our_service_are_passed_on(tmp_path, monkeypatch):
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "not:valid").write_bytes(b"2")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credentials.inherited_credentials() == (CredentialSpec(name="one", data="MQ=="),)
    with pytest.raises(NotFoundError):
        credentials.inherited_credential("two")
    with pytest.raises(ConfigError):
        credentials.inherited_credential("../one")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert credentials.inherited_credentials() == ()


# Journal


@pytest.mark.parametrize(
    ("changes", "linked"),
    [
        ({"link_journal": "auto"}, True),
        ({"link_journal": "host"}, True),
        ({"link_journal": "no"}, False),
        ({"link_journal": "auto", "rootfs": RootSpec(ephemeral=True)}, False),
    ],
)
def test_journals_are_linked(changes, linked):
    for step in ("prepare-journal", "clone-journal", "attach-journal"):
        assert (step in labels(spec(**changes))) is linked


def test_the_hosts_own_journal_is_never_linked():
    same = facts(files=HostFiles(machine_id=ID))
    assert "attach-journal" not in labels(spec(link_journal="auto"), same)
    lenient = spec(link_journal="guest", link_journal_try=True)
    assert "attach-journal" not in labels(lenient, same)
    with pytest.raises(ConfigError):
        build_plan(spec(link_journal="host"), same)


def test_a_forwarded_journal_needs_a_receiver():
    wanted = spec(journal_forward=JournalForwardSpec(path="/srv/x"))
    with pytest.raises(UnsupportedError, match="systemd-journal-remote"):
        build_plan(wanted, facts())
    there = facts(files=HostFiles(journal_remote="/bin/systemd-journal-remote"))
    assert {"forward-journal", "attach-journal-socket", "place-credentials"} <= set(
        labels(wanted, there)
    )
    twice = wanted.replace(credentials=(credentials.encode("journal.forward_to_socket", b"x"),))
    with pytest.raises(ConfigError):
        build_plan(twice, there)
    limit = JournalForwardSpec(path="/srv/x", limits=(("MaxFun", "1"),))
    with pytest.raises(ConfigError):
        build_plan(spec(journal_forward=limit), there)


# Users of the host

ALICE = HostUser(name="alice", uid=1000, gid=1001, group="alice", home="/home/alice", shell="/s")
BOB = ALICE.replace(name="bob", uid=1002, gid=1003, group="bob", hashed_password="$6$x")


def bound(names=("alice", "bob"), users=None, **known):
    known = {"found": (ALICE, BOB)} | known
    return bound_users(
        spec(
            users=users or UsersSpec(mode="fixed", base=1 << 20),
            bind_users=BindUserSpec(names=names),
        ),
        facts(users=UserFacts(**known)),
    )


def test_users_get_the_first_ids_that_are_free():
    assert [user.uid for user in bound()] == [60514, 60515]
    assert [user.uid for user in bound(taken_ids=(60514, 60516))] == [60515, 60517]
    assert [user.host.name for user in bound(names=("bob", "alice", "bob"))] == ["bob", "alice"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"names": ("carol",)}, NotFoundError),
        ({"users": UsersSpec(mode="no")}, ConfigError),
        ({"users": UsersSpec(mode="fixed", base=0)}, ConfigError),
        ({"users": UsersSpec(mode="fixed", base=1 << 20, count=1000)}, ConflictError),
        ({"taken_names": ("bob",)}, ConflictError),
        ({"taken_ids": tuple(range(60514, 60577))}, ConflictError),
        ({"found": (ALICE.replace(group="users"), BOB)}, UnsupportedError),
        ({"names": ("root",), "found": (ALICE.replace(name="root"),)}, ConfigError),
    ],
)
def test_users_who_cannot_be_bound(changes, error):
    with pytest.raises(error):
        bound(**changes)


def test_the_map_has_holes_for_them():
    users = bound()
    rows = map_rows(1 << 20, 65536, bind_users.uid_holes(users))
    assert rows == (
        (0, 1 << 20, 60514),
        (60514, 1000, 1),
        (60515, 1002, 1),
        (60516, (1 << 20) + 60516, 65536 - 60516),
    )
    assert bind_users.gid_holes(users) == ((60514, 1001), (60515, 1003))
    assert map_rows(5, 10, ()) == ((0, 5, 10),)


def test_records_have_what_nss_systemd_reads():
    alice, bob = bound()
    files = {name: mode for name, _, mode in bind_users.record_files(alice, "", ())}
    assert files == {"alice.group": 0o644, "alice.user": 0o644}
    texts = {name: text for name, text, _ in bind_users.record_files(bob, "host", ("wheel",))}
    assert '"shell":"/s"' in texts["bob.user"].replace(" ", "")
    assert "$6$x" not in texts["bob.user"]
    assert "$6$x" in texts["bob.user-privileged"]
    assert "bob:wheel.membership" in texts
