"""Media IOs that decode in processes of their own: the same to the byte, budgets, loaders, errors."""

import asyncio
import base64
import io
import os
import random
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import prometheus_client
import pytest
from PIL import Image

import mmmedia
from mmmedia import metrics
from mmmedia.errors import (
    DecoderDiedError,
    DecoderUnavailableError,
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    MediaError,
)
from mmmedia.exceptions import HTTPResponseSizeExceededError, VLLMValidationError
from mmmedia.media import (
    AudioMediaIO,
    ImageMediaIO,
    MediaConnector,
    MediaDecodedBudget,
    VideoMediaIO,
    isolation,
)
from mmmedia.media.audio import AudioEmbeddingMediaIO
from mmmedia.media.base import MediaIO
from mmmedia.media.budget import MediaBudget
from mmmedia.media.image import ImageEmbeddingMediaIO
from mmmedia.media.isolation import _bytes, _check_metadata
from mmmedia.media.kinds import kind_of
from mmmedia.video import VIDEO_LOADER_REGISTRY, OpenCVVideoBackend, decode_stats
from mmmedia.work import isolated, watch
from mmmedia.work.isolated.pool import Task
from mmmedia.work.isolated.wire import BrokenWireError
from support import corpus, fuzz_worker
from support.clips import clip
from support.corpus import draw
from support.forking import holds_in_child
from support.kinds import KINDS
from support.layouts import long_clip, padded
from support.near import run_nearby, worker_nearby
from support.server import Server, reply
from support.sounds import encode, sine
from support.sources import CountingSource
from support.streams import sound_that_becomes_h264
from support.waiting import wait_until

pytestmark = [
    pytest.mark.usefixtures("workers_end", "two_workers"),
    pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux"),
    pytest.mark.timeout(300),  # the workers import torch once
]

STALLS = Path(__file__).parents[1] / "data" / "stalls_hevc.mp4"
PLAIN = {type(None), bool, int, float, str, bytes, tuple}


