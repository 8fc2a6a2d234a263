"""The controller: a thin loop over pure decisions, in which every round starts from what is stored."""

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from emberline.compare.assess import assess
from emberline.compare.assessment import Assessment
from emberline.compare.costs import Usage, read_usage, usage_path, with_costs, write_usage
from emberline.compare.history import history_path, keep_look
from emberline.compare.observations import Observations
from emberline.compare.observe import observe
from emberline.compare.routed import Routed, load_routed, write_routed
from emberline.errors import EmberlineError
from emberline.experiment import Experiment, Status, deployed_path, load_deployed
from emberline.rollout import audit, deployments, phases
from emberline.rollout.clocks import Clocks, read_clocks
from emberline.rollout.gpu_clocks import GpuClocks
from emberline.rollout.lock import only_one
from emberline.rollout.retire import Servers, retire
from emberline.rollout.routers import has_taken, num_routed, refused_files
from emberline.rollout.store import Store
from emberline.rollout.wishes import going_on, read_wishes
from emberline.route.clusters import cluster_name
from emberline.runlog import RunLog

_MEASURE_EVERY_S = 5.0


@dataclass
class Rollout:
    """One controller and where everything it touches is.

    Attributes:
        folder: of the audit logs, looks and requests; the experiments themselves may be elsewhere.
        settled: experiments with nothing left to do, by name and revision; found out again after a restart.
        missed: experiments going on whose file was not there at the last look.
        said: last line said of an experiment, so that a round without news is silent.
    """

    store: Store
    folder: Path
    data: Path
    servers: Servers
    log: RunLog
    route: str | None = None
    last_looks: dict[str, Assessment] = field(default_factory=dict)
    settled: set[tuple[str, int]] = field(default_factory=set)
    said: dict[str, str] = field(default_factory=dict)
    missed: set[str] = field(default_factory=set)
    gpus: GpuClocks = field(default_factory=GpuClocks)

    def run(self, interval_s: float, stop: threading.Event, *, until_done: bool = False) -> bool:
        """Rounds until told to stop, or until every experiment is done; whether it is."""
        with only_one(self.folder):
            while True:
                done = self.round()
                if done and until_done:
                    return True
                if stop.wait(interval_s):
                    return done

    def round(self) -> bool:
        """One look at every experiment; whether nothing is left to do. One that fails does not stop the others."""
        try:
            experiments, wrong = self.store.experiments()
        except EmberlineError as error:
            self._say("the experiments", str(error))
            return False
        for unreadable in wrong:
            place = str(unreadable.place)
            self._say(place, str(unreadable).removeprefix(f"{place}: "))
        if not (experiments or wrong or self.settled):
            self._say("the experiments", "there are none yet; one begins as soon as its file is there")
        done = not wrong
        try:
            done &= self._deployments(experiments)
        except EmberlineError as error:
            self._say("deployments", f"will try again: {error}")
            done = False
        done &= bool(experiments) or bool(self.settled)
        missed, self.missed = self.missed, {one.name for one in experiments if one.gone and not one.terminal}
        for experiment in experiments:
            if experiment.name in self.missed - missed:  # programs that save a file may take it away for a moment
                self._say(experiment.name, "its file is gone; without it the experiment ends at the next look")
                done = False
                continue
            try:
                done &= self._advance(experiment, experiments)
            except EmberlineError as error:
                self._say(experiment.name, f"will try again: {error}")
                done = False
        return done

    def _advance(self, experiment: Experiment, others: list[Experiment]) -> bool:
        """At most one change of status; True when the experiment needs no further round."""
        if (owed := audit.decided_but_not_done(self.folder, experiment)) is not None:
            self._put_in_force(experiment, owed, "carried out after a restart")
            return False
        if self._carry_out_request(experiment):
            return False
        if experiment.terminal:
            return self._settle(experiment, others)
        if experiment.status.phase == "Pending":
            self._begin(experiment, others)
        elif not experiment.status.since:
            self._confirm(experiment)
        else:
            self._judge(experiment)
        return False

    def _begin(self, experiment: Experiment, others: list[Experiment]) -> None:
        """Enters the first step, unless another experiment has the model's traffic, or routers cannot use this one.

        From its beginning on a spec cannot be changed: a version that no router serves must come to light before.
        """
        for other in others:
            before = other.status.phase != "Pending" or other.name < experiment.name
            if experiment.shares_units_with(other) and other.name != experiment.name and not other.terminal and before:
                self._say(experiment.name, f"waits: experiment {other.name} has its units of {experiment.spec.model}")
                return
        if self._has_routers and not self._is_taken(experiment):
            self._say(experiment.name, self._why_not_taken(experiment))
            return
        look = assess(experiment, Observations(), time.time())
        after = phases.next_status(experiment, look, time.time())
        # a name used before begins with a higher revision, so that its old exposures never count as its own
        revision = max(after.revision, audit.last_revision(self.folder, experiment.name) + 1)
        history_path(self.folder, experiment.name).unlink(missing_ok=True)
        self._decide(experiment, "begin", after.model_copy(update={"revision": revision}), look)

    def _judge(self, experiment: Experiment) -> None:
        now = time.time()
        routed = self._routed(experiment, now)
        self._measure(experiment)
        look = assess(experiment, replace(observe(experiment, self.data, until=now), routed=routed), now)
        look = with_costs(look, experiment, read_usage(self.folder, experiment))
        kept = keep_look(self.folder, look, self.last_looks.get(experiment.name))
        if kept is not None:
            self.last_looks[experiment.name] = kept
        after = phases.next_status(experiment, look, now)
        if after == experiment.status:
            where = f"{look.phase}, step {experiment.status.step + 1}"
            self._say(experiment.name, f"{where}: {'; '.join(look.reasons)}", look=True)
            return
        self._decide(experiment, "advance" if look.advance else look.verdict, after, look)

    def _routed(self, experiment: Experiment, now: float) -> dict[str, int] | None:
        """Requests that the router counted long enough ago for their exposures to be there; None without a router."""
        if self.servers.admin is None:
            return None
        live = [v for v, weight in zip(experiment.spec.variants, experiment.weights, strict=True) if weight]
        held = load_routed(self.folder, experiment)
        try:
            counters = num_routed(self.servers.admin, {v.name: cluster_name(experiment, v) for v in live})
        except EmberlineError as error:  # a router that is down must not keep a guardrail from rolling back
            self._say(f"{experiment.name}: requests routed", str(error))
            return None if held is None else held.settled(now)
        counts = Routed.begin(experiment.config_version, counters, now) if held is None else held.read(counters, now)
        if counts is not held:
            write_routed(self.folder, experiment.name, counts)
        return counts.settled(now)

    def _measure(self, experiment: Experiment) -> None:
        """Reads the workers' clocks, where they and a router's counters can be read."""
        if self.servers.admin is None or self.servers.management is None:
            return
        path = usage_path(self.folder, experiment.name)
        if path.is_file() and time.time() - path.stat().st_mtime < _MEASURE_EVERY_S:
            return
        try:
            clocks = read_clocks(self.servers.management, experiment)
            clusters = {variant.name: cluster_name(experiment, variant) for variant in experiment.spec.variants}
            counters = num_routed(self.servers.admin, clusters)
        except EmberlineError as error:  # costs decide nothing, and must not keep a guardrail from rolling back
            self._say(f"{experiment.name}: costs", str(error))
            return
        if clocks is None:
            return
        held, gpu_s = read_usage(self.folder, experiment), self._gpu_seconds(experiment, clocks)
        begun = Usage.begin(experiment.config_version, clocks.cpu_s, counters, gpu_s)
        write_usage(self.folder, experiment.name, begun if held is None else held.read(clocks.cpu_s, counters, gpu_s))

    def _gpu_seconds(self, experiment: Experiment, clocks: Clocks) -> dict[str, float] | None:
        """By `variant/worker`, of those with a GPU; None where its driver does not tell, which is said."""
        if not clocks.on_gpu:
            return {}
        try:
            busy_s = self.gpus.read()
        except EmberlineError as error:
            self._say(f"{experiment.name}: GPU time", str(error))
            return None
        return {key: busy_s.get(pid, 0.0) for key, pid in clocks.on_gpu.items()}

    def _carry_out_request(self, experiment: Experiment) -> bool:
        request = self.store.requested(experiment)
        if request is None:
            return False
        if experiment.upset and request.action != "abort":
            self.log.say(f"{experiment.name}: {request.action} is not carried out: {experiment.upset}")
            self.store.forget_request(experiment)
            return False
        after = phases.requested_status(experiment, request.action, request.reason, time.time(), target=request.target)
        if after != experiment.status:
            self._decide(experiment, request.action, after, self.last_looks.get(experiment.name))
        else:
            self.log.say(f"{experiment.name}: {request.action} changes nothing in phase {experiment.status.phase}")
        self.store.forget_request(experiment)
        return True

    def _confirm(self, experiment: Experiment) -> None:
        """Begins the step once the routers have it; until then a change of the spec is all that can end it."""
        now = time.time()
        look = assess(experiment, Observations(), now)
        if look.verdict == "invalid":
            self._decide(experiment, look.verdict, phases.next_status(experiment, look, now), look)
        elif self._is_taken(experiment):
            self._decide(experiment, "confirmed", phases.confirmed(experiment.status, time.time()))
        else:
            self._say(experiment.name, self._why_not_taken(experiment))

    def _settle(self, experiment: Experiment, others: list[Experiment]) -> bool:
        """What is left to do at the end; True when that is nothing."""
        key = (experiment.name, experiment.status.revision)
        if key in self.settled:
            return True
        if self._was_deployed_over(experiment):  # versions come and go by that, from then on
            self.settled.add(key)
            return True
        if self._has_routers and not _is_superseded(experiment, others) and not self._is_taken(experiment):
            self._say(experiment.name, f"{experiment.status.phase}; waiting for the routers to take it")
            return False
        how, why = retire(experiment, others, self.servers)
        self._say(experiment.name, f"{experiment.status.phase}; {why}")
        if how == "draining":
            return False
        if how == "unregistered":
            audit.note(self.folder, experiment, "unregistered", experiment.status)
        self.settled.add(key)
        return True

    def _deployments(self, experiments: list[Experiment]) -> bool:
        """Carries out what was asked for, and lets go what answered before; True when nothing is left to do."""
        done = self._settle_deployed(experiments)
        for wish in read_wishes(self.folder):
            done = False
            if (other := going_on(wish, experiments)) is not None:
                self._say(wish.model, f"{wish.version} waits: experiment {other} has the traffic; --abort ends it")
                continue
            if (why := deployments.refused(self.folder, wish, self.servers)) is not None:
                self.log.say(f"{wish.model}: {why}")
                continue
            found = deployments.carry_out(self.folder, wish, experiments, self.servers, self.route)
            if found is not None:
                text = f"{found.version} is to answer in place of {found.previous or '?'}; {found.reason}"
                self.log.say(f"{found.model}: {text}")
        return done

    def _settle_deployed(self, experiments: list[Experiment]) -> bool:
        """One round of having routers take what was deployed; True when nothing is left to do."""
        done = True
        for found in deployments.read_deployed(self.folder):
            key = (found.model, round(found.since * 1e6))
            if key in self.settled:
                continue
            how, why = deployments.settle(self.folder, found, experiments, self.servers, self.route)
            self._say(found.model, f"refused: {why}" if how == "refused" else why)
            if how == "refused":
                self.settled.clear()  # experiments count again that the deployment seemed to have taken over from
            if how in {"refused", "draining"}:
                done = False
            else:
                self.settled.add(key)
        return done

    def _was_deployed_over(self, experiment: Experiment) -> bool:
        path = deployed_path(self.folder, experiment.spec.model)
        return path.is_file() and load_deployed(path).since >= experiment.status.since

    @property
    def _has_routers(self) -> bool:
        return self.servers.admin is not None or self.route is not None

    def _is_taken(self, experiment: Experiment) -> bool:
        decided_at = audit.decided_at(self.folder, experiment.name)
        admin, route = self.servers.admin, self.route
        return has_taken(experiment, admin=admin, route=route, data=self.data, decided_at=decided_at)

    def _why_not_taken(self, experiment: Experiment) -> str:
        file = f"{experiment.name}.yaml"
        if self._has_routers and file in refused_files(admin=self.servers.admin, route=self.route):
            return f"waits: the router refuses {file}, and its log says why"
        return f"waiting for the routers to take {experiment.config_version}"

    def _decide(self, experiment: Experiment, event: str, after: Status, look: Assessment | None = None) -> None:
        """Notes a decision, then carries it out."""
        audit.note(self.folder, experiment, event, after, look)
        self._put_in_force(experiment, after, event)

    def _put_in_force(self, experiment: Experiment, after: Status, event: str) -> None:
        self.store.write_status(experiment, after)
        weights = ", ".join(f"{name} {weight / 100:g} %" for name, weight in after.weights.items())
        shadow = f", shadow {after.shadow:.0%}" if after.shadow else ""
        self.log.say(
            f"{experiment.name}: {event} → {after.phase}, step {after.step + 1}: {weights}{shadow}; {after.reason}"
        )

    def _say(self, about: str, text: str, *, look: bool = False) -> None:
        """Says what is new; looks change with every round and are said when their first words do."""
        key = text.split(":", maxsplit=1)[0] if look else text
        if self.said.get(about) != key:
            self.said[about] = key
            self.log.say(f"{about}: {text}")


def _is_superseded(experiment: Experiment, others: list[Experiment]) -> bool:
    """Whether another experiment decides for the model now, so that routers will never show this one again."""
    return any(
        other.shares_units_with(experiment)
        and other.name != experiment.name
        and (not other.terminal or other.status.since > experiment.status.since)
        for other in others
    )
