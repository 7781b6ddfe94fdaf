"""The fast path as a whole: what it gives, when it gives up, and what it leaves behind."""

import gc
import inspect
import logging
import os
import signal
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmmedia import containers
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, NotSeekableError
from mmmedia.video import (
    VIDEO_LOADER_REGISTRY,
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
    decode_stats,
    read_frames,
)
from mmmedia.video.decoders import eligible, opencv, plan, sparse
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.shown import shown_frames
from mmmedia.video.decoders.upright import Upright
from mmmedia.work import jobs
from support import corpus
from support.captures import ScriptedCapture, read_plainly
from support.clips import clip, read_number

CLIP: dict[str, Any] = {"frames": 90, "width": 96, "height": 64, "gop": 15}
LOADERS: dict[str, Any] = {
    "opencv": OpenCVVideoBackend,
    "opencv_dynamic": OpenCVDynamicVideoBackend,
    "molmo2": Molmo2VideoBackend,
}


@pytest.fixture
def long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short clips are treated as long ones: worth an excerpt."""
    monkeypatch.setattr(plan, "_SHORT", 0)


@pytest.fixture
def counted() -> Iterator[Callable[[], Any]]:
    """What the counters have gained since."""
    before = decode_stats()

    def gained() -> Any:
        after = decode_stats()
        paths = Counter(after.paths) - Counter(before.paths)
        reasons = Counter(after.reasons) - Counter(before.reasons)
        wanted = after.frames_wanted - before.frames_wanted
        return dict(paths), dict(reasons), wanted, after.frames_decoded - before.frames_decoded

    return gained


def ready(data: bytes, wanted: list[int]) -> Callable[[], tuple[np.ndarray, int]]:
    """What decodes some frames of an intact file by excerpts."""
    admitted = containers.admit(data)
    packets, template = index.build_open(admitted)
    packets, structure, positions = eligible.judge(packets, shown_frames(packets))
    made = sparse.make_plan(packets, structure, positions[wanted])
    return lambda: sparse.execute(made, template, (packets.height, packets.width), Upright())


@pytest.mark.usefixtures("long_enough")
class TestLoaders:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("opencv", {"num_frames": 6}),
            ("opencv", {"num_frames": 1}),
            ("opencv", {"fps": 3}),
            ("opencv", {"num_frames": 6, "frame_recovery": True}),
            ("opencv", {}),
            ("opencv_dynamic", {}),
            ("opencv_dynamic", {"fps": 3, "max_duration": 1}),
            ("opencv_dynamic", {"frame_recovery": True}),
            ("molmo2", {}),
            ("molmo2", {"frame_sample_mode": "uniform_last_frame", "num_frames": 5}),
            ("molmo2", {"frame_sample_mode": "fps", "num_frames": 5, "sampling_fps": 5}),
            ("molmo2", {"frame_sample_mode": "uniform_last_frame", "num_frames": 5, "frame_recovery": True}),
        ],
    )
    def test_same_as_sequential(self, name: str, options: dict[str, Any], counted: Any) -> None:
        """All three loaders by seeking: every byte and every value of the metadata as in one pass."""
        data = clip(**CLIP)
        frames, metadata = LOADERS[name].load_bytes(data, decode="seek", **options)
        expected, expected_metadata = LOADERS[name].load_bytes(data, decode="sequential", **options)
        plainly, _ = read_plainly(data, set(metadata["frames_indices"]))
        assert frames.dtype == np.uint8
        assert frames.shape == expected.shape
        assert frames.tobytes() == expected.tobytes() == plainly.tobytes()
        assert metadata == expected_metadata
        assert {type(number) for number in metadata["frames_indices"]} == {int}
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"]
        paths, reasons, wanted, decoded = counted()
        assert (paths, reasons) == ({"seek": 1, "sequential": 1}, {"by request": 1})
        assert decoded >= wanted == len(frames)

    def test_order_counts_that_meet_at_a_splice(self) -> None:
        """HEVC counts pictures modulo 256: one that is spliced in may bear the count of one before it."""
        open_groups = corpus.x265("open-gop=1:keyint=60:min-keyint=60:scenecut=0:bframes=3:b-adapt=0")
        data = clip(frames=560, width=64, height=48, codec="libx265", **open_groups)
        for step in (37, 52, 64, 85):
            expected, _ = OpenCVVideoBackend.load_bytes(data, num_frames=560 // step, decode="sequential")
            frames, _ = OpenCVVideoBackend.load_bytes(data, num_frames=560 // step, decode="seek")
            assert np.array_equal(frames, expected)

    def test_far_less_is_decoded(self, counted: Any) -> None:
        """Four frames of ninety, each the first of its group."""
        OpenCVVideoBackend.load_bytes(clip(**CLIP, bframes=0), num_frames=-1, fps=1, decode="seek")
        _, _, wanted, decoded = counted()
        assert wanted == 3
        assert decoded <= 1 + 15 + 15

    def test_what_is_soon_and_what_is_cheap_are_two_things(
        self, counted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of sixteen workers three would have work: one pass is sooner done by all, the parts cost less."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "16")
        data = clip(**CLIP, bframes=0)
        frames = {}
        for purpose, path in (("latency", "sequential"), ("throughput", "seek")):
            monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_FOR", purpose)
            before, _, _, _ = counted()
            frames[purpose], _, _ = read_frames(data, [14, 44, 74])
            after, _, _, _ = counted()
            assert {name for name, count in after.items() if count > before.get(name, 0)} == {path}
        assert np.array_equal(frames["latency"], frames["throughput"])

    def test_frames_past_the_end_are_left_out(self) -> None:
        """As one pass leaves them out; and the frames are the caller's to write to."""

        class Beyond(OpenCVVideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
                return [5, 89, 90, 1000]

        frames, metadata = Beyond.load_bytes(clip(**CLIP), decode="seek")
        assert metadata["frames_indices"] == [5, 89]
        assert metadata == Beyond.load_bytes(clip(**CLIP), decode="sequential")[1]
        assert frames.flags.writeable
        assert frames.flags.c_contiguous

    def test_a_strangers_sampler(self, counted: Any) -> None:
        """Who overrides the sampler alone is served by seeking, NumPy's integers and all."""

        class EveryTenth(OpenCVVideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> Any:
                return np.arange(0, source.total_frames_num, 40)

        frames, metadata = EveryTenth.load_bytes(clip(**CLIP))
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 40, 80]
        assert counted()[0] == {"seek": 1}

    @pytest.mark.parametrize("name", ["_read_frames", "_read_frames_with_recovery", "_can_use_for_recovery"])
    def test_a_strangers_way_of_reading(self, name: str, counted: Any) -> None:
        """Who overrides how frames are read is read that way; "seek" says that it can't."""
        theirs = inspect.getattr_static(OpenCVVideoBackend, name).__func__

        def copied(*args: Any, **kwargs: Any) -> Any:
            return theirs(*args, **kwargs)

        kind = staticmethod if name == "_can_use_for_recovery" else classmethod
        own = type("Own", (OpenCVVideoBackend,), {name: kind(copied)})
        own.load_bytes(clip(**CLIP), num_frames=2)
        assert counted()[0] == {"sequential": 1}
        with pytest.raises(InvalidArgumentError, match="way of its own"):
            own.load_bytes(clip(**CLIP), num_frames=2, decode="seek")

    def test_a_capture_that_was_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who replaces `cv2.VideoCapture` is read through the replacement."""
        capture = ScriptedCapture(30)

        class Replacement(ScriptedCapture):
            def __new__(cls, *_: object) -> Any:
                return capture

        monkeypatch.setattr(cv2, "VideoCapture", Replacement)
        _, metadata = OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=2)
        assert metadata["total_num_frames"] == 30
        assert capture.grabs == 30

    def test_registered_names_seek(self, counted: Any) -> None:
        """The loaders as engines get them, by name."""
        for name in LOADERS:
            VIDEO_LOADER_REGISTRY.load(name).load_bytes(
                clip(**CLIP), num_frames=3, fps=1, frame_sample_mode="uniform_last_frame", max_fps=1
            )
        assert counted()[0] == {"seek": 3}


class TestModes:
    def test_keyword_and_setting(
        self, long_enough: None, monkeypatch: pytest.MonkeyPatch, counted: Any
    ) -> None:
        """The keyword wins over the setting, `MMMEDIA_` over `VLLM_`; "auto" is the default."""
        data = clip(**CLIP)

        def way(**options: Any) -> str:
            before = decode_stats().paths.get("seek", 0)
            OpenCVVideoBackend.load_bytes(data, num_frames=2, **options)
            return "seek" if decode_stats().paths.get("seek", 0) > before else "sequential"

        assert way() == "seek"
        assert way(decode="auto") == "seek"
        assert way(decode="sequential") == "sequential"
        monkeypatch.setenv("VLLM_VIDEO_DECODE", "sequential")
        assert way() == "sequential"
        assert way(decode="seek") == "seek"
        assert way(decode="auto") == "seek"
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE", "seek")
        assert way() == "seek"
        assert way(decode="sequential") == "sequential"

    def test_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another mode is named with those that there are, from either place."""
        with pytest.raises(ValueError, match=r"decode='fast'.*auto, sequential, seek"):
            OpenCVVideoBackend.load_bytes(clip(**CLIP), decode="fast")
        monkeypatch.setenv("VLLM_VIDEO_DECODE", "fast")
        with pytest.raises(ValueError, match="VLLM_VIDEO_DECODE"):
            OpenCVVideoBackend.load_bytes(clip(**CLIP))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (lambda: clip(**CLIP, codec="wmv2", container="asf"), "codec"),
            (
                lambda: corpus.remux([clip(**CLIP, bframes=0)], "matroska", corpus.without({40})),
                "damaged or unusual headers",
            ),
            (lambda: clip(**CLIP, **corpus.x264("tff=1")), "interlaced"),
        ],
        ids=lambda value: value if isinstance(value, str) else "clip",
    )
    def test_what_can_not_be_proven(
        self, long_enough: None, data: Any, reason: str, counted: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """ "auto" reads sequentially and counts why; "seek" raises and says why."""
        with pytest.raises(NotSeekableError, match=rf"{reason}\.$"):
            OpenCVVideoBackend.load_bytes(data(), num_frames=3, decode="seek")
        with pytest.raises(ValueError):
            OpenCVVideoBackend.load_bytes(data(), num_frames=3, decode="seek")
        with caplog.at_level(logging.DEBUG, "mmmedia"):
            frames, _ = OpenCVVideoBackend.load_bytes(data(), num_frames=3)
        assert len(frames) >= 2
        assert counted()[:2] == ({"sequential": 1}, {reason: 1})
        assert f"({reason})" in caplog.text

    def test_short_and_dense_requests_do_not_pay(self, monkeypatch: pytest.MonkeyPatch, counted: Any) -> None:
        """A clip of a few seconds, and most frames of any clip: one pass by OpenCV."""
        OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=3)
        monkeypatch.setattr(plan, "_SHORT", 0)
        OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=80)
        OpenCVVideoBackend.load_bytes(clip(**{**CLIP, "gop": 250}), num_frames=40)
        assert counted()[:2] == ({"sequential": 3}, {"does not pay": 3})

    def test_no_such_frames(self, long_enough: None) -> None:
        """Indices that are all past the end: there is nothing to seek to."""

        class Beyond(OpenCVVideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
                return [1000]

        with pytest.raises(NotSeekableError, match="no such frames"):
            Beyond.load_bytes(clip(**CLIP), decode="seek")

    def test_the_path_shows_in_the_log(self, long_enough: None, caplog: pytest.LogCaptureFixture) -> None:
        """At debug level, and not in the metadata."""
        with caplog.at_level(logging.DEBUG, "mmmedia"):
            _, metadata = OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=3)
        assert "Decoded by excerpts" in caplog.text
        assert "decode" not in metadata


