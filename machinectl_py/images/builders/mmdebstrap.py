"""Trees of distributions with apt and dpkg, by mmdebstrap(1)."""

from __future__ import annotations

from machinectl_py.images.builders.mirror import proxy_environment
from machinectl_py.images.builders.recipe import Recipe
from machinectl_py.images.transfer.confine import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.mirror import Source
    from machinectl_py.images.builders.recipe import Request

# What mmdebstrap says when a part begins, and what we call the part.
_PHASES = {
    "I: running apt-get update": "reading package lists",
    "I: downloading packages": "choosing the essential packages",
    "I: extracting archives": "extracting the essential packages",
    "I: installing essential": "installing the essential packages",
    "I: installing remaining": "choosing the other packages",
    "I: cleaning": "cleaning up",
}
# What apt and dpkg say of each package.
_ACTS = {"Get:": "downloading", "Unpacking ": "unpacking", "Setting up ": "configuring"}
_NO_SPACE = ("No space left on device", "enough free space")
_ERROR_STARTS = ("E: ", "dpkg: error", "mmdebstrap: ")
# An init, the bus and sessions, a console to log in at, and what one looks around with;
# nss-myhostname makes "localhost" and the machine's own name resolve.
_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "libnss-myhostname",
    "login",
    "passwd",
    "iproute2",
    "procps",
)


class Watcher:
    """Follows mmdebstrap's output line by line: how far it is, and why it failed."""

    def __init__(self) -> None:
        """Start before the first line."""
        self.phase = "starting mmdebstrap"
        self.act = ""  # of _ACTS; "" in a phase that goes by no packages
        self.done: dict[str, int] = {}  # packages by act
        self.total = 0  # packages of this part; 0 while unknown
        self.cause = ""  # the first error: what follows it is but its echo up the call chain
        self.no_space = False

    def see(self, line: str) -> None:
        """Take a line in."""
        for start, phase in _PHASES.items():
            if line.startswith(start):
                self.phase, self.act = phase, ""
        if " newly installed, " in line:
            self.total = int(line.partition(" newly installed")[0].rpartition(" ")[2])
            self.done.clear()
        for start, act in _ACTS.items():
            if line.startswith(start) and self.total:
                self.act = act
                self.done[act] = self.done.get(act, 0) + 1
        if line.startswith(_ERROR_STARTS) and not self.cause:
            self.cause = line.removeprefix("E: ").strip()
        if any(text in line for text in _NO_SPACE):
            self.no_space = True

    def doing(self) -> str:
        """Return what is being done: "unpacking the essential packages"."""
        return f"{self.act} {self.phase.partition(' ')[2]}" if self.act else self.phase

    def detail(self) -> str:
        """Return how far that is, "" where it is not known."""
        if not self.act:
            return ""
        return f"{min(self.done[self.act], self.total)} of {self.total}"


def recipe(request: Request, suite: str, sources: tuple[Source, ...]) -> Recipe:
    """Return what is to be run for a tree of these sources.

    Raises:
        UnsupportedError: mmdebstrap is not installed.
    """
    # Without its certificates the machine's own apt could not reach such a mirror.
    https = any(source.uri.startswith("https:") for source in sources)
    certificates = ("ca-certificates",) if https else ()
    packages = tuple(dict.fromkeys((*_PACKAGES, *certificates, *request.include)))
    program = find_program("mmdebstrap", package="mmdebstrap")
    return Recipe(
        commands=(command(program, request, suite, packages, sources),),
        environment=proxy_environment(),
        keyrings=tuple(dict.fromkeys(s.keyring for s in sources if s.keyring)),
    )


def command(
    program: str,
    request: Request,
    suite: str,
    packages: tuple[str, ...],
    sources: tuple[Source, ...],
) -> tuple[str, ...]:
    """Return the command line of mmdebstrap."""
    return (
        program,
        "--verbose",
        "--mode=root",
        "--format=directory",
        f"--variant={request.variant or 'minbase'}",
        f"--include={','.join(packages)}",
        "--",
        suite,
        request.root,
        *(source.line() for source in sources),
    )
