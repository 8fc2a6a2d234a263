"""Puts handlers, manifests and recipes into wheels, so that an installed emberline finds them without a checkout.

An editable install must not carry copies: they would go stale while the checkout's files are edited, so the hook does
nothing there and `emberline.assets` reads the checkout itself.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("handlers", "k8s", "recipes")


class AssetsHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        for folder in FOLDERS:
            build_data["force_include"][f"{self.root}/{folder}"] = f"emberline/_assets/{folder}"
