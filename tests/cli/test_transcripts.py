"""What `docs/command-line.md` shows is what the program prints, but for times and sizes.

`python tests/cli/test_transcripts.py` writes the page's transcripts anew.
"""

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
HOST = "https://example.org"
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)
_MEASURED = (
    (re.compile(r"\d+(\.\d+)? (ms|s ago|x\b)"), r"N \2"),
    (re.compile(r"(?<=  )\d+\.\d(?=  )"), "N"),  # milliseconds of the demo
    (re.compile(r"\d+(\.\d+)? (kB|MB|GB)|\b\d{4,}(?= bytes)|(?<=\"bytes\": )\d+"), "N"),
    (re.compile(r"\b\d+ (cores?)"), r"N \1"),
    (re.compile(r"\b(seek|sequential: [a-z ]+)$", re.MULTILINE), "WAY"),
    (re.compile(r" +(?=\n|$)|(?<=\S) +(?=\S)"), " "),
    (re.compile(r"\b[0-9a-f]{20}\b"), "ENTRY"),
    (re.compile("[─╭╮╰╯│]+ *"), ""),
)


def blocks() -> list[str]:
    """The transcripts of the page."""
    return _BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def transcript(block: str, directory: Path, address: str) -> str:
    """Run the commands of a block one after the other in one shell, and return what a terminal shows."""
    commands = _COMMAND.findall(block)
    mark = "\x1e"
    script = "\n".join(f"{command.replace(HOST, address)}\nprintf '{mark}'" for command in commands)
    names = (("mmmedia", "-W error -m mmmedia"), ("python3", ""))
    functions = "".join(f'{name}() {{ {sys.executable} {options} "$@"; }}\n' for name, options in names)
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{functions}{script}"],
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=280,
        check=False,
    )
    outputs = done.stdout.decode().replace(address, HOST).replace(str(directory), "/home/me").split(mark)
    return "".join(f"$ {command}\n{output}" for command, output in zip(commands, outputs, strict=False))


def environment() -> dict[str, str]:
    """That of a person who has set nothing."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MMMEDIA_", "VLLM_")) and not name.lower().endswith("_proxy")
    }
    kept.pop("COLUMNS", None)
    return kept


@functools.cache
def files() -> dict[str, bytes]:
    """What the page's commands read, by name."""
    from mmmedia.cli import scene
    from video.test_read_frames import _damaged

    return {
        "photo.jpg": scene.photo(),
        "speech.wav": scene.speech(),
        "clip.mp4": scene.clip(),
        "damaged.mp4": _damaged(),
        "page.html": b"<!doctype html><html><body>Not what you want.</body></html>",
    }


def lay_out(directory: Path) -> None:
    """Put the files there."""
    for name, data in files().items():
        (directory / name).write_bytes(data)


def serving() -> Iterator[str]:
    """Serve these files."""
    from support.server import Server, reply

    with Server() as server:
        for name, data in files().items():
            server.route(f"/{name.removesuffix('.html')}", reply(data))
        yield server.url("").rstrip("/")


def measured_out(text: str) -> str:
    """A transcript without what differs from run to run."""
    for pattern, word in _MEASURED:
        text = pattern.sub(word, text)
    return text


@pytest.fixture
def place(tmp_path: Path) -> Path:
    lay_out(tmp_path)
    return tmp_path


@pytest.mark.timeout(300)  # a block starts the program up to eight times
@pytest.mark.parametrize("number", range(len(blocks())))
def test_the_page_shows_what_is_printed(number: int, place: Path) -> None:
    """Each block in a directory of its own."""
    block = blocks()[number]
    for address in serving():
        assert measured_out(transcript(block, place, address)) == measured_out(block)


def test_each_command_has_a_transcript() -> None:
    """Also those below `cache`, and no other."""
    from mmmedia.cli import app

    group = typer.main.get_command(app)
    names = {name for name in group.commands if not hasattr(group.commands[name], "commands")}
    names |= {f"cache {name}" for name in group.commands["cache"].commands}
    shown = " ".join(command for block in blocks() for command in _COMMAND.findall(block))
    assert {name for name in names if f"mmmedia {name}" not in shown} == set()


def _write_anew() -> None:
    page = PAGE.read_text(encoding="utf-8")

    def anew(match: re.Match[str]) -> str:
        with tempfile.TemporaryDirectory() as name:
            lay_out(Path(name))
            return next(transcript(match[0], Path(name), address) for address in serving())

    PAGE.write_text(_BLOCK.sub(anew, page), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _write_anew()
