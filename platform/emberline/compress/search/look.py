"""A cheap look at a net: a short training, no compiler, no clock."""

from typing import TYPE_CHECKING

from emberline.compress.chain import function_of
from emberline.compress.search.select import Look
from emberline.compress.search.sought import Sought
from emberline.compress.search.space import Candidate, Net

if TYPE_CHECKING:
    from emberline.compress.context import Context


def look_at(net: Net, sought: Sought, context: "Context") -> Look:
    """Accuracy of the float net on the validation rows after its short training, multiply-adds of a row, weights.

    Args:
        context: of all looks, so that rows are read and prepared once.

    Raises:
        StageFailed: the net cannot be made: nothing is left to prune, say.
        EmberlineError: its factory refuses an argument.
    """
    import torch_pruning

    planned = sought.job.plan(sought.name, sought.stages(Candidate(net, "fp32"), quick=True))
    state = sought.job.first_state()
    for step in planned.steps[:-1]:  # the last one is the export
        state = function_of(step.name)(state, step.settings, context)
    model = state.model.eval()
    operations, parameters = torch_pruning.utils.count_ops_and_params(model, context.example(1))
    return Look(context.accuracy(model), float(operations), int(parameters))
