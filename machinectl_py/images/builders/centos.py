"""CentOS Stream."""

from __future__ import annotations

from machinectl_py.images.builders import dnf
from machinectl_py.images.builders.dnf import Distribution, Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.recipe import Recipe, Request

VARIANTS = ()
follower = dnf.follower
_LIST = "https://mirrors.centos.org/metalink?arch=$basearch&protocol=https&repo="
CENTOS = Distribution(
    id="centos",
    release="10",
    repositories=(
        Repository(name="baseos", url=f"{_LIST}centos-baseos-$releasever-stream"),
        Repository(name="appstream", url=f"{_LIST}centos-appstream-$releasever-stream"),
    ),
    keys="RPM-GPG-KEY-[Cc]ent[Oo][Ss]-[Oo]fficial*",
    packages=("centos-stream-release", *dnf.PACKAGES),
)


def recipe(request: Request) -> Recipe:
    """Return what is to be run.

    Raises:
        NotFoundError: the keys are not there.
        UnsupportedError: dnf is not installed.
    """
    release = request.suite.removesuffix("-stream") or CENTOS.release
    return dnf.recipe(request, CENTOS, release)
