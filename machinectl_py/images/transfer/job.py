"""A transfer under way: what it holds, how it is stopped, to whom it tells how far it is."""

from __future__ import annotations

from contextlib import nullcontext

from machinectl_py.images.transfer.confine import Confinement
from machinectl_py.images.transfer.flow import follow, refuse_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from machinectl_py.images.interruption import Interruption
    from machinectl_py.images.transfer.confine import Tool, World
    from machinectl_py.images.transfer.pump import Pump

    Progress = Callable[[str, str], None]


class Job:
    """A transfer under way."""

    def __init__(
        self, progress: Progress, interruption: Interruption, lock: int, *, target: int = -1
    ) -> None:
        """Hold what a transfer has.

        Args:
            progress: who is told.
            interruption: what stops it.
            lock: of the image, which tools keep; -1 for none.
            target: descriptor of what it writes to, a file or the store's directory; -1 for none.
        """
        self.progress = progress
        self.interruption = interruption
        self.lock = lock
        self._target = target

    def start(self, tools: tuple[Tool, ...], world: World) -> Confinement:
        """Start tools that keep the image's lock; for the caller to close.

        Raises:
            OSError: the namespaces cannot be made.
        """
        return Confinement(tools, world, keep=(self.lock,) if self.lock >= 0 else ())

    def writing(self) -> AbstractContextManager[object]:
        """Have what is written meanwhile go to the disk; to be entered when the tools run.

        Raises:
            OSError: at the end: the disk failed, or is full.
        """
        if self._target < 0:
            return nullcontext()
        # Late: threads are of use while the tools work.
        from machinectl_py.images.transfer.writeback import Writeback

        return Writeback(self._target)

    def run(
        self,
        tools: tuple[Tool, ...],
        world: World,
        look: Callable[[], None],
        what: str,
        *,
        pumps: tuple[Pump, ...] = (),
        started: Callable[[], None] = lambda: None,
        ended: Callable[[], None] = lambda: None,
    ) -> tuple[str, ...]:
        """Run tools to their end.

        Args:
            tools: side by side.
            world: where they run.
            look: called about ten times a second; may raise.
            what: begins the error: "Cannot unpack x.tar".
            pumps: what moves their streams.
            started: called when they run, to close what is theirs alone.
            ended: called when they have ended, to say what went wrong besides them.

        Returns:
            What the last of them complained of although it succeeded.

        Raises:
            PymachineError: one of them failed; interrupted.
            OSError: the disk failed, or is full.
        """
        confinement = self.start(tools, world)
        try:
            started()
            with self.writing():
                complaints = follow(confinement, pumps, look, self.interruption)
                ended()
                refuse_failure(confinement, complaints, what)
        finally:
            confinement.close()
        return complaints[-1]
