"""A real HTTP server on loopback that does whatever servers on the internet do.

    with Server() as server:
        server.route("/cat.png", reply(b"..."))
        server.route("/flaky", in_turn(reply(status=500), reply(b"...")))
        fetch(server.url("/flaky"))
        assert server.count("/flaky") == 2

A behaviour is a function of a `Request`; it writes raw bytes with `request.send`, so that it can also lie.
"""

import contextlib
import gzip
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

Behaviour = Callable[["Request"], None]


@dataclass
class Request:
    """One request as it arrived, and the socket to answer on."""

    method: str
    target: str
    headers: dict[str, str]
    connection: socket.socket = field(repr=False)
    server: "Server" = field(repr=False)
    keep_alive: bool = True

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def hang_up(self) -> None:
        """Close after this answer."""
        self.keep_alive = False

    def wait(self, seconds: float) -> None:
        """Wait, but never longer than the server lives."""
        self.server.stopping.wait(seconds)


def head(status: int, headers: dict[str, object]) -> bytes:
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Whatever"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n"


def reply(body: bytes = b"", status: int = 200, headers: dict[str, object] | None = None) -> Behaviour:
    """Answer honestly."""

    def behave(request: Request) -> None:
        request.send(head(status, {"Content-Length": len(body), **(headers or {})}) + body)

    return behave


