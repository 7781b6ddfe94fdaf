"""What media are: the report that `mmmedia inspect` prints."""

import contextlib
import io
from typing import TYPE_CHECKING, Any

from mmmedia import containers
from mmmedia.cli.words import one_line
from mmmedia.errors import InvalidMediaError, MediaError
from mmmedia.media.base import SourceMediaIO, decode_base64
from mmmedia.sources import Source, Window

if TYPE_CHECKING:
    from av.container import InputContainer

    from mmmedia.video.decoders.packets.index import PacketIndex
    from mmmedia.video.decoders.shown import Shown
    from mmmedia.video.samplers import VideoSourceMetadata

Report = dict[str, Any]

_TENSORS = (b"\x93NUMPY", b"PK\x03\x04", b"\x80\x02")  # a NumPy array, an archive of torch, an old one
_MAYBE_PICTURES = {None, "gif", "mjpeg", "mov"}  # containers of pictures as well, such as JPEG and AVIF


class InspectIO(SourceMediaIO[Report]):
    """Loads any media to a report of what they are: a dict that JSON can hold.

    Args:
        num_frames: for the samplers that take a number of frames.
        fps: for those that take frames a second.

    >>> from mmmedia.cli import scene
    >>> report = InspectIO().load_bytes(scene.photo())
    >>> report["kind"], report["format"], report["width"], report["height"]
    ('image', 'JPEG', 1200, 800)
    """

    def __init__(self, num_frames: int = 32, fps: float = 2.0) -> None:
        super().__init__()
        self.num_frames, self.fps = num_frames, fps

    def load_bytes(self, data: bytes) -> Report:
        """Report on an encoded file.

        Raises:
            InvalidMediaError: (a `ValueError`) nothing that this library reads, or broken.
            LimitExceededError: (a `ValueError`) more than the settings admit.
        """
        if not data:
            raise InvalidMediaError("It is empty.")
        if data.startswith(_TENSORS):
            return _describe_embedding(data)
        name, refusal = _container_of(data)
        if name in _MAYBE_PICTURES:
            if (moving := self._describe_animation(data)) is not None:
                return moving
            try:
                report = _describe_image(data)
            except InvalidMediaError:
                if name != "mov" and _looks_like_picture(data):
                    raise
            else:
                if report["frames"] == 1 or name not in {"gif", "mov"}:
                    return report
                try:
                    return self._describe_container(data)
                except MediaError:  # a container of several pictures, not of a sequence
                    return report
        if refusal is None:
            return self._describe_container(data)
        try:
            return _describe_audio(data)  # libsndfile knows formats that FFmpeg is not shown
        except MediaError:
            raise refusal from None

    def load_base64(self, media_type: str, data: str) -> Report:
        """Report on a file in base64, or on the pictures of a `video/jpeg` sequence."""
        if media_type.lower() == "video/jpeg":
            return _describe_sequence(data)
        return self.load_bytes(decode_base64(data))

    def load_source(self, source: Source) -> Report:
        """Report on what is read through a source: of a video its tables and a frame, of others all.

        Key frames are those that the tables name.
        """
        from mmmedia.media.kinds import kind_by_reading
        from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
        from mmmedia.video.piecewise.layout import CannotTellError

        window = Window(source)
        if self.fetch_mode() != "never" and kind_by_reading(window) == "video":
            with contextlib.suppress(CannotTellError, CannotSeekError):
                return self._describe_pieces(window)
        return self.load_bytes(window.all())

    def _describe_animation(self, data: bytes) -> Report | None:
        """Report on an animated PNG or WebP; None for all else, one of a single frame included."""
        from mmmedia.video.decoders.animation import animation

        found = animation(data)
        if found is None or len(found.durations) == 1:
            return None
        source, form = found.metadata, "webp" if data.startswith(b"RIFF") else "png"
        return {
            "kind": "video",
            "bytes": len(data),
            "container": form,
            "codec": form,
            "width": found.width,
            "height": found.height,
            "frames": source.total_frames_num,
            "fps": source.original_fps,
            "duration": source.duration,
            "samplers": self._picks(source, (found.height, found.width)),
        }

    def _describe_container(self, data: bytes) -> Report:
        from mmmedia.video.decoders.packets import index
        from mmmedia.video.decoders.shown import shown_frames
        from mmmedia.video.loaders import OpenCVVideoBackend
        from mmmedia.video.samplers import VideoSourceMetadata

        admitted = containers.admit(data)
        with index.open_held(admitted) as container:
            found = container.format.name, _audio_track(container)
            videos = containers.moving_pictures(container)
        if not videos:
            return _describe_audio(data)
        # One frame is decoded, which shows that it can be, and gives the numbers that samplers are given.
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=1)
        source = VideoSourceMetadata(metadata["total_num_frames"], metadata["fps"], metadata["duration"])
        packets = index.build(admitted)
        return self._describe_video(
            len(data), packets, shown_frames(packets), found, frames.shape[1:3], source
        )

    def _describe_pieces(self, window: Window) -> Report:
        from mmmedia.video.decoders.packets.index import open_held
        from mmmedia.video.piecewise.parts import open_video
        from mmmedia.video.piecewise.reading import decode_pieces

        video = open_video(window)
        with open_held(video.admitted) as container:
            found = container.format.name, _audio_track(container)
        decoded = decode_pieces(video, lambda _: [0])
        return self._describe_video(
            window.size, video.packets, video.shown, found, decoded.frames.shape[1:3], decoded.source
        )

    def _describe_video(
        self,
        size: int,
        packets: "PacketIndex",
        shown: "Shown",
        found: tuple[str, Report | None],
        picture: tuple[int, int],
        source: "VideoSourceMetadata",
    ) -> Report:
        """Report on a video.

        Args:
            size: its bytes.
            packets: its packets.
            shown: the frames that a player shows.
            found: its container, and its sound.
            picture: height and width.
            source: what samplers are told.
        """
        keys = packets.key[shown.packets if shown.positions is None else shown.positions]
        container, audio = found
        height, width = picture
        return {
            "kind": "video",
            "bytes": size,
            "container": container,
            "codec": packets.codec,
            "pixel_format": packets.pix_fmt,
            "width": width,
            "height": height,
            "pixel_aspect": str(packets.aspect or 1).replace("/", ":"),
            "frames": source.total_frames_num,
            "fps": source.original_fps,
            "duration": source.duration,
            "packets": len(packets),
            "key_frames": keys.nonzero()[0].tolist(),
            "audio": audio,
            "samplers": self._picks(source, picture),
        }

    def _picks(self, source: "VideoSourceMetadata", size: tuple[int, int]) -> list[Report]:
        """Return what each loader would pick, or why it would not."""
        uniform = {
            "frame_sample_mode": "uniform_last_frame",
            "max_fps": self.fps,
            "num_frames": self.num_frames,
        }
        return [
            _pick("opencv", {"num_frames": self.num_frames}, source, size),
            _pick("opencv_dynamic", {"fps": self.fps}, source, size),
            _pick("molmo2", {}, source, size),
            _pick("molmo2", uniform, source, size),
        ]


