"""As much of qwen-vl-utils as a reader is called by, for where it is not installed."""

from functools import lru_cache

FORCE_QWENVL_VIDEO_READER = None
VIDEO_READER_BACKENDS = {"torchvision": None, "torchcodec": None}


@lru_cache(maxsize=1)
def get_video_reader_backend():
    return FORCE_QWENVL_VIDEO_READER or "torchvision"


def calculate_video_frame_range(ele, total_frames, video_fps):
    first = round(ele.get("video_start", 0) * video_fps)
    return first, total_frames - 1, total_frames - first


def smart_nframes(ele, total_frames, video_fps):
    return ele.get("nframes") or round(total_frames / video_fps * ele.get("fps", 2))


def is_torchcodec_available():
    return False


def fetch_video(ele, return_video_sample_fps=False):
    try:
        video, _, rate = VIDEO_READER_BACKENDS[get_video_reader_backend()](ele)
    except Exception:
        video, _, rate = VIDEO_READER_BACKENDS["torchvision"](ele)
    return (video, rate) if return_video_sample_fps else video
