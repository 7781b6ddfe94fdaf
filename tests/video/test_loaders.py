"""The three loaders: real clips, scripted captures, strangers' subclasses."""

import json
import logging
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, UnknownExtensionError
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.video import (
    VIDEO_LOADER_REGISTRY,
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
    VideoLoader,
    VideoSourceMetadata,
    VideoTargetMetadata,
)
from mmmedia.video.decoders.bitstreams.h264_sets import is_progressive_h264
from support.captures import ScriptedCapture, numbers, read_plainly
from support.clips import clip, read_number

LOADERS = {
    "opencv": OpenCVVideoBackend,
    "opencv_dynamic": OpenCVDynamicVideoBackend,
    "molmo2": Molmo2VideoBackend,
}
KEYS = ["total_num_frames", "fps", "duration", "video_backend", "frames_indices", "do_sample_frames"]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The registry, of which the test's own entries are forgotten."""
    monkeypatch.setattr(VIDEO_LOADER_REGISTRY, "_classes", dict(VIDEO_LOADER_REGISTRY._classes))
    return VIDEO_LOADER_REGISTRY


def replace(monkeypatch: pytest.MonkeyPatch, capture: ScriptedCapture) -> ScriptedCapture:
    """Let whoever opens a capture get this one."""

    class Replacement(ScriptedCapture):
        def __new__(cls, *_: object) -> Any:
            return capture

    monkeypatch.setattr(cv2, "VideoCapture", Replacement)
    return capture


