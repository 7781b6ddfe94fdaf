"""Objects that travel: pickled, cloudpickled, copied, spawned and forked, each arrives as something usable.

Every class of the public faces has its line below, or a reason why it does not travel.
"""

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cloudpickle
import numpy as np
import pytest

import mmmedia
from mmmedia import (
    audio,
    batch,
    cache,
    connections,
    containers,
    egress,
    envs,
    errors,
    metrics,
    registry,
    urls,
    video,
)
from mmmedia.connections import HTTPConnection, global_http_connection
from mmmedia.gpu_ipc_memory import MultiModalGPUMemoryPool
from mmmedia.image import Depth
from mmmedia.media import MediaConnector, MediaDecodedBudget, buckets, image as images
from mmmedia.media.budget import MediaBudget, Share
from mmmedia.media.fsspec_connector import FsspecConnector
from support.forking import holds_in_child
from support.travel import PNG, PNG_URL, double, embed, used, used_of

torch = pytest.importorskip("torch")

_INSIDE = ("cli", "show", "work")
FACES = (
    "mmmedia",
    *(
        f"mmmedia.{module.name}"
        for module in pkgutil.iter_modules(mmmedia.__path__)
        if not module.name.startswith("_") and module.name not in _INSIDE
    ),
    *(f"mmmedia.media.{name}" for name in ("base", "budget", "buckets", "fsspec_connector")),
    *(f"mmmedia.video.{name}" for name in ("samplers", "decoders")),
)


def _classes() -> Iterator[type]:
    """Every class that one of the faces hands out."""
    seen = set()
    for face in FACES:
        module = importlib.import_module(face)
        listed = getattr(module, "__all__", None)
        for name in listed or [name for name in vars(module) if not name.startswith("_")]:
            found = getattr(module, name)
            is_ours = inspect.isclass(found) and found.__module__.startswith("mmmedia")
            if is_ours and found not in seen and (listed or found.__module__ == face):
                seen.add(found)
                yield found


STAY = {
    "MediaIO": "abstract",
    "BlockCacheSource": "as far as the source behind does",
    "VideoLoader": "abstract",
    "Chargeable": "a protocol",
    "Reservable": "a protocol",
    "MultiModalGPUMemoryPool": "its memory is there once",
    "MultiModalGPUMemoryLease": "its memory is there once",
    "PretrainedPipeline": "as far as its model does",
    "Encoder": "a protocol",
    "Source": "abstract",
    "SourceMediaIO": "abstract",
    "BytesSource": "has what is read open",
    "FileSource": "has what is read open",
    "FsspecSource": "has what is read open",
    "SourceFile": "has what is read open",
    "Window": "has what is read open",
    "WindowSource": "has what is read open",
    "Preprocessor": "a protocol",
    "downloading": "a block",
    "fetch_policy": "a block",
    "Journey": "a block of one attempt of a fetch",
    "Share": "a copy would be used up twice",
    "MediaBudget": "a copy would be used up twice",
    "MediaDecodedBudget": "a copy would be used up twice",
    "MediaRequestDownloadBudget": "a copy would be used up twice",
    "VideoMetadata": "a dict",
    "ImageOptions": "a dict",
    "AudioOptions": "a dict",
    "VideoOptions": "a dict",
    "MediaIOKwargs": "a dict",
}
"""What does not travel, and why."""


def _made(kind: type) -> Any:
    """An instance of a class that travels."""
    name = kind.__name__
    if kind is errors.PartError:
        return errors.PartError.around(errors.InvalidMediaError("bad"), 0, 2, "image_url")
    if kind in (connections.MediaDownloadSizeExceededError, connections.HTTPResponseSizeExceededError):
        return kind(5, 6)
    if issubclass(kind, BaseException):
        return kind("what was wrong")
    if name in MAKERS:
        return MAKERS[name]()
    return kind()


def _connector(kind: Any) -> Any:
    return kind({"image": {"max_pixels": 20}}, allowed_media_domains=["example.org"])


