"""Files from servers: several at once, taken up again where they broke off, never half a one.

What is being downloaded is kept in a cache, also over the end of the process, with what the server
calls this version of the file (ETag or Last-Modified): the rest is asked for on condition that it
is still the same; RFC 9110, "If-Range".
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
import urllib.error
from contextlib import contextmanager

from machinectl_py.errors import ConflictError, NotFoundError, PymachineError
from machinectl_py.images.transfer.flow import Room, size_text
from machinectl_py.images.transfer.web import BROKEN, ask, failure
from machinectl_py.kernel.locks import drop_lock, take_lock
from machinectl_py.kernel.remove_tree import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal

    from machinectl_py.images.transfer.job import Job

    Keep = Literal["", "yes", "no"]

CACHE_DIR = "/var/cache/pymachine/downloads"
LAYOUT_SUFFIX = ".oci"  # of directories in OCI's layout, in the cache
_CHUNK = 1 << 18
_TRIES = 5  # without a byte in between
_PATIENCE = 7 * 24 * 3600  # seconds: older parts are given up
_SMALL = 1 << 24  # bytes, of what is read into memory
_PARTIAL, _UNSATISFIABLE = 206, 416
_GIVEN_UP = range(400, 500)  # the server will not say otherwise if asked again


class Download:
    """A file that is being downloaded, or has been."""

    def __init__(self, url: str, path: str) -> None:
        """Take up what is there of it."""
        self.url, self.path = url, path
        self.received = 0  # bytes in the file
        self.total = -1  # -1 while unknown
        self.kept = False  # also when an image has been made of it
        self._version = ""  # what the server calls it
        try:
            with open(f"{path}.json", encoding="utf-8") as file:
                known = json.load(file)
            self._version, self.total = str(known["version"]), int(known["total"])
            self.kept = bool(known.get("kept", False))
            self.received = os.stat(path).st_size
        except (OSError, ValueError, KeyError):
            pass

    def run(self, stop: threading.Event) -> None:
        """Download what is missing; in a thread of its own.

        Raises:
            NotFoundError: the server has no such file.
            PymachineError: the server cannot be reached, or fails again and again.
        """
        tries = 0
        while not stop.is_set():
            before = self.received
            try:
                if self._go_on(stop):
                    return
                error: BaseException = ConnectionError("the connection broke off")
            except urllib.error.HTTPError as refused:
                if refused.code in _GIVEN_UP:
                    raise failure(self.url, refused) from refused
                error = refused
            except BROKEN as broken:
                if isinstance(broken, OSError) and broken.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise PymachineError(f"no space left in {CACHE_DIR}") from broken
                error = broken
            tries = 0 if self.received > before else tries + 1
            if tries >= _TRIES:
                raise failure(self.url, error) from error
            stop.wait(0.2 * 2**tries)

    def _go_on(self, stop: threading.Event) -> bool:
        """Ask for the rest, and write it; say whether the file is whole."""
        headers = {"Accept-Encoding": "identity"}
        if self.received and self._version:
            headers |= {"Range": f"bytes={self.received}-", "If-Range": self._version}
        try:
            answer = ask(self.url, headers)
        except urllib.error.HTTPError as error:
            if error.code != _UNSATISFIABLE:
                raise
            if self.received == self.total:  # there is no rest
                return True
            self.received, self._version = 0, ""
            return False
        with answer:
            if getattr(answer, "status", None) != _PARTIAL:  # the whole, of another version perhaps
                self._begin(answer)
            return self._receive(answer, stop)

    def _begin(self, answer: Any) -> None:
        length = answer.headers.get("Content-Length", "")
        self.received, self.total = 0, int(length) if length.isdigit() else -1
        tag = answer.headers.get("ETag", "")
        # A weak tag is no promise that the bytes are the same.
        self._version = tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        self.note()

    def note(self) -> None:
        """Write down what is known of it.

        Raises:
            OSError: with the path.
        """
        known = {"url": self.url, "version": self._version, "total": self.total, "kept": self.kept}
        with open(f"{self.path}.json", "w", encoding="utf-8") as file:
            json.dump(known, file)

    def _receive(self, answer: Any, stop: threading.Event) -> bool:
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self.received)
            while not stop.is_set():
                data = answer.read1(_CHUNK) if hasattr(answer, "read1") else answer.read(_CHUNK)
                if not data:
                    break
                view = memoryview(data)
                while view:
                    written = file.write(view)
                    view = view[written:]
                    self.received += written
        return self.received == self.total or (self.total < 0 and not stop.is_set())


@contextmanager
def downloaded(url: str, job: Job, keep: Keep = "") -> Iterator[str]:
    """Give the path of a downloaded file; it is removed when the block ends well.

    Args:
        url: of the file.
        job: under way.
        keep: "yes" to have it stay, so that the next download need only ask whether it is still
            the same; "no" to have it removed even if it was kept before.

    Raises:
        NotFoundError: the server has no such file.
        ConflictError: it is being downloaded by another process.
        PymachineError: the server fails, the disk is full; interrupted.
    """
    os.makedirs(CACHE_DIR, 0o700, exist_ok=True)
    _forget_old()
    path = f"{CACHE_DIR}/{hashlib.sha256(url.encode()).hexdigest()[:32]}"
    lock = take_lock(f"{path}.lck")
    if lock is None:
        raise ConflictError(f"{url} is being downloaded by another process")
    try:
        download, room = Download(url, path), Room(CACHE_DIR)
        rate = _Rate(download)

        def look() -> None:
            job.progress("downloading", rate.text())
            room.check()

        in_threads((download.run,), job, look)
        download.kept = keep == "yes" or (download.kept and keep != "no")
        download.total = download.received  # now known
        download.note()
        yield path
        if not download.kept:
            forget(path)
    finally:
        drop_lock(f"{path}.lck", lock)


def forget(path: str) -> None:
    """Remove a file from the cache."""
    for name in (path, f"{path}.json"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            pass


def _forget_old() -> None:
    for layout in _layouts():
        if time.time() - os.stat(layout).st_mtime >= _PATIENCE:
            _remove_unused(layout)
    for path, download in _cached():
        if not download.kept and time.time() - os.stat(f"{path}.json").st_mtime >= _PATIENCE:
            _forget_unused(path)


def forget_all() -> Iterator[tuple[str, int]]:
    """Remove all of the cache that nobody works on; yield URL or path, and size in bytes.

    Raises:
        OSError: with the path.
    """
    from machinectl_py.images.listing import disk_usage

    for layout in _layouts():
        usage = disk_usage(layout)
        if _remove_unused(layout):
            yield layout, usage
    for path, download in _cached():
        if _forget_unused(path):
            yield download.url, download.received


def _cached() -> Iterator[tuple[str, Download]]:
    """Yield path and state of each file of the cache."""
    try:
        entries = sorted(os.listdir(CACHE_DIR))
    except FileNotFoundError:
        return
    for entry in entries:
        if not entry.endswith(".json"):
            continue
        path = f"{CACHE_DIR}/{entry.removesuffix('.json')}"
        try:
            with open(f"{path}.json", encoding="utf-8") as file:
                url = str(json.load(file)["url"])
        except (OSError, ValueError, KeyError, TypeError):
            url = ""
        yield path, Download(url, path)


def _layouts() -> list[str]:
    """Return the paths of images of OCI that were being downloaded."""
    try:
        entries = sorted(os.listdir(CACHE_DIR))
    except FileNotFoundError:
        return []
    return [f"{CACHE_DIR}/{entry}" for entry in entries if entry.endswith(LAYOUT_SUFFIX)]


def _remove_unused(layout: str) -> bool:
    lock = take_lock(f"{layout}.lck")
    if lock is None:
        return False
    remove_tree(layout)
    drop_lock(f"{layout}.lck", lock)
    return True


def _forget_unused(path: str) -> bool:
    lock = take_lock(f"{path}.lck")
    if lock is None:
        return False
    forget(path)
    drop_lock(f"{path}.lck", lock)
    return True


def read_small(urls: tuple[str, ...], job: Job) -> dict[str, bytes]:
    """Return the content of those of these files that there are; all are asked for at once.

    Raises:
        PymachineError: a server fails; a file is too large; interrupted.
    """
    found: dict[str, bytes] = {}

    def reader(url: str) -> Callable[[threading.Event], None]:
        def read(_stop: threading.Event) -> None:
            try:
                with ask(url, {}) as answer:
                    data = answer.read(_SMALL + 1)
            except NotFoundError:
                return
            except BROKEN as error:
                raise failure(url, error) from error
            if len(data) > _SMALL:
                raise PymachineError(f"{url} is larger than {size_text(_SMALL)}")
            found[url] = data

        return read

    in_threads(tuple(reader(url) for url in urls), job, lambda: None)
    return found


def in_threads(
    acts: tuple[Callable[[threading.Event], None], ...], job: Job, look: Callable[[], None]
) -> None:
    """Run each act in a thread until all have ended; the first error ends it.

    Args:
        acts: called with an event that is set when they are to stop.
        job: whose interruption stops them.
        look: called ten times a second; may raise.

    Raises:
        PymachineError: of an act; interrupted.
    """
    stop, errors = threading.Event(), list[BaseException]()

    def run(act: Callable[[threading.Event], None]) -> None:
        try:
            act(stop)
        except BaseException as error:  # noqa: BLE001 - raised again where it can be told
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    try:
        while not errors and (alive := [thread for thread in threads if thread.is_alive()]):
            alive[0].join(0.1)
            job.interruption.check()
            look()
    finally:
        stop.set()
    for thread in threads:  # what is started next must find us with one thread
        thread.join()
    if errors:
        raise errors[0]


class _Rate:
    """How much of a download there is, and how fast it comes."""

    def __init__(self, download: Download) -> None:
        self.download = download
        self.first, self.begun = download.received, time.monotonic()

    def text(self) -> str:
        received, total = self.download.received, self.download.total
        seconds = time.monotonic() - self.begun
        rate = size_text(max(0, received - self.first) / seconds) if seconds > 0 else "?"
        if total > 0:
            return f"{100 * received // total} % of {size_text(total)}, {rate}/s"
        return f"{size_text(received)}, {rate}/s"
