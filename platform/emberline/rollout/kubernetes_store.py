"""Experiments as custom resources of one namespace; routers get them as files of one ConfigMap.

The resource's status is what counts. The ConfigMap follows from it and is put right in every round, so being killed
between the two writes, or somebody's hand on the map, heals by itself.

People ask by annotation, which says how things should be and not what to do once: `emberline.dev/paused: <reason>`
holds an experiment until the annotation is removed, `emberline.dev/abort: <reason>` rolls it back,
`emberline.dev/force: "<step or ship>: <reason>"` has it at that step or later.
"""

import time
from pathlib import Path
from typing import Any, Self

import orjson
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from emberline.errors import EmberlineError, MissingTool
from emberline.experiment import Experiment, Status, parse_experiment, status_path, to_yaml
from emberline.rollout.phases import requested_status
from emberline.rollout.requests import Request

GROUP, VERSION, PLURAL = "emberline.dev", "v1", "experiments"
CONFIG_MAP = "emberline-experiments"
PAUSED, ABORT, FORCE = "emberline.dev/paused", "emberline.dev/abort", "emberline.dev/force"
_TIMEOUT_S = 10


class KubernetesStore:
    """Reads Experiments, patches their status, and keeps the routers' ConfigMap equal to both."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._annotations: dict[str, dict[str, str]] = {}

    @classmethod
    def connect(cls, namespace: str) -> Self:
        """Inside a pod by its service account, elsewhere by the kubeconfig.

        Raises:
            MissingTool: neither is there.
        """
        try:
            config.load_incluster_config()  # type: ignore[no-untyped-call] # no types upstream
        except config.ConfigException:
            try:
                config.load_kube_config()  # type: ignore[no-untyped-call] # no types upstream
            except config.ConfigException as error:
                hint = "run in a pod with a service account, or set KUBECONFIG"
                raise MissingTool("a Kubernetes configuration", "no cluster can be reached", hint=hint) from error
        return cls(client.ApiClient(), namespace)

    def experiments(self) -> tuple[list[Experiment], list[EmberlineError]]:
        found: list[Experiment] = []
        wrong: list[EmberlineError] = []
        listed = self._ask(
            "list experiments", self._custom.list_namespaced_custom_object, GROUP, VERSION, self.namespace, PLURAL
        )
        for resource in listed["items"]:
            name = resource["metadata"]["name"]
            try:
                experiment = parse_experiment(resource, Path(f"experiment/{name}"))
            except EmberlineError as error:  # reported by the loop; the others go on
                wrong.append(error)
                continue
            self._annotations[experiment.name] = resource["metadata"].get("annotations") or {}
            found.append(experiment)
        self._publish(found, keep_all=bool(wrong))
        return found, wrong

    def write_status(self, experiment: Experiment, status: Status) -> None:
        self._ask(
            f"patch the status of {experiment.name}",
            self._custom.patch_namespaced_custom_object_status,
            GROUP,
            VERSION,
            self.namespace,
            PLURAL,
            experiment.name,
            {"status": status.model_dump(mode="json")},
            _content_type="application/merge-patch+json",
        )
        self._publish([experiment.model_copy(update={"status": status})], keep_all=True)

    def requested(self, experiment: Experiment) -> Request | None:
        annotations = self._annotations.get(experiment.name, {})
        if not experiment.terminal and ABORT in annotations:
            return Request("abort", annotations[ABORT], time.time())
        if FORCE in annotations and (forced := _force(experiment, annotations[FORCE])) is not None:
            return forced
        if PAUSED in annotations and experiment.status.phase in {"Shadow", "Ramping"}:
            return Request("pause", annotations[PAUSED], time.time())
        if PAUSED not in annotations and experiment.status.phase == "Paused":
            return Request("resume", f"the annotation {PAUSED} was removed", time.time())
        return None

    def forget_request(self, experiment: Experiment) -> None:
        """Annotations stay: they are people's to remove."""

    def _publish(self, experiments: list[Experiment], *, keep_all: bool) -> None:
        """Makes the ConfigMap hold these experiments.

        Args:
            keep_all: leave other entries, since some experiments are not among those given.
        """
        held = self._ask(f"read {CONFIG_MAP}", self._core.read_namespaced_config_map, CONFIG_MAP, self.namespace)
        before = dict(held.data or {})
        after = dict(before) if keep_all else {}
        for experiment in experiments:
            after |= files_of(experiment)
        if after == before:
            return
        changes = {key: after.get(key) for key in {**before, **after} if after.get(key) != before.get(key)}
        self._ask(
            f"patch {CONFIG_MAP}",
            self._core.patch_namespaced_config_map,
            CONFIG_MAP,
            self.namespace,
            {"data": changes},  # None removes an entry
            _content_type="application/merge-patch+json",
        )

    def _ask(self, what: str, call: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, _request_timeout=_TIMEOUT_S, **options)
        except ApiException as error:
            fact = f"cannot {what}: the API server answers {error.status} {error.reason}"
            hint = "the role in k8s/base/rollout.yaml has the rights that are needed" if error.status == 403 else None  # noqa: PLR2004 - HTTP
            raise EmberlineError(fact, place=f"namespace {self.namespace}", hint=hint) from error
        except HTTPError as error:
            raise EmberlineError(f"cannot {what}: {error}", place="the Kubernetes API") from error


def _force(experiment: Experiment, annotation: str) -> Request | None:
    """None where the experiment is as far already, or the annotation names no step."""
    target, _, reason = annotation.partition(":")
    request = Request("force", reason.strip() or "no reason given", time.time(), target.strip())
    after = requested_status(experiment, "force", request.reason, request.at, target=request.target)
    return None if after == experiment.status else request


def files_of(experiment: Experiment) -> dict[str, str]:
    """The two files that routers read."""
    status = status_path(Path(), experiment.name).name
    return {
        f"{experiment.name}.yaml": to_yaml(experiment),
        status: orjson.dumps(experiment.status.model_dump(), option=orjson.OPT_INDENT_2).decode(),
    }
