"""The event loop stays free while large media are loaded."""

import asyncio
import base64
import io
import time

import numpy as np
import pytest
from PIL import Image

from mmmedia.media.base import MediaWithBytes
from mmmedia.media.connector import MediaConnector
from mmmedia.media.image import ImageMediaIO
from support.server import Server, reply


def _photograph() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((4000, 3000)).save(file, "JPEG")
    return file.getvalue()


PHOTOGRAPH = _photograph()
DATA_URL = (
    "data:image/jpeg;base64," + base64.b64encode(PHOTOGRAPH + bytes(15_000_000 - len(PHOTOGRAPH))).decode()
)


def _seconds_of_a_decode() -> float:
    """What one takes of this thread's time on a core, whoever else is busy."""
    started = time.thread_time()
    ImageMediaIO().load_bytes(PHOTOGRAPH)
    return time.thread_time() - started


@pytest.mark.parametrize("crowd", [False, True])
def test_the_loop_turns_while_12_megapixels_and_20_mb_data_urls_are_loaded(
    server: Server, crowd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No turn of it does the work of a decode, and it turns while others decode.

    Its time on a core is measured and not the clock's, which goes on while other processes have the cores.
    """
    for number in range(6):
        server.route(f"/{number}.jpg", reply(PHOTOGRAPH))
    urls = [server.url(f"/{number}.jpg") for number in range(6)] + [DATA_URL] * 3
    if crowd:
        urls = urls[:3] * 10
    assert len(DATA_URL) > 20_000_000
    turns: list[float] = []
    turned_while_decoding: list[int] = []
    load_bytes = ImageMediaIO.load_bytes

    def watched(image_io: ImageMediaIO, data: bytes) -> MediaWithBytes[Image.Image]:
        before = len(turns)
        media = load_bytes(image_io, data)
        turned_while_decoding.append(len(turns) - before)
        return media

    async def main() -> None:
        await MediaConnector().fetch_image_async(urls[0])  # all is imported, and the pool has threads
        monkeypatch.setattr(ImageMediaIO, "load_bytes", watched)
        done = False

        async def turn() -> None:
            while not done:
                before = time.thread_time()
                await asyncio.sleep(0.001)
                turns.append(time.thread_time() - before)

        turning = asyncio.create_task(turn())
        pictures = await asyncio.gather(*(MediaConnector().fetch_image_async(url) for url in urls))
        done = True
        await turning
        assert all(picture.size == (4000, 3000) for picture in pictures)

    asyncio.run(main())
    assert max(turns) < _seconds_of_a_decode() / 2
    assert len(turned_while_decoding) >= 3
    assert sum(turned > 0 for turned in turned_while_decoding) > len(turned_while_decoding) / 2
