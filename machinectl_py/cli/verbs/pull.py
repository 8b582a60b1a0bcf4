"""`pymachine pull`: make an image from a distribution's packages."""

from __future__ import annotations

import os

from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "pull DISTRIBUTION [OPTION…]"
SUMMARY = "Make an image from a distribution's own packages"
DETAILS = """
Builds a directory in /var/lib/machines with mmdebstrap: a minimal system with systemd and D-Bus,
from the mirrors and keyrings that apt on this host is set up with. It is built aside and renamed
when complete. DISTRIBUTION is "debian".

Root has no password in it: enter with 'pymachine shell NAME', where passwd(1) sets one.
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
    Option(name="--quiet", short="-q", help="show no progress"),
)


def run(arguments: Arguments) -> int:
    """Run the verb; print the image's directory."""
    if len(arguments.words) != 1:
        raise UsageError(
            "pull needs one DISTRIBUTION, such as 'debian'", f"Usage: pymachine {USAGE}"
        )
    from machinectl_py.cli.progress import ProgressLine
    from machinectl_py.images.pull import pull

    include = [name for value in arguments.texts("include") for name in value.split(",") if name]
    distribution = arguments.words[0]
    line = ProgressLine(f"Pulling {arguments.text('name', distribution)}")
    try:
        path = pull(
            distribution,
            arguments.text("suite"),
            arguments.text("name"),
            _say_nothing if arguments.flag("quiet") else line,
            variant=arguments.text("variant", "minbase"),
            include=tuple(include),
        )
    finally:
        line.clear()
    print(path)  # noqa: T201
    if not arguments.flag("quiet"):
        name = os.path.basename(path)
        os.write(2, f"Made in {line.seconds():.1f} s. Start it: pymachine boot {name}\n".encode())
    return 0


def _say_nothing(_phase: str, _detail: str) -> None:
    pass
