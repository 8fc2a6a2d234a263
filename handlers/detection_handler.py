"""Serves detectors: a picture in, boxes of the objects in it out."""

from ember_detection import EmberDetection


class DetectionHandler(EmberDetection):
    """All of it is `EmberDetection`'s; TorchServe requires exactly one class in this file."""
