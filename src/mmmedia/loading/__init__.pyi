from . import choosing as choosing, load as load, many as many, results as results, sources as sources
from .load import (
    aload_audio as aload_audio,
    aload_image as aload_image,
    aload_video as aload_video,
    load_audio as load_audio,
    load_image as load_image,
    load_video as load_video,
)
from .many import aload_many as aload_many, load_many as load_many
from .results import Audio as Audio, Video as Video
