"""Settings: options, keys of `.nspawn` files, their merging, the spec, and back again."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinectl_py.config import kinds, nspawn_file
from machinectl_py.config.assemble import Frame, make_spec
from machinectl_py.config.merge import EMPTY, from_files, from_options, merge
from machinectl_py.config.render import lines
from machinectl_py.config.spec import (
    BindMount,
    FurtherLink,
    OverlayMount,
    PortSpec,
    Rlimit,
    TmpfsMount,
    UsersSpec,
)
from machinectl_py.config.table import GROUPS, SETTINGS, by_key
from machinectl_py.config.words import join_fields, join_words, split_fields, split_words
from machinectl_py.errors import ConfigError, PymachineError, UnsupportedError, UsageError
from machinectl_py.kernel.capabilities import CAPABILITY_NAMES

NUMBERS = {name: number for number, name in enumerate(CAPABILITY_NAMES)}
ID = "0123456789abcdef0123456789abcdef"

# A text of each kind that is valid, and not what holds if nothing is said.
EXAMPLES = {
    "absolute-path": ["/srv"],
    "boolean": ["yes", "no"],
    "volatile": ["state", "overlay"],
    "root-hash": ["00112233445566778899aabbccddeeff"],
    "text": ["x"],
    "pivot-root": ["/new", "/new:/old"],
    "words": ["one 'two three' \"\""],
    "environment": ["A=1 'B=two words'"],
    "user": ["nobody", "1000"],
    "user-list": ["alice bob"],
    "signal": ["SIGTERM", "RTMIN+4", "15"],
    "hostname": ["a-b.c"],
    "id128": [ID, "01234567-89ab-cdef-0123-456789abcdef"],
    "slice": ["web.slice", "web"],
    "assignment": ["MemoryMax=1G"],
    "manager": ["embedded"],
    "rlimit": ["NOFILE=100:200", "LimitCORE=infinity"],
    "oom-score": ["-500"],
    "numbers": ["0-3,5"],
    "personality": ["x86"],
    "private-users": ["pick", "identity", "managed", "524288:65536", "yes"],
    "ownership": ["map", "foreign"],
    "number": ["3"],
    "interface-pair": ["eth7:in0"],
    "macvlan-pair": ["eth7"],
    "ipvlan-pair": ["eth7"],
    "veth-pair": ["ve-a:in"],
    "interface": ["br0"],
    "network-address": ["10.0.0.5", "red:10.0.0.5", "red:fd01::5", "fade:[fd01::5]"],
    "network-rate": ["10M", "red:8K"],
    "zone": ["green"],
    "port": [
        "udp:53:5353",
        "80",
        "sctp:9",
        "8000-8010:80-90",
        "tcp:[2001:db8::1]:80",
        "10.0.0.1:80",
    ],
    "capabilities": ["CAP_SYS_TIME,net_admin"],
    "filter": ["@clock keyctl", "~@mount ptrace"],
    "families": ["AF_INET AF_UNIX", "~AF_PACKET", "none"],
    "path": ["/some/file"],
    "resolv-conf": ["copy-host", "off"],
    "timezone": ["symlink"],
    "link-journal": ["try-guest", "host"],
    "bind": ["/a\\:b:/c:norbind,idmap", "-/may/be", "+/in:/out", ":/empty"],
    "bind-ro": ["/a"],
    "inaccessible": ["/boot"],
    "tmpfs": ["/t:size=1M,mode=0700"],
    "overlay": ["/l1:/l2:/u:/t", "/l:/u", "+/l::/t"],
    "overlay-ro": ["/l:/u:/t"],
    "shell": ["/bin/sh", "yes"],
    "span": ["1h 30min", "2.5s"],
    "credential": ["name:a\\x20b\\n"],
    "credential-file": ["name:/path"],
}


def frame(**changes):
    fields = {
        "name": "m",
        "root": "/r",
        "kind": "command",
        "argv": ("true",),
        "console": "pipe",
        "tree_id": "",
        "new_id": ID,
        "environment": {},
        "service": "pymachine",
        "capability_numbers": NUMBERS,
    }
    return Frame(**(fields | changes))


def spec_of_options(**options):
    values = {name.replace("_", "-"): text for name, text in options.items()}
    return make_spec(merge(from_options(values, SETTINGS), EMPTY, SETTINGS, "yes"), frame())


def read(tmp_path, text, *, trusted=True, lenient=False):
    path = tmp_path / "m.nspawn"
    path.write_text(text)
    warnings = []
    return from_files([(str(path), trusted)], warnings.append, lenient=lenient), warnings


def spec_of_file(tmp_path, text, **options):
    files, _ = read(tmp_path, text)
    values = {name.replace("_", "-"): value for name, value in options.items()}
    merged = merge(from_options(values, SETTINGS), files, SETTINGS, "yes")
    return make_spec(merged, frame())


def test_the_table_is_well_formed():
    names = [row.name for row in SETTINGS if row.name]
    keys = [(row.section, row.key) for row in SETTINGS if row.key]
    assert len(names) == len(set(names))
    assert len(keys) == len(set(keys))
    for row in SETTINGS:
        assert row.group in GROUPS
        assert bool(row.section) == bool(row.key)
        assert row.name or row.key
        assert not row.key or row.kind


def test_every_key_of_systemd_nspawn_is_known():
    # systemd.nspawn(5) of systemd 257, but for what is an option alone.
    limits = "CPU FSIZE DATA STACK CORE RSS NOFILE AS NPROC MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE"
    exec_keys = (
        "Boot Ephemeral ProcessTwo Parameters Environment User Capability AmbientCapability "
        "DropCapability KillSignal Personality MachineID WorkingDirectory PivotRoot PrivateUsers "
        "NotifyReady SystemCallFilter Hostname NoNewPrivileges OOMScoreAdjust CPUAffinity "
        "ResolvConf LinkJournal Timezone SuppressSync"
    )
    files = (
        "ReadOnly Volatile Bind BindReadOnly TemporaryFileSystem Inaccessible Overlay "
        "OverlayReadOnly PrivateUsersChown PrivateUsersOwnership BindUser"
    )
    network = "Private Interface MACVLAN IPVLAN VirtualEthernet VirtualEthernetExtra Bridge Zone"
    wanted = {("Exec", f"Limit{name}") for name in f"{limits} RTPRIO RTTIME".split()}
    for section, keys in (("Exec", exec_keys), ("Files", files), ("Network", f"{network} Port")):
        wanted |= {(section, key) for key in keys.split()}
    assert wanted <= by_key().keys()


def cases():
    for row in SETTINGS:
        kind = "rlimit-of-file" if row.kind.startswith("limit-") else row.kind
        examples = EXAMPLES.get(kind, ["1:2", "infinity"] if kind == "rlimit-of-file" else [])
        for text in examples:
            if row.key:
                yield pytest.param(row, text, id=f"{row.section}.{row.key}={text}")


@pytest.mark.parametrize(("row", "text"), list(cases()))
def test_what_is_read_is_written_so_that_it_is_read_again(row, text):
    value = kinds.read(row.kind, text)
    items = value if row.many else (value,)
    for item in items:
        again = kinds.read(row.kind, kinds.write(row.kind, item))
        assert again == ((item,) if row.many else item)


@pytest.mark.parametrize(("row", "text"), list(cases()))
def test_option_key_spec_and_show_say_the_same(row, text, tmp_path):
    """An option makes the spec that its key makes, and the spec's settings make it again."""
    context = "[Network]\nPrivate=yes\n" if row.field == "ports" else ""
    if row.kind in ("network-address", "network-rate"):
        context = "[X-Network]\nNetwork=first\nNetwork=red\nNetwork=fade\n"
    if row.field.startswith("bind_user"):
        context = "[Exec]\nPrivateUsers=pick\n"
    if row.field == "bind_user_shell":
        context += "[Files]\nBindUser=carol\n"
    if row.field == "users_delegate":
        context = "[Exec]\nPrivateUsers=pick\n"
    if row.field == "ambient_capability":
        context = "[Exec]\nCapability=all\n"
    if row.field in ("load_credentials", "credentials", "seccomp_profile"):
        pytest.skip("secrets and contents of files are not shown")
    by_file = spec_of_file(tmp_path, f"{context}[{row.section}]\n{row.key}={text}\n")
    if row.name:
        options = {row.name[2:].replace("-", "_"): [text] if row.many else text}
        if row.masks in ("users", "capabilities") and context:
            pytest.skip("the option hides the context")
        assert spec_of_file(tmp_path, context, **options) == by_file
    shown = "".join(f"[{section}]\n{key}={value}\n" for section, key, value, _ in lines(
        by_file, tuple(CAPABILITY_NAMES)
    ) if (section, key) != ("Exec", "Parameters"))  # fmt: skip
    assert spec_of_file(tmp_path, shown) == by_file