def jpeg(width: int = 64, height: int = 48, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(file, "JPEG", **options)
    return file.getvalue()


def seen(media: Any) -> Any:
    """All that a caller can see of what was loaded, in values that can be compared."""
    if isinstance(inner := getattr(media, "media", None), Image.Image):
        info = {name: value for name, value in inner.info.items() if type(value) in PLAIN}
        palette = inner.getpalette("RGBA") if inner.mode == "P" else None
        what = (inner.mode, inner.size, inner.tobytes(), inner.format, info, palette)
        return what, media.original_bytes, media.io_config
    first, second = media if isinstance(media, tuple) else (media, None)
    if hasattr(media, "original_bytes"):
        first, second = media
    if hasattr(first, "untyped_storage"):
        import torch

        flat = first.reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(first.dtype), tuple(first.shape), flat, second
    return first.dtype.str, first.shape, first.tobytes(), second, getattr(media, "original_bytes", None)


def outcome(media_io: MediaIO[Any], data: bytes) -> Any:
    try:
        return seen(media_io.load_bytes(data))
    except (MediaError, ImportError) as error:
        return type(error).__name__, str(error)


def both(media_io: MediaIO[Any], data: bytes) -> tuple[Any, Any]:
    """What comes of a file in a worker, and in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMMEDIA_DECODE_PROCESSES", "2")
        apart = outcome(media_io, data)
        patch.setenv("MMMEDIA_DECODE_PROCESSES", "0")
        return apart, outcome(media_io, data)


def assert_same(media_io: MediaIO[Any], data: bytes) -> None:
    apart, here = both(media_io, data)
    assert apart == here


class Picking(OpenCVVideoBackend):
    """Reads the indices that it is told to; no other process can import it."""

    @classmethod
    def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
        return list(kwargs.get("indices") or range(0, source.total_frames_num, 7))


VIDEO_LOADER_REGISTRY.register("picking")(Picking)


class TestEquality:
    @pytest.mark.parametrize("options", [{}, {"image_mode": None}, {"max_pixels": 600}], ids=str)
    def test_pictures(self, options: dict[str, Any]) -> None:
        for data in fuzz_worker.images():
            assert_same(ImageMediaIO(**options), data)

    @pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16", "F", "LA"])
    def test_pictures_of_any_mode(self, mode: str) -> None:
        assert_same(ImageMediaIO(mode), jpeg())

    def test_large_pictures_lie_in_memory_that_can_be_written(self) -> None:
        image = ImageMediaIO().load_bytes(jpeg(1600, 1200)).media
        before = image.tobytes()
        copy = image.copy()
        image.putpixel((5, 5), (1, 2, 3))
        image.paste((9, 9, 9), (100, 100, 200, 200))
        assert image.getpixel((5, 5)) == (1, 2, 3)
        assert image.getpixel((150, 150)) == (9, 9, 9)
        assert copy.tobytes() == before
        assert image.resize((80, 60)).size == (80, 60)

    def test_what_is_known_of_a_picture_but_its_pixels(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a lake"
        image = ImageMediaIO().load_bytes(jpeg(exif=exif, dpi=(72, 72), comment=b"hello")).media
        assert image.format == "JPEG"
        assert image.getexif()[0x010E] == "a lake"
        assert (image.info["dpi"], image.info["comment"]) == ((72, 72), b"hello")

    def test_sounds(self) -> None:
        for data in fuzz_worker.sounds():
            assert_same(AudioMediaIO(), data)

    def test_sounds_at_several_rates_behind_each_other(self) -> None:
        parts = [encode(sine(440, 0.3, rate), rate, "MP3") for rate in (16000, 44100, 22050)]
        assert_same(AudioMediaIO(), b"".join(parts))

    def test_videos(self) -> None:
        for data in fuzz_worker.videos():
            assert_same(VideoMediaIO(ImageMediaIO(), num_frames=5), data)

    def test_videos_larger_than_what_is_copied(self) -> None:
        data = clip(frames=60, width=320, height=240)
        for options in ({"num_frames": -1}, {"num_frames": 8, "backend": "pyav"}, {"decode": "sequential"}):
            assert_same(VideoMediaIO(ImageMediaIO(), **options), data)

    @pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
    def test_tensors(self) -> None:
        pytest.importorskip("torch")
        for data in fuzz_worker.tensors():
            assert_same(ImageEmbeddingMediaIO(), data)

    def test_sequences_of_jpegs(self) -> None:
        video_io = VideoMediaIO(ImageMediaIO(), num_frames=-1, fps=4.0)
        text = video_io.encode_base64(np.arange(3 * 40 * 60 * 3, dtype=np.uint8).reshape(3, 40, 60, 3))
        apart = seen(video_io.load_base64("video/jpeg", text))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MMMEDIA_DECODE_PROCESSES", "0")
            assert seen(video_io.load_base64("video/jpeg", text)) == apart

    def test_results_of_0_20(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        exif = Image.Exif()
        exif[0x0112] = 6
        assert_same(ImageMediaIO(), jpeg(exif=exif))
        assert_same(VideoMediaIO(ImageMediaIO(), num_frames=3), clip(frames=20, width=64, height=48))
        assert isinstance(VideoMediaIO(ImageMediaIO(), 3).load_bytes(clip(frames=20)), tuple)

    @pytest.mark.parametrize("kind", ["image", "audio", "embedding"])
    def test_damage_ends_in_the_same_error_or_media(self, kind: str) -> None:
        if kind == "embedding":
            pytest.importorskip("torch")
        media_io: Any = {"image": ImageMediaIO, "audio": AudioMediaIO, "embedding": AudioEmbeddingMediaIO}[
            kind
        ]()
        files = fuzz_worker.CORPORA[kind]()
        for seed in range(60):
            chance = random.Random(seed)
            assert_same(media_io, fuzz_worker.mutate(chance.choice(files), files, chance))

    @pytest.mark.parametrize("name", [*KINDS][::9])
    def test_what_people_send(self, name: str) -> None:
        self.as_people_send(name)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", KINDS)
    def test_all_that_people_send(self, name: str) -> None:
        self.as_people_send(name)

    @staticmethod
    def as_people_send(name: str) -> None:
        data = KINDS[name].make()
        for options in (
            {"num_frames": 8},
            {"num_frames": -1, "backend": "pyav"},
            {"video_backend": "molmo2"},
        ):
            assert_same(VideoMediaIO(ImageMediaIO(), **options), data)

    @pytest.mark.parametrize("seed", range(6))
    def test_any_clip(self, seed: int) -> None:
        self.as_drawn(seed, damaged=False)

    @pytest.mark.slow
    @pytest.mark.parametrize("damaged", [False, True])
    @pytest.mark.parametrize("seed", range(60))
    def test_every_clip(self, seed: int, damaged: bool) -> None:
        self.as_drawn(seed, damaged=damaged)

    @staticmethod
    def as_drawn(seed: int, *, damaged: bool) -> None:
        recipe = draw(seed, damaged=damaged)
        try:
            data = recipe.make()
        except (av.FFmpegError, ValueError, IndexError) as error:
            pytest.skip(f"can't be encoded: {error}")
        requests = corpus.requests(seed, recipe.clip["frames"])
        for (loader, options), decode in zip(requests, ("auto", "sequential", "seek"), strict=False):
            media_io = VideoMediaIO(
                ImageMediaIO(),
                **{"num_frames": -1, **options},
                video_backend="picking" if loader == "pick" else loader,
                decode=decode,
            )
            apart, here = both(media_io, data)
            if not recipe.intact and len(apart) == len(here) == 5:  # pictures of damage are made up
                apart, here = (apart[0], apart[1], apart[3]), (here[0], here[1], here[3])
            assert apart == here, recipe


class TestNearby:
    """The same code in a thread of this process, where it can be looked at."""

    @pytest.fixture
    def near(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        with worker_nearby() as near:

            def run(task: Any) -> Any:
                monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "0")  # as it is in a worker
                try:
                    return run_nearby(near, task)
                finally:
                    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")

            monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
            monkeypatch.setattr(isolated, "run", run)
            yield

    @pytest.mark.usefixtures("near")
    def test_what_is_asked_for_is_asked_here(self) -> None:
        data = clip(frames=30, width=64, height=48)
        frames, metadata = VideoMediaIO(ImageMediaIO(), video_backend="picking").load_bytes(data)
        assert metadata["frames_indices"] == [0, 7, 14, 21, 28]
        assert frames.shape == (5, 48, 64, 3)
        budget = MediaDecodedBudget(100_000)
        assert ImageMediaIO(decoded_budget=budget).load_bytes(jpeg(100, 50)).size == (100, 50)
        sound = encode(sine(440, 0.5, 8000), 8000)
        assert AudioMediaIO(decoded_budget=budget).load_bytes(sound)[0].shape == (4000,)
        assert budget.used == 36_000
        with pytest.raises(InvalidMediaError):
            ImageMediaIO().load_bytes(b"nothing")

    @pytest.mark.usefixtures("near")
    def test_sources_are_read_and_frames_chosen_here(self, tmp_path: Path) -> None:
        film, sound = tmp_path / "a.mp4", tmp_path / "a.wav"
        film.write_bytes(padded(long_clip()))
        sound.write_bytes(encode(sine(440, 0.5, 8000), 8000))
        video_io = VideoMediaIO(ImageMediaIO(), num_frames=3)
        by_file = seen(video_io.load_file(film))
        source = CountingSource(film.read_bytes())
        assert seen(video_io.load_source(source))[:4] == by_file[:4]
        assert 0 < source.bytes_asked < source.size
        whole = VideoMediaIO(ImageMediaIO(), num_frames=-1).load_source(CountingSource(long_clip()))
        assert whole.original_bytes == long_clip()
        assert mmmedia.load_video(film, timestamps=[0.5, 7.1]).metadata["frames_indices"] == [15, 213]
        assert mmmedia.load_audio(sound, end=0.25).waveform.shape == (2000,)
        assert mmmedia.load_audio(sound.read_bytes()).waveform.shape == (4000,)
        assert kind_of(clip(frames=5)) == "video"

    @pytest.mark.parametrize("number", [-1, 1 << 63, True, 1.5, None, "5"])
    def test_no_budget_is_charged_with_what_is_no_number_of_bytes(self, number: Any) -> None:
        with pytest.raises(BrokenWireError):
            _bytes(number)

    def test_what_workers_need_is_imported(self) -> None:
        isolation.prepare()
        assert "mmmedia.video.model_loaders" in sys.modules
        assert "encodings.utf_16_le" in sys.modules


class TestRequests:
    def test_settings_of_the_moment_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ImageMediaIO().load_bytes(jpeg())
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100")
        with pytest.raises(LimitExceededError, match="VLLM_MAX_IMAGE_PIXELS"):
            ImageMediaIO().load_bytes(jpeg())
        monkeypatch.delenv("VLLM_MAX_IMAGE_PIXELS")
        assert ImageMediaIO().load_bytes(jpeg()).size == (64, 48)

    def test_errors_keep_what_engines_read_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch = pytest.importorskip("torch")
        monkeypatch.setenv("VLLM_MAX_EMBED_DECODE_BYTES", "8")
        from mmmedia.tensors import dump_tensor

        with pytest.raises(LimitExceededError, match="VLLM_MAX_EMBED_DECODE_BYTES") as raised:
            ImageEmbeddingMediaIO().load_bytes(dump_tensor(torch.ones(100)))
        assert isinstance(raised.value, VLLMValidationError)
        assert raised.value.parameter == "image_embeds"
        monkeypatch.setenv("VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", "1")
        with pytest.raises(HTTPResponseSizeExceededError) as too_large:
            AudioMediaIO().load_bytes(bytes(2 << 20))
        assert too_large.value.value == 2.0

    def test_files_are_decoded_there_as_well(self, tmp_path: Path) -> None:
        sound = tmp_path / "a.wav"
        sound.write_bytes(encode(sine(440, 0.2, 8000), 8000))
        before = sum(isolated.workers().run(_pid_task()) > 0 for _ in range(1))
        assert before == 1
        busy = isolated.workers().seconds
        assert AudioMediaIO().load_file(sound)[0].shape == (1600,)
        assert isolated.workers().seconds > busy

    def test_budgets_are_this_process_s(self) -> None:
        data = jpeg(100, 50)
        budget = MediaDecodedBudget(25_000)
        image_io = ImageMediaIO(decoded_budget=budget)
        image_io.load_bytes(data)
        assert budget.used == 20_000
        with pytest.raises(LimitExceededError, match="20000 more decoded bytes are too many") as raised:
            image_io.load_bytes(data)
        assert "of 25000 are used" in str(raised.value)
        video_io = VideoMediaIO(ImageMediaIO(decoded_budget=MediaDecodedBudget(1000)), num_frames=2)
        with pytest.raises(LimitExceededError, match="too many for one request"):
            video_io.load_bytes(clip(frames=20, width=64, height=48))

    def test_what_a_sound_may_take_is_reserved_and_settled(self) -> None:
        sound = encode(sine(440, 1.0, 8000), 8000)
        budget = MediaDecodedBudget(40_000)
        assert AudioMediaIO(decoded_budget=budget).load_bytes(sound)[0].nbytes == 32_000
        assert (budget.used, budget._reserved) == (32_000, 0)
        with pytest.raises(LimitExceededError, match="left for this request"):
            AudioMediaIO(decoded_budget=budget).load_bytes(sound)
        assert (budget.used, budget._reserved) == (32_000, 0)

    def test_ceilings_of_a_shared_budget_count(self) -> None:
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg(100, 50)).decode()
        connector = MediaConnector(budget=MediaBudget(max_decoded_bytes=16_000))
        assert connector.fetch_image(url).size == (100, 50)
        with pytest.raises(LimitExceededError, match="VLLM_MAX_IMAGE_PIXELS"):
            connector.fetch_image(url)

    def test_a_loader_of_this_process_is_asked_which_frames(self) -> None:
        data = clip(frames=30, width=64, height=48)
        metadata = VideoMediaIO(ImageMediaIO(), video_backend="picking").load_bytes(data)[1]
        assert metadata["frames_indices"] == [0, 7, 14, 21, 28]

    @pytest.mark.parametrize(
        "lie",
        [(1 << 40, 25.0, 4.0), (-1, 25.0, 1.0), (3, float("nan"), 1.0), (3, 25.0), "abc", None],
        ids=str,
    )
    def test_such_a_loader_is_told_of_no_video_that_can_not_be(self, lie: Any) -> None:
        """It would make a list of all frames, here."""
        with pytest.raises(BrokenWireError):
            _check_metadata(lie, 5000)
        _check_metadata((60, 25.0, 2.4), 5000)

    def test_errors_of_such_a_loader_are_raised_as_they_are(self) -> None:
        class OwnError(Exception):
            pass

        class Failing(OpenCVVideoBackend):
            @classmethod
            def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
                raise OwnError

        media_io = VideoMediaIO(ImageMediaIO())
        media_io.video_loader = Failing()
        with pytest.raises(OwnError):
            media_io.load_bytes(clip(frames=10, width=64, height=48))

    def test_what_no_worker_can_import_is_refused_and_not_decoded_here(self) -> None:
        class Reading(OpenCVVideoBackend):
            @classmethod
            def load_bytes(cls, data: bytes, num_frames: int | None = -1, **kwargs: Any) -> Any:
                raise AssertionError("decoded here")

        class Inverted(ImageMediaIO):
            def _decode(self, *args: Any) -> Any:
                raise AssertionError("decoded here")

        media_io = VideoMediaIO(ImageMediaIO())
        media_io.video_loader = Reading()
        with pytest.raises(
            InvalidArgumentError, match=r"Reading can't be imported .*MMMEDIA_DECODE_PROCESSES"
        ):
            media_io.load_bytes(clip(frames=10, width=64, height=48))
        with pytest.raises(InvalidArgumentError, match=r"Inverted can't be imported"):
            Inverted().load_bytes(jpeg())
        with pytest.raises(InvalidArgumentError, match="can't be sent"):
            VideoMediaIO(ImageMediaIO(), option=lambda: None).load_bytes(clip(frames=10))

    def test_classes_of_other_modules_are_imported_by_workers(self) -> None:
        from support.apart import Doubled

        assert Doubled().load_bytes(jpeg()).media.size == (128, 96)

    def test_ways_of_decoding_are_counted_here(self) -> None:
        before = decode_stats().paths
        VideoMediaIO(ImageMediaIO(), num_frames=2, decode="sequential").load_bytes(clip(frames=20))
        after = decode_stats().paths
        assert after["sequential"] == before.get("sequential", 0) + 1

    def test_what_is_to_be_counted_is_shown_to_prometheus(self) -> None:
        metrics.register()
        ImageMediaIO().load_bytes(jpeg())
        get = prometheus_client.REGISTRY.get_sample_value
        assert get("mmmedia_decode_processes") == 2
        assert get("mmmedia_pool_queue_length", {"pool": "processes"}) == 0
        assert (get("mmmedia_decode_process_seconds_total") or 0) > 0


def _pid_task() -> Any:
    return Task(
        "support.apart:pid", "mmmedia.media.isolation:prepare", b"", modules=frozenset({"support.apart"})
    )


class TestProcesses:
    def test_they_can_be_started_before_the_first_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        isolation.start("picture")
        pool = isolated.existing()
        assert pool is not None
        assert pool.alive == 2
        isolated.shutdown()
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "0")
        isolation.start()
        assert isolated.existing() is None

    def test_a_forked_child_decodes_in_processes_of_its_own(self) -> None:
        mine = {isolated.workers().run(_pid_task()) for _ in range(4)}
        data = jpeg()

        def child() -> bool:
            assert isolated.existing() is None
            is_right = ImageMediaIO().load_bytes(data).size == (64, 48)
            theirs = isolated.workers().run(_pid_task())
            isolated.shutdown()
            return is_right and theirs not in mine

        assert holds_in_child(child, seconds=100)
        assert isolated.workers().run(_pid_task()) in mine

    def test_a_program_that_ends_leaves_nothing_and_says_nothing(self) -> None:
        script = """
            import io, os
            from PIL import Image
            from mmmedia.media import ImageMediaIO
            from mmmedia.work import isolated
            if __name__ == "__main__":
                file = io.BytesIO()
                Image.new("RGB", (900, 700)).save(file, "PNG")
                picture = ImageMediaIO().load_bytes(file.getvalue())
                pool = isolated.workers()
                while len(pool.pids) < 2:
                    pass
                print(*pool.pids, pool._forker.pid)
        """
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert ended.stderr == ""
        pids = [int(pid) for pid in ended.stdout.split()]
        assert len(pids) == 3
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


class TestConnector:
    def test_both_halves(self, server: Server) -> None:
        url = server.route("/a.jpg", reply(jpeg(1200, 900)))
        connector = MediaConnector()
        plain = seen(connector.fetch_image(url))
        assert seen(asyncio.run(connector.fetch_image_async(url))) == plain
        assert isolated.existing() is not None

    def test_copies_of_a_shared_decode_are_each_one_s_own(self, server: Server) -> None:
        url = server.route("/a.jpg", reply(jpeg(1200, 900)))

        async def crowd() -> list[Any]:
            return await asyncio.gather(*(MediaConnector().fetch_image_async(url) for _ in range(12)))

        images = [each.media for each in asyncio.run(crowd())]
        before = images[0].tobytes()
        images[0].paste((1, 2, 3), (0, 0, 1200, 900))
        assert all(image.tobytes() == before for image in images[1:])

    @pytest.mark.parametrize("remote", [False, True])
    def test_cancelled_requests_leave_the_queue(self, server: Server, remote: bool) -> None:
        pool = isolated.workers()
        slow = _slow_task(pool)
        data = [jpeg(64, 48 + number) for number in range(3)]
        if remote:
            urls = [server.route(f"/{number}.jpg", reply(each)) for number, each in enumerate(data)]
        else:
            urls = ["data:image/jpeg;base64," + base64.b64encode(each).decode() for each in data]

        async def main() -> None:
            tasks = [asyncio.ensure_future(MediaConnector().fetch_image_async(url)) for url in urls]
            while pool.queue_length < 3:
                await asyncio.sleep(0.01)
            for each in tasks:
                each.cancel()
            while pool.queue_length:
                await asyncio.sleep(0.01)

        with ThreadPoolExecutor(2) as threads:
            running = [threads.submit(pool.run, slow) for _ in range(2)]
            wait_until(lambda: not pool._idle and pool.alive == 2)
            asyncio.run(main())
            assert not any(each.done() for each in running)
            isolated.shutdown()
            for each in running:
                assert isinstance(each.exception(), DecoderDiedError | DecoderUnavailableError)


def _slow_task(pool: Any) -> Any:
    task = Task(
        "support.apart:sleep", "mmmedia.media.isolation:prepare", b"", modules=frozenset({"support.apart"})
    )
    ImageMediaIO().load_bytes(jpeg())
    return task


def bare(data: bytes) -> Task:
    """What is done with a file by a decoder as it is, with nothing refused."""
    modules = frozenset({"support.killers"})
    return Task("support.killers:decode", "mmmedia.media.isolation:prepare", data, modules=modules)


class TestRealKillers:
    def test_a_decoder_that_waits_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """FFmpeg's threads wait for one another: an error in time, a new worker, then one thread for it."""
        monkeypatch.setattr(watch, "_stalled", set())
        monkeypatch.setenv("VLLM_VIDEO_DECODE_TIMEOUT_S", "2")
        video_io = VideoMediaIO(ImageMediaIO(), num_frames=32, decode="sequential")
        data = STALLS.read_bytes()
        outcomes = []
        for _ in range(2):
            try:
                outcomes.append(video_io.load_bytes(data)[0].shape)
            except LimitExceededError as error:
                outcomes.append("took longer than" in str(error))
        # Where there is one core only, FFmpeg has one thread, and nothing to wait for.
        assert outcomes in ([True, (2, 64, 96, 3)], [(2, 64, 96, 3)] * 2)
        if outcomes[0] is True:
            assert isolated.workers().ends["renewed"] >= 1
            assert watch.stalled()

    @pytest.mark.parametrize("told", [False, True])
    def test_a_transport_stream_over_which_ffmpeg_ends_its_process(self, told: bool) -> None:
        data = sound_that_becomes_h264(told=told)
        with pytest.raises(DecoderDiedError, match="SIGABRT"):
            isolated.run(bare(b"ffmpeg " + data))
        with pytest.raises(InvalidMediaError, match=r"becomes H\.264"):
            VideoMediaIO(ImageMediaIO()).load_bytes(data)

    def test_a_file_that_crashes_opencv_where_nothing_is_refused(self) -> None:
        """A chunk of a sound that ends 4 GB away; here nothing reads such a file, nor in such a way."""
        voice = struct.pack(">4sIIIIHBBI", b"VHDR", 20, 1000, 0, 0, 8000, 1, 0, 0x10000)
        data = struct.pack(">4sI4s", b"FORM", 8_019_676, b"16SV") + voice
        data += struct.pack(">4sI", b"JUNK", 0xF000_0000) + bytes(500)
        with pytest.raises(DecoderDiedError, match="SIGSEGV"):
            isolated.run(bare(b"opencv " + data))
        apart, here = both(VideoMediaIO(ImageMediaIO()), data)
        assert apart == here
        assert apart[0] == "InvalidMediaError"

    def test_memory_that_a_picture_takes_beyond_its_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        isolated.shutdown()
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESS_MEMORY_MB", "160")
        file = io.BytesIO()
        Image.new("RGB", (9000, 9000)).save(file, "PNG")
        with pytest.raises(DecoderDiedError, match="more than the 160 MiB") as raised:
            ImageMediaIO().load_bytes(file.getvalue())
        assert raised.value.reason == "memory"
        assert ImageMediaIO().load_bytes(jpeg()).size == (64, 48)
        isolated.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_memory_stays_flat_over_100_000_decodes() -> None:
    """Of the parent and of all workers together, renewals included."""
    data = jpeg(320, 240)
    image_io = ImageMediaIO()

    def total() -> int:
        pool = isolated.workers()
        wait_until(lambda: len(pool.pids) == 2)
        return sum(_proportional(pid) for pid in ("self", *map(str, pool.pids)))

    sizes = []
    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            for _ in threads.map(lambda _: image_io.load_bytes(data).media.getpixel((0, 0)), range(5000)):
                pass
            sizes.append(total())
    assert max(sizes[10:]) < max(sizes[:5]) + 20_000, sizes


def _proportional(pid: str) -> int:
    """KiB of memory, what is shared shared out among its users."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