class TestRealClips:
    @pytest.mark.parametrize(
        ("name", "options", "indices"),
        [
            ("opencv", {}, range(60)),
            ("opencv", {"num_frames": 60}, range(60)),
            ("opencv", {"num_frames": 100}, range(60)),
            ("opencv", {"num_frames": 4}, [0, 19, 39, 59]),
            ("opencv", {"num_frames": 1}, [0]),
            ("opencv", {"num_frames": 0}, range(60)),
            ("opencv", {"num_frames": None, "fps": None, "max_duration": None}, range(60)),
            ("opencv", {"fps": 2}, [0, 19, 39, 59]),
            ("opencv", {"fps": 0.1}, [0]),
            ("opencv", {"num_frames": 3, "fps": 2, "max_duration": 1}, [0, 29, 59]),
            ("opencv", {"num_frames": 32, "fps": 2}, [0, 19, 39, 59]),
            ("opencv_dynamic", {}, [0, 13, 25, 38]),
            ("opencv_dynamic", {"num_frames": 1}, [0, 13, 25, 38]),
            ("opencv_dynamic", {"fps": None, "max_duration": None}, [0, 13, 25, 38]),
            ("opencv_dynamic", {"fps": 5, "max_duration": 1}, [0, 15, 30, 45, 59]),
            ("opencv_dynamic", {"fps": 1}, [0, 25]),
            ("opencv_dynamic", {"fps": 100, "max_duration": 1}, range(60)),
            ("opencv_dynamic", {"fps": 1e12}, range(60)),
            ("molmo2", {}, range(60)),
            ("molmo2", {"num_frames": 4}, range(60)),
            ("molmo2", {"num_frames": None}, range(60)),
            ("molmo2", {"num_frames": 4, "frame_sample_mode": "uniform_last_frame"}, [0, 19, 39, 59]),
            ("molmo2", {"num_frames": 9, "frame_sample_mode": "uniform_last_frame"}, [0, 12, 25, 38, 50, 59]),
            (
                "molmo2",
                {"num_frames": 2, "frame_sample_mode": "uniform_last_frame", "max_fps": None},
                [0, 59],
            ),
            ("molmo2", {"num_frames": 99, "frame_sample_mode": "fps", "sampling_fps": 5}, range(0, 60, 5)),
            ("molmo2", {"num_frames": 3, "frame_sample_mode": "fps", "sampling_fps": 5}, [0, 5, 10]),
        ],
    )
    def test_frames_and_metadata(self, name: str, options: dict[str, Any], indices: Any) -> None:
        """Those frames that the rule names, as OpenCV reads them, and exactly the metadata of the page."""
        data = clip()
        frames, metadata = LOADERS[name].load_bytes(data, **options)
        expected, said = read_plainly(data, set(indices))
        assert frames.dtype == np.uint8
        assert frames.shape == expected.shape
        assert frames.tobytes() == expected.tobytes()
        assert [read_number(frame) for frame in frames] == list(indices)
        assert metadata == {
            **said,
            "video_backend": "opencv_dynamic" if name == "opencv_dynamic" else "opencv",
            "frames_indices": list(indices),
            "do_sample_frames": len(indices) == 60,
        }
        assert (metadata["total_num_frames"], metadata["fps"], metadata["duration"]) == (60, 25.0, 2.4)

    @pytest.mark.parametrize("name", LOADERS)
    @pytest.mark.parametrize("backend", ["opencv", "pyav"])
    def test_metadata_are_plain(self, name: str, backend: str) -> None:
        """Python's own types, in this order of keys, so that the dict can be sent as JSON."""
        _, metadata = LOADERS[name].load_bytes(clip(), num_frames=8, backend=backend)
        assert list(metadata) == KEYS
        assert type(metadata) is dict
        assert [type(value) for value in metadata.values()] == [int, float, float, str, list, bool]
        assert {type(index) for index in metadata["frames_indices"]} == {int}
        assert json.loads(json.dumps(metadata)) == metadata

    @pytest.mark.parametrize("name", LOADERS)
    def test_unknown_keywords_are_ignored(self, name: str) -> None:
        """Engines pass one dict to all loaders."""
        extra = {"num_frames": 4, "sampling_fps": 2, "image_mode": "RGB", "whatever": object(), "max_fps": 2}
        plain = LOADERS[name].load_bytes(clip(), num_frames=4)
        other = LOADERS[name].load_bytes(clip(), **extra)
        assert plain[0].tobytes() == other[0].tobytes()
        assert plain[1] == other[1]

    def test_signatures(self) -> None:
        """Arguments that code in the wild gives by position mean what they meant."""
        data = clip()
        assert OpenCVVideoBackend.load_bytes(data, 3, -1, 300, True)[1]["frames_indices"] == [0, 29, 59]
        assert OpenCVDynamicVideoBackend.load_bytes(data, -1, 1, 300, False)[1]["frames_indices"] == [0, 25]
        by_position = Molmo2VideoBackend.load_bytes_opencv(data, "uniform_last_frame", 3, 2, 2)
        assert by_position[1]["frames_indices"] == [0, 29, 59]
        assert Molmo2VideoBackend.load_bytes(data, 3)[1]["frames_indices"] == list(range(60))
        assert OpenCVVideoBackend().load_bytes(data, num_frames=1)[0].shape == (1, 96, 128, 3)
        for loader in LOADERS.values():
            assert loader.get_cv2_video_api() == cv2.CAP_FFMPEG

    def test_molmo2_bad_modes(self) -> None:
        """An unknown mode is named; rates that don't fit the clip's 25 a second are a ValueError."""
        with pytest.raises(NotImplementedError, match="'sometimes'"):
            Molmo2VideoBackend.load_bytes(clip(), num_frames=4, frame_sample_mode="sometimes")
        with pytest.raises(ValueError, match="sampling_fps=2"):
            Molmo2VideoBackend.load_bytes(clip(), num_frames=4, frame_sample_mode="fps")
        with pytest.raises(ValueError, match="positive"):
            Molmo2VideoBackend.load_bytes(clip(), num_frames=4, frame_sample_mode="fps", sampling_fps=-1)

    @pytest.mark.parametrize("fps", [0, -1])
    def test_nothing_to_sample(self, fps: float) -> None:
        """A sampler that comes to nothing is a ValueError that says what the source is."""
        with pytest.raises(InvalidMediaError, match=r"Nothing to sample.*60 frames at 25\.0"):
            OpenCVDynamicVideoBackend.load_bytes(clip(), fps=fps)


