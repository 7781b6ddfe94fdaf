"""The limit of a frame's pixels."""

from mmmedia import envs
from mmmedia.errors import LimitExceededError


def check_frame_pixel_limit(width: int, height: int) -> None:
    """Refuse frames of more pixels than `VLLM_MAX_IMAGE_PIXELS`; as many pass.

    Raises:
        LimitExceededError: (a `ValueError`) more.
    """
    limit = envs.VLLM_MAX_IMAGE_PIXELS
    if 0 < limit < width * height:
        raise LimitExceededError(
            f"A frame of {width} x {height} pixels is over the limit of {limit} (VLLM_MAX_IMAGE_PIXELS)."
        )
