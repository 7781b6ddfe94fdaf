"""Excerpts: clips that stand by themselves, read by two decoders."""

import io
import os
import threading
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from mmmedia.cli import app
from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.video import Excerpt, OpenCVVideoBackend, excerpt
from support import corpus
from support.clips import clip, read_number
from support.kinds import KINDS

CLIP: dict[str, Any] = {"frames": 96, "width": 128, "height": 96, "gop": 16}


def by_opencv(made: Excerpt) -> list[np.ndarray]:
    capture = cv2.VideoCapture(io.BytesIO(made.data), cv2.CAP_FFMPEG, [])
    frames = []
    while capture.grab():
        frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    return frames


def by_pyav(made: Excerpt) -> list[np.ndarray]:
    with av.open(io.BytesIO(made.data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bframes": 0},
        {"container": "matroska"},
        {"container": "mpegts"},
        {"container": "avi"},
        {"container": "h264"},
        corpus.x264("open-gop=1:keyint=17:min-keyint=17:scenecut=0:bframes=3:b-adapt=0"),
        corpus.x264("b-pyramid=strict:bframes=8:b-adapt=0:keyint=30:ref=5"),
        {
            "codec": "libx265",
            **corpus.x265("open-gop=1:keyint=16:min-keyint=16:scenecut=0:bframes=4:b-adapt=0"),
        },
        {"codec": "libx265", "container": "mpegts"},
        {"codec": "libvpx", "container": "webm"},
        {"codec": "libvpx-vp9", "container": "webm"},
        {"codec": "libsvtav1"},
        {"codec": "mpeg4", "bframes": 2, "container": "avi"},
        {"codec": "mpeg2video", "bframes": 2, "container": "mpegts"},
        {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "container": "mov"},
        {"codec": "huffyuv", "pix_fmt": "yuv422p", "container": "avi"},
    ],
    ids=str,
)
def test_two_decoders_read_it(fields: dict[str, Any]) -> None:
    """The wanted frames are where it says, as in the video itself, and far from all of it is in it."""
    data = clip(**{**CLIP, **fields})
    wanted = [70, 3, 71]
    made = excerpt(data, wanted)
    frames = by_opencv(made)
    assert made.indices == wanted
    assert made.reason is None
    assert len(frames) == len(by_pyav(made)) == made.frames
    assert [read_number(frames[position]) for position in made.positions] == wanted
    assert [read_number(by_pyav(made)[position]) for position in made.positions] == wanted
    assert made.left_out > 40
    assert made.source.total_frames_num == 96
    whole, metadata = OpenCVVideoBackend.load_bytes(data, decode="sequential")
    assert metadata["total_num_frames"] == 96
    for number, position in zip(wanted, made.positions, strict=True):
        assert frames[position].tobytes() == whole[number].tobytes()


def test_stand_ins_are_counted() -> None:
    """Frames that keep a decoder's store in order and are not to be looked at."""
    made = excerpt(clip(**CLIP, **corpus.x264("b-pyramid=normal:bframes=6:b-adapt=0:keyint=48")), [40])
    assert made.stand_ins > 0
    assert made.frames > made.stand_ins
    assert made.left_out + made.frames - made.stand_ins == 96


def test_where_parts_can_not_be_told_it_is_all() -> None:
    """With the reason; and what an edit list hides is counted for positions."""
    data = clip(**{**CLIP, **corpus.x264("tff=1")})
    made = excerpt(data, [5, 50])
    assert (made.reason, made.left_out, made.frames) == ("interlaced", 0, 96)
    assert [read_number(by_pyav(made)[position]) for position in made.positions] == [5, 50]
    hidden = corpus.hide_lead_in(clip(**{**CLIP, "bframes": 0, **corpus.x264("tff=1")}), 25 * 512)
    made = excerpt(hidden, [0, 10])
    assert [read_number(by_pyav(made)[position]) for position in made.positions] == [25, 35]


@pytest.mark.parametrize(
    "name", ["lossless trim", "begins within a group, mpegts", "turned right", "cover in front"]
)
def test_of_what_people_send(name: str) -> None:
    """Numbers are those of what a player shows."""
    kind = KINDS[name]
    made = excerpt(kind.make(), [2, 30])
    frames = by_opencv(made)
    shown = [read_number(kind.turn(frames[position])) for position in made.positions]
    assert shown == [kind.numbers[2], kind.numbers[30]]


def test_a_sampler_may_choose(tmp_path: Path) -> None:
    """It is told what the video is; and the video may be a file."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(**CLIP))
    made = excerpt(path, lambda source: range(0, source.total_frames_num, 40))
    assert made.indices == [0, 40, 80]


def test_what_can_not_be_cut() -> None:
    """No frames, frames that are not there, no video."""
    with pytest.raises(InvalidArgumentError, match="at least one"):
        excerpt(clip(**CLIP), [])
    with pytest.raises(InvalidArgumentError, match="no frame 96: it has 96"):
        excerpt(clip(**CLIP), [96])
    with pytest.raises(InvalidMediaError):
        excerpt(b"dear diary", [0])
    with pytest.raises(InvalidMediaError, match="can't be cut"):
        excerpt(clip(codec="gif", container="gif", pix_fmt="rgb8"), [3])


class TestCommand:
    def run(self, *arguments: object) -> Any:
        return CliRunner().invoke(app, ["excerpt", *map(str, arguments)])

    @pytest.mark.parametrize(
        ("options", "wanted"),
        [
            (["--num-frames", 3], [0, 47, 95]),
            (["--indices", "7,60"], [7, 60]),
            (["--fps", 0.5], [0]),
        ],
    )
    def test_writes_a_clip_and_says_where(
        self, tmp_path: Path, options: list[object], wanted: list[int]
    ) -> None:
        """Each line is a frame's number in the video and its position in the clip."""
        source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
        source.write_bytes(clip(**CLIP))
        result = self.run(source, "-o", target, *options)
        assert result.exit_code == 0, result.output
        pairs = [tuple(map(int, line.split("\t"))) for line in result.stdout.splitlines()]
        assert [number for number, _ in pairs] == wanted
        frames, _ = OpenCVVideoBackend.load_bytes(target.read_bytes())
        assert [read_number(frames[position]) for _, position in pairs] == wanted

    @pytest.mark.parametrize(
        ("options", "status", "said"),
        [
            ([], 2, "one of"),
            (["--num-frames", 3, "--fps", 1], 2, "one of"),
            (["--indices", "a"], 2, "numbers with commas"),
            (["--indices", "500"], 2, "no frame 500"),
        ],
    )
    def test_errors(self, tmp_path: Path, options: list[object], status: int, said: str) -> None:
        """One line, and nothing is written."""
        source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
        source.write_bytes(clip(**CLIP))
        result = self.run(source, "-o", target, *options)
        assert result.exit_code == status
        assert said in result.output
        assert not target.exists()


def test_what_comes_through_a_pipe_is_read_whole(tmp_path: Path) -> None:
    data, pipe = clip(frames=20), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert excerpt(pipe, [3]) == excerpt(data, [3])
    writer.join()
