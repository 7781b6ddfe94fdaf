"""Whatever a server does, both halves see the same: every behaviour, outcome by outcome."""

import asyncio
import gzip
import pickle
import zlib
from typing import NamedTuple

import pytest

import support.server
from mmmedia.connections import HTTPConnection, http_status
from mmmedia.errors import MediaError
from support.server import (
    Behaviour,
    Request,
    Server,
    chunked,
    cut,
    drip,
    drip_head,
    endless,
    hang_up,
    head,
    in_turn,
    interim,
    ranged,
    raw,
    redirect,
    reply,
    slowly,
    stall,
    stall_in_body,
    zipped,
)
from support.waiting import take_no_time

BODY = bytes(range(256)) * 40
MIB = 1024 * 1024
BROTLI = b"\x8b\x01\x80hello\x03"


def coded(coding: str, body: bytes = BODY) -> Behaviour:
    return reply(body, headers={"Content-Encoding": coding})


def part(content_range: str | None, body: bytes = BODY, **headers: object) -> Behaviour:
    given = {} if content_range is None else {"Content-Range": content_range}
    return reply(body, 206, {**given, **headers})


def line(length: int) -> Behaviour:
    """One header of so many bytes, its name and the end of the line included."""
    return reply(BODY, headers={"X": "a" * (length - 5)})


N = len(BODY)


def head_of(lines: bytes) -> Behaviour:
    return raw(lines + b"\r\n\r\n" + BODY)


