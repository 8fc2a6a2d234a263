"""An experiment: what was declared, and how far it has come."""

from emberline.experiment.spec import Spec
from emberline.experiment.status import TERMINAL, Status, Window
from emberline.experiment.variant import TOTAL_WEIGHT
from emberline.paper import Frozen, digest_of


class Experiment(Frozen):
    name: str
    spec: Spec
    status: Status = Status()

    @property
    def salt(self) -> str:
        return self.spec.salt or self.name

    @property
    def spec_digest(self) -> str:
        """Fields at their default don't count, so that a field added later changes no experiment that is running."""
        return digest_of(self.spec.model_dump(mode="json", exclude_defaults=True))

    @property
    def config_version(self) -> str:
        """What routers put into the `x-config-version` header and each exposure."""
        return f"{self.name}-{self.status.revision}-{self.spec_digest[:8]}"

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
