"""Where a search looks: Optuna walks the nets (width, depth, pruning, distillation) by cheap looks at them.

A look knows no precision; each net then stands for one candidate a precision. The course follows from the seed and the
answers alone, so a search that was stopped walks the same way again, past known answers at once, and goes on.
"""

import inspect
from typing import TYPE_CHECKING, Any

from emberline import models
from emberline.compress.search.look import look_at
from emberline.compress.search.records import Records
from emberline.compress.search.select import Look
from emberline.compress.search.sought import Sought
from emberline.compress.search.space import Net, net_of, sizes_of
from emberline.errors import EmberlineError, InvalidSetting
from emberline.recipe import Search

if TYPE_CHECKING:
    from emberline.compress.context import Context

_ASKS = 6  # as many suggestions a look, at most: the sampler repeats itself when few nets are left


def walk(sought: Sought, records: Records) -> dict[str, tuple[Net, Look]]:
    """Nets with what a look at each found, by key: as many as `trials`, or all there are."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search, job = sought.search, sought.job
    trained = _trained_arguments(sought)
    first = max(2, search.trials // 3)  # so many at random, before what was found leads on
    sampler = optuna.samplers.TPESampler(seed=job.recipe.seed % 2**32, n_startup_trials=first)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    study.enqueue_trial(_nearest_to(trained, search))
    sizes = sizes_of(search)
    context = job.context(job.plan(sought.name))
    seen: dict[str, tuple[Net, Look]] = {}
    impossible: set[str] = set()
    for _ in range(_ASKS * search.trials):
        if len(seen) + len(impossible) == search.trials:
            break
        trial = study.ask()
        net = net_of({name: trial.suggest_int(name, 0, size - 1) for name, size in sizes.items()}, search, trained)
        look = records.look(net)
        if look is None:
            look = _look(net, sought, context)
            records.add_look(net, look)
            number = len(seen) + len(impossible) + 1
            job.log.say(f"search: look {number}/{search.trials}: {net.key}: {_told(look)}")
        if isinstance(look, str):
            impossible.add(net.key)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            seen[net.key] = (net, look)
            study.tell(trial, [look.accuracy, look.operations, float(look.parameters)])
    return seen


def _look(net: Net, sought: Sought, context: "Context") -> Look | str:
    """What a look finds, or why there is no such net: a ratio that removes nothing of a narrow one, say.

    Raises:
        EmberlineError: rows cannot be read, which no other net would change.
    """
    _ = context.validation
    try:
        return look_at(net, sought, context)
    except EmberlineError as error:
        return error.fact


def _told(look: Look | str) -> str:
    if isinstance(look, str):
        return f"left out: {look}"
    return f"{look.accuracy:.2%}, {look.operations / 1e6:.3g}M multiply-adds, {look.parameters:,} weights"


def _trained_arguments(sought: Sought) -> dict[str, Any]:
    """Arguments of the trained net, defaults of its factory included.

    Raises:
        InvalidSetting: the search names an argument that the factory does not take.
    """
    job, factory = sought.job, sought.job.recipe.model.factory
    parameters = inspect.signature(models.resolve(factory, job.path.parent)).parameters
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for name in sought.search.arguments:
        if name not in parameters and not anything:
            required = f"an argument of {factory}, which takes {', '.join(parameters) or 'none'},"
            raise InvalidSetting(job.path, "compress.search.arguments", name, required)
    defaults = {name: one.default for name, one in parameters.items() if one.default is not inspect.Parameter.empty}
    return {**defaults, **job.recipe.model.arguments}


def _nearest_to(trained: dict[str, Any], search: Search) -> dict[str, int]:
    """Where the walk begins: the choices nearest to the net as it was trained."""
    arguments = {
        f"argument {name}": values.index(trained[name]) if trained.get(name) in values else 0
        for name, values in search.arguments.items()
    }
    return {**arguments, "prune": search.prune.index(min(search.prune)), "distill": 0}
