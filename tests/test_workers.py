"""In the workers of others: loaders of torch, joblib, pools of processes."""

import base64
import io
import multiprocessing
import warnings

import numpy as np
import pytest
from PIL import Image

import mmmedia
from mmmedia.batch import Decoder
from mmmedia.media import ImageMediaIO, MediaConnector
from support.clips import clip, read_number
from support.workers import Clips

CLIP = clip(frames=24)
URL = "data:video/mp4;base64," + base64.b64encode(CLIP).decode()
EXPECTED = [0, 11, 23]


def numbers(frames: np.ndarray) -> list[int]:
    return [read_number(frame) for frame in frames]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_data_loader_s_workers_decode(start: str) -> None:
    """Two of them, after this process has decoded itself; each batch is right, and nobody warns."""
    torch_data = pytest.importorskip("torch.utils.data")
    assert numbers(mmmedia.load_video(CLIP, num_frames=3).frames) == EXPECTED
    loader = torch_data.DataLoader(
        Clips([CLIP] * 6, Decoder("video", num_frames=3, threads=1)),
        batch_size=2,
        num_workers=2,
        multiprocessing_context=start,
        timeout=100,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # Python's own word on threads
        batches = list(loader)
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 96, 128, 3)] * 3
    assert all(numbers(frames.numpy()) == EXPECTED for batch in batches for frames in batch)


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_a_pool_maps_a_connector_s_method(start: str) -> None:
    """The method travels with its connector, and so does what it returns."""
    connector = MediaConnector({"video": {"num_frames": 3}})
    connector.fetch_video(URL)
    with multiprocessing.get_context(start).Pool(2) as pool:
        results = pool.map_async(connector.fetch_video, [URL] * 4).get(100)
        pool.close()
        pool.join()
    for frames, metadata in results:
        assert numbers(frames) == metadata["frames_indices"] == EXPECTED


def test_a_pool_maps_load_video() -> None:
    """As people write it; what comes back shows itself as it would here."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (video,) = pool.map_async(mmmedia.load_video, [CLIP]).get(100)
        pool.close()
        pool.join()
    assert repr(video) == repr(mmmedia.load_video(CLIP))


def test_joblib_s_workers_decode() -> None:
    """By its own pickles."""
    joblib = pytest.importorskip("joblib")
    decode = Decoder("video", num_frames=3, threads=1)
    with joblib.parallel_config(backend="loky"):
        rows = joblib.Parallel(n_jobs=2, timeout=100)(joblib.delayed(decode)(source) for source in [CLIP] * 3)
    assert [numbers(row.media) for row in rows] == [EXPECTED] * 3
    import joblib.externals.loky as loky

    loky.get_reusable_executor().shutdown(wait=True)


def test_a_processor_of_transformers_takes_the_picture_itself() -> None:
    """It asks for Pillow's type: `.media` of what the connector returns, as the Readme has it."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    wrapped = ImageMediaIO().load_bytes(file.getvalue())
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    expected = processor(wrapped.media, return_tensors="np")["pixel_values"]
    assert np.array_equal(processor(mmmedia.load_image(file), return_tensors="np")["pixel_values"], expected)
    assert np.asarray(wrapped).shape == (256, 256, 3)
    with pytest.raises(TypeError):
        processor(wrapped, return_tensors="np")
