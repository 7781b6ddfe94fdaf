"""Frames that a framework's own rule chooses, of whatever an adapter is handed."""

from typing import TYPE_CHECKING, Any

from mmmedia import envs
from mmmedia.loading.choosing import Choice
from mmmedia.loading.load import load_video
from mmmedia.loading.media_ios import VideoIO
from mmmedia.loading.results import Video
from mmmedia.urls import url_scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mmmedia.media.connector import MediaConnector
    from mmmedia.video.samplers import VideoSourceMetadata


def load_sampled(
    source: Any,
    rule: "Callable[[VideoSourceMetadata], Sequence[int]]",
    connector: "MediaConnector | None" = None,
) -> Video:
    """Return the frames that a rule chooses, in its order, also several times.

    Args:
        source: a path, a URL, bytes, or an open file. A path is the caller's own; a URL keeps every limit.
        rule: told what the video is, it returns the numbers of frames.
        connector: what fetches URLs, `file:` ones too; None: a new one, with the policy of the settings.

    Raises:
        MediaError: as of `mmmedia.load_video`, and of `MediaConnector.load_from_url`.
    """
    if connector is None or not isinstance(source, str) or len(url_scheme(source)) < 2:  # a drive of Windows
        return load_video(source, sampler=rule)
    video_io = VideoIO(Choice(sampler=rule))
    return connector.load_from_url(source, video_io, fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT)
