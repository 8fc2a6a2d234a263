"""What the pages show: the same assessment that rollout acts on, made anew when it is older than a moment."""

import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2

from emberline.compare.assess import assess
from emberline.compare.assessment import Assessment
from emberline.compare.costs import read_usage, with_costs
from emberline.compare.history import read_looks
from emberline.compare.observe import observe
from emberline.compare.report import TEMPLATES, charts_of, render_assessment
from emberline.compare.routed import read_routed
from emberline.errors import EmberlineError
from emberline.experiment import Experiment, load_experiment
from emberline.rollout.audit import read_audit
from emberline.route.sketches import merged

FRESH_S = 2.0
_DECISIONS = 30

_PAGES = jinja2.Environment(
    loader=jinja2.ChoiceLoader(
        [jinja2.PackageLoader("emberline.dashboard", "."), TEMPLATES.loader or jinja2.BaseLoader()]
    ),
    autoescape=True,
)
_PAGES.filters["clock"] = lambda moment: time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))


@dataclass
class Views:
    """Renders pages; many readers of one experiment cost one look at the data every `FRESH_S` seconds."""

    experiments: Path
    data: Path
    _looks: dict[str, tuple[Experiment, Assessment]] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)

    def listing(self) -> str:
        """The page with all experiments; one that cannot be read is there with its error."""
        entries: list[dict[str, Any]] = []
        for path in sorted(self.experiments.glob("*.yaml")):
            try:
                entries.append({"name": path.stem, "experiment": load_experiment(path)})
            except EmberlineError as error:
                entries.append({"name": path.stem, "error": str(error)})
        return _PAGES.get_template("list.html.j2").render(entries=entries, folder=self.experiments)

    def page(self, name: str) -> str | None:
        """The live page of an experiment, or None where there is none of that name."""
        if not self._path(name).is_file():
            return None
        return _PAGES.get_template("live.html.j2").render(
            name=name, inside=self.inside(name), every_ms=int(FRESH_S * 1e3)
        )

    def inside(self, name: str) -> str:
        """What changes as the experiment runs."""
        try:
            experiment, look = self.look(name)
        except EmberlineError as error:
            return _PAGES.from_string('<p class="problem">{{ text }}</p>').render(text=str(error))
        charts = charts_of(look, read_looks(self.experiments, name))
        assessment = render_assessment(experiment, look, charts)
        decisions = [line for line in read_audit(self.experiments, name) if line["event"] != "confirmed"]
        latest = decisions[: -_DECISIONS - 1 : -1]
        live = self._live(look)
        return _PAGES.get_template("inside.html.j2").render(assessment=assessment, decisions=latest, live=live)

    def _live(self, look: Assessment) -> dict[str, Any]:
        """Routers' sketches of this step by variant; nothing where no router keeps any."""
        folder = self.data / "sketches"
        return merged(folder, look.experiment, look.config_version) if folder.is_dir() else {}

    def as_json(self, name: str) -> dict[str, Any] | None:
        """The numbers, with the page's inside for its own refresh."""
        if not self._path(name).is_file():
            return None
        experiment, look = self.look(name)
        return {
            "experiment": name,
            "status": experiment.status.model_dump(mode="json"),
            "assessment": look.model_dump(mode="json"),
            "html": self.inside(name),
        }

    def look(self, name: str) -> tuple[Experiment, Assessment]:
        """The experiment and an assessment of it that is fresh."""
        with self._locks.setdefault(name, threading.Lock()):
            experiment = load_experiment(self._path(name))
            now = time.time()
            held = self._looks.get(name)
            if held is None or held[0] != experiment or now - held[1].at >= FRESH_S:
                seen = replace(
                    observe(experiment, self.data, until=now), routed=read_routed(self.experiments, experiment)
                )
                look = assess(experiment, seen, now)
                held = experiment, with_costs(look, experiment, read_usage(self.experiments, experiment))
                self._looks[name] = held
            return held

    def _path(self, name: str) -> Path:
        return self.experiments / f"{name}.yaml"