def with_header(line: bytes) -> Behaviour:
    return head_of(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: %d" % (line, N))


def redirect_in_full(request: Request) -> None:
    redirect(f"//127.0.0.1:{request.server.port}/whole")(request)


def whole() -> dict[str, Behaviour]:
    """Return, afresh, what brings the body."""
    return {
        "able to give pieces": ranged(BODY),
    "a reply": reply(BODY),
    "chunks": chunked([BODY[:100], BODY[100:]]),
    "no length": raw(head(200, {}) + BODY),
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY),
    "203": reply(BODY, 203),
    "gzip": zipped(BODY),
    "x-gzip": coded("x-gzip", gzip.compress(BODY)),
    "gzip, twice in a row": coded("gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
    "deflate": coded("deflate", zlib.compress(BODY)),
    "raw deflate": coded("deflate", zlib.compress(BODY, wbits=-15)),
    "GZIP": coded("GZIP", gzip.compress(BODY)),
    "gzip in chunks": chunked([gzip.compress(BODY)], headers={"Content-Encoding": "gzip"}),
    **{f"coding {word!r}": coded(word) for word in (
        "UTF-8", "utf8", "aws-chunked", "base64", "none", "None", "binary", "identity", "", "8bit", "rot13",
        "null", "identity, identity", "aws-chunked,identity", "UTF-8;q=1", "text/plain", "image/png", "off",
        "*", "deflated",
    )},
    **{f"coding {words!r}": coded(words, gzip.compress(BODY)) for words in (
        "gzip, identity", "identity,gzip", "aws-chunked, gzip", "gzip,aws-chunked", " gzip ", "gzip,",
        "UTF-8, x-gzip",
    )},
    "206 of all": part(f"bytes 0-{N - 1}/{N}"),
    "206 of all, in capitals": part(f"Bytes 0-{N - 1}/{N}"),
    "206 of all, zipped": part(None, gzip.compress(BODY), **{
        "Content-Encoding": "gzip",
        "Content-Range": f"bytes 0-{len(gzip.compress(BODY)) - 1}/{len(gzip.compress(BODY))}",
    }),
    "a header of 8191 bytes": line(8191),
    "a header of 16 KiB": line(16 * 1024),
    "a header of 60 KiB": line(60 * 1024),
    "a header of 64 KiB": line(64 * 1024),
    "20 headers of 3 KiB": reply(BODY, headers={f"X-{each}": "a" * 3000 for each in range(20)}),
    "99 headers": reply(BODY, headers={f"X-{each}": "a" for each in range(98)}),
    "headers of raw bytes": raw(head(200, {"Content-Length": N, "X-A": "\udce9\udcff"}) + BODY),
    "a long reason": head_of(b"HTTP/1.1 200 " + b"a" * 9000 + b"\r\nContent-Length: %d" % N),
    "no reason": head_of(b"HTTP/1.1 200\r\nContent-Length: %d" % N),
    "bare line feeds": raw(b"HTTP/1.1 200 OK\nA: b\nContent-Length: %d\n\n" % N + BODY),
    **{f"the header {text!r}": with_header(text) for text in (
        b"A:", b"A:b", b"A: \t b \t", b"A: b: c", b"!#$%&'*+-.^_`|~9: x", b"A: \xe9\xff", b"a: b\r\nA: c",
        b"A: \x85", b"A: b\r\n c", b"A: b\r\n\tc",
    )},
    "a redirect": redirect("/whole"),
    "a redirect with a port that is written out": redirect_in_full,
    "interim responses": interim(3, reply(BODY)),
    "100 Continue": interim(2, reply(BODY), status=100),
    "a drip": drip(BODY, 0),
    "a slow thinker": slowly(0.05, reply(BODY)),
    "503 first": in_turn(reply(status=503), reply(BODY)),
    "429 first": in_turn(reply(status=429, headers={"Retry-After": "1"}), reply(BODY)),
    "cut first": in_turn(cut(BODY, 10), reply(BODY)),
    "206 of all, cut first": in_turn(part(f"bytes 0-{N - 1}/{N}", BODY[:-1]), reply(BODY)),
}  # fmt: skip


def other() -> dict[str, Behaviour]:
    """Return, afresh, what brings none, or another one."""
    return {
    "nothing": reply(),
    "204": reply(status=204),
    **{f"{status}": reply(b"no", status) for status in (
        201, 300, 304, 305, 306, 400, 401, 402, 403, 404, 405, 407, 408, 409, 410, 413, 418, 421, 425, 429,
        451, 500, 501, 502, 503, 504, 507, 511, 599,
    )},
    **{f"coding {word!r}": coded(word) for word in (
        "br", "BR", "zstd", "compress", "x-compress", "gzip, gzip", "gzip, br", "br, identity",
        "deflate, gzip", "xz", "dcb", "aws-chunked,zstd",
    )},
    "br, as it is": coded("br", BROTLI),
    "no gzip": coded("gzip"),
    "gzip, cut short": coded("gzip", gzip.compress(BODY)[:-9]),
    "206 of a part": part(f"bytes 0-{N - 1}/{N + 1}"),
    "206 from the second byte": part(f"bytes 1-{N}/{N + 1}"),
    "206 of who knows how much": part(f"bytes 0-{N - 1}/*"),
    "206 without a range": part(None),
    "206 of nonsense": part("bytes all"),
    "206 of other units": part(f"lines 0-{N - 1}/{N}"),
    "206 of several parts": part(None, **{"Content-Type": "multipart/byteranges; boundary=x"}),
    "206 of all, and less comes": part(f"bytes 0-{N - 1}/{N}", BODY[:-1]),
    "206 of all, and more comes": part(f"bytes 0-{N - 1}/{N}", BODY + b"x"),
    "a cut body": cut(BODY, 10),
    "a cut body of nothing": cut(BODY, 0),
    "cut chunks": chunked([BODY], end=False),
    "more than the limit": reply(bytes(MIB + 1)),
    "more than the limit, promised": stall(head(200, {"Content-Length": MIB + 1})),
    "endless": endless(),
    "a gzip bomb": zipped(bytes(50 * MIB)),
    "a bomb in a part": part(f"bytes 0-{2 * MIB - 1}/{2 * MIB}", bytes(2 * MIB)),
    "hung up": hang_up,
    "a head that is cut": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "no HTTP": raw(b"220 mail.example ESMTP\r\n"),
    "TLS": raw(b"\x15\x03\x01\x00\x02\x02\x28"),
    "silence": stall(),
    "silence in the head": stall(b"HTTP/1.1 200 OK\r\n"),
    "silence in the body": stall_in_body(BODY, 10),
    "interim responses without end": interim(10**7, reply(BODY)),
    "a drip in the head": drip_head(0.01),
    "a drip without end": drip(BODY, 0.05),
    "a header of 70 000 bytes": line(70_000),
    **{f"the header {text!r}": with_header(text) for text in (
        b"no colon", b"a b: c", b"A: b\rC: d", b"A: b\0c", b"Caf\xe9: b", b"(A): b", b"Content-Length: 1",
        b"Content-Length: %d" % N, b"Transfer-Encoding: chunked",
    )},
    **{f"the length {text!r}": head_of(b"HTTP/1.1 200 OK\r\nContent-Length: %b" % text) for text in (
        b"", b"-1", b"+10", b"ten", b"0x10", b"1,1", b"1 1", b"\xd9\xa1",
    )},
    **{f"the status line {text!r}": head_of(text + b"\r\nContent-Length: %d" % N) for text in (
        b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 abc OK",
        b"HTTP/one 200 OK", b"http/1.1 200 OK", b"HTTP/1.1  200 OK", b"XHTTP/1.1 200 OK",
        b"ICY 200 OK", b"HTTP 200",
    )},
    "300 headers": reply(BODY, headers={f"X-{each}": "a" for each in range(300)}),
    "a redirect to itself": redirect("/x"),
    "a redirect off HTTP": redirect("file:///etc/passwd"),
    "a redirect without Location": redirect(None),
    "a redirect to an empty Location": redirect(""),
    "a redirect to metadata": redirect("http://169.254.169.254/"),
    "a redirect to a blocked port": redirect("http://127.0.0.1:25/"),
    "a redirect to an unreadable host": redirect("//caf\udce9/"),
    "a redirect to nothing there": redirect("/missing"),
    "a redirect to a port that is closed": redirect("http://127.0.0.1:1000/"),
}  # fmt: skip


class Outcome(NamedTuple):
    """What one half makes of a server.

    Attributes:
        result: the body, or the type of an error of this library, or `None`.
        http_status: what a client is told, 200 for the body.
        requests: how many arrived.
        waits: how often was waited before another attempt.
    """

    result: object
    http_status: int
    requests: int
    waits: int


def outcome_of(half: str, behaviour: Behaviour, timeout: float = 20) -> Outcome:
    """Have one half fetch from a server of its own."""
    connection = HTTPConnection(reuse_client=False)
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        waits = take_no_time(patch)
        server.route("/whole", reply(BODY))
        url = server.route("/x", behaviour)
        try:
            if half == "sync":
                result: object = connection.get_bytes(url, timeout=timeout)
            else:
                result = asyncio.run(connection.async_get_bytes(url, timeout=timeout))
            status, portable = 200, True
        except Exception as error:
            result, status = (type(error) if isinstance(error, MediaError) else None), http_status(error)
            sent: Exception = pickle.loads(pickle.dumps(error))
            portable = type(sent) is type(error) and http_status(sent) == status
        assert portable
        return Outcome(result, status, server.count(), len(waits))


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "2")


