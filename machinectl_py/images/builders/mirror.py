"""Where an image of Debian or Ubuntu comes from: the mirrors and keyrings of the host's apt.

See apt-get(8), indextargets, and sources.list(5).
"""

from __future__ import annotations

import os
import subprocess

from machinectl_py.errors import ConfigError
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.images.builders.recipe import Request

_FORMAT = "$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(SOURCESENTRY)"
# Suites that change all the time, and so have neither updates nor security fixes of their own.
_ROLLING = ("sid", "unstable", "experimental")


class Source(Record):
    """A repository that the host's apt reads."""

    uri: str
    suite: str  # "bookworm", "bookworm-security"; the codename where apt knows it
    components: tuple[str, ...]
    keyring: str = ""  # absolute path of Signed-By; "" leaves the choice to mmdebstrap
    trusted: bool = False  # also if it is not signed

    def line(self) -> str:
        """Return the source as a line of sources.list(5)."""
        options = f"[signed-by={self.keyring}] " if self.keyring else ""
        options = "[trusted=yes] " if self.trusted else options
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"


def host_release() -> tuple[str, str]:
    """Return ID and VERSION_CODENAME of the host's os-release(5); "" where it has none."""
    values = {"ID": "", "VERSION_CODENAME": ""}
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.strip().partition("=")
                if key in values:
                    values[key] = value.strip("\"'")
    except FileNotFoundError:
        pass
    return values["ID"], values["VERSION_CODENAME"]


def default_suite(distribution: str, otherwise: str) -> str:
    """Return the host's own release, so that its packages are at hand, if it has one of these.

    Args:
        distribution: ID of os-release(5).
        otherwise: the release for other hosts.
    """
    host, codename = host_release()
    return codename if host == distribution and codename else otherwise


def given_sources(request: Request, suite: str, components: tuple[str, ...]) -> tuple[Source, ...]:
    """Return the sources of the mirrors that a user named: "URL" or "URL SUITE COMPONENT…".

    Raises:
        ConfigError: one has a suite and no components.
    """
    found = []
    for mirror in request.mirrors:
        uri, *words = mirror.removeprefix("deb ").split()
        if len(words) == 1:
            raise ConfigError(
                f"--mirror='{mirror}' has no components",
                "It is a URL, or a URL, a suite and components, as in sources.list(5).",
            )
        found.append(
            Source(
                uri=uri,
                suite=words[0] if words else suite,
                components=tuple(words[1:]) or components,
            )
        )
    return tuple(found)


def with_trust(sources: tuple[Source, ...], request: Request) -> tuple[Source, ...]:
    """Return the sources with the user's keyring, or such that no signature is asked for."""
    if not request.verified:
        return tuple(source.replace(trusted=True) for source in sources)
    if request.keyring:
        return tuple(source.replace(keyring=request.keyring) for source in sources)
    return sources


def choose_sources(suite: str, configured: tuple[Source, ...]) -> tuple[Source, ...]:
    """Return the sources for an image of a suite.

    Args:
        suite: the distribution's name of it.
        configured: the distribution's repositories among those of the host.

    Returns:
        Those of the host where it has this very suite; otherwise the same mirrors with the other
        suite's name; none if the host has no mirror of that distribution.
    """
    names = (suite, f"{suite}-updates", f"{suite}-security")
    same = tuple(source for source in configured if source.suite in names)
    if any(source.suite == suite for source in same):
        return same
    base = next((s for s in configured if "-" not in s.suite), None)
    if base is None:
        return ()
    main = base.replace(suite=suite, components=("main",))
    if suite in _ROLLING:
        return (main,)
    found = [main, main.replace(suite=f"{suite}-updates")]
    security = next((s for s in configured if s.suite.endswith("-security")), None)
    if security is not None:
        found.append(security.replace(suite=f"{suite}-security", components=("main",)))
    return tuple(found)


def host_sources(origin: str) -> tuple[Source, ...]:
    """Return a distribution's own repositories among those that the host's apt reads.

    Args:
        origin: as its repositories call it: "Debian".
    """
    command = ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no apt: not Debian
        return ()
    return parse_targets(done.stdout, origin)


def parse_targets(text: str, wanted: str = "Debian") -> tuple[Source, ...]:
    """Return the sources in what `apt-get indextargets` printed, components joined.

    The origin stands in the downloaded index; before the first `apt-get update` it is unknown,
    and a repository with a component "main" passes for the host's own distribution's.

    Args:
        text: that.
        wanted: the origin.
    """
    own = host_release()[0] == wanted.lower()
    found: dict[tuple[str, str], Source] = {}
    for line in text.splitlines():
        # What apt does not know it leaves unexpanded.
        fields = ["" if field.startswith("$(") else field for field in line.split("|")]
        if len(fields) != _FORMAT.count("|") + 1:
            continue
        uri, release, codename, component, origin, entry = fields
        key = (uri, codename or release)
        if key in found:
            if component not in found[key].components:
                components = (*found[key].components, component)
                found[key] = found[key].replace(components=components)
        elif origin == wanted or (not origin and component == "main" and own):
            found[key] = Source(
                uri=uri, suite=key[1], components=(component,), keyring=keyring_of(entry)
            )
    return tuple(found.values())


def keyring_of(entry: str) -> str:
    """Return the keyring's path of a source, "FILE:NUMBER" as apt names it; "" if it has none.

    The number counts the lines of a .list file, the stanzas of a .sources file.
    """
    path, _, number = entry.rpartition(":")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return ""
    if path.endswith(".sources"):
        stanzas = [part for part in text.split("\n\n") if ":" in part]
        values = [
            line.partition(":")[2].strip()
            for line in "\n".join(stanzas[int(number) - 1 : int(number)]).splitlines()
            if line.lower().startswith("signed-by:")
        ]
    else:
        line = "".join(text.splitlines()[int(number) - 1 : int(number)])
        options = line.partition("[")[2].partition("]")[0].split()
        values = [word[10:] for word in options if word.lower().startswith("signed-by=")]
    # A key within the file, or a fingerprint, is no path: mmdebstrap then looks for the keyring.
    return values[0] if values and os.path.isfile(values[0]) else ""


def proxy_environment() -> tuple[tuple[str, str], ...]:
    """Return the proxies of the host's apt as the variables that apt reads too."""
    found = []
    for scheme in ("http", "https"):
        command = ["apt-config", "shell", "proxy", f"Acquire::{scheme}::Proxy"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            break
        value = done.stdout.partition("=")[2].strip().strip("'")
        value = value or os.environ.get(f"{scheme}_proxy", "")
        if value:
            found.append((f"{scheme}_proxy", value))
    return tuple(found)
