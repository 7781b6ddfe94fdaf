"""Pictures of what was loaded, for people to look at: contact sheets and waveforms, drawn by Pillow alone."""

from mmmedia.show.sheet import Row, contact_sheet, grid_sheet
from mmmedia.show.wave import waveform_picture

__all__ = ["Row", "contact_sheet", "grid_sheet", "waveform_picture"]
