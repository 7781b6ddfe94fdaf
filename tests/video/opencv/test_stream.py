"""The bytes as OpenCV reads them: no offset that a file names may crash the process."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mmmedia.video.decoders.opencv.stream import Stream
from support.clips import clip

FRAGMENTED = {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}
LOAD = """
import sys
from pathlib import Path
from mmmedia.video import OpenCVVideoBackend
try:
    frames, _ = OpenCVVideoBackend.load_bytes(Path(sys.argv[1]).read_bytes(), decode=sys.argv[2])
    print("frames", len(frames))
except ValueError as error:
    print("refused", error)
"""


@pytest.mark.parametrize("decode", ["sequential", "auto"])
@pytest.mark.parametrize("offset", [0x7FFFFFFF, -0x80000000, -5000])
def test_offsets_that_do_not_exist(tmp_path: Path, offset: int, decode: str) -> None:
    """A payload that is said to stand beyond 2 GiB, or before the file: OpenCV cuts that to 32 bits."""
    data = clip(frames=40, width=96, height=64, codec="mpeg4", container="mov", **FRAGMENTED)
    at = data.index(b"trun", data.index(b"trun") + 4) + 4 + 8
    path = tmp_path / "clip.mov"
    path.write_bytes(data[:at] + struct.pack(">i", offset) + data[at + 4 :])
    # In a process of its own, which may die.
    command = [sys.executable, "-c", LOAD, str(path), decode]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr[-500:]
    assert result.stdout.startswith(("frames", "refused"))


def test_seek_never_raises() -> None:
    """What can't be reached is the end; all else is as in `io.BytesIO`."""
    stream, plain = Stream(b"0123456789"), io.BytesIO(b"0123456789")
    for offset, whence in ((0, 0), (3, 0), (10, 0), (99, 0), (-1, 2), (0, 2), (0, 1)):
        assert stream.seek(offset, whence) == plain.seek(offset, whence)
    for offset, whence in ((-1, 0), (-(1 << 31), 0), (1 << 80, 0), (1 << 80, 2)):
        assert stream.seek(offset, whence) == 10
        assert stream.read(1) == b""
