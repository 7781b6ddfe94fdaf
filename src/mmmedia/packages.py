"""Packages that may be missing: who needs one is told how to install it, and no file is blamed.

Every one that is declared is there after a plain installation; but people install with ``--no-deps``, or into
an image without torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mmmedia.errors import MissingPackageError

DISTRIBUTIONS: Mapping[str, str] = {
    "aiohttp": "aiohttp",
    "av": "av",
    "cv2": "'opencv-python-headless>=4.11,!=5.0.0.93'",
    "librosa": "librosa",
    "requests": "requests",
    "scipy": "scipy",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "torch": "torch",
    "urllib3": "urllib3",
    "blake3": "'mmmedia[blake3]'",
    "fsspec": "'mmmedia[fsspec]'",
    "pillow_heif": "'mmmedia[heif]'",
    "prometheus_client": "'mmmedia[metrics]'",
    "ray": "'mmmedia[ray]'",
    "daft": "'mmmedia[daft]'",
    "transformers": "'mmmedia[transformers]'",
    "torchcodec": "'mmmedia[torchcodec]'",
    "s3fs": "s3fs",
    "gcsfs": "gcsfs",
    "adlfs": "adlfs",
    "datasets": "datasets",
    "tqdm": "tqdm",
}
"""What to install, by the name that is imported."""


def missing_package(error: ImportError, what: str = "this") -> MissingPackageError | None:
    """Return the error to raise for an import that failed; None where the package is not one of ours.

    Args:
        error: what the import raised.
        what: who needs the package.

    >>> print(missing_package(ModuleNotFoundError("No module named 'av'", name="av"), "a video"))
    a video needs the package av: python3 -m pip install av
    """
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name not in DISTRIBUTIONS:
        return None
    return MissingPackageError(
        f"{what} needs the package {name}: python3 -m pip install {DISTRIBUTIONS[name]}", name=name
    )


@contextmanager
def packages_for(what: str) -> Iterator[None]:
    """Raise `MissingPackageError` where a package is missing inside the block.

    Args:
        what: who needs it, as the first words of the message.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ImportError as error:
        if (missing := missing_package(error, what)) is None:
            raise
        raise missing from error
