"""Images of OCI, from registries and directories, by skopeo(1) and umoci(1).

skopeo copies the layers into a directory in OCI's layout, where those that are there already are
not fetched again; umoci makes the tree of them, with their whiteouts. See the OCI image
specification.
"""

from __future__ import annotations

import hashlib
import os
import subprocess

from machinectl_py.errors import ConflictError, PymachineError
from machinectl_py.images import store
from machinectl_py.images.transfer.confine import Place, Tool, World, find_program
from machinectl_py.images.transfer.download import CACHE_DIR, LAYOUT_SUFFIX
from machinectl_py.images.transfer.flow import Room
from machinectl_py.images.transfer.tar import WRITER
from machinectl_py.kernel import const
from machinectl_py.kernel.locks import drop_lock, take_lock
from machinectl_py.kernel.mount import open_tree, set_attributes
from machinectl_py.kernel.remove_tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from machinectl_py.images.aside import Aside
    from machinectl_py.images.transfer.job import Job

# Of containers-transports(5), those that we know how to name.
TRANSPORTS = ("docker://", "oci:", "oci-archive:", "docker-archive:")
_IMAGE = "image"  # its name in the layout
_HINT_RUN = "'pymachine run NAME -- COMMAND' runs a command of it."


def image_name(source: str) -> str:
    """Return the name that an image of this source gets: without registry, tag and digest."""
    path = source.partition(":")[2].partition("@")[0]
    name, _, tag = path.rpartition(":")
    name = (path if not name or "/" in tag else name).rstrip("/").rpartition("/")[2]
    return name.removesuffix(".tar")


def unpack(
    source: str, aside: Aside, job: Job, *, insecure: bool, warn: Callable[[str], None]
) -> None:
    """Make the tree of an image in a place aside.

    Args:
        source: as skopeo has it: "docker://debian:12", "oci:/srv/layout:tag".
        aside: where it is made.
        job: under way.
        insecure: whether the registry may be without TLS.
        warn: called with what the image lacks.

    Raises:
        UnsupportedError: skopeo or umoci is not installed.
        ConflictError: the same is being downloaded by another process.
        PymachineError: there is no such image, it is damaged, or does not fit; interrupted.
        OSError: with the path.
    """
    skopeo = find_program("skopeo", package="skopeo")
    umoci = find_program("umoci", package="umoci")
    setpriv = find_program("setpriv", package="util-linux")
    os.makedirs(CACHE_DIR, 0o700, exist_ok=True)
    layout = f"{CACHE_DIR}/{hashlib.sha256(source.encode()).hexdigest()[:32]}{LAYOUT_SUFFIX}"
    lock = take_lock(f"{layout}.lck")
    if lock is None:
        raise ConflictError(f"{source} is being downloaded by another process")
    try:
        # The kernel kills it with us, and the lock is its own, too.
        command = (setpriv, "--pdeathsig", "KILL", skopeo, "copy", "--quiet")
        _download(command, source, layout, job, insecure=insecure, keep=lock)
        _unpack(umoci, layout, aside, job)
        remove_tree(layout)
    finally:
        drop_lock(f"{layout}.lck", lock)
    if not _has_systemd(aside.path):
        warn(f"There is no systemd in the image, so it cannot be booted: {_HINT_RUN}")


def _download(
    command: tuple[str, ...], source: str, layout: str, job: Job, *, insecure: bool, keep: int
) -> None:
    """Copy the image into a layout; it needs the network, the host's keys and its policy."""
    words = (*command, *(("--src-tls-verify=false",) if insecure else ()), source)
    room = Room(CACHE_DIR)
    process = subprocess.Popen(
        (*words, f"oci:{layout}:{_IMAGE}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(keep,),
        start_new_session=True,  # the terminal's Ctrl-C is for us, who then end it
    )
    error = b""
    try:
        while process.returncode is None:
            try:
                error = process.communicate(timeout=0.1)[1]
            except subprocess.TimeoutExpired:
                job.interruption.check()
                job.progress("downloading", _size(layout))
                room.check()
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise PymachineError(f"Cannot pull {source}: {_reason(error)}")


def _reason(error: bytes) -> str:
    """Return what skopeo says last, without the time and level before it."""
    lines = error.decode(errors="replace").strip().splitlines() or ["skopeo failed"]
    _, message, text = lines[-1].partition('msg="')
    return text.removesuffix('"').replace('\\"', '"') if message else lines[-1]


def _size(layout: str) -> str:
    from machinectl_py.images.transfer.flow import size_text

    total = 0
    for directory, _, names in os.walk(layout):
        for name in names:
            try:
                total += os.stat(f"{directory}/{name}").st_size
            except FileNotFoundError:  # renamed meanwhile
                continue
    return size_text(total)


def _unpack(umoci: str, layout: str, aside: Aside, job: Job) -> None:
    room = Room(store.MACHINES_DIR)

    def look() -> None:
        job.progress("unpacking", "")
        room.check()

    aside.make_directory()
    from_, into = open_tree(layout, recursive=False), open_tree(aside.path, recursive=False)
    try:
        set_attributes(from_, const.MOUNT_ATTR_RDONLY, recursive=False)
        places = (Place(name="layout", mount=from_), Place(name="tree", mount=into))
        words = ("raw", "unpack", "--image", f"/layout:{_IMAGE}", "/tree")
        tool = Tool(command=(umoci, *words), stdin=-1, stdout=-1, capabilities=WRITER)
        job.run((tool,), World(places=places), look, "Cannot unpack the layers")
    finally:
        os.close(from_)
        os.close(into)


def _has_systemd(root: str) -> bool:
    from machinectl_py.errors import NotFoundError

    try:
        return store.find_init(root) != ""
    except NotFoundError:
        return False
