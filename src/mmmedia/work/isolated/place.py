"""Where this is: in a worker, or in a process that may have some."""

import os
import sys
from typing import Final

from mmmedia import envs

IS_POSSIBLE: Final = sys.platform.startswith("linux") and hasattr(os, "memfd_create")
"""Whether this system has what workers need."""


def is_on() -> bool:
    """Say whether files are to be decoded in processes of their own, from here."""
    return envs.MMMEDIA_DECODE_PROCESSES > 0


def enter() -> None:
    """Say that this process is a worker itself, which decodes on its own."""
    os.environ["MMMEDIA_DECODE_PROCESSES"] = "0"
