"""What decode processes import from a module of somebody else."""

import os
import time
from typing import Any

from PIL import Image

from mmmedia.media import ImageMediaIO


class Doubled(ImageMediaIO):
    """Pictures of twice the size."""

    def _decode(self, *args: Any) -> tuple[Image.Image, bool]:
        image, _ = super()._decode(*args)
        return image.resize((image.width * 2, image.height * 2)), True


def pid(errand: Any) -> int:
    return os.getpid()


def sleep(errand: Any) -> None:
    time.sleep(50)
