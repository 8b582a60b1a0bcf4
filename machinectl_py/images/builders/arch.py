"""Arch Linux, by pacman(8)."""

from __future__ import annotations

import os

from machinectl_py.errors import ConfigError, NotFoundError, UnsupportedError
from machinectl_py.images.builders.follower import Counter, Phrases
from machinectl_py.images.builders.recipe import CACHE, WORK_DIR, Recipe
from machinectl_py.images.transfer.confine import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.recipe import Request

VARIANTS = ()
_MIRROR = "https://geo.mirror.pkgbuild.com/$repo/os/$arch"
_PACKAGES = ("base",)
# What pacman-key(8) makes its own keyring of.
_KEYRING_DIRS = ("/usr/share/pacman/keyrings", "/usr/share/keyrings")
_PHRASES = Phrases(
    program="pacman",
    phases=(
        ("==> Generating", "making a keyring"),
        (":: Synchronizing", "reading package lists"),
        ("resolving dependencies", "choosing the packages"),
        (":: Retrieving", "downloading the packages"),
        ("checking ", "verifying the packages"),
        (":: Processing package changes", "installing the packages"),
        (":: Running post-transaction", "configuring the packages"),
    ),
    counted=r"\(\s*(\d+)/(\d+)\)",
    errors=("error: ", "==> ERROR: "),
)


def follower() -> Counter:
    """Return what follows pacman's output."""
    return Counter(_PHRASES)


def recipe(request: Request) -> Recipe:
    """Return what is to be run.

    Raises:
        ConfigError: there are no releases to choose of.
        NotFoundError: there is no keyring.
        UnsupportedError: pacman is not installed; Arch Linux is not for this architecture.
    """
    if request.suite:
        raise ConfigError(f"Arch Linux has no releases, and so no '{request.suite}'")
    if os.uname().machine != "x86_64" and not request.mirrors:
        raise UnsupportedError(
            f"Arch Linux itself is not for {os.uname().machine}",
            "--mirror=URL names the mirror of one that is.",
        )
    program = find_program("pacman", package="pacman-package-manager")
    mkdir = find_program("mkdir", package="coreutils")
    words = (
        f"--config={WORK_DIR}/pacman.conf",
        f"--root={request.root}",
        f"--dbpath={request.root}/var/lib/pacman",
        f"--cachedir={request.root}/{CACHE}",
        f"--gpgdir={WORK_DIR}/gnupg",
        f"--logfile={WORK_DIR}/log",
        "--noconfirm",
        "--noprogressbar",
        "--sync",
        "--refresh",
    )
    packages = dict.fromkeys((*_PACKAGES, *request.include))
    return Recipe(
        commands=(
            (mkdir, "--parents", f"{request.root}/var/lib/pacman"),
            *(_trust(request) if request.verified else ()),
            (program, *words, *packages),
        ),
        files=(
            ("pacman.conf", configuration(request.mirrors, _level(request))),
            # In the format of old, which pacman looks for and gpg goes on with.
            ("gnupg/pubring.gpg", ""),
        ),
        mounts=True,
    )


def configuration(mirrors: tuple[str, ...], level: str) -> str:
    """Return a pacman.conf(5).

    Args:
        mirrors: URLs; with $repo in it one has all of Arch Linux's repositories, else "core".
        level: value of SigLevel.
    """
    servers = mirrors or (_MIRROR,)
    whole = [server for server in servers if "$repo" in server]
    lines = ["[options]", "Architecture = auto", f"SigLevel = {level}", "LocalFileSigLevel = Never"]
    for repository in ("core", "extra"):
        here = servers if repository == "core" else whole
        if here:
            lines += [f"[{repository}]", *(f"Server = {server}" for server in here)]
    return "\n".join(lines) + "\n"


def _level(request: Request) -> str:
    if not request.verified:
        return "Never"
    # All keys of a keyring that was given are trusted; of Arch Linux's own those of its masters.
    trust = "TrustAll" if request.keyring else "TrustedOnly"
    return f"Required DatabaseOptional {trust}"


def _trust(request: Request) -> tuple[tuple[str, ...], ...]:
    """Return the commands that make the keyring."""
    if request.keyring:
        gpg = find_program("gpg", package="gpg")
        home = (f"--homedir={WORK_DIR}/gnupg", "--batch", "--quiet")
        return ((gpg, *home, "--import", request.keyring),)
    place = next((p for p in _KEYRING_DIRS if os.path.isfile(f"{p}/archlinux.gpg")), "")
    if not place:
        raise NotFoundError(
            "There is no keyring to verify Arch Linux's packages by",
            "The package archlinux-keyring has it, --keyring=FILE names another.",
        )
    program = find_program("pacman-key", package="pacman-package-manager")
    own = (f"--config={WORK_DIR}/pacman.conf", f"--gpgdir={WORK_DIR}/gnupg")
    populate = ("--populate", "archlinux", "--populate-from", place)
    return ((program, *own, "--init"), (program, *own, *populate))
