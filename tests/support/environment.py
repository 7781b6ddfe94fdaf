"""What processes of tests are started with."""

import os
import sys


def importing() -> dict[str, str]:
    """By which a process finds the modules that this one does, those of tests among them."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
