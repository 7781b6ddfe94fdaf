"""One decode for many, with an object of its own for each."""

import asyncio
import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia.errors import LimitExceededError
from mmmedia.media import decoded
from mmmedia.media.base import MediaDecodedBudget, MediaWithBytes
from mmmedia.media.connector import MediaConnector
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.sharing import decode_key, twin_maker
from support.budgets import Purse
from support.server import Request, Server, reply


def _encoded(image_format: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def _exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    exif[0x0112] = orientation
    return exif


JPEG = _encoded("JPEG", exif=_exif(), comment=b"hello")


def _held(server: Server, body: bytes) -> tuple[str, threading.Event]:
    """A URL that is answered when the event is set."""
    opened = threading.Event()

    def behave(request: Request) -> None:
        while not opened.is_set() and not request.server.stopping.is_set():
            opened.wait(0.01)
        reply(body)(request)

    return server.route("/a", behave), opened


def _crowd(server: Server, body: bytes, loads: list[Callable[[str], Any]]) -> list[Any]:
    """Load one URL in all these ways at once."""
    url, opened = _held(server, body)

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(load(url)) for load in loads]
        await asyncio.to_thread(server.wait_for, 1)
        opened.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that were decoded, once for each time."""
    seen: list[bytes] = []
    load = ImageMediaIO.load_bytes

    def noting(self: ImageMediaIO, data: bytes) -> Any:
        seen.append(data)
        return load(self, data)

    monkeypatch.setattr(ImageMediaIO, "load_bytes", noting)
    return seen


def _fetch(url: str) -> Any:
    return MediaConnector().fetch_image_async(url)


@pytest.mark.parametrize(
    "body",
    [
        JPEG,
        _encoded("JPEG", exif=_exif(6)),
        _encoded("PNG"),
        _encoded("PNG", "RGBA"),
        _encoded("PNG", "P"),
        _encoded("WEBP"),
        _encoded("GIF"),
        _encoded("GIF", save_all=True, append_images=[Image.new("RGB", (40, 30))]),
        _encoded("TIFF"),
        _encoded("BMP"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", None])
def test_each_of_a_crowd_gets_what_it_would_have_got_alone(
    server: Server, body: bytes, mode: str | None
) -> None:
    alone = ImageMediaIO(mode).load_bytes(body)
    results = _crowd(
        server, body, [lambda url: MediaConnector().fetch_image_async(url, image_mode=mode)] * 40
    )
    assert server.count() == 1
    for result in results:
        assert type(result) is MediaWithBytes
        assert result.original_bytes == body
        assert isinstance(result.media, type(alone.media))
        assert repr(type(result.media)) == repr(type(alone.media))
        assert result.media == alone.media
        assert alone.media == result.media
        assert result.media.format == alone.media.format
        assert result.media.info == alone.media.info
        assert result.media.getexif() == alone.media.getexif()
        assert vars(result.media).keys() == vars(alone.media).keys()


def test_what_one_does_to_its_picture_nobody_else_sees(server: Server, decodes: list[bytes]) -> None:
    results = _crowd(server, JPEG, [_fetch] * 50)
    assert len(decodes) == 1
    before = np.asarray(results[0].media).copy()
    for number, result in enumerate(results):
        assert np.array_equal(np.asarray(result.media), before)
        result.media.load()[number % 40, 0] = (255, 0, 255)
        result.media.paste((0, 255, 0), (0, 0, 40, 30))
        result.media.info["seen"] = number
        result.media.quantization.clear()


def test_a_crowd_shares_what_was_decoded_before(
    server: Server, decodes: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies are made of a copy, which others have too, and nobody sees what another does to its own."""
    monkeypatch.setattr(decoded, "_cache", decoded.DecodedCache(0, unit="bytes"))
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "8")
    expected = np.asarray(asyncio.run(_fetch(server.route("/b", reply(JPEG))))).copy()
    for _ in range(2):
        for number, result in enumerate(_crowd(server, JPEG, [_fetch] * 30)):
            assert np.array_equal(np.asarray(result.media), expected)
            result.media.load()[number, 0] = (255, 0, 255)
            result.media.paste((0, 255, 0), (0, 0, 40, 30))
    assert len(decodes) == 1


def test_other_settings_and_other_classes_decode_for_themselves(server: Server, decodes: list[bytes]) -> None:
    class Mine(ImageMediaIO):
        pass

    patched = ImageMediaIO()
    patched.load_bytes = lambda data: data  # type: ignore[method-assign,assignment,return-value]
    load = MediaConnector().load_from_url_async
    results = _crowd(
        server,
        JPEG,
        [
            *[_fetch] * 3,
            *[lambda url: MediaConnector().fetch_image_async(url, image_mode="L")] * 3,
            *[lambda url: MediaConnector({"image": {"max_pixels": 300}}).fetch_image_async(url)] * 3,
            *[lambda url: load(url, Mine())] * 3,
            lambda url: load(url, patched),
        ],
    )
    assert server.count() == 1
    assert len(decodes) == 3 + 3
    assert [result.mode for result in results[:-1]] == [*["RGB"] * 3, *["L"] * 3, *["RGB"] * 6]
    assert [result.size[0] for result in results[:-1]] == [*[40] * 6, *[20] * 3, *[40] * 3]
    assert results[-1] == JPEG


