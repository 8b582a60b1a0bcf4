"""What transfers are made of: names, checksums, keys, remotes, sizes."""

from __future__ import annotations

import base64
import os

import pytest

from machinectl_py.errors import ConfigError, NotFoundError, UnsupportedError, UsageError
from machinectl_py.images import remotes
from machinectl_py.images.transfer import compress, oci, raw, simplestreams, verify, web
from machinectl_py.images.transfer.flow import _lines, parse_size, size_text
from machinectl_py.images.transfer.pulls import kind_of
from machinectl_py.images.transfer.tar import lift_tree

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/web.tar.xz", "web"),
        ("web.raw", "web"),
        ("web.tgz", "web"),
        ("web-1.2.tar.zst", "web-1.2"),
        ("web.qcow2", "web"),
        ("web.rootfs.tar.gz", "web"),
        ("web", "web"),
        (".tar", ".tar"),
    ],
)
def test_an_image_is_called_as_its_file(path, name):
    assert compress.image_name(path) == name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("docker://debian:12", "debian"),
        ("docker://registry.example.org:5000/a/web", "web"),
        ("docker://registry.example.org:5000/a/web:1.2", "web"),
        (f"docker://a/web@sha256:{DIGEST}", "web"),
        ("oci:/srv/layout:tag", "layout"),
        ("oci:/srv/layout", "layout"),
        ("oci-archive:/srv/web.tar", "web"),
    ],
)
def test_an_image_of_oci_is_called_as_its_repository(source, name):
    assert oci.image_name(source) == name


def test_a_format_is_chosen_by_name_before_the_suffix():
    assert compress.choose("", "x.tar.gz").name == "gzip"
    assert compress.choose("", "x.tar") is None
    assert compress.choose("xz", "x.tar.gz").name == "xz"
    assert compress.choose("uncompressed", "x.tar.gz") is None
    with pytest.raises(ConfigError):
        compress.choose("rar", "x")


def test_formats_are_seen_by_their_magic():
    for format_ in compress.FORMATS:
        assert compress.detect(format_.magic + b"more") == format_
    assert compress.detect(b"") is None
    assert compress.detect(b"ustar") is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://x/web.tar", "tar"),
        ("https://x/web.tar.xz?x=y", "tar"),
        ("https://x/web.tgz", "tar"),
        ("https://x/web.raw.zst", "raw"),
        ("https://x/web.IMG", "raw"),
    ],
)
def test_a_url_tells_what_it_has(url, kind):
    assert kind_of(url) == kind


def test_a_url_that_does_not_tell_is_refused():
    for url in ("https://x/web", "https://x/web.gz", "https://x/tar"):
        with pytest.raises(UsageError):
            kind_of(url)


def test_siblings_stay_in_the_directory_and_keep_the_query_of_tokens():
    assert web.sibling("https://h/a/b.tar?t=1#x", "SHA256SUMS") == "https://h/a/SHA256SUMS?t=1"
    assert web.file_name("https://h/a/b%20c.tar") == "b c.tar"
    assert web.sibling("https://h/b%20c.tar", "b c.tar.sha256") == "https://h/b%20c.tar.sha256"


@pytest.mark.parametrize(
    "text",
    [
        f"{DIGEST}  web.tar\n",
        f"{DIGEST} *web.tar\n",
        f"{'f' * 64}  other.tar\n{DIGEST.upper()}  web.tar\n",
        f"SHA256 (web.tar) = {DIGEST}\n",
        f"nonsense\n\n{DIGEST}  web.tar",
    ],
)
def test_checksums_are_found_in_the_formats_of_sha256sum(text):
    assert verify.find_digest(text.encode(), "web.tar", alone=False) == DIGEST


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{DIGEST}  other.tar\n",
        f"{DIGEST}  dir/web.tar\n",
        f"{DIGEST}  web.tar.xz\n",
        f"{DIGEST[:-1]}  web.tar\n",
        f"{DIGEST[:-1]}g  web.tar\n",
        f"{DIGEST}\n",
    ],
)
def test_checksums_of_others_do_not_count(text):
    assert verify.find_digest(text.encode(), "web.tar", alone=False) == ""


def test_a_file_of_one_checksum_needs_no_name():
    assert verify.find_digest(f"{DIGEST}\n".encode(), "web.tar", alone=True) == DIGEST
    assert verify.find_digest(f"{DIGEST}  other\n".encode(), "web.tar", alone=True) == ""


