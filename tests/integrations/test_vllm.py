"""The plug-in for vLLM, with a stand-in of vLLM's names; a real one is in `vllm_real`."""

import asyncio
import base64
import inspect
import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia import envs, exceptions
from mmmedia.errors import InvalidSettingError, MissingPackageError
from mmmedia.integrations import vllm as plugin
from mmmedia.media import ImageMediaIO
from mmmedia.video import VIDEO_LOADER_REGISTRY
from mmmedia.work import isolated
from support import vllm_names
from support.clips import clip
from support.server import Request, Server, head, redirect, reply

Modules = dict[str, ModuleType]
Make = Callable[..., Any]
FRAMES = 60


@pytest.fixture(autouse=True)
def modules() -> Iterator[Modules]:
    """A vLLM that knows no plug-in yet."""
    with vllm_names.standing_in() as modules:
        yield modules


@pytest.fixture
def make(modules: Modules) -> Make:
    """What makes connectors as vLLM does, after the plug-in was loaded."""
    plugin.register()

    def make_connector(**kwargs: Any) -> Any:
        return modules["vllm.multimodal.media.connector"].MEDIA_CONNECTOR_REGISTRY.load("mmmedia", **kwargs)

    return make_connector


def png(mode: str = "RGBA", size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Loading the plug-in.


def test_loading_it_says_nothing(modules: Modules, caplog: pytest.LogCaptureFixture) -> None:
    """A release that was tested; vLLM may load plug-ins more than once."""
    plugin.register()
    plugin.register()
    assert warnings_of(caplog) == []
    assert "mmmedia" in modules["vllm.multimodal.media.connector"].MEDIA_CONNECTOR_REGISTRY.classes
    assert modules["vllm.multimodal.video_decoders"]._BACKEND_OPTION_DEFAULTS == {"opencv": {}, "mmmedia": {}}
    assert modules["vllm.multimodal.video_decoders.opencv"].decode_opencv is vllm_names.decode_opencv


@pytest.mark.parametrize("version", ["0.34.0", "0.31.2", "1.0", "dev"])
def test_another_release_is_warned_of(
    version: str, modules: Modules, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the releases that were tested; all that can be is there all the same."""
    modules["vllm"].__version__ = version  # type: ignore[attr-defined]
    plugin.register()
    (warning,) = warnings_of(caplog)
    assert f"vLLM {version}" in warning
    assert "0.32 and 0.33" in warning
    assert make().fetch_image(data_url(png())).media.size == (20, 10)


def test_a_vllm_without_codecs_still_has_the_connector(
    modules: Modules, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Videos are then decoded by vLLM."""
    del modules["vllm.multimodal.video_decoders"]._BACKEND_OPTION_DEFAULTS
    sys.modules.pop("vllm.multimodal.video_decoders.mmmedia")
    plugin.register()
    (warning,) = warnings_of(caplog)
    assert "there is no video codec (AttributeError" in warning
    video = make().fetch_video(data_url(b"video", "video/mp4"))
    assert video.media[0] == "OpenCV, frame_recovery=False"


@pytest.mark.parametrize("what", ["a module", "a name", "an argument"])
def test_a_vllm_of_another_make_goes_on_with_its_own_connector(
    what: str,
    modules: Modules,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Which is seen when one is made, and said once."""
    plugin._warn_of_vllms_own.cache_clear()
    if what == "a module":
        monkeypatch.setitem(sys.modules, "vllm.multimodal.video_decoders.base", None)  # as before 0.32
    elif what == "a name":
        del modules["vllm.multimodal.media"].MediaWithBytes
    else:

        class Other(vllm_names.MediaConnector):
            def __init__(self, media_io_kwargs: Any = None, *, policy: Any = None) -> None:
                super().__init__(media_io_kwargs)

        modules["vllm.multimodal.media.connector"].MediaConnector = Other  # type: ignore[attr-defined]
        modules["vllm.multimodal.media.connector"].MEDIA_CONNECTOR_REGISTRY.register("http")(Other)
    for name in ("connector", "codec"):
        sys.modules.pop(f"mmmedia.integrations.vllm.{name}", None)
        vars(plugin).pop(name, None)
    found = [make(media_io_kwargs={"image": {}}) for _ in range(2)]
    assert not any(hasattr(each, "_by_http") for each in found)
    (warning,) = warnings_of(caplog)
    assert "does not fit this vLLM" in warning


def test_no_vllm_at_all(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    plugin.register()
    (warning,) = warnings_of(caplog)
    assert "vLLM can't be imported" in warning


def test_a_setting_that_cannot_be_read_stops_no_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MMMEDIA_VLLM_REPLACE_OPENCV", "maybe")
    plugin.register()
    (warning,) = warnings_of(caplog)
    assert "MMMEDIA_REPLACE_OPENCV" in warning or "MMMEDIA_VLLM_REPLACE_OPENCV" in warning


def test_loading_it_in_a_process_without_vllm_loads_nothing_else() -> None:
    """An engine's workers load plug-ins too."""
    code = (
        "import sys; from mmmedia.integrations.vllm import register; sys.modules['vllm'] = None; register()\n"
        "print(*{'torch', 'cv2', 'av', 'aiohttp', 'requests', 'PIL', 'prometheus_client'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
    assert "vLLM can't be imported" in result.stderr


def test_the_entry_point_names_it() -> None:
    """What vLLM looks for, where this package is installed."""
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert (
        f'[project.entry-points."vllm.general_plugins"]\nmmmedia = "{plugin.__name__}:register"' in pyproject
    )


# Pictures.


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_pictures_are_of_this_library_in_their_wrapper(is_async: bool, make: Make, server: Server) -> None:
    data = png()
    server.route("/cat.png", reply(data))
    connector = make(media_io_kwargs={"image": {"rgba_background_color": [9, 8, 7]}})
    url = server.url("/cat.png")
    found = asyncio.run(connector.fetch_image_async(url)) if is_async else connector.fetch_image(url)
    assert type(found) is vllm_names.MediaWithBytes
    assert found.original_bytes == data
    expected = ImageMediaIO(rgba_background_color=[9, 8, 7]).load_bytes(data).media
    assert np.array_equal(np.asarray(found.media), np.asarray(expected))
    assert found.media.mode == "RGB"


def test_all_that_pixels_depend_on_is_in_the_key(make: Make) -> None:
    """vLLM's cache takes two pictures of the same bytes and the same options for one."""
    url = data_url(png())
    options: list[dict[str, Any]] = [
        {},
        {"max_pixels": 50},
        {"exif_transpose": False},
        {"flatten_alpha": False},
        {"rgba_background_color": [1, 2, 3]},
        {"image_mode": "L"},
        {"image_mode": None},
    ]
    keys = [make(media_io_kwargs={"image": each}).fetch_image(url).io_config for each in options]
    keys.append(make().fetch_image(url, image_mode="RGBA").io_config)
    assert len({repr(key) for key in keys}) == len(keys)
    assert keys[0] == {
        "image_mode": "RGB",
        "rgba_background_color": (255, 255, 255),
        "exif_transpose": True,
        "flatten_alpha": True,
        "max_pixels": None,
    }


def test_results_are_those_of_this_vllm_whatever_is_compatible(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MMMEDIA_COMPAT` is for code that was written for a release; here one runs."""
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    assert make().fetch_image(data_url(png("LA"))).io_config["flatten_alpha"] is True


def test_pictures_are_charged_by_their_header(make: Make, server: Server) -> None:
    """Four bytes a pixel, each picture, before it is decoded."""
    budget = vllm_names.Budget(limit=1700)
    connector = make(decoded_budget=budget)
    for _ in range(2):
        connector.fetch_image(data_url(png()))
    assert budget.used == 1600
    broken = png()[:60]
    with pytest.raises(ValueError, match="too much"):  # and not that it is broken
        connector.fetch_image(data_url(broken))
    assert connector.budgets["decoded_budget"] is budget


def test_what_is_no_picture_is_not_charged(make: Make) -> None:
    budget = vllm_names.Budget()
    with pytest.raises(ValueError, match="Failed to load image"):
        make(decoded_budget=budget).fetch_image(data_url(b"no picture"))
    assert budget.used == 0


def test_only_http_counts_as_a_download(make: Make, server: Server, tmp_path: Path) -> None:
    data = png()
    server.route("/cat.png", reply(data))
    (tmp_path / "cat.png").write_bytes(data)
    budget = vllm_names.Budget()
    connector = make(download_budget=budget, allowed_local_media_path=str(tmp_path))
    connector.fetch_image(data_url(data))
    connector.fetch_image((tmp_path / "cat.png").as_uri())
    assert budget.used == 0
    connector.fetch_image(server.url("/cat.png"))
    assert budget.used == len(data)


# Videos.


def by_this_library(video: bytes, indices: list[int]) -> np.ndarray:
    frames, _ = VIDEO_LOADER_REGISTRY.load("opencv").load_bytes(video, num_frames=-1)
    return frames[indices]


@pytest.mark.parametrize("processes", ["0", pytest.param("1", marks=pytest.mark.timeout(300))])
def test_their_loader_chooses_and_this_library_decodes(
    processes: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source as the loader prepares it; each frame once; what the loader wanted as it wanted it."""
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", processes)
    video = clip(frames=FRAMES)
    connector = make(media_io_kwargs={"video": {"num_frames": 6, "start": 5}})
    found = connector.fetch_video(data_url(video, "video/mp4"), video_processor="SomeProcessor")
    frames, metadata = found.media
    expected = list(range(5, FRAMES, 10))
    assert metadata["backend"] == "mmmedia"
    assert metadata["frames_indices"] == expected
    assert metadata["wanted"] == [*expected, expected[-1]]
    assert {type(index) for index in metadata["wanted"]} == {int}
    assert metadata["source"] == vllm_names.VideoSourceMetadata(FRAMES, 25.0, FRAMES / 25)
    assert np.array_equal(frames, by_this_library(video, expected))
    assert found.original_bytes == video
    isolated.shutdown()


def test_what_goes_wrong_in_their_loader_stays_what_it_is(make: Make) -> None:
    connector = make(media_io_kwargs={"video": {"start": "the beginning"}})
    with pytest.raises(TypeError):
        connector.fetch_video(data_url(clip(), "video/mp4"))


@pytest.mark.parametrize(
    "options",
    [{"backend": "opencv"}, {"frame_recovery": True}, {"video_backend": "names opencv"}],
    ids=["asked for", "recovery", "named in code"],
)
def test_what_stays_with_opencv(options: dict[str, Any], make: Make) -> None:
    """A codec that the request names, what other codecs can't, and loaders that can't be told."""
    video = make(media_io_kwargs={"video": options}).fetch_video(data_url(b"video", "video/mp4"))
    assert video.media[0] == f"OpenCV, frame_recovery={'frame_recovery' in options}"


@pytest.mark.parametrize("recovery", [False, True])
def test_the_switch_replaces_opencv(
    recovery: bool, make: Make, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMMEDIA_VLLM_REPLACE_OPENCV", "1")
    plugin.register()
    replaced = modules["vllm.multimodal.video_decoders.opencv"].decode_opencv
    plugin.register()
    assert modules["vllm.multimodal.video_decoders.opencv"].decode_opencv is replaced
    video = clip(frames=FRAMES)
    options = {"video_backend": "names opencv", "num_frames": 6}
    if recovery:
        options["frame_recovery"] = True
    connector = make(media_io_kwargs={"video": options})
    frames, metadata = connector.fetch_video(data_url(video, "video/mp4")).media
    assert np.array_equal(frames, by_this_library(video, list(range(0, FRAMES, 10))))
    assert metadata["backend"] == "opencv"
    options["video_backend"] = "reads by itself"
    assert isinstance(make(media_io_kwargs={"video": options}).fetch_video(data_url(video)).media[0], str)


def test_frames_sent_as_pictures_are_left_to_vllm(make: Make) -> None:
    found = make().fetch_video("data:video/jpeg;base64,AAAA,BBBB")
    assert (found.media, found.original_bytes) == (["AAAA", "BBBB"], b"AAAA,BBBB")


# Sounds.


def test_sounds_are_decoded_by_vllm(make: Make, server: Server, tmp_path: Path) -> None:
    """Which decoder it takes is a matter of what is installed; its limit is told to whoever downloads."""
    server.route("/sound.wav", reply(b"0" * 400))
    (tmp_path / "sound.wav").write_bytes(b"0" * 300)
    connector = make(allowed_local_media_path=str(tmp_path))
    assert connector.fetch_audio(server.url("/sound.wav")) == ("sound", 400)
    assert connector.fetch_audio((tmp_path / "sound.wav").as_uri()) == ("sound", 300)
    assert connector.fetch_audio(data_url(b"0" * 200, "audio/wav")) == ("sound", 200)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_media_io_admits_is_held_while_it_is_downloaded(
    is_async: bool, make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that only says how much there is, is refused by that; others may have the same URL."""

    def announce(request: Request) -> None:
        request.send(head(200, {"Content-Length": (1 << 20) + 1}))
        request.hang_up()

    server.route("/long.wav", announce)
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    monkeypatch.setattr(vllm_names.AudioMediaIO, "max_bytes", 1 << 20)
    connector, url = make(), server.url("/long.wav")
    assert answered(raised_by(connector, "fetch_image", url)) == 503  # cut short

    def fetch(url: str) -> Any:
        sounds = vllm_names.AudioMediaIO()
        if is_async:
            return asyncio.run(connector.load_from_url_async(url, sounds))
        return connector.load_from_url(url, sounds)

    with pytest.raises(vllm_names.HTTPResponseSizeExceededError) as caught:
        fetch(url)
    assert caught.value.parameter == "audio_filesize_mb"
    server.route("/short.wav", reply(bytes(1 << 20)))
    assert fetch(server.url("/short.wav")) == ("sound", 1 << 20)


def test_the_lower_of_two_limits_holds(make: Make, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is the one that the answer is about."""
    server.route("/sound.wav", reply(bytes((1 << 20) + 1)))
    monkeypatch.setattr(vllm_names.AudioMediaIO, "max_bytes", 2 << 20)
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    error = raised_by(make(), "fetch_audio", server.url("/sound.wav"))
    assert (answered(error), "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB" in str(error)) == (422, True)


def test_media_ios_of_others_are_taken_as_they_are(make: Make, tmp_path: Path) -> None:
    """vLLM hands its own to `load_from_url`; what they load is theirs."""

    class Text:
        def load_base64(self, media_type: str, data: str) -> str:
            return f"{media_type} {data}"

        def load_file(self, filepath: Path) -> str:
            return filepath.name

    assert make().load_from_url("data:text/plain;base64,AAAA", Text()) == "text/plain AAAA"
    module = sys.modules["mmmedia.integrations.vllm.connector"]
    assert module._adapted(Text())[1].load_file(tmp_path / "some.txt") == "some.txt"


def test_what_is_no_fault_of_media_stays_what_it_is(make: Make) -> None:
    with pytest.raises(MemoryError):
        make().fetch_audio(data_url(b"memory", "audio/wav"))


def test_timeouts_are_settings_under_both_prefixes(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM hands over those that it read, under one."""
    make()
    module = sys.modules["mmmedia.integrations.vllm.connector"]
    given: list[float] = []

    class Recording(module.MediaConnector):  # type: ignore[name-defined,misc]
        def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
            given.append(fetch_timeout or 0)
            return super().load_from_url(url, media_io, fetch_timeout=fetch_timeout)

    monkeypatch.setattr(module, "MediaConnector", Recording)
    monkeypatch.setenv("MMMEDIA_AUDIO_FETCH_TIMEOUT", "77")
    connector = make()
    connector.fetch_audio(data_url(b"0", "audio/wav"))
    connector.fetch_image(data_url(png()))
    assert given == [77, envs.VLLM_IMAGE_FETCH_TIMEOUT]


# Errors.


def raised_by(connector: Any, method: str, url: str) -> Exception:
    with pytest.raises(Exception) as caught:
        getattr(connector, method)(url)
    return caught.value


def answered(error: Exception) -> int:
    """Return the status that vLLM answers with, by the first of its rules that fits."""
    if isinstance(error, vllm_names.GracefulHTTPError):
        return error.http_status
    if isinstance(error, vllm_names.VLLMUnprocessableEntityError):
        return 422
    if isinstance(error, vllm_names.VLLMValidationError | ValueError):
        return 400
    return 500


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/404?signature=secret", 422),
        ("/429?signature=secret", 503),
        ("/500?signature=secret", 503),
        ("/large?signature=secret", 422),
        ("/junk?signature=secret", 400),
        ("/away", 400),
        ("http://nowhere.invalid/", 503),
        ("http://", 422),
        ("ftp://example.org/cat.png", 400),
        ("data:image/png;base64,!!!!", 400),
        ("data:image/png,cat", 501),
        ("file:///etc/passwd", 400),
        (None, 400),
    ],
)
@pytest.mark.parametrize("method", ["fetch_image", "fetch_video"])
def test_failures(
    method: str, url: str | None, status: int, make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a `ValueError` that names the part, with the status, and without the query of its URL."""
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    for code in (404, 429, 500):
        server.route(f"/{code}", reply(b"", code))
    server.route("/large", reply(bytes((1 << 20) + 1)))
    server.route("/junk", reply(b"junk"))
    server.route("/away", redirect("http://169.254.169.254/latest"))
    full = server.url(url) if url is not None and url.startswith("/") else url
    error = raised_by(make(), method, full)  # type: ignore[arg-type]
    assert isinstance(error, ValueError)
    assert answered(error) == status
    assert error.parameter == f"{method.removeprefix('fetch_')}_url"  # type: ignore[attr-defined]
    assert "secret" not in f"{error} {getattr(error, 'value', '')}"


def test_a_budget_of_downloads_is_answered_as_vllm_does(make: Make, server: Server) -> None:
    server.route("/cat.png", reply(png()))
    budget = vllm_names.Budget(10, vllm_names.MediaRequestDownloadSizeExceededError)
    error = raised_by(make(download_budget=budget), "fetch_image", server.url("/cat.png"))
    assert (answered(error), error.parameter) == (422, "image_url")  # type: ignore[attr-defined]


def test_a_limit_of_pixels_is_none_of_downloads(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100")
    server.route("/cat.png", reply(png()))
    assert answered(raised_by(make(), "fetch_image", server.url("/cat.png"))) == 400
    error = raised_by(make(), "fetch_video", data_url(clip(), "video/mp4"))
    assert (answered(error), error.parameter) == (400, "video_url")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidSettingError("VLLM_MAX_IMAGE_PIXELS='many'"), 500),
        (MissingPackageError("pip install"), 500),
        (TimeoutError(), 503),
        (ValueError("of a loader"), 400),
        (exceptions.VLLMUnprocessableEntityError("404", parameter="image_url"), 422),
        (KeyError("a bug"), None),
        (vllm_names.VLLMValidationError("theirs"), None),
    ],
)
def test_whose_fault_it_is(error: Exception, status: int | None, make: Make) -> None:
    """A mistake of the operator or of a library is none of the request's."""
    make()
    errors = sys.modules["mmmedia.integrations.vllm.errors"]
    translated = errors.translate(error, parameter="image_url")
    if status is None:
        assert translated is error
        return
    assert isinstance(translated, ValueError)
    assert answered(translated) == HTTPStatus(status)
    assert translated.parameter == "image_url"  # type: ignore[attr-defined]
    assert str(translated)


def test_what_an_error_is_about_is_kept(make: Make) -> None:
    """A URL is that of the part, whichever part it is; a size is none."""
    make()
    translate = sys.modules["mmmedia.integrations.vllm.errors"].translate
    size = exceptions.VLLMValidationError("too large", parameter="audio_filesize_mb", value=26)
    assert translate(size, parameter="audio_url").parameter == "audio_filesize_mb"
    gone = exceptions.VLLMUnprocessableEntityError("404", parameter="image_url")
    assert translate(gone, parameter="video_url").parameter == "video_url"


# Metrics.


def test_what_is_counted_is_there_with_the_first_connector(make: Make) -> None:
    """Not when plug-ins are loaded: vLLM sets up its own metrics first."""
    from prometheus_client import REGISTRY, generate_latest

    make()
    assert b"mmmedia_downloads_in_flight" in generate_latest(REGISTRY)
    assert "metrics" not in inspect.getsource(plugin)