def test_what_does_not_decode_is_everyones_error(server: Server, decodes: list[bytes]) -> None:
    results = _crowd(server, b"no picture", [_fetch] * 20)
    assert len(decodes) == 1
    assert all(isinstance(result, ValueError) for result in results)
    server.route("/a", reply(JPEG))
    assert asyncio.run(_fetch(server.url("/a"))).size == (40, 30)


@pytest.mark.parametrize("poor_first", [True, False])
def test_each_pays_for_its_own_and_ones_poverty_is_not_the_others(server: Server, poor_first: bool) -> None:
    decoded, downloaded = 40 * 30 * 3, len(JPEG)
    poor = [(Purse(decoded - 1), Purse(downloaded)), (Purse(decoded), Purse(downloaded - 1))]
    rich = [(Purse(decoded + 5), Purse(downloaded + 7)) for _ in range(5)]
    purses = [*poor, *rich] if poor_first else [*rich, *poor]

    def load(purses: tuple[Purse, Purse]) -> Callable[[str], Any]:
        connector = MediaConnector(decoded_budget=purses[0], download_budget=purses[1])
        return lambda url: connector.fetch_image_async(url)

    results = dict(zip(purses, _crowd(server, JPEG, [load(each) for each in purses]), strict=True))
    assert all(isinstance(results[each], LimitExceededError) for each in poor)
    assert all(results[each].size == (40, 30) for each in rich)
    assert all((each[0].left, each[1].left) == (5, 7) for each in rich)


@pytest.mark.parametrize("is_connectors", [True, False])
def test_a_budget_of_vllm_is_charged_for_every_copy(server: Server, is_connectors: bool) -> None:
    """4 bytes a pixel, whoever decodes, and whether the connector or only the media IO has it."""
    body = _encoded("PNG", "RGBA")
    budgets = [MediaDecodedBudget(40 * 30 * 4 - number % 2) for number in range(6)]

    def load(budget: MediaDecodedBudget) -> Callable[[str], Any]:
        if is_connectors:
            return MediaConnector(decoded_budget=budget).fetch_image_async
        media_io = ImageMediaIO(decoded_budget=budget)
        return lambda url: MediaConnector().load_from_url_async(url, media_io)

    results = _crowd(server, body, [load(budget) for budget in budgets])
    assert [isinstance(each, LimitExceededError) for each in results] == [False, True] * 3
    assert [budget.used for budget in budgets] == [40 * 30 * 4, 0] * 3
    configs = [each.io_config for each in results[::2]]
    assert configs[0]["image_mode"] == "RGB"
    assert configs == [configs[0]] * 3


def test_cancelling_while_others_wait_for_the_decode_changes_nothing_for_them(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, opened = _held(server, JPEG)
    decoding, go_on = threading.Event(), threading.Event()
    load = ImageMediaIO.load_bytes

    def slowly(self: ImageMediaIO, data: bytes) -> Any:
        decoding.set()
        go_on.wait(20)
        return load(self, data)

    monkeypatch.setattr(ImageMediaIO, "load_bytes", slowly)

    async def main() -> None:
        tasks = [asyncio.create_task(_fetch(url)) for _ in range(40)]
        await asyncio.to_thread(server.wait_for, 1)
        opened.set()
        await asyncio.to_thread(decoding.wait, 20)
        for task in tasks[:20]:  # with them the one whose decode it is
            task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[:20])
        assert all(result.size == (40, 30) for result in results[20:])

    asyncio.run(main())


def test_only_what_is_known_to_decode_alike_has_a_key() -> None:
    class Mine(ImageMediaIO):
        pass

    assert decode_key(ImageMediaIO()) == decode_key(ImageMediaIO(unused=[1]))
    assert decode_key(ImageMediaIO()) != decode_key(ImageMediaIO(rgba_background_color=[1, 2, 3]))
    assert decode_key(Mine()) is None


def test_only_what_is_known_to_copy_has_a_twin() -> None:
    class Mine(Image.Image):
        pass

    picture = Image.new("RGB", (2, 2))
    assert twin_maker(picture) is None
    assert twin_maker(MediaWithBytes(b"", b"")) is None
    assert twin_maker(MediaWithBytes(Mine(), b"")) is None
    picture.info["odd"] = object()
    assert twin_maker(MediaWithBytes(picture, b"")) is None
    palette = Image.new("P", (2, 2))
    palette.putpalette([1, 2, 3])
    make = twin_maker(MediaWithBytes(palette, b""))
    assert make is not None
    copied = make().media
    copied.putpalette([9, 9, 9])
    assert palette.getpalette()[:3] == [1, 2, 3]


def test_what_a_scaled_picture_costs_its_copy_does_not_tell() -> None:
    budget = MediaDecodedBudget(1000)
    assert decode_key(ImageMediaIO(decoded_budget=budget)) is not None
    assert decode_key(ImageMediaIO(max_pixels=100)) is not None
    assert decode_key(ImageMediaIO(max_pixels=100, decoded_budget=budget)) is None