def test_an_empty_file_changes_nothing(tmp_path):
    assert spec_of_file(tmp_path, "") == spec_of_options()
    assert spec_of_file(tmp_path, "[Exec]\n\n[Network]\n# nothing\n") == spec_of_options()


def test_an_option_hides_what_the_file_says_of_it(tmp_path):
    text = "[Network]\nPrivate=yes\n[Files]\nBind=/etc\n[Exec]\nHostname=file\nLimitCPU=5\n"
    spec = spec_of_file(tmp_path, text, private_network="no", bind=["/usr"], hostname="mine")
    assert (spec.network.kind, spec.hostname) == ("host", "mine")
    assert [mount.source for mount in spec.mounts] == ["/usr"]
    assert Rlimit(name="CPU", soft=5, hard=5) in spec.rlimits


def test_an_option_of_the_network_hides_the_whole_section(tmp_path):
    spec = spec_of_file(tmp_path, "[Network]\nVirtualEthernet=yes\n", private_network="yes")
    assert (spec.network.kind, spec.network.veth) == ("private", False)


def test_limits_hide_one_another_by_name(tmp_path):
    spec = spec_of_file(tmp_path, "[Exec]\nLimitCPU=5\nLimitNOFILE=7\n", rlimit=["NOFILE=9"])
    limits = {limit.name: limit.soft for limit in spec.rlimits}
    assert (limits["CPU"], limits["NOFILE"]) == (5, 9)


