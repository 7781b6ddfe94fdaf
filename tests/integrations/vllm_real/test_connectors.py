"""The connectors of a real, unmodified vLLM and of this library side by side, in one process."""

import asyncio
import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
import vllm
from PIL import Image
from vllm.multimodal.media.connector import MEDIA_CONNECTOR_REGISTRY
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY
from vllm.plugins import load_general_plugins

from support.clips import clip
from support.server import Server, reply
from support.sounds import encode, speech_like

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

IS_0_33 = not vllm.__version__.startswith("0.32")
CLIPS = {
    "mp4": {"frames": 130, "bframes": 2, "gop": 30},
    "webm": {"frames": 130, "codec": "libvpx-vp9", "container": "webm"},
    "of 30 a second": {"frames": 100, "rate": 30, "container": "matroska"},
    "of one second": {"frames": 8, "rate": 8},
}
# What a loader takes, as far as its defaults do not suit a short clip.
OPTIONS: dict[str, dict[str, Any]] = {
    "opencv": {"num_frames": 9},
    "nemotron_vl": {"num_frames": 9},
    "molmo2": {"num_frames": 9, "frame_sample_mode": "uniform_last_frame"},
}
NEEDS_GPU = {"pynvvideocodec"}


@pytest.fixture(scope="module", autouse=True)
def _plugins() -> None:
    load_general_plugins()


def connectors(**kwargs: Any) -> tuple[Any, Any]:
    return MEDIA_CONNECTOR_REGISTRY.load("http", **kwargs), MEDIA_CONNECTOR_REGISTRY.load("mmmedia", **kwargs)


def data_url(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("loader", sorted(set(VIDEO_LOADER_REGISTRY.name2class) - NEEDS_GPU))
def test_every_loader(loader: str, name: str) -> None:
    """Frames, metadata and encoded bytes; the codec's name alone is another."""
    url = data_url(clip(**CLIPS[name]), "video/mp4")
    options = {"video": {"video_backend": loader, **OPTIONS.get(loader, {})}}
    (theirs, ours) = (each.fetch_video(url) for each in connectors(media_io_kwargs=options))
    assert type(ours) is type(theirs)
    assert ours.original_bytes == theirs.original_bytes
    (their_frames, their_metadata), (our_frames, our_metadata) = theirs.media, ours.media
    assert np.array_equal(our_frames, their_frames)
    assert len(our_frames) > 0
    codecs = their_metadata.pop("video_backend"), our_metadata.pop("video_backend")
    assert codecs[1].replace("mmmedia", "opencv") == codecs[0]
    assert our_metadata == their_metadata


def sound(container: str) -> bytes:
    return encode(speech_like(1.5, 16_000, channels=2), 16_000, container)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("is_async", [False, True])
def test_sounds(kind: str, is_async: bool, server: Server) -> None:
    """vLLM decodes them, this library fetches them, in one event loop as in another."""
    server.route("/sound", reply(sound(kind)))
    theirs, ours = connectors()
    url = server.url("/sound")
    their_wave, their_rate = theirs.fetch_audio(url)
    our_wave, our_rate = asyncio.run(ours.fetch_audio_async(url)) if is_async else ours.fetch_audio(url)
    assert np.array_equal(our_wave, their_wave)
    assert our_rate == their_rate
    assert len(our_wave) > 1000


def test_sounds_that_are_too_large(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same error, by the size that a server tells."""
    monkeypatch.setenv("VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", "1")
    server.route("/sound", reply(bytes((1 << 20) + 1)))
    errors = []
    for connector in connectors():
        with pytest.raises(Exception) as caught:
            connector.fetch_audio(server.url("/sound"))
        errors.append((type(caught.value).__name__, getattr(caught.value, "parameter", "")))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_embeddings(modality: str) -> None:
    file = io.BytesIO()
    torch.save(torch.arange(12.0).reshape(3, 4), file)
    text = base64.b64encode(file.getvalue()).decode()
    name = f"fetch_{modality}_embedding"
    theirs, ours = (getattr(connector, name)(text) for connector in connectors())
    assert torch.equal(theirs, ours)


@pytest.mark.skipif(not IS_0_33, reason="vLLM 0.33 brought them")
def test_budgets_are_charged_alike(server: Server) -> None:
    """Pictures, sounds and videos; what is downloaded, and what is not."""
    from vllm.connections import MediaRequestDownloadBudget
    from vllm.multimodal.media import MediaDecodedBudget

    picture = io.BytesIO()
    Image.new("LA", (70, 50)).save(picture, "PNG")
    server.route("/picture", reply(picture.getvalue()))
    server.route("/sound", reply(sound("WAV")))
    server.route("/video", reply(clip()))
    used = []
    for name in ("http", "mmmedia"):
        budgets = {"decoded_budget": MediaDecodedBudget(), "download_budget": MediaRequestDownloadBudget()}
        connector = MEDIA_CONNECTOR_REGISTRY.load(name, **budgets)
        steps = []
        for fetch, path in (("image", "/picture"), ("audio", "/sound"), ("video", "/video")):
            getattr(connector, f"fetch_{fetch}")(server.url(path))
            steps.append(tuple(budget.used for budget in budgets.values()))
        connector.fetch_image(data_url(picture.getvalue(), "image/png"))
        steps.append(tuple(budget.used for budget in budgets.values()))
        used.append(steps)
    assert used[0] == used[1]
    assert used[0][0] == (70 * 50 * 4, len(picture.getvalue()))
