"""What happens to the loser of a shipped experiment: no traffic, then nothing in flight, then it is unregistered.

The order matters: TorchServe never answers clients whose version is deleted under them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from emberline.errors import StageFailed
from emberline.experiment import Experiment
from emberline.rollout.routers import answers_by_default, num_active
from emberline.route.clusters import cluster_name
from emberline.serve import management

Retirement = Literal["kept", "draining", "unregistered"]
_DRAIN_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Servers:
    """Where to ask; without a management address nothing is ever unregistered."""

    admin: str | None
    management: str | None


def retire(experiment: Experiment, others: Sequence[Experiment], servers: Servers) -> tuple[Retirement, str]:
    """One round of retiring the control of a shipped experiment; done already counts as done.

    Returns:
        How far it is, with a sentence that says why.
    """
    model, version = experiment.spec.model, experiment.spec.control.version
    if experiment.status.phase != "Shipped" or servers.management is None:
        return "kept", f"{model} {version} stays registered"
    if version == experiment.spec.treatment.version:
        return "kept", f"{model} {version} stays registered: it is the winner too"
    if user := next((one.name for one in others if one.name != experiment.name and uses(one, model, version)), None):
        return "kept", f"{model} {version} stays registered: experiment {user} uses it"
    if experiment.spec.layer is not None:
        return "kept", f"{model} {version} stays registered: units outside of the experiment's slice get it"
    if servers.admin is not None and answers_by_default(model, version, admin=servers.admin):
        return "kept", f"{model} {version} stays registered: the router gives it to units in the holdout"
    return let_go(model, version, [cluster_name(experiment, experiment.spec.control)], servers)


def let_go(model: str, version: str, clusters: Sequence[str], servers: Servers) -> tuple[Retirement, str]:
    """One round of unregistering a version that gets no traffic any more.

    Args:
        clusters: through which routers sent it requests.
    """
    if servers.management is None or management.describe(servers.management, model, version) is None:
        return "unregistered", f"{model} {version} is not registered"
    if servers.admin is not None:
        active = sum(num_active(servers.admin, cluster) for cluster in clusters)
        if active:
            return "draining", f"{active} requests to {model} {version} are in flight"
    try:
        management.drain_and_unregister(servers.management, model, version, timeout_s=_DRAIN_TIMEOUT_S)
    except StageFailed as busy:  # still pending: another round will come
        return "draining", str(busy)
    return "unregistered", f"{model} {version} had no request left and was unregistered"


def uses(experiment: Experiment, model: str, version: str) -> bool:
    """Whether an experiment sends, or may yet send, traffic to a version."""
    if experiment.spec.model != model:
        return False
    if experiment.terminal:
        return any(
            weight and variant.version == version
            for variant, weight in zip(experiment.spec.variants, experiment.weights, strict=True)
        )
    return any(variant.version == version for variant in experiment.spec.variants)