def test_with_override_the_file_has_the_last_word(tmp_path):
    files, _ = read(tmp_path, "[Exec]\nHostname=file\n")
    options = from_options({"hostname": "mine", "chdir": "/srv"}, SETTINGS)
    spec = make_spec(merge(options, files, SETTINGS, "override"), frame())
    assert (spec.hostname, spec.payload.working_directory) == ("file", "/srv")


def with_override(tmp_path, text, **options):
    files, _ = read(tmp_path, text)
    given = from_options({name.replace("_", "-"): v for name, v in options.items()}, SETTINGS)
    return make_spec(merge(given, files, SETTINGS, "override"), frame())


@pytest.mark.parametrize("text", ["Private=no", "MACVLAN=eth7", "VirtualEthernet=no"])
def test_with_override_a_network_of_the_file_is_the_whole_network(tmp_path, text):
    """As systemd-nspawn@.service has it, whose own option is --network-veth."""
    network = with_override(tmp_path, f"[Network]\n{text}\n", network_veth="yes").network
    assert not network.veth
    assert network.kind == ("private" if "MACVLAN" in text else "host")


def test_with_override_capabilities_add_up(tmp_path):
    text = "[Exec]\nCapability=CAP_SYS_TIME\n"
    spec = with_override(tmp_path, text, capability=["CAP_SYSLOG"])
    assert spec.capabilities >> NUMBERS["CAP_SYS_TIME"] & 1
    assert spec.capabilities >> NUMBERS["CAP_SYSLOG"] & 1


def test_with_override_a_file_says_how_to_start_only_if_it_says_what(tmp_path):
    files, _ = read(tmp_path, "[Exec]\nParameters=one\n")
    options = from_options({"boot": "yes"}, SETTINGS)
    assert merge(options, files, SETTINGS, "override").values == {
        "boot": True,
        "parameters": ("one",),
    }
    given = options.replace(values={"parameters": ("typed",)}, origins={"parameters": ""})
    assert merge(given, files, SETTINGS, "override").values == {"parameters": ("typed",)}
    files, _ = read(tmp_path, "[Exec]\nProcessTwo=yes\n")
    assert merge(options, files, SETTINGS, "override").values == {"as_pid2": True}


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"U": "yes", "private-users": "no"}, "no"),
        ({"private-users": "no", "U": "yes"}, "pick"),
    ],
)
def test_the_last_of_options_of_the_same_meaning_counts(options, mode):
    values = merge(from_options(options, SETTINGS), EMPTY, SETTINGS, "yes")
    assert make_spec(values, frame()).users.mode == mode


