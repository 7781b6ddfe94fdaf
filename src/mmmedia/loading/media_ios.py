"""The media IOs of the front door: bytes to results that show themselves."""

import io
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from mmmedia.errors import InvalidArgumentError
from mmmedia.loading.choosing import Choice, times_of
from mmmedia.loading.results import Audio, Frames, Video
from mmmedia.loading.streams import only_stream
from mmmedia.media.audio import load_audio
from mmmedia.media.base import MediaIO, SourceMediaIO, decode_base64
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.isolation import apart
from mmmedia.media.sound_files import AudioSource
from mmmedia.sources import FileSource, Source
from mmmedia.video.decoders.fit import Size, resized
from mmmedia.video.reading import frames_of
from mmmedia.video.samplers import TimedSource, VideoSourceMetadata
from mmmedia.work import isolated

if TYPE_CHECKING:
    from mmmedia.options import VideoMetadata


@dataclass(frozen=True)
class VideoIO(SourceMediaIO[Video]):
    """Loads a video to a `Video`.

    Args:
        choice: which frames.
        size: of the frames: (height, width), or the longer side, beyond which they are made smaller.
        stream: which of several streams of pictures; None: the best.
        device: where the frames go, as torch names it; None: they are a NumPy array.
        missing: what becomes of frames that can't be decoded, as in `read_frames`.
    """

    choice: Choice = Choice()  # noqa: RUF009  # frozen
    size: Size | None = None
    stream: int | None = None
    device: Any = None
    missing: Literal["raise", "drop"] = "raise"

    modality = "video"

    def fetch_mode(self) -> str:
        """Return "auto", "never" or "always"; "never" where another stream than the first is wanted."""
        is_first = self.stream is None or (type(self.stream) is int and self.stream == 0)
        return super().fetch_mode() if is_first else "never"

    def load_bytes(self, data: bytes) -> Video:
        """Load a video file.

        Raises:
            InvalidMediaError: (a `ValueError`) it holds no video, or not all of these frames can be decoded.
            InvalidArgumentError: (a `ValueError`) there are no such frames.
            LimitExceededError: (a `ValueError`) they are larger than the settings admit.
        """
        return self._load(data)

    def load_source(self, source: Source) -> Video:
        """Load through a source, of which no more is read than `read_frames` needs; see `load_bytes`."""
        return self._load(source)

    def _load(self, data: bytes | Source) -> Video:
        frames, metadata = replace(self, device=None)._decode(data)
        times = metadata.pop("times")
        return Video(self._moved(frames), cast("VideoMetadata", metadata), times)

    @apart("video")
    def _decode(self, data: bytes | Source) -> tuple[Frames, dict[str, Any]]:
        """Return frames in their size, and their metadata with the `times` of the frames."""
        told = TimedSource(0, 0.0, 0.0)

        def choose(source: VideoSourceMetadata) -> list[int]:
            nonlocal told
            told = source if isinstance(source, TimedSource) else TimedSource(*source)
            return self.choice(source)

        frames, indices, source = frames_of(
            data,
            choose,
            missing=self.missing,
            size=self.size,
            fetch=cast("Any", self.fetch_mode()),
            whole=partial(only_stream, stream=self.stream),  # in pieces only what has one is read
        )
        metadata = self._metadata(indices, source)
        return frames, {**metadata, "times": times_of(told, indices)}

    def load_base64(self, media_type: str, data: str) -> Video:
        """Load a video file in base64, or JPEGs for the media type "video/jpeg"."""
        if media_type.strip().lower() != "video/jpeg":
            return self.load_bytes(decode_base64(data))
        from mmmedia.media.video import VideoMediaIO

        frames, metadata = VideoMediaIO(ImageMediaIO(), num_frames=-1).load_base64(media_type, data)
        return self.load_frames(frames, metadata["fps"])

    def load_frames(self, frames: Frames, fps: float = 0.0) -> Video:
        """Choose among frames that are there already, uint8 RGB (n, height, width, 3)."""
        total = len(frames)
        source = TimedSource(total, fps, total / fps if fps > 0 else 0.0)
        chosen = list(range(total)) if self.choice == Choice() else self.choice(source)
        found = self._moved(resized(frames[chosen], self.size))
        return Video(found, self._metadata(chosen, source), times_of(source, chosen))

    def _metadata(self, indices: list[int], source: VideoSourceMetadata) -> "VideoMetadata":
        whole = len(indices) == source.total_frames_num
        return {
            "total_num_frames": source.total_frames_num,
            "fps": source.original_fps,
            "duration": source.duration,
            "video_backend": "opencv_dynamic" if self.choice.name == "opencv_dynamic" else "opencv",
            "frames_indices": indices,
            "do_sample_frames": whole and self.choice.name != "opencv_dynamic",
        }

    def _moved(self, frames: Frames) -> Frames:
        if self.device is None:
            return frames
        import torch

        moved: Any = torch.from_numpy(frames).to(self.device)
        return cast("Frames", moved)


