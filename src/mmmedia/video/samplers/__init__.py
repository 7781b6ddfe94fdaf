"""Samplers: which frames of a source to take. Pure functions of numbers; no decoder is known here.

A source is `total` frames at `fps0` frames a second for `duration` seconds. Every sampler returns source
indices as plain ints, ascending; some repeat one. The rules are those of the loaders of the same names in
vLLM 0.33, and so of the models; tables recorded from it are among the tests. `sampler_for` finds a sampler by
the model that it is for.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
