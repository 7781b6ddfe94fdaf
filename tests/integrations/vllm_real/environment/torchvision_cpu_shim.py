"""Lets PyPI's (CUDA) torchvision import beside a CPU torch: declares the two ops it wants to see.

Its C extension can't load here (no libtorch_cuda); the Python part (transforms.v2), all that transformers'
processors use, works without. Installed by a .pth file with the one line `import torchvision_cpu_shim`.
"""

import importlib.abc
import importlib.machinery
import sys


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if torch.version.cuda:  # it loads its own
                return
            self.library = torch.library.Library("torchvision", "DEF")
            sys.modules[__name__].library = self.library  # keep it alive
            self.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return


sys.meta_path.insert(0, _Finder())
