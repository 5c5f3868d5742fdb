"""Who may ask a server on this machine for anything: whoever has the token, from its own page, in small portions."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# An answer has a few hundred bytes.
MOST_BYTES = 16_384
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def new_token() -> str:
    """Return a token that nobody guesses: 192 bits."""
    return secrets.token_urlsafe(24)


class Guard:
    """Lets through to an application what has the right to be there, as an ASGI application of its own.

    The first part of the path is the token; the application sees the rest. The host that is asked must be this
    machine by the names given, so that no other name can be made to lead here. What changes something must come from
    the server's own page, by the header Origin. A request's body is read to its end before the application sees it,
    unless it is too long.

    Parameters
    ----------
    application : callable
        Behind it.
    token : str
        Which opens.
    hosts : sequence of str
        Names with the port, such as ``127.0.0.1:8000``.
    most_bytes : mapping of str to int, optional
        Longest bodies for paths that may have longer ones.
    """

    def __init__(
        self,
        application: Application,
        token: str,
        hosts: Sequence[str],
        most_bytes: Mapping[str, int] | None = None,
    ) -> None:
        self._application = application
        self._token = token.encode()
        self._hosts = {host.encode() for host in hosts}
        self._most_bytes = dict(most_bytes or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            # There are no other kinds of connection here.
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _plain(send, *refusal)
            return
        path = "/" + scope["path"].partition("/")[2].partition("/")[2]
        body = await _body(receive, self._most_bytes.get(path, MOST_BYTES))
        if body is None:
            await _plain(send, 413, "too long")
            return

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    *((k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in known),
                ]
            await send(message)

        await self._application({**scope, "path": path, "raw_path": path.encode()}, again, with_headers)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, Sequence[bytes]]) -> tuple[int, str] | None:
        hosts = headers.get(b"host", ())
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "not this host"
        given = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        if not secrets.compare_digest(given.encode(errors="replace"), self._token):
            return 403, "no token, or a wrong one: use the whole address that the terminal shows"
        own = {b"http://" + host for host in self._hosts}
        origins = headers.get(b"origin", ())
        if any(origin.lower() not in own for origin in origins):
            return 403, "from another page"
        if scope["method"] not in ("GET", "HEAD") and len(origins) != 1:
            return 403, "from no page"
        if any(site not in (b"same-origin", b"none") for site in headers.get(b"sec-fetch-site", ())):
            return 403, "from another page"
        return None


async def _body(receive: Receive, most: int) -> bytes | None:
    """Return the whole body; None if it is longer than allowed."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        part = message.get("body", b"")
        length += len(part)
        if length > most:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _plain(send: Send, status: int, text: str) -> None:
    body = (text + "\n").encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
