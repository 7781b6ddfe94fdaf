"""Decoders of other packages, by stand-ins: what they are given, what is made of it, and what is refused."""

import io
import sys
import tempfile
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from mmmedia import gpu_ipc_memory
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    MissingPackageError,
    PoolSizeError,
    RecoveryError,
)
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.video import VIDEO_LOADER_REGISTRY, VideoBackend, VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video.codecs import deepstream, pynvvideocodec
from mmmedia.video.codecs.deepstream import DeepStreamVideoBackendMixin
from mmmedia.video.codecs.torchcodec import TorchCodecVideoBackendMixin
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
    for name in ("torchcodec", "PyNvVideoCodec", "nvidia", "nvidia.deepstream_videodecode"):
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
    with pytest.raises(InvalidArgumentError, match="device is not supported"):
        VideoBackend.load_bytes(clip(**CLIP), 2, device="cuda")


class SimpleDecoder:
    """Of PyNvVideoCodec, as far as it is called, by PyAV."""

    made: list["SimpleDecoder"] = []  # noqa: RUF012

    def __init__(self, path: str, **options: Any) -> None:
        self.options, self.batches, self.files, self.codec = options, [], 0, ""
        self.made.append(self)
        self.reconfigure_decoder(path)

    def reconfigure_decoder(self, path: str) -> None:
        assert path.endswith(".mp4")
        self.files += 1
        with av.open(path) as container:
            stream = container.streams.video[0]
            if self.codec not in ("", stream.codec_context.name):
                raise RuntimeError("another codec")
            self.codec = stream.codec_context.name
            self.rate = float(stream.average_rate)
            self.frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]

    def __len__(self) -> int:
        return len(self.frames)

    def stop(self) -> None:
        self.stopped = True

    def get_stream_metadata(self) -> Any:
        height, width = self.frames[0].shape[:2]
        return SimpleNamespace(average_fps=self.rate, width=width, height=height)

    def get_batch_frames_by_index(self, indices: list[int]) -> list[Any]:
        """As the package does it: what it does not have, or is asked for twice, is left out."""
        self.batches.append(len(indices))
        wanted = [index for index in dict.fromkeys(indices) if index < len(self.frames)]
        return [torch.from_numpy(self.frames[index]) for index in wanted]


def demuxer(path: str) -> Any:
    with av.open(path) as container:
        stream = container.streams.video[0]
        told = {
            "GetNvCodecId": stream.codec_context.name, "ChromaFormat": stream.format.name, "BitDepth": 8,
            "Width": stream.width, "Height": stream.height,
        }  # fmt: skip
    return SimpleNamespace(**{name: lambda value=value: value for name, value in told.items()})


