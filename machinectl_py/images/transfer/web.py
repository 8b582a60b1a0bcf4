"""What is asked of servers: URLs, answers, errors in words."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.parse
import urllib.request

from machinectl_py import __version__
from machinectl_py.errors import NotFoundError, PymachineError, UnsupportedError
from machinectl_py.images.transfer.logins import split_login, without_login

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

_SILENCE = 30  # seconds without a byte
_ABSENT = (404, 410)
# What may come of a connection, besides the answers that HTTPError stands for.
BROKEN = (OSError, http.client.HTTPException)


class _SameSecurity(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never out of TLS."""

    def redirect_request(  # noqa: PLR0917 - the library's
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return what is asked next.

        Raises:
            PymachineError: without TLS where the first was with it.
        """
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise PymachineError(f"{req.full_url} redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_url(url: str) -> None:
    """Refuse a URL that nothing can be downloaded from.

    Raises:
        UnsupportedError: it is neither http, https nor file, or names no file.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https", "file"):
        raise UnsupportedError(
            f"Cannot download '{url}'", "A URL begins with https://, http:// or file://."
        )
    if not file_name(url):
        raise UnsupportedError(f"'{url}' names no file")


def file_name(url: str) -> str:
    """Return the last part of a URL's path."""
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path).rpartition("/")[2]


def sibling(url: str, name: str) -> str:
    """Return the URL of another file in the same directory."""
    parts = urllib.parse.urlsplit(url)
    path = f"{parts.path.rpartition('/')[0]}/{urllib.parse.quote(name)}"
    return parts._replace(path=path, fragment="").geturl()


def ask(url: str, headers: dict[str, str]) -> Any:
    """Return the open answer to a GET request; `file:` URLs answer too.

    Raises:
        NotFoundError: there is no such file.
        urllib.error.HTTPError: another status than of success.
        OSError, http.client.HTTPException: there is no answer.
        PymachineError: a redirection out of TLS.
    """
    plain, login = split_login(url)
    request = urllib.request.Request(  # noqa: S310 - check_url has looked at the scheme
        plain, headers={"User-Agent": f"pymachine/{__version__}", **headers}
    )
    if login:  # for this server, not for one that it redirects to
        words = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {words}")  # RFC 7617
    try:
        return urllib.request.build_opener(_SameSecurity).open(request, timeout=_SILENCE)
    except urllib.error.HTTPError as error:
        if error.code in _ABSENT:
            raise NotFoundError(f"{url}: the server has no such file") from error
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError):  # of a `file:` URL
            raise NotFoundError(f"{url}: there is no such file") from error
        raise


def failure(url: str, error: BaseException) -> PymachineError:
    """Return the error for people."""
    reason: object = error
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server says {error.code} {error.reason}"
    elif isinstance(error, urllib.error.URLError):
        reason = error.reason
    if isinstance(reason, OSError):
        reason = reason.strerror or reason
    reason = reason or type(error).__name__
    return PymachineError(f"Cannot download {without_login(url)}: {reason}")
