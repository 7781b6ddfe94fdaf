"""Decoders other than OpenCV and PyAV, each in a package of its own: chosen by the keyword `backend`."""
