"""Fine-tuning: the trainer's own steps, in this process, on the model as it is now.

In this process and not by elastic workers: virtual shards make the result the same, bit for bit, at any number of them,
a pruned module need not be rebuilt by each, and what a kill costs is one stage, not a run.
"""

from emberline.compress.context import Context
from emberline.compress.masks import zeros_kept
from emberline.compress.state import State
from emberline.recipe import Finetune
from emberline.train.finetune import finetune as finetune_model


def finetune(state: State, settings: Finetune, context: Context) -> State:
    """Trains all weights on, but for those that pruning set to zero; a quantized program is no longer this model's."""
    with context.log.progress("finetune", total=None) as advance, zeros_kept(state.model, state.masked):
        facts = finetune_model(
            state.model,
            context.recipe,
            context.splits,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            search=context.search,
            progress=lambda _step, steps, loss: advance(1, steps, loss=loss),
        )
    return state.after(
        model=state.model.eval(), quantized=None, precision="fp32", calibration_rows=0, note=facts.facts()
    )
