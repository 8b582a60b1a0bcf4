"""`pymachine pull`: make an image from elsewhere: packages of a distribution, or a server."""

from __future__ import annotations

from machinectl_py.cli.transfers import (
    HASHES,
    KEEP_DOWNLOAD,
    LIMIT,
    MAKE,
    PULL,
    SETTINGS,
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
Of a DISTRIBUTION it builds a directory in /var/lib/machines: a minimal system with systemd that is
built aside and renamed when complete. Root has no password in it: enter with 'pymachine shell
NAME', where passwd(1) sets one. There are

  debian   by mmdebstrap(1), from the mirrors and keyrings that apt on this host is set up with
  ubuntu   idem; on a host that is none, from Ubuntu's archive, by its keyring
  fedora   by dnf(8), from Fedora's mirrors, by the keys of distribution-gpg-keys
  centos   idem, CentOS Stream
  arch     by pacman(8), from Arch Linux's mirrors, by archlinux-keyring

--mirror= names another mirror, --keyring= other keys, and --verify=no asks for no signatures. A
mirror of debian or ubuntu may name suite and components, too, as in sources.list(5); one of fedora
or centos is a repository, perhaps with $releasever and $basearch; one of arch is a Server of
pacman.conf(5).

A REMOTE is "images", the image server of Linux Containers, "ubuntu", or another that
/etc/pymachine/remotes.conf has. What comes from there is verified by its checksum, and by a
signature where the remote has a keyring.

A URL is that of an archive or of a disk image, as its suffix says; 'pymachine pull-tar --help'
tells how it is verified. One of OCI is docker://NAME:TAG, oci:DIRECTORY or oci-archive:FILE, which
skopeo(1) and umoci(1) get; most of those have no systemd, and can be used by 'pymachine run' only.
"""
EXAMPLE = "pymachine pull debian --suite=trixie --name=web"
COMMAND = -1
_OF_PACKAGES = (
    Option(name="--suite", short="-s", value="SUITE", help="release; the host's own, or a new one"),
    Option(
        name="--variant",
        value="VARIANT",
        choices=("minbase", "important", "standard"),
        help="debian, ubuntu: packages to start from: minbase, important, standard",
    ),
    Option(
        name="--include",
        value="PACKAGE",
        many=True,
        help="install this package too; several by commas, or given again",
    ),
    Option(
        name="--mirror",
        value="URL",
        many=True,
        help="get packages from there; may be given again",
    ),
)
OPTIONS = (
    Option(name="--name", value="NAME", help="name of the image; the distribution's"),
    *_OF_PACKAGES,
    *PULL,
    *HASHES,
    *MAKE,
)


# What is of no meaning where an image is built of packages.
_OF_DOWNLOADS = (LIMIT, KEEP_DOWNLOAD, SETTINGS, *HASHES)


def run(arguments: Arguments) -> int:
    """Run the verb; print where the image is."""
    if len(arguments.words) != 1:
        raise UsageError(
            "pull needs one SOURCE, such as 'debian' or 'images:debian/12'",
            f"Usage: pymachine {USAGE}",
        )
    source = arguments.words[0]
    built = ":" not in source
    _refuse(arguments, _OF_DOWNLOADS if built else _OF_PACKAGES, source)
    return _build(source, arguments) if built else _pull(source, arguments)


def _refuse(arguments: Arguments, options: tuple[Option, ...], source: str) -> None:
    """Refuse options that would be ignored."""
    for option in options:
        if arguments.given(option.name.removeprefix("--")):
            raise UsageError(f"{option.name}= means nothing with the source '{source}'")


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
    from machinectl_py.images.builders.recipe import Request
    from machinectl_py.images.pull import pull

    if arguments.text("verify") == "checksum":
        raise UsageError("--verify=checksum means nothing with packages, which are signed or not")
    include = [name for value in arguments.texts("include") for name in value.split(",") if name]
    request = Request(
        root="",
        suite=arguments.text("suite"),
        variant=arguments.text("variant"),
        include=tuple(include),
        mirrors=arguments.texts("mirror"),
        keyring=arguments.text("keyring"),
        verified=arguments.text("verify") != "no",
    )
    with shown(arguments, f"Pulling {arguments.text('name', distribution)}") as progress:
        path = pull(
            distribution,
            arguments.text("name"),
            progress,
            request=request,
            placing=placing_of(arguments),
        )
    tell_made(arguments, path, [])
    return 0