def _pick(loader: str, options: Report, source: "VideoSourceMetadata", size: tuple[int, int]) -> Report:
    from mmmedia.video.decoders.limits import check_size
    from mmmedia.video.loaders import VIDEO_LOADER_REGISTRY, VideoLoader, first_of_a_short_clip
    from mmmedia.video.samplers import VideoTargetMetadata

    target = VideoTargetMetadata(options.get("num_frames", -1), options.get("fps", -1), 300)
    if loader == "molmo2":
        target = target._replace(fps=2, max_duration=source.duration)
    report: Report = {"loader": loader, "options": options}
    try:
        sampler: type[VideoLoader] = VIDEO_LOADER_REGISTRY.get(loader)
        indices = sampler.compute_frames_index_to_sample(source, target, **options)
        indices = indices or first_of_a_short_clip(source, target)
        check_size(*size, len(indices))
    except MediaError as error:
        return {**report, "error": one_line(str(error))}
    return {**report, "count": len(indices), "indices": indices}


def _container_of(data: bytes) -> tuple[str | None, InvalidMediaError | None]:
    """Return the name of a container, or why FFmpeg is not shown these bytes."""
    try:
        return containers.identify(data), None
    except InvalidMediaError as refusal:
        return None, refusal


def _looks_like_picture(data: bytes) -> bool:
    """Say whether a format of Pillow takes these bytes for its own, so that it knows best what is wrong."""
    from PIL import Image

    Image.init()
    head = data[:16].ljust(16, b"\0")
    return any(accept is not None and accept(head) is True for _, accept in Image.OPEN.values())


def _describe_image(data: bytes) -> Report:
    from mmmedia.media.image import ImageMediaIO

    image = ImageMediaIO(image_mode=None).load_bytes(data).media
    return {
        "kind": "image",
        "bytes": len(data),
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "frames": getattr(image, "n_frames", 1),
    }


def _describe_sequence(text: str) -> Report:
    from mmmedia.media.image import ImageMediaIO
    from mmmedia.media.video import VideoMediaIO

    frames, metadata = VideoMediaIO(ImageMediaIO(), num_frames=-1).load_base64("video/jpeg", text)
    return {
        "kind": "video",
        "bytes": len(text) * 3 // 4,
        "container": metadata["video_backend"],
        "codec": "mjpeg",
        "width": frames.shape[2],
        "height": frames.shape[1],
        "frames": len(frames),
    }


def _describe_embedding(data: bytes) -> Report:
    from mmmedia.tensors import load_tensor

    tensor = load_tensor(data)
    return {
        "kind": "embedding",
        "bytes": len(data),
        "format": "npy" if data.startswith(_TENSORS[0]) else "torch",
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
    }


def _describe_audio(data: bytes) -> Report:
    from mmmedia.media.audio import AudioMediaIO

    waveform, rate = AudioMediaIO().load_bytes(data)
    return {
        "kind": "audio",
        "bytes": len(data),
        **_sound_format(data),
        "sampling_rate": rate,
        "samples": len(waveform),
        "duration": len(waveform) / rate,
    }


def _sound_format(data: bytes) -> Report:
    """Return the container, codec and channels, from the library that reads it."""
    import soundfile

    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.SoundFileError:
        with containers.open_av(data) as container:
            track = _audio_track(container) or {}
            return {
                "container": container.format.name,
                "codec": track["codec"],
                "channels": track["channels"],
            }
    return {"container": info.format, "codec": info.subtype, "channels": info.channels}


def _audio_track(container: "InputContainer") -> Report | None:
    if not container.streams.audio:
        return None
    context = container.streams.audio[0].codec_context
    return {
        "codec": context.name,
        "sampling_rate": context.sample_rate,
        "channels": context.layout.nb_channels,
    }
