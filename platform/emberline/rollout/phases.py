"""The phases of an experiment: which status follows from a status and an assessment. Pure.

    Pending → Shadow → Ramping → Shipped          the last step's primary lies above its margin
                 ↓        ↓
                RolledBack                        a guardrail, the primary, an abort, or no decision within max_wait
                Invalid                           the comparison is worthless; traffic goes back to the control as well
    Paused                                        holds the weights; a guardrail still rolls back, nothing advances

An inconclusive experiment is rolled back and not paused: nobody showed that the treatment may stay. A person may force
a later step or the shipping, with a reason; guardrails then still roll back.
"""

from typing import Literal

from emberline.compare.assessment import Assessment, Verdict
from emberline.experiment import TOTAL_WEIGHT, Experiment, Phase, Status

_ENDS: dict[Verdict, Phase] = {
    "ship": "Shipped",
    "stop": "RolledBack",
    "inconclusive": "RolledBack",
    "invalid": "Invalid",
}
_EVEN_WHEN_PAUSED: frozenset[Verdict] = frozenset({"stop", "invalid"})

Action = Literal["pause", "resume", "abort", "force"]
SHIP = "ship"


def next_status(experiment: Experiment, assessment: Assessment, now: float) -> Status:
    """The status to be in, given what was seen; the same one when nothing is to be done.

    Args:
        now: Unix time that the judged step ends at, should it end.
    """
    status = experiment.status
    if experiment.terminal:
        return status
    if status.phase == "Pending":
        return enter(experiment, 0, "begun")
    if status.phase == "Paused" and assessment.verdict not in _EVEN_WHEN_PAUSED:
        return status
    reason = "; ".join(assessment.reasons)
    if (end := _ENDS.get(assessment.verdict)) is not None:
        return leave(experiment, end, f"{assessment.verdict}: {reason}", now)
    if assessment.advance:
        return enter(experiment, status.step + 1, reason)
    return status


def requested_status(
    experiment: Experiment, action: Action, reason: str, now: float, *, target: str | None = None
) -> Status:
    """The status after a person asked for something; the same one where it makes no difference.

    Args:
        target: of a force: `ship`, or the number of a later step, from 1 on.
    """
    status = experiment.status
    if experiment.terminal:
        return status
    if action == "abort":
        return leave(experiment, "RolledBack", f"aborted: {reason}", now)
    if action == "force":
        return _forced(experiment, target or "", reason, now)
    if action == "pause" and status.phase in {"Shadow", "Ramping"}:
        return status.model_copy(update={"phase": "Paused", "reason": f"paused: {reason}"})
    if action == "resume" and status.phase == "Paused":
        return status.model_copy(update={"phase": step_phase(experiment, status.step), "reason": f"resumed: {reason}"})
    return status


def _forced(experiment: Experiment, target: str, reason: str, now: float) -> Status:
    """A step that is over, or not there, is no target: weights never fall, since treated units stay treated."""
    status, text = experiment.status, f"forced: {reason}"
    if status.phase == "Pending":  # another experiment may have the model's traffic
        return status
    if target == SHIP:
        return leave(experiment, "Shipped", text, now)
    later = target.isdecimal() and status.step < int(target) - 1 < len(experiment.spec.ramp)
    return enter(experiment, int(target) - 1, text) if later else status


def confirmed(status: Status, now: float) -> Status:
    """The same status, its step beginning now: routers have taken its configuration."""
    return status.model_copy(update={"since": now, "began": status.began or now})


def step_phase(experiment: Experiment, step: int) -> Phase:
    return "Shadow" if experiment.spec.ramp[step].shadow is not None else "Ramping"


def enter(experiment: Experiment, step: int, reason: str) -> Status:
    """The status at the start of a ramp step, not confirmed by the routers yet."""
    ramp = experiment.spec.ramp[step]
    treated = ramp.weight or 0
    return Status(
        phase=step_phase(experiment, step),
        step=step,
        weights=_weights(experiment, treated),
        shadow=ramp.shadow or 0.0,
        noise=ramp.noise or 0.0,
        began=experiment.status.began,
        revision=experiment.status.revision + 1,
        reason=reason,
        spec_digest=experiment.spec_digest,
        spec=experiment.spec,
    )


def leave(experiment: Experiment, phase: Phase, reason: str, now: float) -> Status:
    """The status at the end: everything to the treatment when it ships, else to the control."""
    window = experiment.window
    return Status(
        phase=phase,
        step=experiment.status.step,
        weights=_weights(experiment, TOTAL_WEIGHT if phase == "Shipped" else 0),
        since=now,
        began=experiment.status.began,
        revision=experiment.status.revision + 1,
        reason=reason,
        spec_digest=experiment.status.spec_digest or experiment.spec_digest,
        spec=experiment.status.spec if experiment.status.spec_digest else experiment.spec,
        judged=window and window.model_copy(update={"until": now}),
    )


def _weights(experiment: Experiment, treated: int) -> dict[str, int]:
    return {experiment.spec.treatment.name: treated, experiment.spec.control.name: TOTAL_WEIGHT - treated}
