"""What the tests of transfers share: a store of its own, a tree with everything, comparisons."""

from __future__ import annotations

import os
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path

from machinectl_py.kernel import mount

MACHINES = Path("/var/lib/machines")
CACHE = Path("/var/cache/pymachine")


@contextmanager
def own_store(megabytes=1500):
    """Mount an empty /var/lib/machines; give a function that changes its size."""
    MACHINES.mkdir(mode=0o700, exist_ok=True)

    def limit(size):
        mount.mount("tmpfs", str(MACHINES), "tmpfs", mount.MS_REMOUNT, f"size={size}")

    mount.mount("tmpfs", str(MACHINES), "tmpfs", 0, f"size={megabytes}m,mode=0700")
    try:
        yield limit
    finally:
        mount.umount2(str(MACHINES))


@contextmanager
def own_cache(megabytes=500):
    """Mount an empty cache of downloads."""
    CACHE.mkdir(parents=True, exist_ok=True)
    mount.mount("tmpfs", str(CACHE), "tmpfs", 0, f"size={megabytes}m")
    try:
        yield
    finally:
        mount.umount2(str(CACHE))


@contextmanager
def signing(home, algorithm="ed25519"):
    """Give what calls gpg with two keys, "us" and "others"; `keyring` is the first's."""
    home.mkdir(mode=0o700)

    def gpg(*words, data=b""):
        command = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", "", *words]
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout

    for name in ("us", "others"):
        gpg("--quick-generate-key", f"{name}@example.org", algorithm, "sign", "never")
    gpg.keyring, gpg.armored = home / "us.gpg", home / "us.asc"
    gpg.keyring.write_bytes(gpg("--export", "us@example.org"))
    gpg.armored.write_bytes(gpg("--armor", "--export", "us@example.org"))
    try:
        yield gpg
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


def can_make_devices(directory):
    try:
        os.mknod(directory / "probe", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        return False
    (directory / "probe").unlink()
    return True


def make_tree(root):
    """Fill a directory with all that an archive has to keep."""
    for path in ("etc", "usr/lib", "usr/bin", "var/log", "a b\n\\c/\udcff"):
        (root / path).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=test\n")
    (root / "etc/shadow").write_text("root:*::\n")
    (root / "etc/shadow").chmod(0o640)
    os.chown(root / "etc/shadow", 0, 42)
    (root / "usr/bin/su").write_bytes(os.urandom(5000))
    os.chown(root / "usr/bin/su", 0, 1234)
    (root / "usr/bin/su").chmod(0o6755)
    (root / "usr/bin/ping").write_bytes(b"ping")
    subprocess.run(["setcap", "cap_net_raw+ep", root / "usr/bin/ping"], check=True)
    os.link(root / "usr/bin/ping", root / "usr/bin/ping6")
    (root / "lib").symlink_to("usr/lib")
    (root / "etc/mtab").symlink_to("/proc/mounts")
    (root / "etc/up").symlink_to("../../../../etc/passwd")
    os.link(root / "etc/mtab", root / "etc/mtab2", follow_symlinks=False)
    os.lchown(root / "etc/up", 65534, 7)
    (root / "etc/long").symlink_to("x" * 1000)  # idem
    (root / ("d" * 200)).mkdir()
    (root / ("d" * 200) / ("f" * 250)).write_text("long")
    (root / "var/log").chmod(0o2775)
    acl = ["setfacl", "-m", "u:12345:rwx,g:adm:r-x,d:u:54321:r-x"]
    subprocess.run([*acl, root / "var/log"], check=True)
    subprocess.run(["setfacl", "-m", "u:daemon:rw", root / "etc/os-release"], check=True)
    os.setxattr(root / "etc/os-release", "trusted.blob", bytes(range(256)))
    os.setxattr(root / "usr", "trusted.empty", b"")
    os.setxattr(root / "lib", "trusted.link", b"x", follow_symlinks=False)
    make_sparse(root / "var/sparse")
    os.mkfifo(root / "var/fifo")
    if can_make_devices(root):
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(
            root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 262143)
        )  # the most that XFS has
        os.chown(root / "disk", 0, 6)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "secret").mkdir()
    (root / "secret").chmod(0)
    for number, (directory, names, files) in enumerate(os.walk(root, topdown=False)):
        for name in (*names, *files, "."):
            when = 1_000_000_000_123_456_789 + number * 1_000_000_007 + len(name)
            os.utime(f"{directory}/{name}", ns=(when, when), follow_symlinks=False)
    os.chown(root, 0, 0)
    root.chmod(0o755)


def make_sparse(path):
    with path.open("wb") as file:
        file.seek(1 << 20)
        file.write(os.urandom(70000))
        file.seek(50 << 20)
        file.write(b"end")
        file.truncate(60 << 20)


def extents(path):
    """Return where a file's data begin and end."""
    found, at = [], 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while True:
            try:
                data = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                return tuple(found)
            at = os.lseek(fd, data, os.SEEK_HOLE)
            found.append((data, at))
    finally:
        os.close(fd)


def snapshot(root):
    """Return all that is to be kept of a tree, by path; hard links as the set of their paths."""
    found, links = {}, {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files, *([] if directory != str(root) else ["."])):
            path = os.path.normpath(f"{directory}/{name}")
            found[os.path.relpath(path, root)] = facts(path)
            status = os.lstat(path)
            links.setdefault((status.st_dev, status.st_ino), set()).add(os.path.relpath(path, root))
    shared = {frozenset(paths) for paths in links.values() if len(paths) > 1}
    return found, shared


def facts(path):
    status = os.lstat(path)
    names = [
        name
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith("trusted.SGI_ACL")  # XFS's own form of ACLs
    ]
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    known = [status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns]
    content = ()
    if stat.S_ISREG(status.st_mode):
        content = (Path(path).read_bytes(), extents(path))
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    return (*known, attributes, content)