@pytest.mark.parametrize("name", whole())
def test_the_body_comes_through_in_both_halves(name: str) -> None:
    sync, on_a_loop = (outcome_of(half, whole()[name]) for half in ("sync", "async"))
    assert sync == on_a_loop
    assert (sync.result == BODY, sync.http_status) == (True, 200)


SLOW = {"silence", "silence in the head", "silence in the body", "a drip in the head", "a drip without end",
        "interim responses without end"}  # fmt: skip
ASKED_TWICE = {"hung up", "a head that is cut"}
"""aiohttp asks a second time within an attempt: a kept connection might have been closed in between."""


@pytest.mark.parametrize("name", other())
def test_both_halves_make_the_same_of_a_server(name: str) -> None:
    timeout = 0.1 if name in SLOW else 20
    sync, on_a_loop = (outcome_of(half, other()[name], timeout) for half in ("sync", "async"))
    if name in ASKED_TWICE:
        assert on_a_loop.requests == 2 * sync.requests == 4
        sync = sync._replace(requests=4)
    assert sync == on_a_loop
    assert sync.result != BODY
    assert sync.http_status in (200, 400, 422, 503)
    assert sync.waits == (sync.http_status == 503)


def test_every_behaviour_of_the_server_is_among_them() -> None:
    """What a behaviour is made of is in the name of its code."""
    made = {
        behaviour.__qualname__.partition(".")[0]
        for table in (whole(), other())
        for behaviour in table.values()
    }
    public = {
        name
        for name, value in vars(support.server).items()
        if callable(value) and value.__module__ == support.server.__name__ and not name.startswith("_")
    }
    # `stall_in_body`, `redirect` and `zipped` are made of others; `head` makes bytes.
    assert public - made == {"Request", "Server", "head", "redirect", "stall_in_body", "zipped"}
