"""What a spec can say and no step does yet: refused before anything is touched."""

from __future__ import annotations

from machinectl_py.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import MachineSpec


def check_supported(spec: MachineSpec) -> None:
    """Refuse what no step does.

    Raises:
        UnsupportedError: the setting, by the name of its option.
    """
    for is_wanted, what in _of_the_root(spec):
        if is_wanted:
            raise UnsupportedError(f"{what} is not supported yet")


def _of_the_root(spec: MachineSpec) -> tuple[tuple[object, str], ...]:
    rootfs = spec.rootfs
    return (
        (rootfs.image, "A root from a disk image (--image=)"),
        (rootfs.image_policy, "--image-policy="),
        (rootfs.root_hash or rootfs.root_hash_signature or rootfs.verity_data, "--root-hash="),
    )
