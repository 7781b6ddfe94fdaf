"""What is imported before it is needed."""

import io
import subprocess
import sys

import pytest
from PIL import Image

from mmmedia.errors import InvalidArgumentError
from mmmedia.media import warm_up
from support.clips import clip
from support.server import Server, reply
from support.sounds import encode, sine

SCRIPT = """
import asyncio, os, sys, threading
import mmmedia
url, warmed, modalities = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
mmmedia.warm_up(*warmed)
assert threading.active_count() == 1
before = set(sys.modules)

def fetch():
    for modality in modalities:
        connector = mmmedia.MediaConnector()
        getattr(connector, f"fetch_{modality}")(f"{url}/{modality}")
        fetch = getattr(connector, f"fetch_{modality}_async")

        async def two():
            await asyncio.gather(fetch(f"{url}/{modality}"), fetch(f"{url}/{modality}"))

        asyncio.run(two())

if not (child := os.fork()):
    fetch()
    print(*sorted(set(sys.modules) - before), flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("warmed", ["", "image", "audio", "video", "image video"])
def test_after_warming_up_the_first_fetch_imports_nothing(warmed: str) -> None:
    """Nothing is left that a fork could interrupt, and a child that was forked then fetches too."""
    with Server() as server:
        server.route("/image", reply(_picture()))
        server.route("/audio", reply(encode(sine(440.0, 0.1, 16_000), 16_000)))
        server.route("/video", reply(clip(frames=8)))
        url = server.url("/image").removesuffix("/image")
        command = [sys.executable, "-c", SCRIPT, url, warmed, warmed or "image audio video"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_what_is_no_modality_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="'pictures'"):
        warm_up("pictures")
