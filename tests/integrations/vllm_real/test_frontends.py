"""Two frontends of a real, unmodified vLLM side by side: its own connector, and this library's.

`nox -s vllm` makes the environment that this needs.
"""

import base64
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vllm
from PIL import Image

from support.clips import clip
from support.corpus import rotate
from support.frontend import Frontend, image_part, tensors, video_part
from support.server import Request, Server, in_turn, reply

pytestmark = pytest.mark.vllm

MIB = 1 << 20
IS_0_33 = not vllm.__version__.startswith("0.32")

LIMITS = {
    "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB": "2",
    "VLLM_MAX_IMAGE_PIXELS": "2000000",
    "VLLM_MEDIA_FETCH_MAX_RETRIES": "1",
    # Names that a release does not know are warned of.
    **({"VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB": "3", "VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES": "30000000"}
       if IS_0_33 else {}),
}  # fmt: skip
OURS = {"MMMEDIA_VLLM_REPLACE_OPENCV": "1", "MMMEDIA_MEDIA_EGRESS_BLOCK_PRIVATE": "0"}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that file URLs may name."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def pair(folder: Path) -> Iterator[tuple[Frontend, Frontend]]:
    """vLLM as it is, and vLLM with this library."""
    arguments = ["--allowed-local-media-path", str(folder)]
    with (
        Frontend("http", environment=LIMITS, arguments=arguments) as theirs,
        Frontend("mmmedia", environment={**LIMITS, **OURS}, arguments=arguments) as ours,
    ):
        yield theirs.wait(), ours.wait()


@pytest.fixture(scope="session")
def site() -> Iterator[Server]:
    with Server() as site:
        yield site


Pair = tuple[Frontend, Frontend]


def assert_same(pair: Pair, parts: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    """Both answer 200, with the same token ids and tensors, bit for bit."""
    (their_status, theirs), (our_status, ours) = (frontend.ask(parts, **extra) for frontend in pair)
    assert (their_status, our_status) == (200, 200), (theirs, ours)
    assert tensors(ours) == tensors(theirs)
    assert any(tensors(ours)["kwargs_data"].values())
    return ours


def data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


# Pictures.


def photo(width: int = 150, height: int = 100, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    noise = np.random.default_rng(7).integers(0, 256, shape, np.uint8)
    noise[: height // 2, : width // 3] //= 4
    return noise


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(photo()), "JPEG", exif=exif)


PICTURES: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(Image.fromarray(photo()), "JPEG"),
    **{f"jpeg-exif-{number}": lambda number=number: turned(number) for number in (2, 3, 5, 6, 8)},
    "jpeg-cmyk": lambda: encoded(Image.fromarray(photo()).convert("CMYK"), "JPEG"),
    "jpeg-grey": lambda: encoded(Image.fromarray(photo(channels=1)), "JPEG"),
    "png-rgba": lambda: encoded(Image.fromarray(photo(channels=4), "RGBA"), "PNG"),
    "png-la": lambda: encoded(Image.fromarray(photo(channels=4), "RGBA").convert("LA"), "PNG"),
    "png-palette": lambda: encoded(Image.fromarray(photo()).quantize(64), "PNG"),
    "png-palette-transparent": lambda: encoded(Image.fromarray(photo()).quantize(64), "PNG", transparency=3),
    "png-transparent": lambda: encoded(Image.new("RGB", (90, 60), "red"), "PNG", transparency=(255, 0, 0)),
    "png-one-bit": lambda: encoded(Image.fromarray(photo(channels=1)).convert("1"), "PNG"),
    "gif": lambda: encoded(Image.fromarray(photo()), "GIF"),
    "webp-alpha": lambda: encoded(Image.fromarray(photo(channels=4), "RGBA"), "WEBP", lossless=True),
    "bmp": lambda: encoded(Image.fromarray(photo()), "BMP"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not IS_0_33, reason="vLLM 0.32 leaves it as it is"))
        if name == "png-transparent"
        else name
        for name in PICTURES
    ],
)
def test_pictures(name: str, pair: Pair, site: Server) -> None:
    site.route(f"/{name}", reply(PICTURES[name]()))
    assert_same(pair, [image_part(site.url(f"/{name}"))])


