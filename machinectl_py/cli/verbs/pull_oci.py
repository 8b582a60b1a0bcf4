"""`pymachine pull-oci`: make an image of one of a registry."""

from __future__ import annotations

from machinectl_py.cli.transfers import MAKE, placing_of, shown, tell_made, two_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.cli.parse import Arguments

USAGE = "pull-oci IMAGE [NAME] [OPTION…]"
SUMMARY = "Download an image of an OCI registry"
DETAILS = """
IMAGE is named as skopeo(1) names it: docker://NAME:TAG, or NAME:TAG alone, oci:DIRECTORY:TAG,
oci-archive:FILE or docker-archive:FILE. Whose signatures are asked for says
containers-policy.json(5).

Needs skopeo and umoci. Most such images have no systemd, and can be used by 'pymachine run' only.
"""
EXAMPLE = "pymachine pull-oci registry.example.org/web:1.2 web"
COMMAND = -1
OPTIONS = MAKE


def run(arguments: Arguments) -> int:
    """Run the verb; print the image's directory."""
    source, name = two_words(arguments, "pull-oci", "an IMAGE", USAGE)
    from machinectl_py.images.transfer.oci import TRANSPORTS
    from machinectl_py.images.transfer.pulls import pull_oci

    if not source.startswith(TRANSPORTS):
        source = f"docker://{source}"
    warnings = list[str]()
    with shown(arguments, f"Pulling {source}") as progress:
        made = pull_oci(source, name, progress, warn=warnings.append, placing=placing_of(arguments))
    tell_made(arguments, made, warnings)
    return 0
