"""Tiny distributions: repositories of a few packages, signed, for dnf and for pacman."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

BUSYBOX = shutil.which("busybox") or "/usr/bin/busybox"
# What a package's script finds around it, in the tree.
SCRIPT = "echo ran >/var/ran; test -e /proc/1/status && echo x >/dev/null && echo seen >/var/seen"


def files(name: str, distribution: str) -> dict[str, tuple[bytes, int]]:
    """Return what is in a package of a tiny distribution, by path."""
    if name in ("fedora-release", "centos-stream-release", "filesystem"):
        release = f'ID={distribution}\nVERSION_ID=1\nPRETTY_NAME="Tiny"\n'.encode()
        return {
            "/usr/lib/os-release": (release, 0o644),
            "/etc/shadow": (b"root::1::::::\n", 0o640),
            "/etc/hostname": (b"builder\n", 0o644),
        }
    if name == "systemd":
        return {"/usr/lib/systemd/systemd": (b"#!/usr/bin/sh\n", 0o755)}
    if name == "util-linux":
        needed = subprocess.check_output(["ldd", BUSYBOX], text=True).split()
        libraries = [word for word in needed if word.startswith("/")]
        paths = {"/usr/bin/sh": BUSYBOX, "/bin/sh": BUSYBOX} | {path: path for path in libraries}
        return {path: (Path(source).read_bytes(), 0o755) for path, source in paths.items()}
    return {f"/usr/share/doc/{name}/README": (f"{name}\n".encode(), 0o644)}


def make_rpms(place: Path, names: tuple[str, ...], distribution: str, gpg=None) -> None:
    """Make a repository of RPMs; perhaps signed."""
    build = place.parent / f"{place.name}-build"
    place.mkdir()
    for name in names:
        shutil.rmtree(build, ignore_errors=True)
        root, spec = build / "root", build / "x.spec"
        content = files(name, distribution)
        for path, (data, mode) in content.items():
            target = root / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(mode)
        lines = [f"Name: {name}", "Version: 1", "Release: 1", "Summary: x", "License: x"]
        lines += ["AutoReqProv: no", "%description", "x", "%install"]
        lines += [f"mkdir -p %{{buildroot}} && cp -a {root}/. %{{buildroot}}/"]
        if name == "util-linux":
            lines += ["%post -p /usr/bin/sh", SCRIPT]
        lines += ["%files", *content]
        spec.write_text("\n".join(lines) + "\n")
        defines = {
            "_topdir": build,
            "_rpmdir": place,
            "__strip": "/bin/true",
            "debug_package": "%{nil}",
        }
        defines |= {"_build_id_links": "none", "__os_install_post": "%{nil}"}
        words = [word for k, v in defines.items() for word in ("--define", f"{k} {v}")]
        subprocess.run(["rpmbuild", "--quiet", "-bb", *words, spec], check=True)
    shutil.rmtree(build)
    if gpg:
        words = ["--define", "_gpg_name us@example.org", "--define", "__gpg /usr/bin/gpg"]
        words += ["--define", f"_gpg_path {gpg.keyring.parent}"]
        packages = sorted(place.glob("*/*.rpm"))
        subprocess.run(
            ["rpmsign", *words, "--addsign", *packages], check=True, stderr=subprocess.DEVNULL
        )
    subprocess.run(["createrepo_c", "--quiet", place], check=True)


def make_pacman_packages(place: Path, names: dict[str, tuple[str, ...]], gpg=None) -> None:
    """Make a repository "core" of packages, by name with what they depend on; perhaps signed."""
    core = place / "core"
    core.mkdir(parents=True)
    for name, depends in names.items():
        root = place / "root"
        content = files(name, "arch")
        for path, (data, mode) in content.items():
            target = root / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(mode)
        lines = [f"pkgname = {name}", "pkgver = 1-1", "pkgdesc = x", "url = x"]
        lines += [f"builddate = {int(time.time())}", "packager = x", "size = 1", "arch = any"]
        lines += [f"depend = {other}" for other in depends]
        (root / ".PKGINFO").write_text("\n".join(lines) + "\n")
        if name == "util-linux":
            (root / ".INSTALL").write_text(f"post_install() {{ {SCRIPT}; }}\n")
        package = core / f"{name}-1-1-any.pkg.tar.zst"
        entries = sorted(os.listdir(root), key=lambda entry: (not entry.startswith("."), entry))
        words = ["tar", "--zstd", "--owner=0", "--group=0", "-C", root, "-cf", package, *entries]
        subprocess.run(words, check=True)
        shutil.rmtree(root)
        if gpg:
            data = package.read_bytes()
            signature = gpg("-u", "us@example.org", "--detach-sign", data=data)
            Path(f"{package}.sig").write_bytes(signature)
        entry = place / "db" / f"{name}-1-1"
        entry.mkdir(parents=True)
        (entry / "desc").write_text(description(package, name, depends))
    words = ["tar", "--gzip", "-C", place / "db", "-cf", core / "core.db"]
    subprocess.run([*words, *os.listdir(place / "db")], check=True)


def description(package: Path, name: str, depends: tuple[str, ...]) -> str:
    """Return what a database of pacman's says of a package, as repo-add(8) writes it."""
    data = package.read_bytes()
    fields = {"FILENAME": package.name, "NAME": name, "VERSION": "1-1", "ARCH": "any"}
    fields |= {"CSIZE": f"{len(data)}", "ISIZE": f"{len(data)}"}
    fields |= {"SHA256SUM": hashlib.sha256(data).hexdigest(), "DEPENDS": "\n".join(depends)}
    return "".join(f"%{field}%\n{value}\n\n" for field, value in fields.items() if value)