def test_pictures_of_a_background(pair: Pair) -> None:
    """An option of the request."""
    url = data_url(PICTURES["png-rgba"](), "image/png")
    options = {"image": {"rgba_background_color": [10, 200, 30]}}
    coloured = assert_same(pair, [image_part(url)], media_io_kwargs=options)
    assert tensors(coloured) != tensors(assert_same(pair, [image_part(url)]))


def test_pictures_of_a_file(pair: Pair, folder: Path) -> None:
    (folder / "turned.jpg").write_bytes(turned(6))
    assert_same(pair, [image_part((folder / "turned.jpg").as_uri())])


# Videos.

CONTAINERS = {
    "mp4": {"codec": "libx264", "bframes": 2, "audio": True},
    "webm": {"codec": "libvpx-vp9"},
    "matroska": {"codec": "libx264", "bframes": 2},
    "avi": {"codec": "mpeg4", "bframes": 0},
}
LOADERS: dict[str, dict[str, Any]] = {
    "of the model": {},
    "opencv": {"video_backend": "opencv", "num_frames": 12},
    "opencv_dynamic": {"video_backend": "opencv_dynamic", "fps": 4},
    "qwen2_vl": {"video_backend": "qwen2_vl", "fps": 3},
}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_videos(container: str, loader: str, pair: Pair, site: Server) -> None:
    video = clip(container=container, frames=75, **CONTAINERS[container])
    site.route(f"/video-{container}", reply(video))
    options = {"video": LOADERS[loader]} if LOADERS[loader] else None
    assert_same(pair, [video_part(site.url(f"/video-{container}"))], media_io_kwargs=options)


def test_counts_that_headers_only_estimate(pair: Pair) -> None:
    """With sound that ends later, Matroska's header leads to a frame too many; the pictures are the MP4's."""
    theirs, ours = pair
    fields: dict[str, Any] = {"frames": 74, "bframes": 2}
    right, estimated = (
        video_part(data_url(data, "video/mp4"))
        for data in (clip(**fields), clip(container="matroska", audio=True, **fields))
    )
    options = {"media_io_kwargs": {"video": LOADERS["opencv"]}}
    status, answer = ours.ask([estimated], **options)
    assert status == 200
    assert tensors(answer) == tensors(assert_same(pair, [right], **options))
    assert tensors(theirs.ask([estimated], **options)[1]) != tensors(answer)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libvpx"])
def test_videos_by_codec(codec: str, pair: Pair) -> None:
    container = "matroska" if codec == "libvpx" else "mp4"
    assert_same(pair, [video_part(data_url(clip(codec=codec, container=container), "video/mp4"))])


@pytest.mark.parametrize("degrees", [90, 180])
def test_videos_of_phones_that_were_turned(degrees: int, pair: Pair) -> None:
    assert_same(pair, [video_part(data_url(rotate(clip(), degrees), "video/mp4"))])


@pytest.mark.parametrize("count", [4, 24])
def test_long_videos(count: int, pair: Pair) -> None:
    """Of which this library decodes parts only."""
    video = clip(frames=900, gop=100, width=320, height=180, bframes=2)
    options = {"video": {"video_backend": "opencv", "num_frames": count}}
    before = pair[1].metrics().get('mmmedia_video_decodes_total{path="seek"}', 0)
    assert_same(pair, [video_part(data_url(video, "video/mp4"))], media_io_kwargs=options)
    assert pair[1].metrics()['mmmedia_video_decodes_total{path="seek"}'] == before + 1


@pytest.mark.parametrize(
    "options",
    [
        {"video_backend": "molmo2", "frame_sample_mode": "uniform_last_frame", "num_frames": 9},
        {"video_backend": "openpangu", "fps": 2, "num_frames": 10},
        {"video_backend": "opencv", "num_frames": 10, "frame_recovery": True},
    ],
    ids=["molmo2", "openpangu", "recovery"],
)
def test_loaders_that_name_opencv(options: dict[str, Any], pair: Pair) -> None:
    """The switch has this library decode for them as well."""
    before = decoded_by_us(pair[1])
    url = data_url(clip(frames=90, bframes=2), "video/mp4")
    assert_same(pair, [video_part(url)], media_io_kwargs={"video": options})
    assert decoded_by_us(pair[1]) == before + 1