class TestProof:
    """Each thing that may be wrong with what OpenCV gives is seen."""

    def tamper(self, monkeypatch: pytest.MonkeyPatch, **changes: Callable[..., Any]) -> None:
        """Let methods of captures of clips be changed: each gets what it would return, and its arguments."""
        real = opencv.open_capture

        def open_capture(*arguments: Any, threads: int = 0, **options: Any) -> Any:
            capture = real(*arguments, threads=threads, **options)
            if not threads:  # the file itself
                return capture

            class Proxy:
                def __getattr__(self, name: str) -> Any:
                    method = getattr(capture, name)
                    return (lambda *a: changes[name](method(*a), *a)) if name in changes else method

            return Proxy()

        monkeypatch.setattr(opencv, "open_capture", open_capture)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"grab": lambda result: False}, "frame missing"),
            ({"get": lambda value, prop: value + 40}, "decoded otherwise than expected"),
            ({"get": lambda value, prop: 0.0}, "decoded otherwise than expected"),
            ({"retrieve": lambda result, *_: (False, result[1])}, "frame missing"),
            ({"retrieve": lambda result, *_: (True, result[1][:, 2:])}, "frames change midway"),
        ],
        ids=lambda value: value if isinstance(value, str) else next(iter(value)),
    )
    def test_of_a_clip(
        self, long_enough: None, monkeypatch: pytest.MonkeyPatch, changes: Any, reason: str, counted: Any
    ) -> None:
        """A frame that is not as it must be sends the whole request to the reference."""
        expected, metadata = OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=5, decode="sequential")
        self.tamper(monkeypatch, **changes)
        with pytest.raises(NotSeekableError, match=reason):
            OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=5, decode="seek")
        frames, same = OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=5)
        assert frames.tobytes() == expected.tobytes()
        assert same == metadata
        assert counted()[1] == {"by request": 1, reason: 1}

    def test_a_clip_that_can_not_be_opened(self, long_enough: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """An OpenCV without the codec."""

        def refuse_clips(real: Any, *arguments: Any, threads: int = 0, **options: Any) -> Any:
            if threads:
                raise InvalidMediaError("no such decoder")
            return real(*arguments, **options)

        monkeypatch.setattr(opencv, "open_capture", partial(refuse_clips, opencv.open_capture))
        with pytest.raises(NotSeekableError, match="decoder error"):
            OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=5, decode="seek")

    def test_a_packet_that_is_damaged(self) -> None:
        """A frame that does not come out leaves the answer to the reference."""
        data = bytearray(clip(**CLIP, codec="libvpx-vp9", container="matroska"))
        packets = index.build(bytes(data))
        at = int(packets.offset[30]) + 1
        data[at : at + 400] = bytes(400)
        with pytest.raises(NotSeekableError):
            OpenCVVideoBackend.load_bytes(bytes(data), num_frames=90, decode="seek")