# Every kind of stream here comes out of OpenCV's sequential reading; the loaders must give the very bytes.
STREAMS: dict[str, dict[str, Any]] = {
    "h264 mp4": {},
    "h264 mp4 fragmented": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264 open gop": {"options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}},
    "h264 intra refresh": {"options": {"x264-params": "intra-refresh=1"}},
    "h264 no b frames": {"bframes": 0},
    "h264 10 bit": {"pix_fmt": "yuv420p10le"},
    "h264 4:4:4": {"pix_fmt": "yuv444p"},
    "h264 odd size": {"width": 129, "height": 97, "pix_fmt": "yuv444p"},
    "h264 full range": {"pix_fmt": "yuvj420p"},
    "h264 with sound": {"audio": True},
    "h264 mkv": {"container": "matroska"},
    "h264 avi": {"container": "avi"},
    "h264 ts": {"container": "mpegts"},
    "h264 flv": {"container": "flv"},
    "hevc mp4": {"codec": "libx265"},
    "hevc mov": {"codec": "libx265", "container": "mov"},
    "vp8 webm": {"codec": "libvpx", "container": "webm"},
    "vp9 webm": {"codec": "libvpx-vp9", "container": "webm"},
    "mpeg4 avi": {"codec": "mpeg4", "container": "avi", "bframes": 2},
    "mpeg4 mp4": {"codec": "mpeg4"},
    "mpeg2 ps": {"codec": "mpeg2video", "container": "mpeg"},
    "mpeg2 ts": {"codec": "mpeg2video", "container": "mpegts"},
    "mjpeg mov": {"codec": "mjpeg", "container": "mov", "pix_fmt": "yuvj420p"},
    "ffv1 mkv": {"codec": "ffv1", "container": "matroska"},
    "gif": {"codec": "gif", "container": "gif", "pix_fmt": "rgb8"},
    "variable rate": {"timestamps": [n * n // 8 + n for n in range(40)], "time_base": Fraction(1, 100)},
    "late start": {"timestamps": [n + 50 for n in range(40)]},
    "one frame": {"frames": 1},
    "two videos": {"extra_video": (64, 64)},
}


class TestEquality:
    @pytest.mark.parametrize("kind", STREAMS)
    def test_sequential_reading_byte_for_byte(self, kind: str) -> None:
        """Sparse, dense and all: frames and metadata are those of plain reading, under every `decode`."""
        data = clip(**{"frames": 40, **STREAMS[kind]})
        every, said = read_plainly(data, range(2000))
        for count in (5, -1):
            for decode in ("auto", "sequential"):
                frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=count, decode=decode)
                if said["total_num_frames"] == len(every) and kind != "variable rate":
                    assert {key: metadata[key] for key in said} == said
                assert metadata["total_num_frames"] == len(every)
                assert frames.shape == (len(metadata["frames_indices"]), *every.shape[1:])
                for frame, index in zip(frames, metadata["frames_indices"], strict=True):
                    assert frame.tobytes() == every[index].tobytes(), (count, decode, index)

    def test_frame_recovery_of_an_intact_clip(self) -> None:
        """With nothing to recover the result is the same."""
        plain = OpenCVVideoBackend.load_bytes(clip(), num_frames=7)
        recovered = OpenCVVideoBackend.load_bytes(clip(), num_frames=7, frame_recovery=True)
        assert plain[0].tobytes() == recovered[0].tobytes()
        assert plain[1] == recovered[1]


class TestPyAV:
    @pytest.mark.parametrize("kind", [kind for kind in STREAMS if kind not in {"gif", "one frame"}])
    def test_nth_frame_in_display_order(self, kind: str) -> None:
        """Frames by exact index, whatever the stream is made of."""
        data = clip(**{"frames": 40, **STREAMS[kind]})
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=9, backend="pyav")
        expected = [0, 4, 9, 14, 19, 24, 29, 34, 39]
        assert metadata["frames_indices"] == expected
        assert [read_number(frame) for frame in frames] == expected
        assert metadata["total_num_frames"] == 40
        assert (metadata["video_backend"], metadata["do_sample_frames"]) == ("pyav", False)

    def test_other_loaders(self) -> None:
        """The other loaders sample the same frames through it, and say so."""
        frames, metadata = OpenCVDynamicVideoBackend.load_bytes(clip(), backend="pyav")
        assert metadata["video_backend"] == "pyav_dynamic"
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 13, 25, 38]
        frames, metadata = Molmo2VideoBackend.load_bytes(clip(), backend="pyav")
        assert metadata == {
            "total_num_frames": 60, "fps": 25.0, "duration": 2.4, "video_backend": "pyav",
            "frames_indices": list(range(60)), "do_sample_frames": True,
        }  # fmt: skip
        assert [read_number(frame) for frame in frames] == list(range(60))

    def test_unknown_backend(self) -> None:
        """Another name is a ValueError that lists the names there are."""
        for loader in LOADERS.values():
            with pytest.raises(InvalidArgumentError, match=r"'quicktime'.*opencv, pyav"):
                loader.load_bytes(clip(), backend="quicktime")

    def test_recovery_needs_opencv(self) -> None:
        """Recovery is a way of sequential reading."""
        for loader in LOADERS.values():
            with pytest.raises(InvalidArgumentError, match="frame_recovery"):
                loader.load_bytes(clip(), backend="pyav", frame_recovery=True)

    def test_explicit_opencv_is_the_default(self) -> None:
        """`backend="opencv"` and `None` are the contract."""
        plain = OpenCVVideoBackend.load_bytes(clip(), num_frames=3)
        for backend in ("opencv", None):
            frames, metadata = OpenCVVideoBackend.load_bytes(clip(), num_frames=3, backend=backend)
            assert frames.tobytes() == plain[0].tobytes()
            assert metadata == plain[1]

    def test_unknown_way_of_decoding(self) -> None:
        """So is another way of decoding."""
        with pytest.raises(InvalidArgumentError, match=r"'psychic'.*auto"):
            OpenCVVideoBackend.load_bytes(clip(), decode="psychic")


