"""The Experiment: which versions compete, on which metrics, along which ramp. The same YAML locally and in Kubernetes.

Locally an experiment is a file `<name>.yaml` in a folder, with its status beside it in `<name>.status.json`; in the
cluster it is a custom resource, and the controller writes the same two files into the ConfigMap that routers mount.
Only rollout writes a status; route reads it to know the weights.

experiment                            the whole of it: a spec and a status
spec                                  what is declared, made of the next four
variant, unit, metric, ramp           versions, who takes part, what is measured, step by step
status                                how far it has come
document                              the YAML of both
folder                                the files of both
deployed                              what answers where no experiment decides
duration                              90s, 10m, 2h, 7d
"""

from emberline.experiment.deployed import Deployed, deployed_path, load_deployed
from emberline.experiment.document import parse_experiment, to_yaml
from emberline.experiment.duration import Duration, parse_duration
from emberline.experiment.experiment import Experiment
from emberline.experiment.folder import Found, load_experiment, load_experiments, read_folder, status_path, write_status
from emberline.experiment.metric import Covariate, Guardrail, Metric, Primary, Segment
from emberline.experiment.ramp import RampStep
from emberline.experiment.spec import Agreement, Price, Spec
from emberline.experiment.status import Phase, Status, Window
from emberline.experiment.unit import Unit
from emberline.experiment.variant import TOTAL_WEIGHT, Variant

__all__ = [
    "TOTAL_WEIGHT",
    "Agreement",
    "Covariate",
    "Deployed",
    "Duration",
    "Experiment",
    "Found",
    "Guardrail",
    "Metric",
    "Phase",
    "Price",
    "Primary",
    "RampStep",
    "Segment",
    "Spec",
    "Status",
    "Unit",
    "Variant",
    "Window",
    "deployed_path",
    "load_deployed",
    "load_experiment",
    "load_experiments",
    "parse_duration",
    "parse_experiment",
    "read_folder",
    "status_path",
    "to_yaml",
    "write_status",
]
