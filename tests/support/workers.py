"""What workers find by this module's name."""

from mmmedia.batch import Decoder
from support.clips import read_number


class Clips:
    """A dataset of encoded clips, decoded where an item is asked for."""

    def __init__(self, clips: list[bytes], decode: Decoder) -> None:
        self.clips, self.decode = clips, decode

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int):
        return self.decode(self.clips[index]).media


def numbers_and_error(decode: Decoder, source: bytes) -> tuple[list[int], str | None]:
    frames, _, error = decode(source)
    return [read_number(frame) for frame in frames], error
