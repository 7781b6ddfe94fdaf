from mmmedia.sources import Window
from mmmedia.video.piecewise.layout import CannotTellError, Layout
def read(window: Window) -> Layout:
    raise CannotTellError("later")
