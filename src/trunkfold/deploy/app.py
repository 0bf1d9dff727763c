"""A web page and an HTTP API of a finished run, with Python's own server: it needs no further package or network."""

import contextlib
import functools
import ipaddress
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from trunkfold.deploy.photo_service import PhotoService, UploadError
from trunkfold.errors import InputError
from trunkfold.html import render_html
from trunkfold.run_folder import SETS

logger = logging.getLogger(__name__)
WAITING = 8  # photos held in memory until their turn; further requests must retry later
PATIENCE = 30  # seconds without a byte, after which a connection is closed
BLOCK = 1 << 16


class AppServer(ThreadingHTTPServer):
    """Listens on one address; each connection has a thread, photos take turns.

    Attributes:
        service: Predicts.
        local: Whether only this machine can reach it.
    """

    daemon_threads = True

    def __init__(self, service: PhotoService, host: str, port: int) -> None:
        """Listen.

        Args:
            service: Predicts.
            host: Name or address of the interface.
            port: 0 takes any free one.

        Raises:
            InputError: The address is taken or not this machine's.
        """
        self.service, self.local = service, is_loopback(host)
        self.places = threading.BoundedSemaphore(WAITING)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot listen on {host}, port {port} ({reason}): choose another --host or --port"
            ) from error

    @property
    def address(self) -> str:
        """URL to open in a browser."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of clients that disconnected."""


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be reached from this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class _Refused(Exception):
    """A request that is answered by a status and a reason."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: AppServer
    timeout = PATIENCE
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "trunkfold", ""
    nonce, unread = "", 0

    def do_GET(self) -> None:
        self._answer({"/": self._page, "/api/run": self._describe})

    def do_POST(self) -> None:
        service = self.server.service
        actions = {"/api/predict": service.predict, "/api/explain": service.explain}
        self._answer({path: functools.partial(self._photo, action) for path, action in actions.items()})

    def log_message(self, *_: object) -> None:
        """Log no requests: they say who looked at what."""

    def _answer(self, routes: dict[str, Callable[[], tuple[str, bytes]]]) -> None:
        try:
            self.unread = self._length()
            self._check_source()
            path = urlsplit(self.path).path
            if path not in routes:
                raise _Refused(HTTPStatus.NOT_FOUND, f"there is nothing at {path} for {self.command}")
            status, (kind, body) = HTTPStatus.OK, routes[path]()
        except _Refused as refusal:
            status, (kind, body) = refusal.status, _json({"problem": str(refusal)})
        except (InputError, RuntimeError) as error:  # of the device: its memory is full, or it is gone
            logger.error("a photo was not predicted: %s", error)
            status, (kind, body) = HTTPStatus.INTERNAL_SERVER_ERROR, _json({"problem": "the prediction failed"})
        self._send(status, kind, body)

    def _length(self) -> int:
        """Bytes of the request's body."""
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            raise _Refused(HTTPStatus.BAD_REQUEST, "Content-Length must be a number of bytes")
        return int(length)

    def _check_source(self) -> None:
        """Refuse what other websites make a browser ask, under this machine's address or a name of their own."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        try:
            name, sender = urlsplit(f"//{host}").hostname or "", urlsplit(origin or f"//{host}").netloc
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, "Host or Origin cannot be read") from error
        if sender != host or (self.server.local and not is_loopback(name)):
            raise _Refused(HTTPStatus.FORBIDDEN, "requests of other websites are refused")

    def _page(self) -> tuple[str, bytes]:
        self.nonce = secrets.token_urlsafe(16)
        run, limits = self.server.service.run, self.server.service.limits
        scores = next(iter(run.metrics.by_set().items()), None)
        page = render_html("app.html", run=run, limits=limits, nonce=self.nonce, scores=scores, sets=SETS)
        return "text/html; charset=utf-8", page.encode()

    def _describe(self) -> tuple[str, bytes]:
        run, limits = self.server.service.run, self.server.service.limits
        size = run.config.data.image_size
        facts = {"run": run.folder.name, "model": run.config.model.name, "image_size": size, "classes": run.classes}
        return _json(facts | {"most_bytes": limits.bytes, "most_pixels": limits.pixels})

    def _photo(self, action: Callable[[bytes], dict]) -> tuple[str, bytes]:
        most = self.server.service.limits.bytes
        if "Content-Length" not in self.headers:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "send the photo's bytes with a Content-Length")
        if self.unread > most:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the file is larger than {most / 1e6:.3g} MB")
        if not self.server.places.acquire(blocking=False):
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, f"{WAITING} photos are waiting: try again later")
        try:
            content = self.rfile.read(self.unread)
            self.unread -= len(content)
            return _json(action(content))
        except UploadError as error:
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error)) from error
        finally:
            self.server.places.release()

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        policy = (
            f"default-src 'none'; script-src 'nonce-{self.nonce}'; style-src 'unsafe-inline'; img-src data: blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self._discard()

    def _discard(self) -> None:
        """Read the rest of a refused upload, for a while: a client that is still sending would lose the answer."""
        self.connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + PATIENCE
        while self.unread > 0 and time.monotonic() < end and (block := self.rfile.read(min(self.unread, BLOCK))):
            self.unread -= len(block)


def _json(value: dict) -> tuple[str, bytes]:
    return "application/json", json.dumps(value, ensure_ascii=False).encode()
