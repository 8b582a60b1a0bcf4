"""Fedora."""

from __future__ import annotations

from machinectl_py.images.builders import dnf
from machinectl_py.images.builders.dnf import Distribution, Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.recipe import Recipe, Request

VARIANTS = ()
follower = dnf.follower
_LIST = "https://mirrors.fedoraproject.org/metalink?arch=$basearch&repo="
FEDORA = Distribution(
    id="fedora",
    release="43",
    repositories=(
        Repository(name="fedora", url=f"{_LIST}fedora-$releasever"),
        Repository(name="updates", url=f"{_LIST}updates-released-f$releasever"),
    ),
    keys="RPM-GPG-KEY-fedora-{release}-primary",
    packages=("fedora-release", *dnf.PACKAGES),
)


def recipe(request: Request) -> Recipe:
    """Return what is to be run.

    Raises:
        NotFoundError: Fedora's keys are not there.
        UnsupportedError: dnf is not installed.
    """
    return dnf.recipe(request, FEDORA, request.suite or FEDORA.release)
