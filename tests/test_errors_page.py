"""The page on errors says what a client sees: each of its rows holds, in both halves."""

import asyncio
import base64
import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import requests

from mmmedia import envs, errors
from mmmedia.connections import RetryPlan, http_status
from mmmedia.media import MediaConnector
from support.certificates import self_signed
from support.server import Behaviour, Server, cut, hang_up, head, raw, redirect, reply, stall, stall_in_body
from support.waiting import take_no_time

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()
BODY = b"\x89PNG no picture"


class Row(NamedTuple):
    """A row of the page's first table."""

    fault: str
    sync: str
    on_loop: str
    status: int
    is_tried_again: bool


def rows(header: str) -> list[list[str]]:
    """Return the cells of the table under a header."""
    table = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


ROWS = [
    Row(fault, sync, on_a_loop, int(status), again == "yes")
    for fault, sync, on_a_loop, status, again in rows("| fault |")
]


def served(*behaviours: Behaviour) -> Callable[[Server], list[str]]:
    """Return what gives URLs of a server that behaves so."""
    return lambda server: [server.route(f"/{at}", each) for at, each in enumerate(behaviours)]


FAULTS: dict[str, Callable[[Server], list[str]]] = {
    "no such host": lambda _: ["http://nobody.invalid/", "https://nobody.invalid/"],
    "nobody listens": lambda _: ["http://127.0.0.1:1000/", "https://127.0.0.1:1000/"],
    "hangs up without an answer, or in its head": served(hang_up, raw(b"HTTP/1.1 200 OK\r\nA: b")),
    "time is up: connecting, waiting or reading": served(stall(), stall_in_body(BODY, 3)),
    "a body that is cut short": served(
        cut(BODY, 3), raw(head(200, {"Content-Encoding": "gzip"}) + gzip.compress(BODY)[:-9])
    ),
    "5xx, 429 or 408": served(*(reply(status=status) for status in (500, 503, 599, 429, 408))),
    "any other status, or a part (206) of the whole": served(
        *(reply(status=status) for status in (401, 403, 404, 410, 300, 304, 206)),
        reply(BODY, 206, {"Content-Range": "bytes 0-14/99"}),
    ),
    "no HTTP, or a head of lines over 64 KiB": served(
        raw(b"220 ESMTP\r\n"), reply(headers={"A": "a" * 70_000})
    ),
    "a certificate that is not good": lambda server: [server.url("/")],  # TLS: see below
    "a coding that was not asked for, or broken": served(
        reply(BODY, headers={"Content-Encoding": "br"}), reply(BODY, headers={"Content-Encoding": "gzip"})
    ),
    "more bytes than the limit": served(reply(headers={"Content-Length": 10**12})),
    "an address, port or host that is not admitted": lambda _: [
        "http://169.254.169.254/", "http://127.0.0.1:25/", "http://not.listed.example/",
    ],
    "a redirect to where no redirect may lead": served(
        redirect("file:///etc/passwd"), redirect("http://169.254.169.254/"), redirect("http://127.0.0.1:25/")
    ),
    "a redirect that names no URL": served(redirect(None), redirect(""), redirect("http://a..b/")),
    "a URL that can't be read": lambda _: [
        "http://a..b/", "gopher://h/", "cat.png", "http://h:0/", "data:image/png",
    ],
    "a file, where none may be read": lambda _: ["file:///etc/hostname"],
    "a file that is not there": lambda _: ["file://DIRECTORY/a.png"],
    "a data URL that is not base64": lambda _: ["data:image/png,abc"],
    "bytes that are no such media": lambda server: [
        server.route("/a", reply(BODY)), "data:image/png;base64," + base64.b64encode(BODY).decode(),
    ],
    "a SOCKS proxy in the environment": served(reply(BODY)),
    "certificates of the environment that are not there": lambda _: ["https://127.0.0.1:1000/"],
    "a setting that can't be read": served(reply(BODY)),
}  # fmt: skip
SETTINGS = {
    "a SOCKS proxy in the environment": ("all_proxy", "socks5://127.0.0.1:9"),
    "certificates of the environment that are not there": ("SSL_CERT_FILE", "/nowhere/bundle.pem"),
    "a setting that can't be read": ("VLLM_MEDIA_FETCH_MAX_RETRIES", "some"),
    "time is up: connecting, waiting or reading": ("VLLM_IMAGE_FETCH_TIMEOUT", "0.04"),
}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time."""
    return take_no_time(monkeypatch)


def named(name: str) -> type[BaseException]:
    """Return the exception that the page calls so."""
    if "." not in name:
        return getattr(errors, name, None) or {"TimeoutError": TimeoutError}[name]
    found: Any = {"requests": requests, "aiohttp": aiohttp}[name.partition(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


def fetch(half: str, url: str, options: dict[str, Any]) -> object:
    if half == "sync":
        return MediaConnector(**options).fetch_image(url)
    return asyncio.run(MediaConnector(**options).fetch_image_async(url))


def test_every_row_is_tried() -> None:
    assert [row.fault for row in ROWS] == list(FAULTS)


@pytest.mark.parametrize("half", ["sync", "async"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_row_of_the_page_holds(
    row: Row, half: str, waits: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {}
    if row.fault == "a file that is not there":
        options["allowed_local_media_path"] = tmp_path
    if row.fault in SETTINGS:
        monkeypatch.setenv(*SETTINGS[row.fault])
    tls = self_signed(tmp_path, "media.example") if "certificate that" in row.fault else None
    with Server(certificate=tls) as server:
        for url in FAULTS[row.fault](server):
            if "not.listed" in url:
                options["allowed_media_domains"] = ["media.example"]
            waits.clear()
            with pytest.raises(named(row.sync if half == "sync" else row.on_loop)) as caught:
                fetch(half, url.replace("DIRECTORY", str(tmp_path)), options)
            assert http_status(caught.value) == row.status
            assert len(waits) == (2 if row.is_tried_again else 0), url


def test_the_times_of_the_page_are_those_of_the_settings() -> None:
    names = {
        "image": "VLLM_IMAGE_FETCH_TIMEOUT",
        "sound": "VLLM_AUDIO_FETCH_TIMEOUT",
        "video": "VLLM_VIDEO_FETCH_TIMEOUT",
    }
    table = {row[0]: [float(re.sub(" s$", "", cell)) for cell in row[1:]] for row in rows("| modality |")}
    assert set(table) == set(names)
    for modality, (timeout, one, three) in table.items():
        assert timeout == envs.SETTINGS[names[modality]].default
        assert one == RetryPlan(timeout, 1).bound_seconds
        assert three == RetryPlan(timeout, 3).bound_seconds
    assert envs.SETTINGS["VLLM_MEDIA_FETCH_MAX_RETRIES"].default == 3
