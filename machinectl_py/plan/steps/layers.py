"""The root of a machine that is made of layers; docs/design/store.md."""

from __future__ import annotations

from machinectl_py.kernel import const
from machinectl_py.kernel.overlay import mount_layers
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.root import ROOT_TREE
from machinectl_py.plan.steps.users import delegated
from machinectl_py.plan.users import root_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context
    from machinectl_py.plan.users import RootOwnership


LOWEST = "mount:lowest"  # slot of the detached mount of a disk image that layers lie on


class MountLayers(Step):
    """Make the root of layers, as a detached mount."""

    name = "mount-layers"
    place = "supervisor"
    man = "mount(2)"
    because = "by root of the host: PID 1 may neither reach the layers nor map their ids"
    gives = (ROOT_TREE,)

    root: str  # the lowest; a directory, or a disk image
    layers: tuple[str, ...]  # directories over it, the topmost first
    layer: str  # the directory with upper/ and work/, which takes what the machine writes
    users: bool = False  # in a user namespace
    count: int = 0  # of its ids
    ownership: RootOwnership = "as-is"
    slot: str = ""  # of a disk image: that of the mount of its root

    def describe(self) -> str:
        """Return the act."""
        mapped = {"map": ", ids mapped from 0", "foreign": ", ids mapped from the foreign range"}
        return f"mount overlay {self._options()}{mapped.get(self.ownership, '')}, detached"

    def _options(self) -> str:
        lower = ":".join((*self.layers, self.root))
        return f"lowerdir={lower},upperdir={self.layer}/upper,workdir={self.layer}/work"

    def command(self) -> str:
        """Return the shell's way."""
        return f"mount -t overlay -o {self._options()} overlay …"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots that this very step takes."""
        slots = ("id-base", "id-delegated") if self.users else ()
        return (*slots, *((self.slot,) if self.slot else ()))

    def apply(self, context: Context) -> None:
        """Mount it, through layers whose ids are mapped."""
        base = context.number("id-base") if self.users else 0
        maps = None
        if self.users:
            maps = root_maps(self.ownership, base, self.count, delegated(context))
        lowest = context.number(self.slot) if self.slot else self.root
        tree = mount_layers(
            (*self.layers, lowest),
            self.layer,
            maps=maps,
            owner=base if maps else 0,
            attributes=const.MOUNT_ATTR_NODEV if self.slot else 0,  # as of an image's mounts
        )
        context.give(ROOT_TREE, tree)
