"""Who may talk to the server, and what the browser may do with its answers."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

POLICY = (  # style attributes: Plotly places texts by them
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_SAFE = ("GET", "HEAD")


@dataclass(frozen=True)
class Gate:
    """Which Host names are ours, and the token that strangers need (None on loopback)."""

    names: frozenset[str]
    addresses: bool  # whether any Host that is an IP address is ours: such a Host cannot be a rebound name
    token: str | None = field(default=None, repr=False)

    def knows(self, host: str) -> bool:
        """Whether a Host header (with or without port) is one of ours."""
        name = _host_name(host)
        return name in self.names or (self.addresses and _is_address(name))

    def opens(self, token: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return self.token is None or hmac.compare_digest(token.encode(), self.token.encode())


def gate_for(bind: str, *, allow: Iterable[str] = (), token: str | None = None) -> Gate:
    """The gate of a server bound to an address. allow: further Host names."""
    names = {"localhost", "127.0.0.1", "::1", *(a.lower() for a in allow)}
    if is_loopback(bind):
        return Gate(frozenset(names), addresses=False)
    return Gate(frozenset({*names, bind.lower(), socket.gethostname().lower()}), addresses=True, token=token)


def is_loopback(bind: str) -> bool:
    """Whether an address to bind is reached from this machine alone."""
    return bind == "localhost" or (_is_address(bind) and ipaddress.ip_address(bind).is_loopback)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse foreign Hosts (DNS rebinding), foreign Origins (other pages), and what a form of another site can send."""
    gate: Gate = request.app[GATE]
    host, origin = request.headers.getall("Host", []), request.headers.get("Origin")
    if len(host) != 1 or not gate.knows(host[0]):
        return refusal(403, "this server does not answer to that Host name; open it by the address that it printed")
    if origin is not None and urlsplit(origin).netloc.lower() != host[0].lower():
        return refusal(403, "requests that another site's page sends are refused (foreign Origin)")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and request.path != "/":
        return refusal(403, "requests that another site's page sends are refused (Sec-Fetch-Site)")
    if "Content-Encoding" in request.headers:
        return refusal(415, "send the body as it is: compressed bodies are not taken")
    if request.method not in _SAFE and request.headers.get("X-Isoflop") != "1":
        return refusal(403, "requests that change something need the header X-Isoflop: 1")
    return await handler(request)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The security headers of every answer; data is never kept by a cache."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = "isoflop"


def refusal(status: int, words: str) -> web.Response:
    """An error as one sentence."""
    return web.json_response({"error": words}, status=status)


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


GATE = web.AppKey("gate", Gate)
