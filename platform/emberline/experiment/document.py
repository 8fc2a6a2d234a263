"""An experiment as it is written for `kubectl apply`."""

from pathlib import Path
from typing import Any, Literal

import yaml

from emberline.experiment.experiment import Experiment
from emberline.experiment.spec import Spec
from emberline.experiment.status import Status
from emberline.paper import Frozen
from emberline.recipe import Name, parse_model

API_VERSION = "emberline.dev/v1"


class Metadata(Frozen):
    name: Name


class _Document(Frozen):
    """The file as written for `kubectl apply`."""

    apiVersion: Literal["emberline.dev/v1"]  # noqa: N815 - Kubernetes' spelling
    kind: Literal["Experiment"]
    metadata: dict[str, Any]
    spec: Spec
    status: dict[str, Any] = {}


def parse_experiment(raw: dict[str, Any], place: Path) -> Experiment:
    """An experiment from its document; a `status` in it is what the cluster reports.

    Raises:
        InvalidSetting, UnknownKey: with the file and key that is wrong.
    """
    document = parse_model(_Document, raw, place)
    metadata = parse_model(Metadata, {"name": document.metadata.get("name")}, place)
    status = parse_model(Status, {k: v for k, v in document.status.items() if k in Status.model_fields}, place)
    return Experiment(name=metadata.name, spec=document.spec).under(status)


def to_yaml(experiment: Experiment) -> str:
    """The document of an experiment, without its status."""
    spec = experiment.spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    document = {"apiVersion": API_VERSION, "kind": "Experiment", "metadata": {"name": experiment.name}, "spec": spec}
    return yaml.safe_dump(document, sort_keys=False)