class TestPyNvVideoCodec:
    caps: dict[str, Any]

    @pytest.fixture(autouse=True)
    def package(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self.log = caplog
        module: Any = ModuleType("PyNvVideoCodec")
        self.caps = {"supported": 1, "width_max": 4096, "height_max": 4096, "mb_num_max": 65536}
        module.SimpleDecoder = SimpleDecoder
        module.CreateDemuxer = demuxer
        module.GetDecoderCaps = lambda gpu, codec, chroma, depth: self.caps
        module.OutputColorType = SimpleNamespace(RGB="rgb")
        monkeypatch.setitem(sys.modules, "PyNvVideoCodec", module)
        monkeypatch.setattr(SimpleDecoder, "made", [])
        monkeypatch.setattr(pynvvideocodec, "_pynv_decoder_pool", pynvvideocodec._PyNvDecoderPool())

    def test_frames(self) -> None:
        """By the loader of its name, in batches, with one decoder for one video after the other."""
        loader = VIDEO_LOADER_REGISTRY.load("pynvvideocodec")
        for _ in range(2):
            frames, metadata = loader.load_bytes(
                clip(**CLIP), 40, backend="opencv", max_width=128, max_height=96
            )
            assert isinstance(frames, np.ndarray)
            assert [read_number(frame) for frame in frames] == metadata["frames_indices"]
            assert metadata["video_backend"] == "pynvvideocodec"
        (decoder,) = SimpleDecoder.made
        assert (decoder.batches, decoder.files) == ([32, 8] * 2, 2)
        assert (decoder.options["max_width"], decoder.options["max_height"]) == (128, 96)
        assert decoder.options["decoder_cache_size"] == 2

    def test_another_codec_or_a_larger_frame_takes_another_decoder(self) -> None:
        for options in ({}, {"width": 64}, {"width": 128}, {"width": 128, "codec": "mpeg4"}):
            VideoBackend.load_bytes(
                clip(**{**CLIP, **options}),
                1,
                backend="pynvvideocodec",
                hw_decoders=1,  # type: ignore[arg-type]
            )
        assert [decoder.files for decoder in SimpleDecoder.made] == [2, 2, 1]

    def test_repeated_frames_and_those_that_are_not_there(self) -> None:
        """The package leaves them out; of the former, as with torchcodec, each comes."""

        class Odd(VideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
                return [7, 3, 7, 900]

        target = VideoTargetMetadata(-1, -1, 300)
        frames, _, wanted, valid = decode_video("pynvvideocodec", Odd, clip(**CLIP), target, {}, {})
        assert [read_number(frame) for frame in frames] == valid == [7, 3, 7]
        assert wanted == [7, 3, 7, 900]

    @pytest.mark.parametrize(
        ("caps", "match"),
        [
            ({"width_max": 95}, "width_max is 95"),
            ({"height_max": 63}, "height_max"),
            ({"mb_num_max": 23}, "mb_num_max"),
            ({"width_min": 97}, "no frames of 96 x 64"),
            ({"height_min": 65}, "no frames of 96 x 64"),
            ({"supported": 0}, "codec"),
        ],
    )
    def test_what_the_gpu_can_not(self, caps: dict[str, int], match: str) -> None:
        """Is said before a decoder is made; what it can just so, is decoded."""
        self.caps |= caps
        with pytest.raises(InvalidMediaError, match=r"^Invalid or unsupported video file\.$"):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec")
        assert match in self.log.text
        assert not SimpleDecoder.made
        self.caps = {"width_max": 96, "height_max": 64, "width_min": 96, "height_min": 64, "mb_num_max": 24}
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec")

    def test_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a frame, and of GPU memory, before any frame is decoded."""
        with monkeypatch.context() as patched:
            patched.setenv("VLLM_MAX_IMAGE_PIXELS", str(96 * 64 - 1))
            with pytest.raises(LimitExceededError, match="VLLM_MAX_IMAGE_PIXELS"):
                VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec")
        pool = gpu_ipc_memory.MultiModalGPUMemoryPool(96 * 64 * 3 * 2)
        monkeypatch.setattr(gpu_ipc_memory, "_pool", pool)
        VideoBackend.load_bytes(clip(**CLIP), 2, backend="pynvvideocodec")
        assert pool.available_bytes == pool.total_bytes
        with pytest.raises(LimitExceededError, match="--mm-ipc-gpu-memory-gb"):
            VideoBackend.load_bytes(clip(**CLIP), 3, backend="pynvvideocodec")
        assert [decoder.batches for decoder in SimpleDecoder.made] == [[2]]

    def test_only_media_reach_it(self) -> None:
        """Its demuxer opens whatever it is given, other files by their names as well."""
        with pytest.raises(InvalidMediaError):
            VideoBackend.load_bytes(b"ffconcat version 1.0", 1, backend="pynvvideocodec")
        assert "concat" in self.log.text

    def test_room_for_a_turned_video(self) -> None:
        """Unless the GPU has no room for a square of its longer side; as is told, up to what it has."""
        mixin, nvc = pynvvideocodec.PyNvVideoCodecVideoBackendMixin, sys.modules["PyNvVideoCodec"]
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(clip(**CLIP))
            file.flush()
            assert mixin._validate_decoder_caps(file.name, nvc) == (96, 96)
            self.caps["mb_num_max"] = 35
            assert mixin._validate_decoder_caps(file.name, nvc) == (96, 64)
            assert mixin._validate_decoder_caps(file.name, nvc, 8192, 128) == (4096, 128)
            with pytest.raises(InvalidMediaError):
                mixin._validate_decoder_caps(file.name, nvc, 95, 64)

    @pytest.mark.parametrize("shape", [(5, 6, 3), (3, 5, 6)])
    def test_planes_become_pixels(self, shape: tuple[int, int, int]) -> None:
        frames = [torch.zeros(shape, dtype=torch.uint8) for _ in range(2)]
        assert pynvvideocodec._pynvvc_frames_to_nhwc(frames).shape == (2, 5, 6, 3)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"hw_decoders": True}, "hw_decoders must be"),
            ({"hw_decoders": 2.0}, "hw_decoders must be"),
            ({"max_width": 100}, "set together"),
            ({"max_height": 100}, "set together"),
            ({"max_width": 0, "max_height": 100}, "max_width must be"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], match: str) -> None:
        with pytest.raises(InvalidArgumentError, match=match):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec", **options)
        assert pynvvideocodec._pynv_decoder_pool.max_slots is None

    def test_one_size_of_the_pool(self) -> None:
        """A process has the decoders that it began with."""
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec", hw_decoders=3)
        with pytest.raises(PoolSizeError, match="as 3, got 2"):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec")
        with pytest.raises(RuntimeError):
            pynvvideocodec.PyNvVideoCodecVideoBackendMixin._configure_decoder_slots(1)

    @pytest.mark.parametrize("of_the_file", [True, False])
    def test_a_decoder_that_failed_is_not_used_again(
        self, monkeypatch: pytest.MonkeyPatch, of_the_file: bool
    ) -> None:
        """The package's own errors are of the file, others of the GPU."""
        kind = type("PyNvVCExceptionUnsupported", (Exception,), {}) if of_the_file else RuntimeError
        if of_the_file:
            monkeypatch.setattr(sys.modules["PyNvVideoCodec"], kind.__name__, kind, raising=False)

        def fail(*_: object) -> None:
            raise kind("4:4:4")

        with monkeypatch.context() as patched:
            patched.setattr(SimpleDecoder, "get_batch_frames_by_index", fail)
            with pytest.raises(InvalidMediaError if of_the_file else RuntimeError) as caught:
                VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec", hw_decoders=1)
            assert ("4:4:4" in str(caught.value)) != ("4:4:4" in self.log.text) == of_the_file
            assert caught.value.__context__ is None  # it may hold on to a decoder
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="pynvvideocodec", hw_decoders=1)
        assert [hasattr(decoder, "stopped") for decoder in SimpleDecoder.made] == [True, False]


class DecodePool:
    """Of DeepStream, as far as it is called, by PyAV."""

    made: list["DecodePool"] = []  # noqa: RUF012
    error = ""
    lost = 0

    def __init__(self, num_workers: int = 8) -> None:
        self.workers, self.asked = num_workers, dict[str, Any]()
        self.made.append(self)

    def decode(self, data: bytes, *, target_indices: list[int], **options: Any) -> Any:
        self.asked = options
        with av.open(io.BytesIO(data)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        kept = [frames[index] for index in target_indices][: len(target_indices) - self.lost]
        found = None if self.error else torch.from_numpy(np.stack(kept))
        return SimpleNamespace(frames=found, error=self.error)


def probe(data: bytes) -> tuple[Any, ...]:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        return stream.frames, 25.0, stream.frames / 25, stream.width, stream.height, "h264"


class TestDeepStream:
    @pytest.fixture(autouse=True)
    def package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nvidia, module = ModuleType("nvidia"), ModuleType("nvidia.deepstream_videodecode")
        module.DecodePool, module.probe_metadata = DecodePool, probe  # type: ignore[attr-defined]
        nvidia.deepstream_videodecode = module  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "nvidia", nvidia)
        monkeypatch.setitem(sys.modules, "nvidia.deepstream_videodecode", module)
        monkeypatch.setattr(DecodePool, "made", [])
        monkeypatch.setattr(deepstream, "_pool", None)

    def test_frames(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With one pool of as many pipelines as there are threads that decode."""
        monkeypatch.setenv("VLLM_MEDIA_LOADING_THREAD_COUNT", "5")
        for count in (3, 4):
            frames, metadata = VideoBackend.load_bytes(clip(**CLIP), count, backend="deepstream")
            assert isinstance(frames, np.ndarray)
            assert [read_number(frame) for frame in frames] == metadata["frames_indices"]
        assert (metadata["video_backend"], metadata["total_num_frames"]) == ("deepstream", 90)
        (pool,) = DecodePool.made
        assert pool.workers == 5
        assert pool.asked == {"codec": "h264", "max_frames": 4, "timeout_sec": 120.0}

    @pytest.mark.parametrize(("threads", "workers"), [("64", 16), ("1", 1)])
    def test_at_most_sixteen(self, threads: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_MEDIA_LOADING_THREAD_COUNT", threads)
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream")
        assert DecodePool.made[0].workers == workers

    @pytest.mark.parametrize(
        "options", [{"pool_size": 17}, {"pool_size": 0}, {"pool_size": True}, {"timeout_sec": 0}]
    )
    def test_bad_options(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream", **options)

    def test_one_size_of_the_pool(self) -> None:
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream", pool_size=2)
        VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream")
        with pytest.raises(PoolSizeError, match="has 2 already"):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream", pool_size=3)

    def test_frames_that_do_not_come(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that do are taken for the first that are wanted; none at all is an error, in its words."""
        monkeypatch.setattr(DecodePool, "lost", 1)
        frames, metadata = VideoBackend.load_bytes(clip(**CLIP), 3, backend="deepstream")
        assert len(frames) == len(metadata["frames_indices"]) == 2
        monkeypatch.setattr(DecodePool, "error", "timed out")
        with pytest.raises(InvalidMediaError, match="timed out"):
            VideoBackend.load_bytes(clip(**CLIP), 3, backend="deepstream")

    def test_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", str(96 * 64 - 1))
        with pytest.raises(LimitExceededError, match="VLLM_MAX_IMAGE_PIXELS"):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream")

    def test_step_by_step(self) -> None:
        """For loaders of third parties."""
        source = VideoSourceMetadata(90, 25.0, 3.6)
        mixin = DeepStreamVideoBackendMixin
        frames, valid = mixin.decode_indices(clip(**CLIP), [9, 4, 9], source, pool_size=1, timeout_sec=3)
        assert [read_number(frame) for frame in frames] == valid == [4, 9]
        with pytest.raises(InvalidArgumentError, match="timeout_sec"):
            mixin.decode_indices(clip(**CLIP), [9], source, timeout_sec=0)

    def test_nothing_wanted(self) -> None:
        target = VideoTargetMetadata(-1, -1, 300)

        class Nothing(VideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
                return []

        with pytest.raises(InvalidMediaError, match="Nothing to sample"):
            decode_video("deepstream", Nothing, clip(**CLIP), target, {}, {})

    def test_its_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("no element nvdec")

        with monkeypatch.context() as patched:
            patched.setattr(DecodePool, "decode", fail)
            with pytest.raises(InvalidMediaError, match="no element nvdec"):
                VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream")

        monkeypatch.setattr(sys.modules["nvidia.deepstream_videodecode"], "probe_metadata", fail)
        with pytest.raises(InvalidMediaError, match="no element nvdec"):
            VideoBackend.load_bytes(clip(**CLIP), 1, backend="deepstream")


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("opencv", {}),
        ("torchcodec", {"num_ffmpeg_threads": 2, "seek_mode": "approximate", "device": "cpu"}),
        ("pynvvideocodec", {"hw_decoders": 1, "max_width": 96, "max_height": 64}),
        ("deepstream", {"pool_size": 2, "timeout_sec": 3.0}),
    ],
)
def test_a_decoder_by_its_function(
    backend: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a function in a module of its name, that takes its options as keywords."""
    asked: list[Any] = []

    def decode(*args: object, **kwargs: object) -> str:
        asked.append((args, kwargs))
        return "decoded"

    module = import_module(f"mmmedia.video_decoders.{backend}")
    monkeypatch.setattr(module, "decode_with", decode)
    target = VideoTargetMetadata(3, -1, 300)
    assert getattr(module, f"decode_{backend}")(VideoBackend, b"", target, {}, **options) == "decoded"
    ((args, kwargs),) = asked
    assert args == (backend, VideoBackend, b"", target, {}, options)
    assert kwargs == ({"recovery": False} if backend == "opencv" else {})


def test_torchcodec_step_by_step(torchcodec: type[torch_codecs.VideoDecoder]) -> None:
    """For loaders of third parties."""
    mixin = TorchCodecVideoBackendMixin
    decoder = mixin.make_torchcodec_decoder(clip(**CLIP), num_ffmpeg_threads=1)
    assert decoder.options == {
        "dimension_order": "NHWC", "num_ffmpeg_threads": 1, "seek_mode": "exact", "device": "cpu",
    }  # fmt: skip
    assert mixin.get_torchcodec_metadata(decoder) == VideoSourceMetadata(90, 25.0, 3.6)
    frames, valid = mixin.decode_torchcodec_frames(decoder, [4, 4])
    assert [read_number(frame) for frame in frames.numpy()] == valid == [4, 4]
    with pytest.raises(InvalidArgumentError, match="tpu"):
        mixin.make_torchcodec_decoder(clip(**CLIP), device="tpu")


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
    with pytest.raises(ValueError, match="device is not supported"):
        decode_video("opencv", VideoBackend, clip(**CLIP), target, {}, {"device": "cpu"})