@dataclass(frozen=True)
class AudioIO(MediaIO[Audio]):
    """Loads a sound, also that of a video, to an `Audio`.

    Args:
        sampling_rate: the rate wanted; None: as it is.
        mono: average the channels.
        start: seconds at which the part begins that is wanted; None: there.
        end: seconds at which it ends; None: with the sound.
        limited: whether the settings' limits of length count, as for what strangers chose.
    """

    sampling_rate: float | None = None
    mono: bool = True
    start: float | None = None
    end: float | None = None
    limited: bool = True

    modality = "audio"

    def get_max_bytes(self) -> int | None:
        """Return how many bytes an encoded sound may have, `None` for any number."""
        from mmmedia.media.audio import AudioMediaIO

        return AudioMediaIO().get_max_bytes() if self.limited else None

    def load_bytes(self, data: bytes) -> Audio:
        """Load an encoded sound; errors as of `mmmedia.media.audio.load_audio`."""
        return Audio(*self._decode(data))

    def load_base64(self, media_type: str, data: str) -> Audio:  # noqa: ARG002  # the bytes say it
        """Load an encoded sound in base64."""
        return self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> Audio:
        """Load a sound from a path."""
        if not (isolated.is_on() and Path(filepath).is_file()):
            return self._load(filepath)
        with FileSource(filepath) as source:
            return Audio(*self._decode(source))

    def load_waveform(self, waveform: Any, rate: float) -> Audio:
        """Return a waveform that is there already, (samples,) or (channels, samples), as wanted."""
        from mmmedia.audio import MONO_AUDIO_SPEC, normalize_audio, resample_audio_librosa

        samples = np.asarray(waveform)
        if samples.dtype.kind in "iu":
            samples = samples / np.float32(1 << (8 * samples.dtype.itemsize - 1))
        samples = samples.astype(np.float32, copy=False)
        if samples.ndim not in (1, 2) or not samples.size:
            raise InvalidArgumentError(
                f"A waveform is (samples,) or (channels, samples), not {samples.shape}."
            )
        if self.mono:
            samples = normalize_audio(samples, MONO_AUDIO_SPEC)
        if self.sampling_rate is not None:
            samples = resample_audio_librosa(samples, orig_sr=rate, target_sr=self.sampling_rate)
            rate = self.sampling_rate
        return self.part_of(samples, rate)

    def trusting(self) -> "AudioIO":
        """Return one without limits, for files of the caller's own."""
        return replace(self, limited=False)

    @apart("waveform")
    def _decode(self, data: bytes | Source) -> Audio:
        return self._load(io.BytesIO(data.read_all() if isinstance(data, Source) else data))

    def _load(self, source: AudioSource) -> Audio:
        no_limit = None if self.limited else 0
        waveform, rate = load_audio(
            source,
            sr=self.sampling_rate,
            mono=self.mono,
            max_duration_s=no_limit,
            max_decode_bytes=no_limit,
        )
        return self.part_of(waveform, rate)

    def part_of(self, waveform: Any, rate: float) -> Audio:
        """Return the part wanted of a waveform.

        Raises:
            InvalidArgumentError: (a `ValueError`) it lies behind the end.
        """
        if self.start is None and self.end is None:
            return Audio(waveform, rate)
        total = waveform.shape[-1]
        first = round((self.start or 0.0) * rate)
        last = total if self.end is None else min(total, round(self.end * rate))
        if first >= total:
            raise InvalidArgumentError(f"start={self.start:g}: the sound ends at {total / rate:g} s.")
        return Audio(np.ascontiguousarray(waveform[..., first:last]), rate)
