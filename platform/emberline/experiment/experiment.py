"""An experiment: what was declared, and how far it has come."""

from emberline.experiment.spec import Spec
from emberline.experiment.status import TERMINAL, Status, Window
from emberline.experiment.variant import TOTAL_WEIGHT
from emberline.paper import Frozen


class Experiment(Frozen):
    """What is in force of an experiment.

    Attributes:
        spec: as declared; from its beginning on, the one that it began with, whatever became of the file.
        edited: fields of the spec in which the file says otherwise by now.
        gone: it has begun, and its file is not there any more.
    """

    name: str
    spec: Spec
    status: Status = Status()
    edited: tuple[str, ...] = ()
    gone: bool = False

    def under(self, status: Status) -> "Experiment":
        """The experiment as far as its status says it has come, with the spec that it began with."""
        edited: tuple[str, ...] = ()
        spec = self.spec
        if status.spec_digest and status.spec_digest != spec.digest:  # written before statuses held a spec: no names
            edited = spec.differences(status.spec) if status.spec is not None else ("spec",)
            spec = status.spec or spec
        return self.model_copy(update={"spec": spec, "status": status, "edited": edited})

    @property
    def upset(self) -> str | None:
        """What was done to its file while it ran and makes a comparison worthless; None where nothing was."""
        if self.gone:
            return (
                "the experiment's file was taken away while it ran, what it said stays in force until rollout has "
                "given the traffic back to the control; `emberline rollout --abort` is the way to end one"
            )
        fields = ", ".join(self.edited)
        if not fields and self.status.spec_digest in {"", self.spec_digest}:
            return None
        return (
            f"the experiment's spec was changed while it ran{f' ({fields})' if fields else ''}, the one that it began "
            "with stays in force until it has ended; give the changed one a name and a file of its own"
        )

    @property
    def salt(self) -> str:
        return self.spec.salt or self.name

    @property
    def spec_digest(self) -> str:
        return self.spec.digest

    @property
    def config_version(self) -> str:
        """What routers put into the `x-config-version` header and each exposure."""
        return f"{self.name}-{self.status.revision}-{(self.status.spec_digest or self.spec_digest)[:8]}"

    @property
    def terminal(self) -> bool:
        """Nothing moves any more."""
        return self.status.phase in TERMINAL

    @property
    def progress(self) -> str:
        """Phase and step, counted from 1: `Ramping, step 2 of 3`, `Shipped after step 3 of 3`."""
        phase = self.status.phase
        if phase == "Pending" or (self.terminal and self.status.judged is None):
            return phase
        return f"{phase}{' after' if self.terminal else ','} step {self.status.step + 1} of {len(self.spec.ramp)}"

    def shares_units_with(self, other: "Experiment") -> bool:
        """Whether a request may belong to either: of one model, and not kept apart by one layer's slices."""
        if self.spec.model != other.spec.model:
            return False
        mine, theirs = self.spec.layer, other.spec.layer
        if mine is None or theirs is None or mine.name != theirs.name or self.spec.unit != other.spec.unit:
            return True
        return mine.overlaps(theirs)

    @property
    def window(self) -> Window | None:
        """The rows to look at: of the current ramp step, or of the one that was judged; None before there are any."""
        if self.terminal or self.status.phase == "Pending":
            return self.status.judged
        if not self.status.since:
            return None
        return Window(config_version=self.config_version, step=self.status.step, since=self.status.since)

    @property
    def weights(self) -> tuple[int, ...]:
        """Weights in the order of the variants; all to the control before rollout has begun."""
        if not self.status.weights:
            return tuple(TOTAL_WEIGHT if variant.control else 0 for variant in self.spec.variants)
        return tuple(self.status.weights.get(variant.name, 0) for variant in self.spec.variants)

    @property
    def weights_text(self) -> str:
        """Who answers how much of the traffic now: `int8 50 %, fp32 50 %`."""
        named = zip(self.spec.variants, self.weights, strict=True)
        return ", ".join(f"{variant.name} {weight / 100:g} %" for variant, weight in named)