class TestWhatIsLeftBehind:
    def test_no_thread(self) -> None:
        """Workers end with the work."""
        for _ in range(5):
            ready(clip(**CLIP), [0, 20, 40, 60])()
        end = time.monotonic() + 30
        while any(thread.name == "mmmedia-decode" for thread in threading.enumerate()):
            assert time.monotonic() < end
            time.sleep(0.001)

    @pytest.mark.parametrize("fails", [False, True])
    def test_no_more_clips_than_workers(self, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
        """Several spans share a clip, and captures go with the request, failed or not."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "2")
        opened: list[weakref.ref[Any]] = []
        real = opencv.open_capture

        def open_capture(*arguments: Any, **options: Any) -> Any:
            class Held:
                capture = real(*arguments, **options)

                def __getattr__(self, name: str) -> Any:
                    return getattr(self.capture, name)

            held = Held()
            opened.append(weakref.ref(held))
            return held

        monkeypatch.setattr(opencv, "open_capture", open_capture)
        if fails:
            monkeypatch.setattr(sparse._Work, "_fill", refuse)
        decode = ready(clip(**CLIP), [0, 20, 40, 60, 80])
        if fails:
            with pytest.raises(CannotSeekError, match="at will"):
                decode()
        else:
            assert decode()[1] >= 5
        assert 1 <= len(opened) <= 2
        gc.collect()
        assert not any(each() for each in opened)

    @pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak that can be reset")
    def test_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No frames beside the array, but for a few a worker, and no second copy of the file."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "2")
        fields = {"codec": "mpeg4", "frames": 120, "width": 640, "height": 360, "gop": 30}
        decode = ready(clip(**fields), [29, 59, 89, 119])
        decode()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        _, decoded = decode()
        assert decoded == 120
        # All that was decoded would take 41 million.
        assert resident("VmHWM") - before < 20_000_000


def resident(name: str) -> int:
    """Bytes of this process in memory: now ("VmRSS"), or at most ("VmHWM")."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def refuse(*_: object) -> None:
    raise CannotSeekError("at will")


class TestLimits:
    def test_deadline(self, long_enough: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """The wall-clock limit ends the fast path too, as an error: one pass would take longer still."""
        monkeypatch.setenv("VLLM_VIDEO_DECODE_TIMEOUT_S", "1e-9")
        decode = ready(clip(**CLIP), [0, 40])
        with pytest.raises(LimitExceededError, match="VLLM_VIDEO_DECODE_TIMEOUT_S"):
            decode()
        with pytest.raises(LimitExceededError):
            OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=3)

    def test_size(self, long_enough: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """The limits are judged before anything is decoded, by either path in the same words."""
        monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(3 * 96 * 64 * 3 - 1))
        said = set()
        for decode in ("seek", "sequential", "auto"):
            with pytest.raises(LimitExceededError, match="VLLM_MAX_VIDEO_DECODE_BYTES") as error:
                OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=3, decode=decode)
            said.add(str(error.value))
        assert len(said) == 1

    def test_errors_do_not_depend_on_the_way(self, long_enough: None) -> None:
        """What is no video is told the same by either."""
        for data in (b"", b"dear diary", clip(**CLIP)[:3000]):
            said = set()
            for decode in ("seek", "sequential", "auto"):
                with pytest.raises(InvalidMediaError) as error:
                    OpenCVVideoBackend.load_bytes(data, num_frames=3, decode=decode)
                said.add((type(error.value), str(error.value)))
            assert len(said) == 1


