"""Serves models of images: the body is a JPEG or PNG file, a form with one, or JSON with base64 of one."""

from ember_image import EmberImage


class ImageHandler(EmberImage):
    """All of it is `EmberImage`'s; TorchServe requires exactly one class in this file."""