def redirect(location: str | None, status: int = 302, headers: dict[str, object] | None = None) -> Behaviour:
    """Point elsewhere; `None` leaves the Location out."""
    return reply(
        status=status, headers={**({} if location is None else {"Location": location}), **(headers or {})}
    )


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Do one thing per request, the last for all that follow."""
    lock = threading.Lock()
    left = list(behaviours)

    def behave(request: Request) -> None:
        with lock:
            behaviour = left.pop(0) if len(left) > 1 else left[0]
        behaviour(request)

    return behave


def stall(after: bytes = b"") -> Behaviour:
    """Send `after`, then nothing more."""

    def behave(request: Request) -> None:
        if after:
            request.send(after)
        request.wait(60)
        request.hang_up()

    return behave


def stall_in_body(body: bytes, sent: int) -> Behaviour:
    """Send the head and the first bytes, then nothing more."""
    return stall(head(200, {"Content-Length": len(body)}) + body[:sent])


def drip(body: bytes, interval: float) -> Behaviour:
    """Send the body one byte at a time."""

    def behave(request: Request) -> None:
        request.send(head(200, {"Content-Length": len(body)}))
        for byte in body:
            if request.server.stopping.is_set():
                break
            request.send(bytes([byte]))
            request.wait(interval)

    return behave


def drip_head(interval: float) -> Behaviour:
    """Send headers without end, one byte at a time."""

    def behave(request: Request) -> None:
        request.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not request.server.stopping.is_set():
            request.send(b"a")
            request.wait(interval)

    return behave


def cut(body: bytes, sent: int, headers: dict[str, object] | None = None) -> Behaviour:
    """Promise the whole body, send its beginning, hang up."""

    def behave(request: Request) -> None:
        request.send(head(200, {"Content-Length": len(body), **(headers or {})}) + body[:sent])
        request.hang_up()

    return behave


def raw(data: bytes) -> Behaviour:
    """Send exactly these bytes and hang up."""

    def behave(request: Request) -> None:
        request.send(data)
        request.hang_up()

    return behave


def hang_up(request: Request) -> None:
    """Say nothing and close."""
    request.hang_up()


def chunked(
    chunks: Iterable[bytes], *, end: bool = True, headers: dict[str, object] | None = None
) -> Behaviour:
    """Send a chunked body; without `end` it is cut short."""

    def behave(request: Request) -> None:
        request.send(head(200, {"Transfer-Encoding": "chunked", **(headers or {})}))
        for chunk in chunks:
            request.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if end:
            request.send(b"0\r\n\r\n")
        else:
            request.hang_up()

    return behave


def endless(chunk: bytes = b"\0" * 65536, headers: dict[str, object] | None = None) -> Behaviour:
    """Send a chunked body for as long as the other side listens."""

    def behave(request: Request) -> None:
        request.send(head(200, {"Transfer-Encoding": "chunked", **(headers or {})}))
        while not request.server.stopping.is_set():
            request.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    return behave


def zipped(body: bytes) -> Behaviour:
    """Answer with gzip, asked or not."""
    return reply(gzip.compress(body), headers={"Content-Encoding": "gzip"})


def interim(number: int, then: Behaviour, status: int = 103) -> Behaviour:
    """Send so many interim responses, then behave."""

    def behave(request: Request) -> None:
        for _ in range(number):
            request.send(b"HTTP/1.1 %d Early\r\nLink: </a>\r\n\r\n" % status)
        then(request)

    return behave


def slowly(seconds: float, then: Behaviour) -> Behaviour:
    """Think about it first."""

    def behave(request: Request) -> None:
        request.wait(seconds)
        then(request)

    return behave


def ranged(
    body: bytes,
    *,
    validators: dict[str, object] | None = None,
    total: object = None,
    headers: dict[str, object] | None = None,
    most: int | None = None,
) -> Behaviour:
    """Answer requests for a part with that part, as nginx and S3 do; others with the whole.

    `total` is what is said of the whole's length, if not the truth; `most` is the longest part that is given.
    """
    told = {"ETag": '"one"'} if validators is None else validators

    def behave(request: Request) -> None:
        extra = {**told, **(headers or {})}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        if asked is None or (condition is not None and condition not in told.values()):
            request.send(head(200, {"Content-Length": len(body), **extra}) + body)
            return
        start, last = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
        if start >= len(body):
            request.send(head(416, {"Content-Length": 0, "Content-Range": f"bytes */{len(body)}"}))
            return
        part = body[start : last + 1][:most]
        where = f"bytes {start}-{start + len(part) - 1}/{len(body) if total is None else total}"
        request.send(head(206, {"Content-Length": len(part), "Content-Range": where, **extra}) + part)

    return behave


class Server:
    """The server; a context manager. It counts what arrives, before it answers."""

    def __init__(self, host: str = "127.0.0.1", certificate: Path | None = None) -> None:
        self.host = host
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._tls is not None and certificate is not None:
            self._tls.load_cert_chain(certificate)
        self.requests: list[Request] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._routes: dict[str, Behaviour] = {}
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Server":
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        # Closing a listener does not wake the thread that accepts on it; a last visitor does.
        with socket.create_connection((self.host, self.port)):
            self._accepting.join()
        self._listener.close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the other side may be gone already
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=10)

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    def url(self, target: str) -> str:
        return self.origin + target

    def route(self, path: str, behaviour: Behaviour) -> str:
        """Behave so at a path; returns its URL."""
        self._routes[path] = behaviour
        return self.url(path)

    def count(self, path: str | None = None) -> int:
        """How many requests arrived, at one path or in all."""
        with self._changed:
            return len(self.requests) if path is None else Counter(r.path for r in self.requests)[path]

    def wait_for(self, number: int, path: str | None = None, timeout: float = 20) -> None:
        """Return once so many requests have arrived."""
        end = time.monotonic() + timeout
        with self._changed:
            while sum(path is None or request.path == path for request in self.requests) < number:
                if not self._changed.wait(end - time.monotonic()):
                    raise TimeoutError(f"{len(self.requests)} requests came, not {number}")

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.stopping.is_set():
                connection.close()
                return
            with self._changed:
                self._open.add(connection)
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                plain = connection
                connection = self._tls.wrap_socket(plain, server_side=True)
                with self._changed:
                    self._open.symmetric_difference_update((plain, connection))
            with connection.makefile("rb") as reader:
                while (request := self._read(reader, connection)) is not None:
                    with self._changed:
                        self.requests.append(request)
                        self._changed.notify_all()
                    self._routes.get(request.path, reply(b"no such thing", status=404))(request)
                    if not request.keep_alive:
                        break
        except OSError:
            pass  # the other side is gone, as it may
        finally:
            with self._changed:
                self._open.discard(connection)
                self._changed.notify_all()
            connection.close()

    def _read(self, reader: object, connection: socket.socket) -> Request | None:
        line = reader.readline(1 << 20)
        if line.count(b" ") < 2:  # the end, or no HTTP
            return None
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = {}
        while (line := reader.readline(1 << 20).decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.title()] = value.strip()
        return Request(method, target, headers, connection, self)
