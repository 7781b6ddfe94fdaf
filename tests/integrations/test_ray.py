"""Videos, pictures and sounds in Ray Data, on a cluster of this machine."""

import io
import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmmedia import load_video
from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.integrations.ray import DecodeAudio, DecodeImages, DecodeVideos, decode_videos
from support import needs
from support.clips import clip, picture
from support.sounds import encode, sine

CLIP, WIDE = clip(frames=30), clip(frames=20, width=160, height=64)


def batch_of(**columns: list) -> dict[str, np.ndarray]:
    """A batch as Ray hands it over: an array for each column."""
    made = {}
    for name, cells in columns.items():
        made[name] = np.empty(len(cells), object)
        made[name][:] = cells
    return made


# Without a cluster.


def test_a_batch_comes_back_row_by_row():
    decode = DecodeVideos("clip", num_frames=4, keep_source=True)
    rows = decode(batch_of(clip=[CLIP, b"no video", WIDE], label=[1, 2, 3]))
    first = next(rows)
    assert np.array_equal(first["frames"][0], load_video(CLIP, num_frames=4)[0])
    assert first["clip"][0] == CLIP
    second, third = rows
    assert second["frames"].shape == (1, 0, 0, 0, 3)
    assert str(second["error"][0]).startswith("InvalidMediaError")
    assert third["frames"].shape == (1, 4, 64, 160, 3)
    assert [each["label"][0] for each in (first, second, third)] == [1, 2, 3]
    kinds = [
        {name: type(value) for name, value in row["metadata"][0].items()} for row in (first, second, third)
    ]
    assert kinds[0] == kinds[1] == kinds[2]
    assert second["metadata"][0]["frames_indices"].dtype == first["metadata"][0]["frames_indices"].dtype


def test_what_cannot_be_decoded_is_dropped_or_raised_on_demand():
    batch = batch_of(clip=[b"no video", CLIP])
    (row,) = DecodeVideos("clip", num_frames=2, on_error="drop")(batch)
    assert row["frames"].shape == (1, 2, 96, 128, 3)
    assert "clip" not in row
    with pytest.raises(InvalidMediaError):
        list(DecodeVideos("clip", on_error="raise")(batch))


def test_an_incomplete_clip_is_named():
    """One that is damaged in its midst, so that some frames can't be had."""
    data = bytearray(clip(frames=12, gop=1))
    with av.open(io.BytesIO(bytes(data))) as container:
        start, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][5]
    data[start + 4 : start + size] = bytes(size - 4)
    (row,) = DecodeVideos("clip", num_frames=12)(batch_of(clip=[bytes(data)]))
    assert "frames can't be decoded" in str(row["error"][0])


def test_columns_have_the_names_that_are_asked_for():
    decode = DecodeVideos("clip", num_frames=2, output="pixels", metadata="facts", error="why")
    assert set(next(decode(batch_of(clip=[CLIP])))) == {"pixels", "facts", "why"}


def test_pictures_and_sounds():
    buffer = io.BytesIO()
    Image.fromarray(picture(1, 64, 48)).save(buffer, "PNG")
    (row,) = DecodeImages("file")(batch_of(file=[buffer.getvalue()]))
    assert np.array_equal(row["image"][0], picture(1, 64, 48))
    (row,) = DecodeAudio("file")(batch_of(file=[encode(sine(440, 0.1, 16000), 16000)]))
    assert row["audio"].shape == (1, 1600)


# On a cluster.


def with_ray(test):
    """Actors start slowly where the machine is busy; warnings are those of Ray itself."""
    return pytest.mark.timeout(600)(pytest.mark.filterwarnings("ignore")(test))


@pytest.fixture(scope="module")
def ray():
    with needs.ray_cluster(2) as ray:
        # What this file defines can't be imported by the actors.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray


@with_ray
def test_a_column_of_paths_on_two_actors(ray, tmp_path: Path):
    for number in range(4):
        (tmp_path / f"{number}.mp4").write_bytes((CLIP, WIDE)[number % 2])
    (tmp_path / "broken.mp4").write_bytes(CLIP[:500])
    paths = sorted(map(str, tmp_path.iterdir()))
    rows = ray.data.from_items([{"path": path} for path in paths])
    decoded = decode_videos(rows, "path", num_frames=4, resize=64, concurrency=2, keep_source=True)
    found = {Path(row["path"]).stem: row for row in decoded.take_all()}
    assert len(found) == 5
    assert found["0"]["frames"].shape == (4, 48, 64, 3)
    assert found["1"]["frames"].shape == (4, 26, 64, 3)
    assert np.array_equal(found["0"]["frames"], load_video(CLIP, num_frames=4, size=64)[0])
    assert found["broken"]["frames"].size == 0
    assert [name for name, row in found.items() if row["error"] is not None] == ["broken"]
    assert list(found["2"]["metadata"]["frames_indices"]) == [0, 9, 19, 29]


@with_ray
def test_columns_are_of_one_type_also_where_nothing_failed(ray, tmp_path: Path):
    """Else Parquet files of one dataset could not be read together."""
    import pyarrow.parquet

    for number, clips in enumerate(([CLIP], [b"no video"])):
        rows = ray.data.from_items([{"clip": data} for data in clips])
        decode_videos(rows, "clip", num_frames=1, concurrency=1).write_parquet(str(tmp_path / str(number)))
    schemas = [pyarrow.parquet.read_schema(path) for path in sorted(tmp_path.rglob("*.parquet"))]
    assert schemas[0].field("error") == schemas[1].field("error")
    assert schemas[0].field("metadata") == schemas[1].field("metadata")
    assert schemas[0].field("error").type == pyarrow.string()


class Threads(DecodeVideos):
    """Says how many threads its actor decodes with."""

    def __call__(self, batch):
        import cv2

        for row in super().__call__(batch):
            yield {
                "decoder": np.array([self._decoder.threads]),
                "opencv": np.array([cv2.getNumThreads()]),
                "process": np.array([os.getpid()]),
                **{name: row[name] for name in ("error",)},
            }


@with_ray
def test_an_actor_decodes_with_the_cpus_that_it_has(ray):
    rows = ray.data.from_items([{"clip": CLIP}] * 2)
    options = {"fn_constructor_args": ("clip",), "fn_constructor_kwargs": {"num_frames": 4}, "batch_size": 1}
    for cpus in (1, 2):
        pool = ray.data.ActorPoolStrategy(size=1)
        found = rows.map_batches(Threads, compute=pool, num_cpus=cpus, **options).take_all()
        assert {(row["decoder"], row["opencv"], row["error"]) for row in found} == {(cpus, cpus, None)}
        assert os.getpid() not in {row["process"] for row in found}


@with_ray
def test_a_sampler_is_looked_up_before_anything_runs(ray):
    rows = ray.data.from_items([{"clip": CLIP}])
    with pytest.raises(InvalidArgumentError, match="nobody"):
        decode_videos(rows, "clip", sampler="nobody")
    decoded = decode_videos(rows, "clip", sampler=last_frame, concurrency=(1, 1)).take_all()
    assert list(decoded[0]["metadata"]["frames_indices"]) == [29]


def last_frame(video) -> list[int]:
    """A rule of the caller's own."""
    return [video.total_frames_num - 1]
