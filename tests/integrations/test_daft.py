"""Videos, pictures and sounds as expressions of Daft."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmmedia import load_video
from mmmedia.errors import InvalidArgumentError
from mmmedia.integrations.daft import decode_audio, decode_images, decode_videos
from support.clips import clip, picture
from support.sounds import encode, sine

daft = pytest.importorskip("daft")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of Daft itself

CLIP = clip(frames=30)


@pytest.mark.parametrize("use_process", [False, True])
def test_a_struct_of_frames_metadata_and_error(use_process, tmp_path: Path):
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    rows = daft.from_pydict({"path": [str(tmp_path / "clip.mp4"), str(tmp_path / "nothing.mp4")]})
    decoded = decode_videos(daft.col("path"), num_frames=4, use_process=use_process, max_concurrency=1)
    good, bad = rows.with_column("video", decoded).to_pylist()
    frames, metadata = load_video(CLIP, num_frames=4)
    assert np.array_equal(good["video"]["frames"], frames)
    assert {name: good["video"]["metadata"][name] for name in metadata} == metadata
    assert good["video"]["error"] is None
    assert bad["video"]["frames"] is None
    assert bad["video"]["metadata"] is None
    assert "nothing.mp4" in bad["video"]["error"]


def test_columns_of_bytes_and_frames_of_different_sizes():
    rows = daft.from_pydict({"data": [CLIP, clip(frames=20, width=160, height=64), b"no video"]})
    decoded = rows.select(decode_videos(daft.col("data"), num_frames=2, resize=80).alias("video"))
    frames = decoded.select(daft.col("video").get("frames")).to_pydict()["frames"]
    assert [None if each is None else each.shape for each in frames] == [(2, 60, 80, 3), (2, 32, 80, 3), None]


def test_pictures_and_sounds():
    buffer = io.BytesIO()
    Image.fromarray(picture(1, 64, 48)).save(buffer, "PNG")
    rows = daft.from_pydict(
        {"picture": [buffer.getvalue(), b"x"], "sound": [encode(sine(440, 0.1, 16000), 16000), b"x"]}
    )
    good, bad = (
        rows.with_column("image", decode_images(daft.col("picture")))
        .with_column("audio", decode_audio(daft.col("sound")))
        .to_pylist()
    )
    assert np.array_equal(good["image"]["image"], picture(1, 64, 48))
    assert good["image"]["metadata"] == {"width": 64, "height": 48}
    assert good["audio"]["audio"].shape == (1600,)
    assert good["audio"]["audio"].dtype == np.float32
    assert bad["image"]["image"] is bad["audio"]["audio"] is None


def test_options_are_checked_before_anything_runs():
    with pytest.raises(InvalidArgumentError, match="nobody"):
        decode_videos(daft.col("path"), sampler="nobody")
    with pytest.raises(InvalidArgumentError, match="leaves out no row"):
        decode_videos(daft.col("path"), on_error="drop")
