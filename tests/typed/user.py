"""What a user writes, as checkers of types see it; it is read, not run.

Every line that ends in `# wrong` must be an error, and no other.
"""

import asyncio

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

import mmmedia
from mmmedia import MediaConnector
from mmmedia.batch import Decoder

video = mmmedia.load_video("clip.mp4", num_frames=8)
frames, metadata = video
pixels: npt.NDArray[np.uint8] = frames
rate: float = metadata["fps"]
numbers: list[int] = metadata["frames_indices"]
times: list[float] = video.timestamps
tensor: torch.Tensor = video.to_tensor()
sheet: Image.Image = video.sheet(columns=4)
size: tuple[int, int] = (video.width, video.height)

picture: Image.Image = mmmedia.load_image(b"...")
waveform, sampling_rate = mmmedia.load_audio("speech.wav", sampling_rate=16_000)
samples: npt.NDArray[np.float32] = waveform

for source, result in mmmedia.load_many(["a.mp4", "b.wav"], kind="video", on_error="return"):
    if isinstance(result, Exception):
        failed: tuple[object, Exception] = (source, result)
    elif isinstance(result, mmmedia.Video):
        seconds: float = result.metadata["duration"] + 1.0


async def twins() -> mmmedia.Video:
    async for _, loaded in mmmedia.aload_many(["a.mp4"]):
        assert loaded is not None
    return await mmmedia.aload_video("clip.mp4", fps=2.0)


asyncio.run(twins())

connector = MediaConnector({"video": {"num_frames": 4, "fps": 2}, "image": {"max_pixels": 1000}})
options: mmmedia.MediaIOKwargs = {"audio": {"audio_backend": "pyav"}}
MediaConnector(media_io_kwargs=options)
fetched = connector.fetch_video("https://example.org/clip.mp4")
shown, told = fetched
height: int = shown.shape[1]
a_second: float = told["fps"]
listed: list[int] = fetched.media[1]["frames_indices"]
encoded: bytes = fetched.original_bytes
heard, hertz = connector.fetch_audio("https://example.org/speech.wav")
exact: float = hertz


async def in_a_loop() -> float:
    _, known = await connector.fetch_video_async("https://example.org/clip.mp4")
    return known["duration"]


row = Decoder("video", num_frames=4, on_error="drop")("clip.mp4")
failure: str | None = row.error

mmmedia.load_video("clip.mp4", num_frame=8)  # wrong
mmmedia.load_audio("a.wav", sample_rate=8000)  # wrong
MediaConnector({"video": {"num_frame": 4}})  # wrong
MediaConnector({"videos": {"num_frames": 4}})  # wrong
MediaConnector({"video": {"backend": "openvc"}})  # wrong
text: str = metadata["fps"]  # wrong
metadata["frame_rate"]  # wrong
words: str = told["fps"]  # wrong
told["framerate"]  # wrong
connector.fetch_video("https://example.org/clip.mp4", video_procesor="x")  # wrong
MediaConnector(media_io_kwarg={})  # wrong
mmmedia.load_many([], on_error="ignore")  # wrong
Decoder("text")  # wrong