@pytest.mark.usefixtures("long_enough")
class TestConcurrency:
    def test_many_requests_at_once(self, monkeypatch: pytest.MonkeyPatch, counted: Any) -> None:
        """Requests of several threads on different clips: each gets its own frames."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "3")
        clips = [clip(**{**CLIP, "seed": seed}) for seed in range(3)]
        expected = [OpenCVVideoBackend.load_bytes(data, num_frames=7, decode="sequential") for data in clips]
        wrong: list[int] = []

        def request(number: int) -> None:
            frames, metadata = OpenCVVideoBackend.load_bytes(clips[number % 3], num_frames=7, decode="seek")
            if frames.tobytes() != expected[number % 3][0].tobytes() or metadata != expected[number % 3][1]:
                wrong.append(number)

        threads = [threading.Thread(target=request, args=(number,)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert counted()[0]["seek"] == 24

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_children_forked_amid_decoding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A child decodes, whatever its parent's threads were doing: opening, counting, waiting."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "2")
        data = clip(**CLIP)
        modes = ("seek", "sequential")
        expected = [
            OpenCVVideoBackend.load_bytes(data, num_frames=4, decode=mode)[0].tobytes() for mode in modes
        ]
        stop = threading.Event()

        def busy(mode: str) -> None:
            while not stop.is_set():
                OpenCVVideoBackend.load_bytes(data, num_frames=4, decode=mode)

        threads = [threading.Thread(target=busy, args=(mode,)) for mode in modes]
        for thread in threads:
            thread.start()
        exits = []
        try:
            for _ in range(6):
                child = os.fork()
                if not child:
                    signal.alarm(30)
                    got = [
                        OpenCVVideoBackend.load_bytes(data, num_frames=4, decode=mode)[0] for mode in modes
                    ]
                    os._exit(0 if [frames.tobytes() for frames in got] == expected else 1)
                exits.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert exits == [0] * 6

    def test_other_spans_stop_at_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Once one span has failed the others decode no further."""
        monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "1")
        monkeypatch.setattr(sparse._Work, "_fill", refuse)
        monkeypatch.setattr(sparse.SparsePlan, "groups", lambda self, _: [[span] for span in self.spans])
        opened: list[int] = []
        real = opencv.open_capture
        monkeypatch.setattr(opencv, "open_capture", lambda *a, **o: opened.append(1) or real(*a, **o))
        decode = ready(clip(**CLIP, bframes=0), [0, 20, 40, 60, 80])
        with pytest.raises(CannotSeekError, match="at will"):
            decode()
        assert opened == [1]
        assert jobs.decode_pool.queue_length == 0


