"""Serves segmentation nets: a picture in, the class of each of its pixels out."""

from ember_segmentation import EmberSegmentation


class SegmentationHandler(EmberSegmentation):
    """All of it is `EmberSegmentation`'s; TorchServe requires exactly one class in this file."""