def test_armor_is_taken_off_and_binary_keys_are_left():
    keys = os.urandom(500)
    text = base64.encodebytes(keys)
    block = (
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n"
        + text
        + b"=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )
    assert verify.dearmor(block) == keys
    assert verify.dearmor(block + b"\n" + block) == keys * 2
    assert verify.dearmor(keys) == keys
    with pytest.raises(UnsupportedError):
        verify.dearmor(block.replace(b"=abcd", b"!!!!"))


def test_keyrings_that_are_missing_are_told():
    with pytest.raises(NotFoundError, match="/nonexistent"):
        verify.keyrings("/nonexistent")


def test_sizes():
    assert [parse_size(text) for text in ("", "512", "4K", "3m", "2G", "1T")] == [
        *(0, 512, 4096, 3 << 20, 2 << 30, 1 << 40)
    ]
    for text in ("0", "x", "-1", "1.5G", "G", "1GB"):
        with pytest.raises(ConfigError):
            parse_size(text)
    assert [size_text(count) for count in (5, 12_345, 3.2e9, 4e12)] == [
        *("5 B", "12.3 kB", "3.2 GB", "4.0 TB")
    ]


def test_what_programs_say_drives_no_terminal():
    said = b"tar: \x1b[2Jname\xff\n\n" + b"x" * 10_000
    assert _lines(said)[0] == "tar: ?[2Jname\N{REPLACEMENT CHARACTER}"
    assert [len(line) for line in _lines(said)] == [14, 500]


@pytest.fixture
def places(tmp_path, monkeypatch):
    directories = tuple(str(tmp_path / name) for name in ("lib", "run", "etc"))
    monkeypatch.setattr(remotes, "DIRECTORIES", directories)
    for directory in directories:
        os.makedirs(f"{directory}/remotes.conf.d")
    return tmp_path


def test_public_remotes_are_known_without_a_file(places):
    assert set(remotes.known()) == {"images", "ubuntu", "docker"}
    assert remotes.find("images").url.startswith("https://")


def test_later_files_change_what_they_name(places):
    (places / "etc/remotes.conf").write_text("[work]\nType=oci\nURL=docker://x\n[images]\nURL=y\n")
    (places / "lib/remotes.conf.d/a.conf").write_text("[work]\nURL=lib\n")
    (places / "etc/remotes.conf.d/a.conf").write_text("[work]\nInsecure=yes\n")
    (places / "run/remotes.conf.d/b.conf").write_text("[work]\nKeyring=/k\n")
    (places / "run/remotes.conf.d/c.txt").write_text("nonsense")
    found = remotes.find("work")
    assert (found.kind, found.url, found.keyring, found.insecure) == (
        "oci",
        "docker://x",
        "/k",
        True,
    )
    assert (remotes.find("images").kind, remotes.find("images").url) == ("simplestreams", "y")


@pytest.mark.parametrize(
    "text", ["[x]\nType=ftp\n", "[x]\nColour=red\n", "[x]\nInsecure=perhaps\n", "URL=x\n", "[x\n"]
)
def test_what_is_wrong_in_a_file_is_told_with_its_path(places, text):
    (places / "etc/remotes.conf").write_text(text)
    with pytest.raises(ConfigError, match=r"etc/remotes\.conf"):
        remotes.known()


def test_a_remote_without_a_url_is_refused(places):
    (places / "etc/remotes.conf").write_text("[x]\nType=oci\n")
    with pytest.raises(ConfigError, match="no URL="):
        remotes.find("x")


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", "a//b", "", "http://x/y"])
def test_paths_of_a_server_lead_nowhere_else(path):
    with pytest.raises(ValueError, match="path"):
        simplestreams._url(remotes.Remote(name="x", url="https://h"), path)


def test_a_stream_is_written_with_holes_whatever_its_pieces_are(tmp_path):
    data = bytes(100_000) + os.urandom(70_001) + bytes(300_000) + b"end" + bytes(12_345)
    for size in (1, 4095, 32768, 1 << 20):
        path = tmp_path / str(size)
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        chunks = [data[i : i + size] for i in range(0, len(data), size)] if size > 1 else [data]
        raw.write_sparsely(iter(chunks), fd)
        os.close(fd)
        assert path.read_bytes() == data


def test_only_a_directory_that_is_alone_and_a_system_is_moved_up(tmp_path):
    (tmp_path / "one/top/etc").mkdir(parents=True)
    lift_tree(str(tmp_path / "one"))
    assert os.listdir(tmp_path / "one") == ["top"]
    (tmp_path / "one/top/etc/os-release").touch()
    (tmp_path / "one/other").touch()
    lift_tree(str(tmp_path / "one"))
    assert sorted(os.listdir(tmp_path / "one")) == ["other", "top"]
    (tmp_path / "two").mkdir()
    (tmp_path / "two/top").symlink_to(tmp_path / "one/top")
    lift_tree(str(tmp_path / "two"))
    assert (tmp_path / "two/top").is_symlink()