class TestPyAV:
    def test_excerpts_count(self, long_enough: None, counted: Any) -> None:
        """The backend "pyav" takes the same way, of what is turned as well."""
        data = clip(**CLIP)
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=4, backend="pyav")
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 29, 59, 89]
        turned, _ = OpenCVVideoBackend.load_bytes(corpus.rotate(data, 90), num_frames=4, backend="pyav")
        assert np.array_equal(turned, np.rot90(frames, -1, (1, 2)))
        assert counted()[0] == {"seek": 2}

    def test_modes(self, counted: Any) -> None:
        """Sequentially on request, or where it is not provably exact; "seek" raises then."""
        seeking = OpenCVVideoBackend.load_bytes(clip(**CLIP), num_frames=4, backend="pyav", decode="seek")
        in_one_pass = OpenCVVideoBackend.load_bytes(
            clip(**CLIP), num_frames=4, backend="pyav", decode="sequential"
        )
        assert seeking[0].tobytes() == in_one_pass[0].tobytes()
        assert seeking[1] == in_one_pass[1]
        asf = clip(**CLIP, codec="wmv2", container="asf")
        assert len(OpenCVVideoBackend.load_bytes(asf, num_frames=4, backend="pyav")[0]) == 4
        with pytest.raises(NotSeekableError, match="codec"):
            OpenCVVideoBackend.load_bytes(asf, num_frames=4, backend="pyav", decode="seek")
        assert counted()[0] == {"seek": 1, "sequential": 2}