def test_an_ownership_alone_is_of_a_user_namespace_where_that_is_the_default():
    values = merge(from_options({"private-users-ownership": "chown"}, SETTINGS), EMPTY, [], "yes")
    assert make_spec(values, frame()).users.mode == "no"
    users = make_spec(values, frame(), UsersSpec(mode="pick", ownership="map")).users
    assert (users.mode, users.ownership) == ("pick", "chown")


def test_capabilities_may_be_given_by_number():
    spec = spec_of_options(capability=["25"], drop_capability=["CAP_CHOWN"])
    assert spec.capabilities & 1 << 25 == 1 << NUMBERS["CAP_SYS_TIME"]
    assert not spec.capabilities & 1


def test_an_empty_value_takes_back_its_own_kind_alone(tmp_path):
    text = "[Files]\nBind=/a\nTemporaryFileSystem=/t\nBind=\n"
    text += "[Exec]\nLimitCPU=5\nLimitNOFILE=7\nLimitCPU=\n"
    spec = spec_of_file(tmp_path, text)
    assert [type(mount) for mount in spec.mounts] == [TmpfsMount]
    limits = {limit.name: limit.soft for limit in spec.rlimits}
    assert (limits["CPU"], limits["NOFILE"]) == (-1, 7)
    given = {"forward-journal": "/j", "forward-journal-max-use": ["1G", ""]}
    given["forward-journal-max-files"] = ["3"]
    spec = make_spec(merge(from_options(given, SETTINGS), EMPTY, SETTINGS, "yes"), frame())
    assert spec.journal_forward.limits == (("MaxFiles", "3"),)


def test_an_empty_value_takes_back_what_stands_before(tmp_path):
    text = "[Files]\nBind=/a\nBind=\nBind=/b\n[Exec]\nHostname=x\nHostname=\n"
    spec = spec_of_file(tmp_path, text)
    assert [mount.source for mount in spec.mounts] == ["/b"]
    assert spec.hostname == "m"
    assert spec_of_file(tmp_path, "[Files]\nBind=/a\n", bind=[""]).mounts == ()


def test_a_file_that_is_not_trusted_says_nothing_privileged(tmp_path):
    text = "[Exec]\nCapability=all\nHostname=x\nDropCapability=CAP_CHOWN\n[Files]\nBind=/\n"
    source, warnings = read(tmp_path, text, trusted=False)
    assert set(source.values) == {"hostname", "drop_capability"}
    assert len(warnings) == 2
    assert "m.nspawn:2: Capability=" in warnings[0]
    source, _ = read(tmp_path, "[Exec]\nEphemeral=yes\n[Files]\nBindUser=x\n", trusted=False)
    assert source.values == {}
    source, _ = read(tmp_path, "[Exec]\nSystemCallFilter=~ptrace\n", trusted=False)
    assert source.values == {"system_call_filter": ("~ptrace",)}


def test_a_file_that_is_not_trusted_takes_nothing_back_of_one_that_is(tmp_path):
    (tmp_path / "m.nspawn").write_text(
        "[Exec]\nUser=nobody\nNoNewPrivileges=yes\nDropCapability=CAP_CHOWN\n"
    )
    (tmp_path / "z.conf").write_text(
        "[Exec]\nUser=root\nNoNewPrivileges=no\nDropCapability=\nHostname=x\nBoot=yes\n"
    )
    files = [(str(tmp_path / "m.nspawn"), True), (str(tmp_path / "z.conf"), False)]
    source = from_files(files, lambda _: None, lenient=False)
    assert source.values == {
        "user": "nobody",
        "no_new_privileges": True,
        "drop_capability": ("CAP_CHOWN",),
        "hostname": "x",
        "boot": True,
    }
    source = from_files(files, lambda _: None, lenient=False, trust_all=True)
    assert (source.values["user"], source.values["no_new_privileges"]) == ("root", False)


def test_unknown_keys_warn_and_sections_of_others_do_not(tmp_path):
    _, warnings = read(tmp_path, "[Exec]\nNoSuchKey=1\n[Odd]\nA=1\n[X-Other]\nA=1\n")
    assert len(warnings) == 2
    assert "m.nspawn:2: NoSuchKey= in [Exec] is not known" in warnings[0]


