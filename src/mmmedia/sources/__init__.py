"""Sources: things of known size that are read in pieces, wherever they are.

`BytesSource` is in memory, `FileSource` on a disk, `FsspecSource` an object of a store; those behind HTTP are
`mmmedia.connections.ranges.HttpSource`. `Window` is what of a source has been read so far, `WindowSource`
a source of which that is not read again, and `SourceFile` makes a file of one.
"""

from mmmedia.sources.base import Ranges, Source, check_ranges
from mmmedia.sources.file import SourceFile
from mmmedia.sources.local import BytesSource, FileSource
from mmmedia.sources.objects import FsspecSource, errors_of_stores
from mmmedia.sources.window import Window, WindowSource, coalesced

__all__ = [
    "BytesSource",
    "FileSource",
    "FsspecSource",
    "Ranges",
    "Source",
    "SourceFile",
    "Window",
    "WindowSource",
    "check_ranges",
    "coalesced",
    "errors_of_stores",
]
