"""`pymachine pull`: make an image from elsewhere: packages of a distribution, or a server."""

from __future__ import annotations

from machinectl_py.cli.transfers import (
    HASHES,
    MAKE,
    PULL,
    placing_of,
    shown,
    tell_made,
    trust_of,
    wishes_of,
)
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "pull DISTRIBUTION|REMOTE:IMAGE|URL [OPTION…]"
SUMMARY = "Get an image: from a distribution's packages, or from a server"
DETAILS = """
Of a DISTRIBUTION, which is "debian", it builds a directory in /var/lib/machines with mmdebstrap: a
minimal system with systemd and D-Bus, from the mirrors and keyrings that apt on this host is set
up with. It is built aside and renamed when complete. Root has no password in it: enter with
'pymachine shell NAME', where passwd(1) sets one.

A REMOTE is "images", the image server of Linux Containers, "ubuntu", or another that
/etc/pymachine/remotes.conf has. What comes from there is verified by its checksum, and by a
signature where the remote has a keyring.

A URL is that of an archive or of a disk image, as its suffix says; 'pymachine pull-tar --help'
tells how it is verified. One of OCI is docker://NAME:TAG, oci:DIRECTORY or oci-archive:FILE, which
skopeo(1) and umoci(1) get; most of those have no systemd, and can be used by 'pymachine run' only.
"""
EXAMPLE = "pymachine pull debian --suite=trixie --name=web"
COMMAND = -1
OPTIONS = (
    Option(
        name="--suite", short="-s", value="SUITE", help='release; the host\'s own, else "stable"'
    ),
    Option(name="--name", value="NAME", help="name of the image; the distribution's"),
    Option(
        name="--variant",
        value="VARIANT",
        choices=("minbase", "important", "standard"),
        help="packages to start from: minbase, important, standard",
    ),
    Option(
        name="--include",
        value="PACKAGE",
        many=True,
        help="install this package too; several by commas, or given again",
    ),
    *PULL,
    *HASHES,
    *MAKE,
)


def run(arguments: Arguments) -> int:
    """Run the verb; print where the image is."""
    if len(arguments.words) != 1:
        raise UsageError(
            "pull needs one SOURCE, such as 'debian' or 'images:debian/12'",
            f"Usage: pymachine {USAGE}",
        )
    source = arguments.words[0]
    return _pull(source, arguments) if ":" in source else _build(source, arguments)


def _pull(source: str, arguments: Arguments) -> int:
    from machinectl_py.images.transfer.pulls import pull_from

    warnings = list[str]()
    with shown(arguments, f"Pulling {source}") as progress:
        path = pull_from(
            source,
            arguments.text("name"),
            progress,
            trust=trust_of(arguments),
            warn=warnings.append,
            wishes=wishes_of(arguments),
        )
    tell_made(arguments, path, warnings)
    return 0


def _build(distribution: str, arguments: Arguments) -> int:
    from machinectl_py.images.pull import pull

    include = [name for value in arguments.texts("include") for name in value.split(",") if name]
    with shown(arguments, f"Pulling {arguments.text('name', distribution)}") as progress:
        path = pull(
            distribution,
            arguments.text("suite"),
            arguments.text("name"),
            progress,
            variant=arguments.text("variant", "minbase"),
            include=tuple(include),
            placing=placing_of(arguments),
        )
    tell_made(arguments, path, [])
    return 0