def test_a_value_that_is_not_valid_fails_with_file_and_line(tmp_path):
    with pytest.raises(ConfigError, match=r"m\.nspawn:2: Boot=maybe: expected yes or no"):
        read(tmp_path, "[Exec]\nBoot=maybe\n")
    source, warnings = read(tmp_path, "[Exec]\nBoot=maybe\nHostname=x\n", lenient=True)
    assert source.values == {"hostname": "x"}
    assert "passed over" in warnings[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Hostname=x\n", "in no section"),
        ("[Exec\nHostname=x\n", "not closed"),
        ("[Exec]\njust words\n", "no ="),
        ("[Exec]\nHostname=\0\n", "zero byte"),
    ],
)
def test_a_line_that_is_no_assignment_fails(tmp_path, text, problem):
    with pytest.raises(ConfigError, match=problem):
        read(tmp_path, text)


def test_lines_are_joined_by_a_backslash_and_comments_passed_over():
    text = b"\xef\xbb\xbf; c\n[Exec]\nParameters=a \\\n# c\n  b\\\n c\n"
    (entry,) = nspawn_file.parse(text, "f", lambda *_: None)
    assert (entry.key, entry.value.split(), entry.line) == ("Parameters", ["a", "b", "c"], 3)


def test_files_are_found_as_systemd_finds_them(tmp_path, monkeypatch):
    etc, run, images = (tmp_path / name for name in ("etc", "run", "images"))
    for directory in (etc, run, images):
        (directory / "m.nspawn.d").mkdir(parents=True)
        (directory / "m.nspawn").touch()
    monkeypatch.setattr(nspawn_file, "TRUSTED_DIRECTORIES", (str(etc), str(run)))
    (run / "m.nspawn.d/10.conf").touch()
    (etc / "m.nspawn.d/10.conf").touch()
    (images / "m.nspawn.d/05.conf").touch()
    (etc / "m.nspawn.d/skipped").touch()
    assert nspawn_file.settings_files("m", f"{images}/m") == [
        (f"{etc}/m.nspawn", True),
        (f"{images}/m.nspawn.d/05.conf", False),
        (f"{etc}/m.nspawn.d/10.conf", True),
    ]
    (etc / "m.nspawn").unlink()
    (run / "m.nspawn").unlink()
    assert nspawn_file.settings_files("m", f"{images}/m")[0] == (f"{images}/m.nspawn", False)


