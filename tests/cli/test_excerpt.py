"""`mmmedia excerpt`: of a URL, of an object and of a path no more is read than the frames need."""

import re
from pathlib import Path

from mmmedia.cli.raw import CutIO
from mmmedia.media.base import encode_base64
from mmmedia.video import excerpt
from support.command_line import run
from support.layouts import long_clip, padded
from support.server import Server, ranged

INDICES = [5, 100]


def test_it_is_the_same_clip_wherever_the_video_is(server: Server, tmp_path: Path) -> None:
    data, path = padded(long_clip()), tmp_path / "a.mp4"
    path.write_bytes(data)
    expected = excerpt(data, INDICES).data
    for source in (server.route("/a.mp4", ranged(data)), path, path.as_uri(), "-"):
        made = tmp_path / "b.mp4"
        result = run("excerpt", source, "--indices", "5,100", "-o", made, "--force", stdin=data)
        assert result.exit_code == 0, result.output
        assert made.read_bytes() == expected
    asked = (re.findall(r"\d+", request.headers["Range"]) for request in server.requests)
    assert sum(int(last) + 1 - int(start) for start, last in asked) < 0.2 * len(data)
    assert CutIO(INDICES).load_base64("", encode_base64(data)).data == expected
    assert CutIO(INDICES).load_file(path).data == expected
