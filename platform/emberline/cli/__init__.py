"""The command line: one module a verb, loaded when the verb is called, so that `emberline --help` stays quick.

Exit codes: 0 done, 1 a failure a user can act on (printed as `error:` and `hint:`), 2 wrong usage. A verb that ends in
some other way it declares itself (training ended by a preemption notice).
"""

import sys
from difflib import get_close_matches

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError
from rich.console import Console

from emberline import __version__
from emberline.errors import EmberlineError, InvalidOption

# verb → its module's function; the order is the order of the help
VERBS = {
    "train": "emberline.cli.train:train",
    "record": "emberline.cli.record:record",
    "rendezvous": "emberline.cli.rendezvous:rendezvous",
    "compress": "emberline.cli.compress:compress",
    "measure": "emberline.cli.measure:measure",
    "tune": "emberline.cli.tune:tune",
    "keys": "emberline.cli.keys:keys",
    "archive": "emberline.cli.archive:archive",
    "verify": "emberline.cli.verify:verify",
    "serve": "emberline.cli.serve:serve",
    "predict": "emberline.cli.predict:predict",
    "route": "emberline.cli.route:route",
    "openapi": "emberline.cli.openapi:openapi",
    "load": "emberline.cli.load:load",
    "outcomes": "emberline.cli.outcomes:outcomes",
    "simulate": "emberline.cli.simulate:simulate",
    "compare": "emberline.cli.compare:compare",
    "plan": "emberline.cli.plan:plan",
    "rollout": "emberline.cli.rollout:rollout",
    "dashboard": "emberline.cli.dashboard:dashboard",
    "demo": "emberline.cli.demo:demo",
    "up": "emberline.cli.up:up",
    "down": "emberline.cli.down:down",
    "status": "emberline.cli.status:status",
    "show": "emberline.cli.show:show",
    "doctor": "emberline.cli.doctor:doctor",
}


def _default(value: object) -> str | None:
    """A default as help shows it: nothing of one that says nothing."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or None
    return None if value in (None, "") else str(value)


app = App(
    name="emberline",
    version=__version__,
    help="Train elastically, compress, sign, serve, and let versions compete on live traffic.",
    default_parameter=Parameter(show_default=_default),
)
for _verb, _target in VERBS.items():
    app.command(_target, name=_verb)


def main() -> None:
    """Entry point of the `emberline` command."""
    if not sys.argv[1:] or sys.argv[1] in {"--help", "-h"}:
        _load_help()
    try:
        result = app(exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        if (verb := sys.argv[1]) not in VERBS:
            near = get_close_matches(verb, VERBS, n=1)
            _print_error(
                f"there is no verb {verb!r}", hint=f"did you mean {near[0]!r}?" if near else "emberline --help"
            )
            sys.exit(2)
        _print_error(str(error), hint=f"emberline {' '.join(sys.argv[1:2])} --help".replace(" -- ", " "))
        sys.exit(2)
    except EmberlineError as error:
        _print_error(str(error).partition("\nhint: ")[0], hint=error.hint)
        sys.exit(2 if isinstance(error, InvalidOption) else 1)
    except OSError as error:
        from emberline.cli.refusals import told

        if (refusal := told(error)) is None:
            raise
        _print_error(str(refusal).partition("\nhint: ")[0], hint=refusal.hint)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)


def _load_help() -> None:
    """Loads all verbs' modules, whose docstrings the list of verbs shows; they are light, stages load when called."""
    for verb in VERBS:
        app[verb]


def _print_error(text: str, hint: str | None) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    console.print(f"error: {text}", markup=False)
    if hint:
        console.print(f"hint: {hint}", markup=False)
