"""User and password in a URL: for its server alone; RFC 3986, "User Information"."""

from __future__ import annotations


def split_login(url: str) -> tuple[str, str]:
    """Return a URL without its user and password, and these as they stand there; "" for none."""
    if "://" not in url or "@" not in url:
        return url, ""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    login, at, server = parts.netloc.rpartition("@")
    return (parts._replace(netloc=server).geturl(), login) if at else (url, "")


def without_login(url: str) -> str:
    """Return a URL as everybody may read it; what is none stays as it is."""
    return split_login(url)[0]