def decoded_by_us(frontend: Frontend) -> float:
    return sum(
        value for name, value in frontend.metrics().items() if name.startswith("mmmedia_video_decodes_total{")
    )


def test_the_codec_alone(pair: Pair) -> None:
    """vLLM's own connector, with this library's decoder."""
    theirs, _ = pair
    part = video_part(data_url(clip(frames=90, bframes=2), "video/mp4"))
    answers = [
        theirs.ask([part], media_io_kwargs={"video": {"backend": name}}) for name in ("opencv", "mmmedia")
    ]
    assert [status for status, _ in answers] == [200, 200], answers
    assert tensors(answers[0][1]) == tensors(answers[1][1])
    status, answer = theirs.ask(
        [part], media_io_kwargs={"video": {"backend": "mmmedia", "seek_mode": "exact"}}
    )
    assert (status, "seek_mode" in str(answer)) == (400, True)


def test_frames_sent_as_pictures(pair: Pair) -> None:
    frames = [base64.b64encode(encoded(Image.fromarray(photo()), "JPEG")).decode()] * 4
    url = f"data:video/jpeg;base64,{','.join(frames)}"
    assert_same(pair, [video_part(url)], media_io_kwargs={"video": {"fps": 2}})


def test_a_request_of_both(pair: Pair, site: Server) -> None:
    for name in ("png-rgba", "jpeg-exif-6"):
        site.route(f"/both-{name}", reply(PICTURES[name]()))
    site.route("/both.mp4", reply(clip()))
    assert_same(
        pair,
        [
            image_part(site.url("/both-png-rgba")),
            {"type": "text", "text": "and"},
            video_part(site.url("/both.mp4")),
            image_part(site.url("/both-jpeg-exif-6")),
        ],
    )


# Refusals.


def big_picture() -> bytes:
    return encoded(Image.new("L", (2001, 1000)), "PNG")


REFUSALS: dict[str, tuple[int, int]] = {
    # what is asked for: vLLM's status and ours
    "/404": (422, 422),
    "/410": (422, 422),
    "/429": (500, 503),
    "/500": (500, 503),
    "/junk": (400, 400),
    "/empty": (400, 400),
    "/too-large": (422, 422),
    "/too-many-pixels": (400, 400),
    "/truncated.mp4": (400, 400),
    "ftp://example.org/cat.png": (400, 400),
    "http://": (422, 422),
    "http://nowhere.invalid/cat.png": (500, 503),
    "data:image/png;base64": (400, 400),
    "data:image/png,cat": (501, 501),
    "data:image/png;base64,!!!!": (400, 400),
    "file:///etc/passwd": (400, 400),
    "file://{folder}/missing.png": (500, 400),
}


@pytest.fixture(scope="session")
def refusing(site: Server) -> Server:
    for status in (404, 410, 429, 500):
        site.route(f"/{status}", reply(b"no", status))
    site.route("/junk", reply(b"junk" * 100))
    site.route("/empty", reply(b""))
    site.route("/too-large", reply(bytes(2 * MIB + 1)))
    site.route("/too-many-pixels", reply(big_picture()))
    site.route("/truncated.mp4", reply(clip()[:300]))
    return site


@pytest.mark.parametrize("kind", ["image", "video"])
@pytest.mark.parametrize("what", REFUSALS)
def test_refusals(what: str, kind: str, pair: Pair, refusing: Server, folder: Path) -> None:
    """Statuses are vLLM's, but where that is 500 though the fault is not the server's; the part is named."""
    url = refusing.url(what) if what.startswith("/") else what.format(folder=folder)
    part = {"image": image_part, "video": video_part}[kind](url)
    answers = [frontend.ask([part]) for frontend in pair]
    assert tuple(status for status, _ in answers) == REFUSALS[what], answers
    assert f"parameter={kind}_url" in answers[1][1]["error"]["message"]


