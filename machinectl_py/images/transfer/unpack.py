"""The way from a source to what it holds: undone compression, the limit, the progress."""

from __future__ import annotations

import os
import select

from machinectl_py.errors import PymachineError
from machinectl_py.images import store
from machinectl_py.images.transfer import compress
from machinectl_py.images.transfer.confine import Tool, World
from machinectl_py.images.transfer.flow import (
    Room,
    follow,
    refuse_failure,
    size_text,
    wide_pipe,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machinectl_py.images.transfer.job import Job
    from machinectl_py.images.transfer.pump import Pump
    from machinectl_py.images.transfer.source import Source


class Unpacking:
    """A source on its way through the tools that undo its compression.

    With a limit, what comes out of them is counted on the way to the reader; what a file holds
    uncompressed is known before.
    """

    def __init__(self, source: Source, limit: int, job: Job) -> None:
        """Choose the tools.

        Raises:
            UnsupportedError: the program for its compression is not installed.
            PymachineError: it is larger than the limit.
        """
        self.source, self.limit, self.job = source, limit, job
        self.pumps: tuple[Pump, ...] = ()
        self.tools: tuple[Tool, ...] = ()
        self._given: list[int] = []  # descriptors that are the tools' alone once they run
        format_ = compress.detect(source.head)
        if format_ is None and source.is_file:
            if 0 < limit < source.size:
                raise self._too_large()
            self.output = source.fd
            return
        unpacker = format_.unpacker() if format_ is not None else None
        into = source.fd
        if not source.is_file:
            into = self._pump(os.dup(source.fd), source.taken, 0 if unpacker else limit)
        if unpacker:
            out, write = wide_pipe()
            self._given.append(write)
            self.tools = (Tool(command=unpacker, stdin=into, stdout=write),)
            if limit:
                into = self._pump(out, b"", limit)
            else:
                into = out
                self._given.append(out)
        self.output = into

    def _pump(self, source: int, first: bytes, limit: int) -> int:
        from machinectl_py.images.transfer.pump import Pump

        read, write = wide_pipe()
        self.pumps += (Pump(source, write, first=first, limit=limit),)
        self._given.append(read)
        return read

    def _too_large(self) -> PymachineError:
        return PymachineError(
            f"{self.source.title} unpacks to more than {size_text(self.limit)}",
            "--limit=SIZE allows more.",
        )

    def into(self, reader: Tool, world: World) -> tuple[str, ...]:
        """Give the content to a program that reads it, and wait for the end.

        Args:
            reader: the program; its `stdin` is `self.output`.
            world: where all of them run.

        Returns:
            What the reader complained of although it succeeded.

        Raises:
            PymachineError: a program failed, the disk is full, the limit passed; interrupted.
        """
        return self.job.run(
            (*self.tools, reader),
            world,
            self.looker(),
            f"Cannot unpack {self.source.title}",
            pumps=self.pumps,
            started=self._release,
            ended=self._check,
        )

    def chunks(self) -> Iterator[bytes]:
        """Yield the content as it comes.

        Raises:
            PymachineError: a program failed, the disk is full, the limit passed; interrupted.
        """
        content = os.dup(self.output)
        look = self.looker()
        confinement = self.job.start(self.tools, World()) if self.tools else None
        try:
            self._release()
            for pump in self.pumps:
                pump.start()
            with self.job.writing():
                while chunk := self._wait(content, look):
                    yield chunk
                self._check()
                if confinement is not None:
                    complaints = follow(confinement, (), look, self.job.interruption)
                    refuse_failure(confinement, complaints, f"Cannot unpack {self.source.title}")
        finally:
            os.close(content)
            if confinement is not None:
                confinement.close()

    def _wait(self, content: int, look: Callable[[], None]) -> bytes:
        while not select.select([content, self.job.interruption.fd], [], [], 0.1)[0]:
            look()
        look()
        return os.read(content, 1 << 20)

    def looker(self) -> Callable[[], None]:
        """Return what is to be called again and again: it tells how far it is and stops it.

        It raises PymachineError: the disk is nearly full, or a signal came.
        """
        room = Room(store.MACHINES_DIR)

        def look() -> None:
            self.job.interruption.check()
            self.job.progress("unpacking", self.done())
            room.check()

        return look

    def _release(self) -> None:
        """Close what is the tools' alone: without that no stream would end."""
        for fd in self._given:
            os.close(fd)
        self._given.clear()

    def _check(self) -> None:
        """Tell of what went wrong on the way.

        Raises:
            PymachineError: the limit was passed.
            OSError: the source cannot be read.
        """
        for pump in self.pumps:
            if pump.exceeded:
                raise self._too_large()
            if pump.error is not None:
                raise pump.error

    def done(self) -> str:
        """Return how much has been read: "43 %", or "12.3 MB" of a stream."""
        if self.source.is_file and self.source.size:
            return f"{100 * self.source.position() // self.source.size} %"
        return size_text(self.pumps[-1].count) if self.pumps else ""