def test_values_are_what_they_say(monkeypatch):
    monkeypatch.chdir("/usr")
    assert kinds.read("bind", "lib:/x") == (BindMount(source="/usr/lib", target="/x"),)
    assert kinds.read("bind", "/a:/b:norbind,rootidmap")[0] == BindMount(
        source="/a", target="/b", recursive=False, idmap="rootidmap"
    )
    assert kinds.read("tmpfs", "/t") == (TmpfsMount(target="/t", options="mode=0755"),)
    assert kinds.read("overlay", "/l:/u") == (OverlayMount(lower=("/l",), upper="/u", target="/u"),)
    assert kinds.read("port", "80") == (PortSpec(protocol="tcp", host=80, inside=80),)
    assert kinds.read("signal", "SIGRTMIN+3") == 37
    assert kinds.read("span", "1h 30min 1.5s") == 5_401_500_000_000
    assert kinds.read("limit-NOFILE", "1K:infinity") == (Rlimit(name="NOFILE", soft=1024, hard=-1),)
    assert kinds.read("limit-CPU", "90:5min") == (Rlimit(name="CPU", soft=90, hard=300),)
    assert kinds.read("limit-CPU", "1500ms") == (Rlimit(name="CPU", soft=2, hard=2),)
    assert kinds.read("rlimit", "RTTIME=7:1s") == (Rlimit(name="RTTIME", soft=7, hard=1_000_000),)
    assert kinds.read("rlimit", "NICE=+5:-5") == (Rlimit(name="NICE", soft=15, hard=25),)
    assert kinds.read("private-users", "1") == ("fixed", 1, 65536)
    assert kinds.read("numbers", "0-2 5") == (0, 1, 2, 5)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("boolean", "2"),
        ("absolute-path", "relative"),
        ("absolute-path", "/a/../b"),
        ("bind", "/a:relative"),
        ("bind", "/a:/b:sideways"),
        ("bind", ""),
        ("overlay", "/one"),
        ("overlay", "::/t"),
        ("port", "icmp:1"),
        ("port", "70000"),
        ("signal", "SIGNONE"),
        ("signal", "65"),
        ("id128", "0" * 32),
        ("id128", "xyz"),
        ("hostname", "-a"),
        ("private-users", "4294967295"),
        ("private-users", "0:0"),
        ("interface", "a-name-that-is-too-long"),
        ("zone", "much-too-long-zone"),
        ("limit-CPU", "5:4"),
        ("limit-CPU", "many"),
        ("rlimit", "NONE=1"),
        ("oom-score", "1001"),
        ("numbers", "3-1"),
        ("environment", "1A=x"),
        ("words", "'open"),
        ("credential", "a/b:c"),
        ("credential", "n:\\xzz"),
        ("families", "INET"),
        ("span", "soon"),
        ("pivot-root", "/a:/a"),
        ("personality", "pdp11"),
        ("number", "-1"),
        ("root-hash", "abc"),
        ("slice", ""),
        ("limit-NICE", "+20"),
        ("limit-NICE", "-21"),
        ("limit-RTTIME", "1K"),
        ("journal-MaxUse", "much"),
        ("journal-KeepFree", "1.G"),
        ("journal-MaxFiles", "1K"),
        ("network-address", "red"),
        ("network-address", "red:"),
        ("network-address", ":10.0.0.5"),
        ("network-address", "Red:10.0.0.5"),
        ("network-rate", "red:"),
        ("network-rate", ":10M"),
    ],
)
def test_what_is_not_valid_says_what_is_expected(kind, text):
    with pytest.raises(ValueError, match=r"\w"):
        kinds.read(kind, text)


@pytest.mark.parametrize(
    "options",
    [
        {"port": ["80"]},
        {"network_bridge": "br0", "network_zone": "z"},
        {"network_namespace_path": "/n", "network_veth": "yes"},
        {"ephemeral": "yes", "link_journal": "host"},
        {"private_users": "pick", "private_users_ownership": "chown", "read_only": "yes"},
        {"ambient_capability": ["CAP_SYS_TIME"]},
        {"bind_user": ["alice"]},
        {"bind_user_group": ["wheel"]},
        {"private_users_delegate": "1"},
        {"bind_user_shell": "yes"},
        {"forward_journal_max_use": ["1G"]},
        {"capability": ["CAP_NONE"]},
        {"restrict_address_families": ["AF_UNIX", "~AF_INET"]},
    ],
)
def test_settings_that_do_not_go_together_are_refused(options):
    with pytest.raises(ConfigError):
        spec_of_options(**options)


def test_each_network_has_settings_of_its_own():
    network = spec_of_options(
        network=["red", "blue", "grey"],
        network_address=["blue:10.8.2.9", "10.8.1.8", "red:10.8.1.9"],
        network_rate_in=["5M", "blue:1M", "blue:2M"],
        network_rate_out=["blue:3M"],
    ).network
    assert (network.fixed, network.rate_in, network.rate_out) == ("10.8.1.9", 5_000_000, 0)
    assert network.further == (
        FurtherLink(network="blue", fixed="10.8.2.9", rate_in=2_000_000, rate_out=3_000_000),
    )
    assert network.further_link("grey") == FurtherLink(network="grey")
    for option in ("network_address", "network_rate_in", "network_rate_out"):
        text = "green:10.8.2.9" if option == "network_address" else "green:1M"
        with pytest.raises(ConfigError, match="'green', which the machine is not in"):
            spec_of_options(network=["red"], **{option: [text]})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("network-address", "red:fd01:0::5", ("red", "fd01::5")),
        # What is an address as a whole is that of the first network.
        ("network-address", "fade:fd01::5", ("", "fade:fd01::5")),
        ("network-address", "fade:[fd01::5]", ("fade", "fd01::5")),
        ("network-rate", "red:8K", ("red", 8000)),
    ],
)
def test_settings_of_networks_are_read(kind, text, value):
    assert kinds.read(kind, text) == (value,)


