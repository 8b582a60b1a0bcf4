"""Trees of distributions with RPM, by dnf(8)."""

from __future__ import annotations

import glob
import os

from machinectl_py.errors import NotFoundError
from machinectl_py.images.builders.follower import Counter, Phrases
from machinectl_py.images.builders.recipe import CACHE, WORK_DIR, Recipe
from machinectl_py.images.transfer.confine import find_program
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.recipe import Request

_PHRASES = Phrases(
    program="dnf",
    phases=(
        ("Dependencies resolved", "choosing the packages"),
        ("Downloading Packages", "downloading the packages"),
        ("Running transaction", "installing the packages"),
        ("Verifying ", "verifying the packages"),
    ),
    counted=r"\b(\d+)/(\d+)\)?(?:$|:)",
    errors=("Error: ", "error: ", "Failed to "),
    causes=r"^Public key for .* is not installed|^Package .* is not signed",
)
# What a bootable machine needs, besides the package that makes it the distribution it is.
PACKAGES = (
    "systemd",
    "util-linux",
    "passwd",
    "iproute",
    "procps-ng",
    "glibc-minimal-langpack",
    "dnf",
)
# As Fedora has them, for an rpm(8) that is another distribution's: where the database is, and that
# no inhibitor of systemd-logind is taken.
_MACROS = "%_dbpath /usr/lib/sysimage/rpm\n%__transaction_systemd_inhibit %{nil}\n"
# Where distributions keep the keys of themselves and of one another.
_KEY_DIRS = ("/etc/pki/rpm-gpg", "/usr/share/distribution-gpg-keys/{id}")


class Repository(Record):
    """A repository of packages."""

    name: str
    url: str  # with dnf's variables: $releasever, $basearch
    kind: str = "metalink"  # the key in dnf.conf(5) that the URL is the value of


class Distribution(Record):
    """What is special of one of them."""

    id: str  # ID of os-release(5)
    release: str  # the newest that is known here
    repositories: tuple[Repository, ...]
    keys: str  # pattern of file names, with {release}
    packages: tuple[str, ...]  # for a machine that boots, and can install more


def follower() -> Counter:
    """Return what follows dnf's output."""
    return Counter(_PHRASES)


def recipe(request: Request, distribution: Distribution, release: str) -> Recipe:
    """Return what is to be run for a tree of a distribution.

    Raises:
        NotFoundError: its keys are not there.
        UnsupportedError: dnf is not installed.
    """
    program = find_program("dnf", package="dnf")
    keys = _keys(request, distribution, release) if request.verified else ()
    packages = tuple(dict.fromkeys((*distribution.packages, *request.include)))
    # dnf5 looks for its configuration in the new root, unless told.
    own = ("--use-host-config",) if os.path.realpath(program).endswith("dnf5") else ()
    words = (
        f"--config={WORK_DIR}/dnf.conf",
        f"--installroot={request.root}",
        f"--releasever={release}",
        "--assumeyes",
        "install",
        *packages,
    )
    repositories = distribution.repositories
    if request.mirrors:
        repositories = tuple(
            Repository(name=f"mirror{number}", url=url, kind="baseurl")
            for number, url in enumerate(request.mirrors, 1)
        )
    return Recipe(
        commands=((program, *own, *words),),
        environment=(("HOME", WORK_DIR),),
        files=(
            ("dnf.conf", configuration(repositories, keys)),
            (".rpmmacros", _MACROS),
        ),
        mounts=True,
    )


def configuration(repositories: tuple[Repository, ...], keys: tuple[str, ...]) -> str:
    """Return a dnf.conf(5) with these repositories, and no others.

    Args:
        repositories: those.
        keys: paths of the keys that packages have to be signed by; none asks for no signature.
    """
    lines = [
        "[main]",
        f"reposdir={WORK_DIR}/none",
        f"varsdir={WORK_DIR}/none",
        # These two in the new root.
        f"cachedir=/{CACHE}",
        f"logdir=/{CACHE}",
        "plugins=0",
        "install_weak_deps=0",
        "best=1",
        f"gpgcheck={int(bool(keys))}",
    ]
    for repository in repositories:
        lines += [f"[{repository.name}]", f"name={repository.name}"]
        lines += [f"{repository.kind}={repository.url}"]
        lines += [f"gpgkey={' '.join(f'file://{key}' for key in keys)}"] if keys else []
    return "\n".join(lines) + "\n"


def _keys(request: Request, distribution: Distribution, release: str) -> tuple[str, ...]:
    if request.keyring:
        return (request.keyring,)
    pattern = distribution.keys.format(release=release)
    for directory in _KEY_DIRS:
        found = glob.glob(f"{directory.format(id=distribution.id)}/{pattern}")
        if found:
            return tuple(sorted(found))
    raise NotFoundError(
        f"There are no keys {pattern} to verify the packages of {distribution.id} by",
        "The package distribution-gpg-keys has them, --keyring=FILE names others.",
    )
