"""A cheap look at a net: a short training, no compiler, no clock."""

from emberline.compress.chain import function_of
from emberline.compress.search.select import Look
from emberline.compress.search.sought import Sought
from emberline.compress.search.space import Candidate, Net


def look_at(net: Net, sought: Sought) -> Look:
    """Accuracy of the float net on the validation rows after its short training, multiply-adds of a row, weights.

    Raises:
        EmberlineError: the net cannot be made: its factory refuses an argument, or there is nothing to prune.
    """
    import torch_pruning

    planned = sought.job.plan(sought.name, sought.stages(Candidate(net, "fp32"), quick=True))
    context, state = sought.job.context(planned), sought.job.first_state()
    for step in planned.steps[:-1]:  # the last one is the export
        state = function_of(step.name)(state, step.settings, context)
    model = state.model.eval()
    operations, parameters = torch_pruning.utils.count_ops_and_params(model, context.example(1))
    return Look(context.accuracy(model), float(operations), int(parameters))