def of_environment(values=EMPTY, **variables):
    environment = {f"SYSTEMD_{name}": text for name, text in variables.items()}
    return make_spec(merge(values, EMPTY, SETTINGS, "yes"), frame(environment=environment))


def test_variables_of_systemd_nspawn_are_honoured():
    assert of_environment().rootfs.lock
    assert not of_environment(NSPAWN_LOCK="0").rootfs.lock
    assert not of_environment(NSPAWN_TMPFS_TMP="no").tmpfs_tmp
    assert of_environment(NSPAWN_API_VFS_WRITABLE="yes").api_writable
    assert of_environment(NSPAWN_API_VFS_WRITABLE="network").api_writable_network
    assert of_environment(SUPPRESS_SYNC="1").seccomp.suppress_sync
    assert not of_environment(SECCOMP="off").seccomp.enabled
    assert of_environment(NSPAWN_USE_CGNS="1", NSPAWN_UNIFIED_HIERARCHY="yes") == of_environment()


@pytest.mark.parametrize("name", ["NSPAWN_LOCK", "NSPAWN_API_VFS_WRITABLE", "NSPAWN_TMPFS_TMP"])
def test_a_variable_that_is_no_truth_value_is_refused(name):
    with pytest.raises(ConfigError, match=rf"\$SYSTEMD_{name}=maybe: expected yes or no"):
        of_environment(**{name: "maybe"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NSPAWN_USE_CGNS", "0"),
        ("NSPAWN_UNIFIED_HIERARCHY", "no"),
        ("NSPAWN_SHARE_SYSTEM", "1"),
        ("NSPAWN_SHARE_NS_PID", "yes"),
    ],
)
def test_a_machine_is_never_without_a_namespace(name, text):
    with pytest.raises(UnsupportedError, match=name):
        of_environment(**{name: text})


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, True),
        ({"private-users": "pick"}, False),
        ({"private-users": "identity"}, False),
        ({"private-users": "pick", "private-network": "yes"}, True),
    ],
)
def test_low_ports_of_the_hosts_network_are_not_for_user_namespaces(options, kept):
    spec = of_environment(from_options(options, SETTINGS))
    assert bool(spec.capabilities >> NUMBERS["CAP_NET_BIND_SERVICE"] & 1) is kept


def test_what_is_not_supported_says_so():
    with pytest.raises(UnsupportedError, match="OCI bundles"):
        spec_of_options(oci_bundle="/b")


def test_a_wrong_option_is_a_matter_of_usage():
    with pytest.raises(UsageError, match=r"--hostname=-a: expected a hostname"):
        spec_of_options(hostname="-a")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_words_are_split_as_they_were_joined(words):
    assert split_words(join_words(tuple(words))) == tuple(words)


@given(st.lists(st.text(), min_size=1))
def test_fields_are_split_as_they_were_joined(fields):
    assert split_fields(join_fields(tuple(fields))) == fields


KEYS = sorted({row.key for row in SETTINGS if row.key})
SECTIONS = sorted({row.section for row in SETTINGS if row.section})
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ANY_LINE = st.one_of(
    ANY_TEXT,
    st.sampled_from(SECTIONS).map(lambda section: f"[{section}]"),
    st.builds(
        "{}={}".format,
        st.sampled_from(KEYS),
        ANY_TEXT | st.sampled_from(sorted({t for texts in EXAMPLES.values() for t in texts})),
    ),
)


@settings(max_examples=int(os.environ.get("PYMACHINE_TEST_FUZZ", "500")), deadline=None)
@given(st.lists(ANY_LINE, max_size=12), st.booleans())
def test_no_file_is_a_surprise(texts, lenient):
    """A file makes a spec, or one error of ours; PYMACHINE_TEST_FUZZ= asks for more of them."""
    data = "\n".join(["[Exec]", *texts]).encode()
    rows = by_key()

    def refuse(problem):
        if not lenient:
            raise ConfigError(problem)

    def said():
        for entry in nspawn_file.parse(data, "f", lambda _path, _line, text: refuse(text)):
            row = rows.get((entry.section, entry.key))
            if row:
                yield row, entry.value, entry.key

    from machinectl_py.config.merge import collect

    try:
        make_spec(merge(EMPTY, collect(said(), refuse), SETTINGS, "yes"), frame())
    except PymachineError as error:
        assert error.message  # noqa: PT017 - what is expected, if anything
