"""How the program ends: quietly where nobody reads on, with 130 on Ctrl-C, and never with a traceback."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mmmedia.cli.failures import reason
from support.clips import clip
from support.command_line import PROGRAM, program, run
from support.server import Request, Server, head, reply, stall_in_body


def test_a_pipe_that_is_closed_early() -> None:
    """`mmmedia config | head -1`: no word on standard error, and no failure."""
    with subprocess.Popen(
        [*PROGRAM, "config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_ctrl_c_ends_a_download(server: Server, tmp_path: Path) -> None:
    """Status 130, no traceback, no part of a file."""
    asked = threading.Event()
    stall = stall_in_body(b"\0" * 1000, 10)
    server.route("/slow.png", lambda request: (asked.set(), stall(request))[0])
    for command in (["fetch"], ["frames"]):
        asked.clear()
        out = tmp_path / command[0]
        with subprocess.Popen(
            [*PROGRAM, *command, server.url("/slow.png"), "-o", out],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (130, b"", b"")
        assert not any(path.is_file() for path in tmp_path.rglob("*"))


def on_terminal(
    *arguments: object,
    columns: int = 80,
    seen: tuple[str, Callable[[], object]] = ("", lambda: None),
    **environment: str,
) -> tuple[int, str]:
    """Run the program on a terminal, and return its status and all that it wrote.

    Once a text is `seen`, something is done.
    """
    main, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=other, stderr=other, env=env
    ) as process:
        os.close(other)
        written = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            written += part
            if seen[0].encode() in written:
                seen[1]()
    os.close(main)
    return process.returncode, written.decode()


def test_colours_only_where_they_are_wanted(tmp_path: Path) -> None:
    """On a terminal, unless NO_COLOR; never into a pipe."""
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip(frames=10))
    coloured, plain = (on_terminal("inspect", source, **env)[1] for env in ({}, {"NO_COLOR": "1"}))
    assert "\x1b[36m" in coloured
    assert "\x1b[36m" not in plain
    assert b"\x1b" not in program("inspect", source).stdout


def test_nothing_is_cut(tmp_path: Path) -> None:
    """However narrow the terminal: all of it, in more lines; a pipe has lines of any length."""
    wide = run("config").stdout
    assert max(map(len, wide.splitlines())) > 120
    _, narrow = on_terminal("config", columns=40, NO_COLOR="1", TERM="dumb")
    squeezed = re.sub(r"\s", "", narrow)
    names = [line.split()[0] for line in wide.splitlines()[1:]]
    columns = "".join(sorted(squeezed))
    assert columns == "".join(sorted(re.sub(r"\s", "", wide)))
    assert len(names) > 30


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_terminals_of_other_encodings(tmp_path: Path, encoding: str) -> None:
    """A question mark for what it does not have."""
    source = tmp_path / "猫.mp4"
    source.write_bytes(clip(frames=10))
    done = program("inspect", source, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("猫" if encoding == "utf-8" else "?.mp4") in done.stdout.decode(encoding)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["sheet", "{source}", "-o", "{full}.png"], "full.png"),
        (["audio", "{source}", "-o", "{full}.wav"], "full.wav"),
        (["excerpt", "{source}", "--indices", "3", "-o", "{full}.mp4"], "full.mp4"),
        (["frames", "{source}", "--indices", "3", "-o", "{full}.npz"], "full.npz"),
    ],
)
def test_a_full_disk(tmp_path: Path, arguments: list[str], output: str) -> None:
    """The file and why, in a line; status 1."""
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip(frames=10, audio=True))
    (tmp_path / output).symlink_to("/dev/full")
    result = run(*(each.format(source=source, full=tmp_path / "full") for each in arguments))
    assert result.exit_code == 1
    assert result.stderr == f"mmmedia: {tmp_path / output}: No space left on device.\n"


def test_a_disk_that_fills_leaves_what_was_there(tmp_path: Path) -> None:
    """Of a file that can't be written whole nothing is left, and the old one stays."""
    import resource

    source, target = tmp_path / "clip.mp4", tmp_path / "out" / "sheet.png"
    source.write_bytes(clip(frames=30))
    target.parent.mkdir()
    target.write_text("mine")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [*PROGRAM, "sheet", source, "-o", target, "-f"],
        preexec_fn=limit, capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode() == f"mmmedia: {target}: File too large.\n"
    assert [path.name for path in target.parent.iterdir()] == ["sheet.png"]
    assert target.read_text() == "mine"


def test_a_picture_is_not_written_to_a_terminal(tmp_path: Path) -> None:
    """As curl has it."""
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip(frames=10))
    status, written = on_terminal("sheet", source, "-o", "-", columns=200)
    assert (status, written.strip()) == (
        2,
        "mmmedia: A file is not written to a terminal: name one, or use a pipe.",
    )


def test_words_for_what_the_network_says() -> None:
    """One line, without the names of classes."""
    import requests

    error = requests.ConnectionError(ConnectionRefusedError(111, "Connection refused"))
    assert reason(error) == "The connection failed: Connection refused."
    assert reason(requests.HTTPError("404 Client Error: Not Found")) == "404 Client Error: Not Found"
    assert reason(OSError("some words")) == "some words"
    assert reason(TimeoutError()) == "TimeoutError"


def test_all_modules_are_light() -> None:
    """`mmmedia --help` imports neither NumPy nor Pillow, nor what decodes or fetches."""
    code = "import sys, mmmedia.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {
        "numpy",
        "PIL",
        "cv2",
        "av",
        "torch",
        "requests",
        "aiohttp",
        "soundfile",
        "rich.progress",
        "asyncio",
    }
    assert heavy & set(done.stdout.split()) == set()


def test_progress_is_for_people_who_wait(server: Server, tmp_path: Path) -> None:
    """On a terminal, once it has taken a second: what is done is counted, and wiped away at the end."""
    go_on = threading.Event()
    data = b"\x89PNG\r\n\x1a\n" + bytes(1000)

    def late(request: Request) -> None:
        request.send(head(200, {"Content-Length": 9000}) + bytes([1]) * 4000)
        go_on.wait(60)
        request.send(bytes([1]) * 5000)

    server.route("/late.png", late)
    server.route("/soon.png", reply(data))
    urls = server.url("/soon.png"), server.url("/late.png")
    status, written = on_terminal(
        "fetch", *urls, "-o", tmp_path, columns=120, seen=("5.0 kB of 10.0 kB", go_on.set)
    )
    assert status == 0
    assert "Fetching" in written
    assert go_on.is_set()
