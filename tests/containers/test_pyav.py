"""FFmpeg is held to what it may open, under PyAV and under OpenCV, whatever the first bytes are taken for."""

import ctypes
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from mmmedia import containers
from mmmedia.containers import claims, open_av
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders import opencv
from support.clips import clip
from support.scripts import CONCAT, DASH, PLAYLIST, SDP
from support.watch import Watch

SMALL = {"frames": 12, "width": 128, "height": 96}


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A local file beside the process that scripts name, watched."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(**SMALL))
    monkeypatch.chdir(tmp_path)
    with Watch(path) as watch:
        yield watch


class TestFFmpegIsHeld:
    """The second lock: even what passes the first bytes opens nothing."""

    def test_the_attack_is_real(self, watch: Watch) -> None:
        """Without the locks both decoders read the file that the script names, which the watch sees."""
        with av.open(io.BytesIO(CONCAT)) as file:
            assert next(file.decode(video=0)).width == 128
        assert watch.opened()
        assert cv2.VideoCapture(io.BytesIO(CONCAT), cv2.CAP_FFMPEG, []).isOpened()
        assert watch.opened()

    @pytest.mark.parametrize("script", [CONCAT, PLAYLIST, DASH], ids=["concat", "hls", "dash"])
    @pytest.mark.parametrize("open_it", [open_av, opencv.open_capture])
    def test_nothing_is_opened(
        self, watch: Watch, monkeypatch: pytest.MonkeyPatch, open_it: Callable[[bytes], Any], script: bytes
    ) -> None:
        """With `identify` out of the way, FFmpeg refuses the script by the allow-list."""
        monkeypatch.setattr(claims, "identify", lambda data: "mov")
        with pytest.raises(InvalidMediaError, match="Could not open"):
            open_it(script)
        assert not watch.opened()

    @pytest.mark.parametrize("opener", ["containers.open_av", "opencv.open_capture"])
    def test_sdp_waits_for_nobody(self, opener: str) -> None:
        """An SDP text opens no socket to wait on: a process that tries is done at once."""
        code = (
            "from mmmedia import containers\nfrom mmmedia.containers import claims\n"
            "from mmmedia.video.decoders import opencv\n"
            f"claims.identify = lambda data: 'mov'\nopen_it = {opener}\n"
            f"try:\n    open_it({SDP!r})\nexcept ValueError as error:\n    print('refused')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=25, check=True
        )
        assert done.stdout == "refused\n"

    def test_black_list_stays_black(self) -> None:
        """No demuxer that opens other things is on the list."""
        allowed = set(containers.FORMAT_WHITELIST.split(","))
        fetchers = {"concat", "hls", "dash", "sdp", "rtsp", "image2", "image2pipe", "lavfi", "applehttp",
                    "rtp",
                    "v4l2", "tty", "imf", "webm_dash_manifest", "sap", "ffmetadata", "subviewer",
                    "vapoursynth",
                    "libopenmpt", "xcbgrab", "fbdev", "alsa", "mpjpeg", "concatf",
                    "vobsub", "data"}  # fmt: skip
        assert not allowed & fetchers
        assert containers.AV_OPTIONS["protocol_whitelist"] == "none"


VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


def c_getenv() -> bytes | None:
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    value: bytes | None = getenv(VARIABLE.encode())
    return value


class TestEnvironment:
    """OpenCV takes its options from one environment variable; others may use it, too."""

    @pytest.mark.parametrize("make", [lambda: clip(**SMALL), lambda: b"\0\0\0\x08ftyp", lambda: CONCAT])
    @pytest.mark.parametrize("before", [None, "", "rtsp_transport;udp"])
    def test_left_as_it_was(
        self, monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes], before: str | None
    ) -> None:
        """Both Python's and C's environment are afterwards what they were, whether or not it opened."""
        if before is None:
            monkeypatch.delenv(VARIABLE, raising=False)
        else:
            monkeypatch.setenv(VARIABLE, before)
        environment = dict(os.environ)
        try:
            opencv.open_capture(make())
            opened = True
        except InvalidMediaError:
            opened = False
        assert opened == (make() == clip(**SMALL))
        assert dict(os.environ) == environment
        assert c_getenv() == (None if before is None else before.encode())

    def test_operators_options_stay_in_force(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the operator set goes to FFmpeg beside what holds it; Python never sees ours."""
        seen: list[tuple[bytes | None, str | None]] = []
        monkeypatch.setenv(VARIABLE, "rtsp_transport;udp")
        real = opencv.get_cv2_video_api

        class Capture:
            def __init__(self, *_: object) -> None:
                seen.append((c_getenv(), os.environ.get(VARIABLE)))

            def isOpened(self) -> bool:
                return True

        monkeypatch.setattr(cv2, "VideoCapture", Capture)
        opencv.open_capture(b"anything")
        assert real() == cv2.CAP_FFMPEG
        ((in_c, in_python),) = seen
        assert in_c is not None
        options = dict(option.split(b";") for option in in_c.split(b"|"))
        assert options[b"rtsp_transport"] == b"udp"
        assert options[b"format_whitelist"].decode() == containers.FORMAT_WHITELIST
        assert options[b"protocol_whitelist"] == b"none"
        assert in_python == "rtsp_transport;udp"

    def test_frames_with_operators_options(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clip opens the same with them set."""
        monkeypatch.setenv(VARIABLE, "video_codec;h264")
        ok, image = opencv.open_capture(clip(**SMALL)).read()
        assert ok
        assert np.asarray(image).shape == (96, 128, 3)