def _preprocessor() -> Any:
    from mmmedia.pipeline import ImagePreprocessor

    return ImagePreprocessor(size=(4, 6), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _encoder_path() -> Any:
    from mmmedia.pipeline import EncoderPath

    return EncoderPath(preprocess=_preprocessor(), encoder=torch.nn.Identity(), projector=double)


def _pipeline(name: str) -> Any:
    return getattr(importlib.import_module("mmmedia.pipeline"), name)


MAKERS: dict[str, Callable[[], Any]] = {
    "AudioResampler": lambda: audio.AudioResampler(8000.0),
    "ChannelReduction": lambda: audio.ChannelReduction.MEAN,
    "MediaCache": lambda: cache.MediaCache(tempfile.gettempdir(), max_bytes=5, ttl_secs=3.0),
    "StaleEntry": lambda: cache.StaleEntry(b"data", '"1"'),
    "HTTPConnection": lambda: HTTPConnection(reuse_client=False),
    "RetryPlan": lambda: connections.RetryPlan(5.0, 3),
    "Download": lambda: connections.Download(b"data", '"1"'),
    "FetchPolicy": lambda: connections.FetchPolicy(urls.domain_list(["example.org"])),
    "Admitted": lambda: containers.Admitted(b"data", "PNG"),
    "Judgement": lambda: egress.Judgement(egress.Reach.PUBLIC, "public"),
    "Reach": lambda: egress.Reach.PRIVATE,
    "EgressPolicy": lambda: egress.EgressPolicy(block_private=True),
    "CacheSettings": envs.cache_settings,
    "FetchSettings": envs.fetch_settings,
    "Setting": lambda: envs.SETTINGS["VLLM_IMAGE_FETCH_TIMEOUT"],
    "Depth": lambda: Depth(0, 4095),
    "MediaWithBytes": lambda: images.ImageMediaIO().load_bytes(PNG),
    "ObjectConnection": lambda: buckets.ObjectConnection(global_http_connection),
    "ObjectURL": lambda: buckets.parse_object_url("s3://bucket/key"),
    "BucketList": lambda: buckets.bucket_list(["s3://bucket"]),
    "MediaConnector": lambda: _connector(MediaConnector),
    "FsspecConnector": lambda: _connector(FsspecConnector),
    "Media": lambda: MediaConnector().open(PNG_URL),
    "ImageMediaIO": lambda: images.ImageMediaIO("L", max_pixels=12),
    "VideoMediaIO": lambda: video_io(),
    "Description": lambda: metrics.METRICS["mmmedia_decode_seconds"],
    "Excerpt": lambda: video.Excerpt(b"clip", [4], [0], 1, 0, 9, video.VideoSourceMetadata(10, 2.0, 5.0)),
    "Sample": lambda: metrics.Sample("mmmedia_pool_queue_length", ("loading",), 2.0),
    "Encoded": lambda: _pipeline("Encoded")(torch.arange(6.0).reshape(2, 3), (1, 1, 2)),
    "EncoderPath": _encoder_path,
    "Projector": lambda: _pipeline("Projector")(double, 4, 4),
    "CacheKey": lambda: _pipeline("CacheKey")("hash", "image", "fingerprint"),
    "EncoderCache": lambda: _pipeline("EncoderCache")(3, unit="bytes"),
    "MemoryCacheStats": lambda: _pipeline("EncoderCacheStats")(1, 2, 3, 4, 5),
    "ContentPart": lambda: _pipeline("ContentPart")("image_url", PNG_URL, uuid="7"),
    "MultimodalPipeline": lambda: _pipeline("MultimodalPipeline")(
        text_embedder=embed, paths={"image": _encoder_path()}, encoder_cache=_pipeline("EncoderCache")(2)
    ),
    "Span": lambda: _pipeline("Span")(0, "image", 1, 2),
    "TokenStream": lambda: _pipeline("TokenStream")(
        torch.zeros(2, 3), (_pipeline("Span")(0, "image", 0, 2),)
    ),
    "Preprocessed": lambda: _pipeline("Preprocessed")([torch.zeros(2)], (1, 1, 2)),
    "ImagePreprocessor": _preprocessor,
    "PatchBatch": lambda: _pipeline("PatchBatch")(torch.zeros(2, 3), torch.ones(1, 3)),
    "VideoPreprocessor": lambda: _pipeline("VideoPreprocessor")(_preprocessor()),
    "ResolvedPart": lambda: _pipeline("ResolvedPart")(_pipeline("ContentPart")("text", "words"), "words"),
    "ExactSize": lambda: _pipeline("ExactSize")(4, 6),
    "PixelBudget": lambda: _pipeline("PixelBudget")(16, 64),
    "ShortestEdge": lambda: _pipeline("ShortestEdge")(32),
    "ExtensionManager": lambda: registry.ExtensionManager("thing"),
    "DomainList": lambda: urls.domain_list(["example.org", "*.example.com"]),
    "HTTPURL": lambda: urls.parse_http_url("https://me:pass@example.org/a?b"),
    "VideoSourceMetadata": lambda: video.VideoSourceMetadata(10, 2.0, 5.0),
    "VideoTargetMetadata": lambda: video.VideoTargetMetadata(4, 2.0, 5.0),
    "TimedSource": lambda: video.samplers.TimedSource.of(video.VideoSourceMetadata(2, 2.0, 1.0), [0.0, 0.5]),
    "Video": lambda: mmmedia.Video(np.zeros((1, 2, 3, 3), np.uint8), _METADATA, [0.25]),
    "Audio": lambda: mmmedia.Audio(np.zeros(5, np.float32), 5.0),
    "Decoder": lambda: batch.Decoder("image", on_error="drop", allowed_media_domains=["example.org"]),
    "Row": lambda: batch.Decoder("image")(PNG),
    "Sampler": lambda: next(iter(video.SAMPLERS.values())),
}


_METADATA: Any = {"total_num_frames": 1, "fps": 2.0, "duration": 0.5, "frames_indices": [0]}


def video_io() -> Any:
    from mmmedia.media import VideoMediaIO

    return VideoMediaIO(images.ImageMediaIO(), num_frames=3)


CLASSES = {kind.__name__: kind for kind in _classes()}
TRAVELLERS = sorted(CLASSES.keys() - STAY.keys())


def test_every_public_class_is_here() -> None:
    assert len(CLASSES) > 80
    assert STAY.keys() <= CLASSES.keys() | {"fetch_policy", "downloading"}
    assert MAKERS.keys() <= CLASSES.keys() | {"Depth", "ExactSize", "ShortestEdge", "PixelBudget"}


@pytest.mark.parametrize("name", TRAVELLERS)
@pytest.mark.parametrize(
    "travel",
    [
        pytest.param(lambda thing: pickle.loads(pickle.dumps(thing)), id="pickle"),
        pytest.param(lambda thing: pickle.loads(pickle.dumps(thing, 2)), id="pickle protocol 2"),
        pytest.param(lambda thing: pickle.loads(cloudpickle.dumps(thing)), id="cloudpickle"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(copy.copy, id="copy"),
    ],
)
def test_a_copy_is_usable(name: str, travel: Callable[[Any], Any]) -> None:
    thing = _made(CLASSES[name])
    copied = travel(thing)
    assert isinstance(copied, CLASSES[name])
    assert type(copied).__qualname__ == type(thing).__qualname__
    assert used(copied) == used(thing)


def test_what_is_spawned_has_usable_copies() -> None:
    things = {name: _made(CLASSES[name]) for name in TRAVELLERS}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(used_of, things).result(120) == used_of(things)


def test_what_is_forked_is_usable() -> None:
    things = {name: _made(CLASSES[name]) for name in TRAVELLERS}
    before = used_of(things)
    assert holds_in_child(lambda: used_of(things) == before)


@pytest.mark.parametrize("travel", [pickle.dumps, cloudpickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Share("decoded", 5),
        MediaBudget,
        lambda: MediaDecodedBudget(5),
        lambda: connections.MediaRequestDownloadBudget(5),
        lambda: MultiModalGPUMemoryPool(5),
        lambda: MultiModalGPUMemoryPool(5).acquire(1),
        lambda: MediaConnector(budget=MediaBudget(max_decoded_bytes=5)),
    ],
)
def test_a_budget_stays_where_it_is_used_up(make: Callable[[], Any], travel: Callable[[Any], Any]) -> None:
    thing = make()
    if travel is copy.copy and type(thing) in (MediaBudget, MediaConnector):  # with the very same shares
        assert travel(thing)
        return
    with pytest.raises(TypeError, match="can't be copied or pickled"):
        travel(thing)


# Loaders and such are used as classes; nobody makes one.
MADE = [name for name in TRAVELLERS if not name.endswith(("VideoBackend", "Mixin", "Hasher"))]


@pytest.mark.parametrize("name", MADE)
def test_what_is_public_says_what_it_is(name: str) -> None:
    """In a notebook's cell and in a log: not where in memory it lies."""
    assert not re.search(r"object at 0x|instance at 0x", repr(_made(CLASSES[name])).partition("Identity")[0])