def test_refusals_of_options(pair: Pair) -> None:
    part = video_part(data_url(clip(), "video/mp4"))
    for options in (
        {"video_backend": "no such loader"},
        {"backend": "no such codec"},
        {"video_backend": "opencv", "num_frames": "many"},
    ):
        statuses = [frontend.ask([part], media_io_kwargs={"video": options})[0] for frontend in pair]
        assert statuses[0] == statuses[1] != 200, options


# Budgets.


@pytest.mark.skipif(not IS_0_33, reason="vLLM 0.33 brought them")
def test_the_budget_of_downloads(pair: Pair, site: Server) -> None:
    """What a request downloads is limited in all; data URLs are none."""
    for number in range(2):
        site.route(f"/heavy-{number}", reply(PICTURES["jpeg"]() + bytes(MIB * 8 // 5)))
    parts = [image_part(site.url(f"/heavy-{number}")) for number in range(2)]
    assert_same(pair, parts[:1])
    answers = [frontend.ask(parts) for frontend in pair]
    assert [status for status, _ in answers] == [422, 422], answers
    inline = image_part(data_url(PICTURES["jpeg"]() + bytes(MIB * 8 // 5), "image/jpeg"))
    assert_same(pair, [parts[0], inline])


@pytest.mark.skipif(not IS_0_33, reason="vLLM 0.33 brought them")
def test_the_budget_of_pixels(pair: Pair) -> None:
    """Four bytes a pixel of pictures, three of videos; what would be too much is refused."""
    url = data_url(encoded(Image.new("L", (1990, 1000)), "PNG"), "image/png")
    assert_same(pair, [image_part(url)] * 3)
    answers = [frontend.ask([image_part(url)] * 4) for frontend in pair]
    assert [status for status, _ in answers] == [400, 400], answers
    video = video_part(data_url(clip(width=640, height=480), "video/mp4"))
    options = {"video": {"video_backend": "opencv", "num_frames": 33}}
    answers = [frontend.ask([video], media_io_kwargs=options) for frontend in pair]
    assert [status for status, _ in answers] == [400, 400], answers


# What vLLM alone does not have.


def test_one_download_for_eight_requests(pair: Pair, site: Server) -> None:
    """Whoever asks for what is on its way waits for it."""
    data = PICTURES["png-rgba"]()
    begun = threading.Event()

    def slowly(request: Request) -> None:
        begun.set()
        request.wait(4)
        reply(data)(request)

    site.route("/crowd", slowly)
    _, ours = pair
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ours.ask([image_part(site.url("/crowd"))]), range(8)))
    assert begun.is_set()
    assert [status for status, _ in answers] == [200] * 8
    assert site.count("/crowd") == 1
    assert all(tensors(answer) == tensors(answers[0][1]) for _, answer in answers)
    site.route("/alone", reply(data))
    assert tensors(answers[0][1]) == tensors(assert_same(pair, [image_part(site.url("/alone"))]))


def test_what_heals_is_tried_again(pair: Pair, site: Server) -> None:
    """Its retries are this library's, by the names of both."""
    site.route("/heals", in_turn(reply(b"", 503), reply(PICTURES["jpeg"]())))
    _, ours = pair
    assert ours.ask([image_part(site.url("/heals"))])[0] == 503  # one attempt, by the setting
    assert ours.ask([image_part(site.url("/heals"))])[0] == 200


def test_metrics(pair: Pair, site: Server) -> None:
    """This library's numbers stand in vLLM's `/metrics`."""
    _, ours = pair
    site.route("/counted.png", reply(PICTURES["png-rgba"]()))
    name = 'mmmedia_downloads_total{outcome="ok"}'
    before = ours.metrics().get(name, 0)
    assert ours.ask([image_part(site.url("/counted.png"))])[0] == 200
    after = ours.metrics()
    assert after[name] == before + 1
    assert after['mmmedia_decode_seconds_count{modality="image",path=""}'] > 0


def test_nothing_is_warned_of(pair: Pair) -> None:
    """vLLM knows all variables that it was given, and this library found the release that it knows."""
    for frontend in pair:
        log = frontend.log()
        assert "Application startup complete" in log
        assert "nknown vLLM environment" not in log
        assert "was tested with vLLM" not in log
