"""`decode_columns`, which needs no transformers."""

import pickle

import pytest

from mmmedia.errors import InvalidArgumentError
from mmmedia.integrations.transformers import decode_columns
from support.clips import clip

CLIP = clip(frames=20)


def test_columns_hold_dicts_or_sources_and_others_stay():
    transform = decode_columns(video={"num_frames": 2}, clip={"modality": "video", "num_frames": 3})
    cells = [{"bytes": CLIP, "path": "ignored.mp4"}, {"bytes": None, "path": "nothing.mp4"}]
    batch = transform({"video": cells, "clip": [CLIP, CLIP], "label": [1, 2]})
    assert [frames.shape for frames in batch["video"]] == [(2, 96, 128, 3), (0, 0, 0, 3)]
    assert [frames.shape for frames in batch["clip"]] == [(3, 96, 128, 3)] * 2
    assert batch["video_error"][0] is None
    assert "nothing.mp4" in batch["video_error"][1]
    assert batch["clip_metadata"][1]["frames_indices"] == [0, 9, 19]
    assert batch["label"] == [1, 2]


def test_rows_are_dropped_on_demand():
    transform = decode_columns(video={"num_frames": 2, "on_error": "drop"})
    batch = transform({"video": [b"x", CLIP, b"y"], "label": [0, 1, 2]})
    assert batch["label"] == [1]
    assert len(batch["video"]) == len(batch["video_error"]) == 1


def test_it_pickles_and_shows_itself():
    transform = pickle.loads(pickle.dumps(decode_columns(video={"num_frames": 2})))
    assert transform({"video": [CLIP]})["video"][0].shape == (2, 96, 128, 3)
    assert repr(transform).startswith("decode_columns(video=Decoder('video'")


def test_a_column_of_another_name_says_what_it_holds():
    with pytest.raises(InvalidArgumentError, match="clip: its modality"):
        decode_columns(clip={})
