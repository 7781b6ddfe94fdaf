"""Decoders of other packages, by stand-ins: what they are given, what is made of it, and what is refused."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    MissingPackageError,
    PoolSizeError,
    RecoveryError,
)
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.video import VIDEO_LOADER_REGISTRY, VideoBackend, VideoTargetMetadata
from mmmedia.video.codecs import pynvvideocodec
from mmmedia.video_decoders import check_frame_pixel_limit, decode_video
from support import torch_codecs
from support.clips import clip, read_number

torch = pytest.importorskip("torch")
CLIP: dict[str, Any] = {"frames": 90, "width": 96, "height": 64, "gop": 15}


@pytest.fixture
def torchcodec(monkeypatch: pytest.MonkeyPatch) -> type[torch_codecs.VideoDecoder]:
    return torch_codecs.install(monkeypatch)[1]


class TestTorchcodec:
    def test_frames_from_an_excerpt(self, torchcodec: type[torch_codecs.VideoDecoder]) -> None:
        """Of the frames asked for, with only what they need decoded."""
        io = VideoMediaIO(ImageMediaIO(), 3, backend="torchcodec", num_ffmpeg_threads=2)
        frames, metadata = io.load_bytes(clip(**CLIP))
        assert isinstance(frames, torch.Tensor)
        assert [read_number(frame) for frame in frames.numpy()] == metadata["frames_indices"] == [0, 44, 89]
        assert (metadata["total_num_frames"], metadata["video_backend"]) == (90, "torchcodec")
        (decoder,) = torchcodec.made
        assert len(decoder._frames) < 60
        assert decoder.options == {
            "dimension_order": "NHWC", "num_ffmpeg_threads": 2, "seek_mode": "exact", "device": "cpu",
        }  # fmt: skip

    def test_repeated_indices_stay(self, torchcodec: type[torch_codecs.VideoDecoder]) -> None:
        """What is chosen twice is there twice."""

        class Twice(VideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
                return [7, 7, 3]

        target = VideoTargetMetadata(-1, -1, 300)
        frames, source, wanted, valid = decode_video("torchcodec", Twice, clip(**CLIP), target, {}, {})
        assert [read_number(frame) for frame in frames.numpy()] == wanted == valid == [7, 7, 3]
        assert source.total_frames_num == 90

    def test_what_can_not_be_cut_is_read_whole(
        self, torchcodec: type[torch_codecs.VideoDecoder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise InvalidMediaError("can't be cut")

        monkeypatch.setattr("mmmedia.video.codecs.torchcodec.excerpt", refuse)
        frames, metadata = VideoBackend.load_bytes(clip(**CLIP), 2, backend="torchcodec")
        assert [read_number(frame) for frame in frames.numpy()] == metadata["frames_indices"] == [0, 89]
        assert len(torchcodec.made[0]._frames) == 90

    @pytest.mark.parametrize(
        "options", [{"device": "tpu"}, {"device": "cuda"}, {"seek_mode": "fast"}, {"hw_decoders": 2}]
    )
    def test_bad_options(self, torchcodec: type[torch_codecs.VideoDecoder], options: dict[str, Any]) -> None:
        if options.get("device") == "cuda" and torch.cuda.is_available():
            pytest.skip("there is a GPU")
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            VideoBackend.load_bytes(clip(**CLIP), 2, backend="torchcodec", **options)
        assert not torchcodec.made

    def test_limits(
        self, torchcodec: type[torch_codecs.VideoDecoder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before any frame is asked for."""
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", str(96 * 64 - 1))
        with pytest.raises(LimitExceededError, match="VLLM_MAX_IMAGE_PIXELS"):
            VideoBackend.load_bytes(clip(**CLIP), 2, backend="torchcodec")
        assert torchcodec.made[0].asked == []

    def test_its_errors(self, torchcodec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for text, kind in (
            ("Invalid data", InvalidMediaError),
            ("Could not load libtorchcodec", ImportError),
        ):

            def broken(*_: object, text: str = text, **__: object) -> None:
                raise RuntimeError(text)

            monkeypatch.setattr(sys.modules["torchcodec.decoders"], "VideoDecoder", broken)
            with pytest.raises(kind):
                VideoBackend.load_bytes(clip(**CLIP), 2, backend="torchcodec")


@pytest.mark.parametrize(
    ("backend", "package"),
    [
        ("torchcodec", r"mmmedia\[torchcodec\]"),
        ("pynvvideocodec", "PyNvVideoCodec"),
        ("deepstream", "DeepStream"),
    ],
)
def test_missing_packages_are_named(backend: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchcodec", "PyNvVideoCodec"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=package):
        VideoBackend.load_bytes(clip(**CLIP), 2, backend=backend)


@pytest.mark.parametrize("backend", ["torchcodec", "pynvvideocodec", "deepstream"])
@pytest.mark.parametrize("kind", [RecoveryError, ValueError, AssertionError])
def test_only_opencv_recovers(backend: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="frame_recovery"):
        VideoBackend.load_bytes(clip(**CLIP), 2, backend=backend, frame_recovery=True)


def test_no_parts(torchcodec: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="no start, end"):
        VideoBackend.load_bytes(clip(**CLIP), 2, backend="torchcodec", start=1.0)


def test_options_of_another_decoder() -> None:
    """They are a mistake, and with 0.20 ignored as any other keyword."""
    with pytest.raises(InvalidArgumentError, match="no options device"):
        VideoBackend.load_bytes(clip(**CLIP), 2, device="cuda")


class SimpleDecoder:
    """Of PyNvVideoCodec, as far as it is called, by PyAV."""

    made: list["SimpleDecoder"] = []  # noqa: RUF012

    def __init__(self, path: str, **options: Any) -> None:
        self.options, self.batches, self.files = options, [], 0
        self.made.append(self)
        self.reconfigure_decoder(path)

    def reconfigure_decoder(self, path: str) -> None:
        assert path.endswith(".mp4")
        self.files += 1
        with av.open(path) as container:
            stream = container.streams.video[0]
            self.rate = float(stream.average_rate)
            self.frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]

    def get_stream_metadata(self) -> Any:
        height, width = self.frames[0].shape[:2]
        return SimpleNamespace(num_frames=len(self.frames), average_fps=self.rate, width=width, height=height)

    def get_batch_frames_by_index(self, indices: list[int]) -> list[Any]:
        self.batches.append(len(indices))
        return [torch.from_numpy(self.frames[index]) for index in indices]


class TestPyNvVideoCodec:
    @pytest.fixture(autouse=True)
    def package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("PyNvVideoCodec")
        module.SimpleDecoder = SimpleDecoder  # type: ignore[attr-defined]
        module.OutputColorType = SimpleNamespace(RGB="rgb")  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "PyNvVideoCodec", module)
        monkeypatch.setattr(SimpleDecoder, "made", [])
        monkeypatch.setattr(pynvvideocodec, "_pool", None)

    def test_frames(self) -> None:
        """By the loader of its name, in batches, with one decoder for one video after the other."""
        loader = VIDEO_LOADER_REGISTRY.load("pynvvideocodec")
        for _ in range(2):
            frames, metadata = loader.load_bytes(clip(**CLIP), 40, backend="opencv", max_width=128)
            assert isinstance(frames, np.ndarray)
            assert [read_number(frame) for frame in frames] == metadata["frames_indices"]
            assert metadata["video_backend"] == "pynvvideocodec"
        (decoder,) = SimpleDecoder.made
        assert (decoder.batches, decoder.files) == ([32, 8] * 2, 2)
        assert decoder.options["max_width"] == 128
        assert "max_height" not in decoder.options

    def test_one_size_of_the_pool(self) -> None:
        """A process has the decoders that it began with."""
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec", hw_decoders=3)
        with pytest.raises(PoolSizeError, match="has 3 already"):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec")
        with pytest.raises(RuntimeError):
            pynvvideocodec.pool_of(1)
        with pytest.raises(ValueError, match="hw_decoders=0"):
            pynvvideocodec.pool_of(0)

    def test_a_decoder_that_failed_is_not_used_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise RuntimeError("CUDA error")

        with monkeypatch.context() as patched:
            patched.setattr(SimpleDecoder, "get_batch_frames_by_index", fail)
            with pytest.raises(InvalidMediaError, match="CUDA error"):
                VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec", hw_decoders=1)
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec", hw_decoders=1)
        assert len(SimpleDecoder.made) == 2


def test_frames_of_as_many_pixels_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100")
    check_frame_pixel_limit(10, 10)
    with pytest.raises(ValueError, match="VLLM_MAX_IMAGE_PIXELS"):
        check_frame_pixel_limit(101, 1)


def test_decode_video_by_opencv() -> None:
    """The loader's own sampler, with keywords; options of another decoder are refused."""
    target = VideoTargetMetadata(3, -1, 300)
    frames, source, wanted, valid = decode_video("opencv", VideoBackend, clip(**CLIP), target, {}, {})
    assert [read_number(frame) for frame in frames] == wanted == valid == [0, 44, 89]
    assert source.total_frames_num == 90
    with pytest.raises(ValueError, match="no options device"):
        decode_video("opencv", VideoBackend, clip(**CLIP), target, {}, {"device": "cpu"})