class TestScriptedReading:
    """`cv2.VideoCapture` is replaced; the bytes may be anything."""

    def test_reads_through_the_replacement(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every loader reads what the replacement gives, BGR turned to RGB."""
        for name, loader in LOADERS.items():
            replace(monkeypatch, ScriptedCapture(30))
            frames, metadata = loader.load_bytes(b"no video at all", num_frames=30)
            assert numbers(frames) == metadata["frames_indices"]
            every = range(0, 30, 5) if name == "opencv_dynamic" else range(30)
            assert metadata["frames_indices"] == list(every)
            assert (metadata["total_num_frames"], metadata["fps"], metadata["duration"]) == (30, 10.0, 3.0)

    def test_a_function_in_its_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A replacement need not be a class."""
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ScriptedCapture(4))
        assert numbers(OpenCVVideoBackend.load_bytes(b"x")[0]) == [0, 1, 2, 3]

    def test_not_openable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the capture does not open is told in these words."""
        replace(monkeypatch, ScriptedCapture(4, opened=False))
        for loader in LOADERS.values():
            with pytest.raises(ValueError, match="Could not open video stream"):
                loader.load_bytes(b"x")

    @pytest.mark.parametrize("how", ["grab_fails", "retrieve_fails"])
    def test_failures_are_left_out(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
    ) -> None:
        """A wanted frame that fails is logged and missing from frames and indices; later ones keep theirs."""
        replace(monkeypatch, ScriptedCapture(20, **{how: {0, 1, 10}}))  # type: ignore[arg-type]
        with caplog.at_level(logging.WARNING, "mmmedia"):
            frames, metadata = OpenCVVideoBackend.load_bytes(b"x", num_frames=5)
        assert metadata["frames_indices"] == [4, 9, 14, 19]
        assert numbers(frames) == [4, 9, 14, 19]
        assert not metadata["do_sample_frames"]
        assert "1 of 5" in caplog.text

    def test_stream_that_ends_early(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A header that claims more frames than come gives those that come."""
        replace(monkeypatch, ScriptedCapture(100, frames=40))
        frames, metadata = OpenCVVideoBackend.load_bytes(b"x", num_frames=5)
        assert metadata["frames_indices"] == numbers(frames) == [0, 24]
        assert metadata["total_num_frames"] == 100

    def test_missing_frames_make_it_sampled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`do_sample_frames` says whether all frames were returned, not whether all were asked for."""
        replace(monkeypatch, ScriptedCapture(8))
        assert OpenCVVideoBackend.load_bytes(b"x")[1]["do_sample_frames"] is True
        replace(monkeypatch, ScriptedCapture(8, grab_fails={3}))
        assert OpenCVVideoBackend.load_bytes(b"x")[1]["do_sample_frames"] is False
        replace(monkeypatch, ScriptedCapture(8, grab_fails={3}))
        assert Molmo2VideoBackend.load_bytes(b"x")[1]["do_sample_frames"] is False

    def test_reading_stops_at_the_last_wanted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is grabbed behind the last wanted frame, nothing retrieved that nobody wants."""
        capture = replace(monkeypatch, ScriptedCapture(100))
        OpenCVDynamicVideoBackend.load_bytes(b"x", fps=1)
        assert capture.retrieved == list(range(0, 100, 10))
        assert capture.grabs == 91

    @pytest.mark.parametrize("options", [{}, {"max_duration": None}, {"max_duration": None, "fps": None}])
    def test_five_minutes_by_default(self, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
        """Up to 300 seconds the number of samples grows, beyond it no longer."""
        for total, count in ((2900, 580), (30_000, 600)):
            replace(monkeypatch, ScriptedCapture(total))
            assert len(OpenCVDynamicVideoBackend.load_bytes(b"x", **options)[0]) == count

    def test_no_frame_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not one readable frame is a ValueError, with recovery as well."""
        for recovery in (False, True):
            replace(monkeypatch, ScriptedCapture(10, frames=0))
            with pytest.raises(InvalidMediaError, match="No frame could be read"):
                OpenCVVideoBackend.load_bytes(b"x", frame_recovery=recovery)

    @pytest.mark.parametrize("fps", [0.0, -5.0, float("nan"), float("inf")])
    def test_source_without_a_rate(self, monkeypatch: pytest.MonkeyPatch, fps: float) -> None:
        """Without a rate the duration is 0; what needs a rate says so, what does not works."""
        for loader, options in [
            (OpenCVVideoBackend, {"num_frames": 3}), (OpenCVVideoBackend, {"fps": 2}),
            (Molmo2VideoBackend, {}),
        ]:  # fmt: skip
            replace(monkeypatch, ScriptedCapture(10, fps=fps))
            frames, metadata = loader.load_bytes(b"x", **options)
            assert numbers(frames) == metadata["frames_indices"]
            assert metadata["duration"] == 0.0
        for loader, options in [
            (OpenCVDynamicVideoBackend, {}),
            (Molmo2VideoBackend, {"frame_sample_mode": "fps", "num_frames": 4}),
        ]:
            replace(monkeypatch, ScriptedCapture(10, fps=fps))
            with pytest.raises(ValueError, match=r"[Nn]othing|rate"):
                loader.load_bytes(b"x", **options)

    @pytest.mark.parametrize("total", [0, -1, -(2**31)])
    @pytest.mark.parametrize("name", LOADERS)
    @pytest.mark.parametrize("recovery", [False, True])
    def test_no_frames_claimed(
        self, monkeypatch: pytest.MonkeyPatch, name: str, total: int, recovery: bool
    ) -> None:
        """A source that claims no frames is a ValueError in every loader."""
        replace(monkeypatch, ScriptedCapture(total, frames=0))
        with pytest.raises(ValueError, match=r"frames"):
            LOADERS[name].load_bytes(b"x", frame_recovery=recovery)

    def test_resolution_changes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Frames that change their size midway are a ValueError that gives both sizes."""
        capture = replace(monkeypatch, ScriptedCapture(10))

        class Growing(ScriptedCapture):
            def retrieve(self) -> tuple[bool, Any]:
                self.size = (4, 6) if self.grabs < 6 else (8, 12)
                return super().retrieve()

        capture.__class__ = Growing
        with pytest.raises(InvalidMediaError, match=r"resolution.*6 x 4.*12 x 8"):
            OpenCVVideoBackend.load_bytes(b"x")


class TestScriptedRecovery:
    def load(
        self, monkeypatch: pytest.MonkeyPatch, capture: ScriptedCapture, **options: Any
    ) -> tuple[list[int], list[int]]:
        replace(monkeypatch, capture)
        frames, metadata = OpenCVVideoBackend.load_bytes(b"x", frame_recovery=True, **options)
        return numbers(frames), metadata["frames_indices"]

    @pytest.mark.parametrize("how", ["grab_fails", "retrieve_fails"])
    @pytest.mark.parametrize(
        ("fails", "expected"),
        [
            (set(), [0, 4, 9, 14, 19]),
            ({4}, [0, 5, 9, 14, 19]),
            ({4, 5, 6}, [0, 7, 9, 14, 19]),
            ({4, 5, 6, 7, 8}, [0, 9, 14, 19]),
            ({0}, [1, 4, 9, 14, 19]),
            ({19}, [0, 4, 9, 14]),
            ({4, 5, 6, 7, 8, 9}, [0, 10, 14, 19]),
            ({4, 9, 14}, [0, 5, 10, 15, 19]),
            (set(range(19)), [19]),
        ],
    )
    def test_next_readable_frame(
        self, monkeypatch: pytest.MonkeyPatch, how: str, fails: set[int], expected: list[int]
    ) -> None:
        """The next frame that can be read before the next wanted one takes its place, under its own index."""
        shown, indices = self.load(monkeypatch, ScriptedCapture(20, **{how: fails}), num_frames=5)  # type: ignore[arg-type]
        assert shown == indices == expected

    def test_last_wanted_frame_looks_to_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Behind the last wanted frame all that follow may stand in for it."""
        capture = ScriptedCapture(100, grab_fails={90, 91}, retrieve_fails={92})
        replace(monkeypatch, capture)
        frames, metadata = OpenCVDynamicVideoBackend.load_bytes(b"x", fps=1, frame_recovery=True)
        assert metadata["frames_indices"] == numbers(frames) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 93]
        assert capture.grabs == 94

    def test_other_loaders_recover(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Molmo2 passes the keyword on as well."""
        replace(monkeypatch, ScriptedCapture(20, retrieve_fails={0}))
        _, metadata = Molmo2VideoBackend.load_bytes(
            b"x", num_frames=2, frame_sample_mode="uniform_last_frame", frame_recovery=True
        )
        assert metadata["frames_indices"] == [1, 19]

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_against_the_rule_in_other_words(self, data: st.DataObject) -> None:
        """Each wanted frame gives the first readable one from itself up to before the next wanted."""
        total = data.draw(st.integers(1, 60))
        indices = st.integers(0, total - 1)
        wanted = data.draw(st.lists(indices, min_size=1, max_size=12))
        grab_fails, retrieve_fails = data.draw(st.sets(indices)), data.draw(st.sets(indices))
        targets = sorted(set(wanted))
        stand_ins: dict[int, int] = {}
        for target, following in zip(targets, [*targets[1:], total], strict=True):
            readable = (i for i in range(target, following) if i not in grab_fails | retrieve_fails)
            if (found := next(readable, None)) is not None:
                stand_ins[target] = found
        capture = ScriptedCapture(total, grab_fails=grab_fails, retrieve_fails=retrieve_fails)
        frames, valid, recovered = VideoLoader._read_frames_with_recovery(capture, wanted, total)
        assert valid == list(stand_ins.values())
        assert numbers(frames) == valid
        assert recovered == {target: found for target, found in stand_ins.items() if target != found}
        assert {type(i) for i in valid} <= {int}

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_plain_reading_against_the_rule(self, data: st.DataObject) -> None:
        """Without recovery: the wanted frames that can be read."""
        total = data.draw(st.integers(1, 60))
        indices = st.integers(0, total - 1)
        wanted = data.draw(st.sets(indices, min_size=1))
        fails = data.draw(st.sets(indices))
        capture = ScriptedCapture(total, grab_fails=fails)
        frames, count, valid = VideoLoader._read_frames(capture, wanted, len(wanted), max(wanted))
        assert valid == sorted(wanted - fails)
        assert count == len(valid) == len(frames)
        assert numbers(frames) == valid
        assert capture.grabs == max(wanted) + 1


class TestReadersByName:
    def test_read_frames(self) -> None:
        """Frames cut to those valid, their number, their indices."""
        frames, count, valid = OpenCVVideoBackend._read_frames(
            ScriptedCapture(10, retrieve_fails={5}), {1, 5, 7}, 3, 7
        )
        assert (numbers(frames), count, valid) == ([1, 7], 2, [1, 7])
        assert frames.shape == (2, 4, 6, 3)

    def test_read_frames_that_all_fail(self) -> None:
        """Nothing read is an empty array, of the frames' size."""
        frames, count, valid = OpenCVVideoBackend._read_frames(ScriptedCapture(10, frames=0), {1}, 1, 1)
        assert (frames.shape, count, valid) == ((0, 4, 6, 3), 0, [])

    def test_read_frames_with_recovery(self) -> None:
        """Frames, indices, and which stands in for which."""
        capture = ScriptedCapture(10, grab_fails={2}, retrieve_fails={6, 7})
        frames, valid, recovered = OpenCVVideoBackend._read_frames_with_recovery(capture, [2, 6, 9], 10)
        assert (numbers(frames), valid, recovered) == ([3, 8, 9], [3, 8, 9], {2: 3, 6: 8})

    @pytest.mark.parametrize(
        ("index", "failed", "expected"),
        [(5, [], False), (5, [4], True), (8, [4], True), (9, [4], False), (10, [4], False), (19, [9], True),
         (20, [9], False), (4, [4], False), (10, [4, 9], False), (5, [4, 9], True)],
    )  # fmt: skip
    def test_can_use_for_recovery(self, index: int, failed: list[int], expected: bool) -> None:
        """It may stand in for the oldest failure before the next wanted one; for the last, to the end."""
        following = {0: 4, 4: 9}
        assert OpenCVVideoBackend._can_use_for_recovery(index, failed, following, 20) is expected

    def test_any_object_like_a_capture(self) -> None:
        """They read no more of a capture than grab, retrieve and get."""

        class Bare:
            grab = ScriptedCapture.grab
            retrieve = ScriptedCapture.retrieve
            get = ScriptedCapture.get

        bare = Bare()
        bare.__dict__.update(ScriptedCapture(5).__dict__)
        assert numbers(Molmo2VideoBackend._read_frames(bare, {0, 4}, 2, 4)[0]) == [0, 4]


class TestStrangers:
    """Loaders of third parties, as engines register them."""

    def test_only_another_sampler(self, registry: Any) -> None:
        """A subclass that picks frames otherwise gets them read as before; extra keywords reach it."""
        seen: dict[str, Any] = {}

        @registry.register("every_tenth")
        class EveryTenth(OpenCVVideoBackend):
            @classmethod
            def compute_frames_index_to_sample(
                cls, source: VideoSourceMetadata, target: VideoTargetMetadata, **kwargs: Any
            ) -> list[int]:
                seen.update(kwargs, source=source, target=target)
                return list(range(0, source.total_frames_num, kwargs.get("every", 10)))

        frames, metadata = VideoMediaIO(
            ImageMediaIO(), num_frames=5, video_backend="every_tenth", every=20, fps=3
        ).load_bytes(clip())
        assert metadata["frames_indices"] == [read_number(frame) for frame in frames] == [0, 20, 40]
        assert metadata["video_backend"] == "opencv"
        assert seen["source"] == (60, 25.0, 2.4)
        assert seen["target"] == (5, 3, 300)
        assert isinstance(seen["source"], VideoSourceMetadata)
        assert isinstance(seen["target"], VideoTargetMetadata)

    def test_sampler_that_gives_numpy_and_disorder(self) -> None:
        """Indices of NumPy, unsorted, with duplicates: frames ascend, each once, indices are plain."""

        class Odd(OpenCVVideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> Any:
                return np.array([40, 3, 3, 17])

        for options in ({}, {"decode": "sequential"}, {"frame_recovery": True}, {"backend": "pyav"}):
            frames, metadata = Odd.load_bytes(clip(), **options)
            assert metadata["frames_indices"] == [read_number(frame) for frame in frames] == [3, 17, 40]
            assert {type(index) for index in metadata["frames_indices"]} == {int}
            json.dumps(metadata)

    def test_own_way_of_reading(self) -> None:
        """A subclass that reads otherwise is asked to, in every case, with a real capture."""

        class Inverted(OpenCVVideoBackend):
            @classmethod
            def _read_frames(
                cls, cap: Any, frame_indices: Any, num_expected_frames: int, max_frame_idx: int
            ) -> Any:
                assert isinstance(frame_indices, set)
                frames, count, valid = super()._read_frames(
                    cap, frame_indices, num_expected_frames, max_frame_idx
                )
                return 255 - frames, count, valid

        plain = OpenCVVideoBackend.load_bytes(clip(), num_frames=3)[0]
        assert (Inverted.load_bytes(clip(), num_frames=3)[0] == 255 - plain).all()

    @pytest.mark.parametrize("release", ["0.33", "0.20"])
    def test_own_word_of_what_a_video_is(self, monkeypatch: pytest.MonkeyPatch, release: str) -> None:
        """A subclass that has its own metadata, of the bytes or in 0.20 of a capture, is believed."""
        monkeypatch.setenv("MMMEDIA_COMPAT", release)
        seen = []

        class Unknown(OpenCVDynamicVideoBackend):
            @staticmethod
            def get_video_metadata(data: Any) -> VideoSourceMetadata:
                seen.append(type(data))
                return VideoSourceMetadata(30, 10.0, 0.0)

        frames, found = Unknown.load_bytes(clip())
        assert (
            found["frames_indices"] == [read_number(frame) for frame in frames] == [0, 5, 10, 15, 20, 25, 29]
        )
        assert (found["total_num_frames"], found["fps"], found["duration"]) == (30, 10.0, 4)
        assert set(seen) == {bytes if release == "0.33" else cv2.VideoCapture}

    def test_own_way_of_recovering(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A subclass that admits no replacement gets none."""

        class Strict(OpenCVVideoBackend):
            @staticmethod
            def _can_use_for_recovery(*_: object) -> bool:
                return False

        replace(monkeypatch, ScriptedCapture(20, grab_fails={4}))
        metadata = Strict.load_bytes(b"x", num_frames=5, frame_recovery=True)[1]
        assert metadata["frames_indices"] == [0, 9, 14, 19]

    def test_anything_may_be_returned(self, registry: Any) -> None:
        """A loader of its own gets the bytes and all keywords, and its answer is handed on as it is."""
        answer = object()
        calls: list[Any] = []

        @registry.register("mine")
        class Mine(VideoLoader):
            @classmethod
            def load_bytes(cls, data: bytes, num_frames: int = -1, **kwargs: Any) -> Any:
                calls.append((data, num_frames, kwargs))
                return answer

        loaded = VideoMediaIO(ImageMediaIO(), 7, video_backend="mine", a=1).load_bytes(b"abc")
        assert loaded.media is answer
        assert calls == [(b"abc", 7, {"a": 1})]
        with pytest.raises(NotImplementedError):
            Mine.compute_frames_index_to_sample(None, None)  # type: ignore[arg-type]

    def test_base_class_is_abstract(self) -> None:
        """A loader that can't load can't be made."""
        with pytest.raises(TypeError, match="abstract"):
            VideoLoader()  # type: ignore[abstract]

    def test_setting_names_the_loader(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The setting is read when the IO is made; the keyword wins; `None` is not given."""
        monkeypatch.setenv("VLLM_VIDEO_LOADER_BACKEND", "opencv_dynamic")
        assert isinstance(VideoMediaIO(ImageMediaIO()).video_loader, OpenCVDynamicVideoBackend)
        assert isinstance(
            VideoMediaIO(ImageMediaIO(), video_backend=None).video_loader, OpenCVDynamicVideoBackend
        )
        named = VideoMediaIO(ImageMediaIO(), video_backend="molmo2")
        assert isinstance(named.video_loader, Molmo2VideoBackend)
        assert "video_backend" not in named.kwargs
        monkeypatch.delenv("VLLM_VIDEO_LOADER_BACKEND")
        assert type(VideoMediaIO(ImageMediaIO()).video_loader) is OpenCVVideoBackend

    def test_unknown_loader(self) -> None:
        """A name nobody registered is an AssertionError that lists those there are."""
        with pytest.raises(UnknownExtensionError, match="opencv_dynamic"):
            VideoMediaIO(ImageMediaIO(), video_backend="nobody")


class TestVideoAPI:
    """Which backend of OpenCV is taken."""

    @pytest.fixture
    def backends(self, monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[bool, bool, tuple[int, int]]]:
        from cv2 import videoio_registry

        table: dict[int, tuple[bool, bool, tuple[int, int]]] = {}
        monkeypatch.setattr(videoio_registry, "getStreamBufferedBackends", lambda: list(table))
        monkeypatch.setattr(videoio_registry, "hasBackend", lambda number: table[number][0])
        monkeypatch.setattr(videoio_registry, "isBackendBuiltIn", lambda number: table[number][1])
        monkeypatch.setattr(
            videoio_registry, "getStreamBufferedBackendPluginVersion", lambda number: ("", *table[number][2])
        )
        return table

    def test_first_that_is_present_and_new_enough(self, backends: Any) -> None:
        """Absent ones and old plug-ins are passed over."""
        backends.update({1: (False, True, (0, 0)), 2: (True, False, (1, 1)), 3: (True, False, (0, 9)),
                         4: (True, False, (1, 2)), 5: (True, True, (0, 0))})  # fmt: skip
        assert OpenCVVideoBackend.get_cv2_video_api() == 4
        backends[1] = (True, True, (0, 0))
        assert Molmo2VideoBackend.get_cv2_video_api() == 1

    def test_none(self, backends: Any) -> None:
        """An OpenCV without one is told what to install."""
        with pytest.raises(Exception, match="install opencv-python-headless"):
            OpenCVVideoBackend.get_cv2_video_api()


class TestInterlaced:
    """OpenCV 4.14 hands out memory as it found it for interlaced frames; PyAV answers for it."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"options": {"x264-params": "tff=1"}},
            {"options": {"x264-params": "tff=1"}, "container": "matroska"},
            {"codec": "mpeg2video", "container": "mpegts", "options": {"flags": "+ilme+ildct"}},
        ],
        ids=["h264-mp4", "h264-mkv", "mpeg2-ts"],
    )
    def test_is_decoded_with_one_warning(
        self, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The right frames, the same in two loads, and one warning that says why."""
        data = clip(frames=12, **fields)
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=4)
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 3, 7, 11]
        assert [r.message for r in caplog.records if "interlaced" in r.message] != []
        again, _ = OpenCVVideoBackend.load_bytes(data, num_frames=4)
        assert (frames == again).all()

    @pytest.mark.parametrize("container", ["mp4", "mov", "matroska"])
    def test_progressive_needs_no_second_look(self, container: str) -> None:
        """What says in its configuration that it is progressive is not decoded twice."""
        assert is_progressive_h264(clip(container=container))
        assert not is_progressive_h264(clip(container=container, options={"x264-params": "tff=1"}))
        assert not is_progressive_h264(clip(container="mpegts"))
