"""Who may ask the page's server: decided by the head of a request alone. Pure.

The server listens where other programs of this machine, and pages in the user's own browser, can reach it. So the
host must be one that it answers for (a page elsewhere that has its name point to 127.0.0.1 is refused), the request
must not come from another page, and whatever tells of an experiment needs the token, by any method.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

TOKEN_HEADER = "x-longhaul-token"
API = "/api"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Refusal(NamedTuple):
    """status: 401 or 403."""

    status: int
    error: str
    hint: str


class AccessRules:
    """hosts: as `--allow-host` names them, with their port if it is not the usual one. port: where the server
    listens; None on a socket, which any port of this machine may lead to. address: where it listens, too."""

    def __init__(
        self, token: str, *, port: int | None, hosts: Iterable[str] = (), address: str = "127.0.0.1"
    ) -> None:
        self._token = token.encode()
        self._any_port = port is None
        names = {*_LOOPBACK, f"[{address}]" if ":" in address else address}
        self._hosts = {host.lower() for host in hosts}
        if port is not None:
            self._hosts |= {f"{name}:{port}" for name in names}
            self._hosts |= names if port == 80 else set()

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """None if the request may be answered. headers: by their names in small letters."""
        host = headers.get("host", "").lower()
        if not self._answers_for(host):
            hint = "open the address that was printed" + (
                f", or start it with --allow-host {host} if you reach it by that name"
                if _is_name(host)
                else ""
            )
            return Refusal(403, "the Host of the request is not one that this page answers for", hint)
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _opens_page(
            method, path, headers
        ):
            return Refusal(
                403, "the request comes from another page", "open the address that was printed in a tab"
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_own(origin):
            return Refusal(
                403,
                "the Origin of the request is not this page",
                "open the address that was printed, or name the host with --allow-host",
            )
        if _is_api(path) and not hmac.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self._token):
            return Refusal(
                401,
                "the request has no token, or not that of this server",
                f"send the header X-Longhaul-Token with what stands behind #t= in the address that {_COMMAND} printed; "
                "each start has a new one",
            )
        return None

    def _answers_for(self, host: str) -> bool:
        if host in self._hosts:
            return True
        name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        return self._any_port and (name if colon else host) in _LOOPBACK and (not colon or port.isdecimal())

    def _is_own(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and self._answers_for(parts.netloc.lower())


_COMMAND = "longhaul web"


def _is_api(path: str) -> bool:
    return path == API or path.startswith(f"{API}/")


def _opens_page(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """A link in a mail or in another page may open this one in a tab: that shows nothing without a token."""
    return (
        method == "GET"
        and path == "/"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _is_name(host: str) -> bool:
    return bool(host) and len(host) <= 255 and all(letter.isalnum() or letter in ".-:[]" for letter in host)
