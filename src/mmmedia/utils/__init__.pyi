from . import media as media, sparse_utils as sparse_utils
from .media import (
    encode_audio_base64 as encode_audio_base64,
    encode_audio_url as encode_audio_url,
    encode_image_base64 as encode_image_base64,
    encode_image_url as encode_image_url,
    encode_video_base64 as encode_video_base64,
    encode_video_url as encode_video_url,
    fetch_audio as fetch_audio,
    fetch_image as fetch_image,
    fetch_video as fetch_video,
)
