"""Fine-tuning: the trainer's own, in this process, on the model as it is now."""

from dataclasses import asdict

from emberline.compress.context import Context
from emberline.compress.state import State
from emberline.recipe import Finetune
from emberline.train.finetune import finetune as finetune_model


def finetune(state: State, settings: Finetune, context: Context) -> State:
    """Trains all weights on; a quantized program made before is no longer this model's."""
    with context.log.progress("finetune", total=None) as advance:
        facts = finetune_model(
            state.model,
            context.recipe,
            context.splits,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            search=context.search,
            progress=lambda _step, _of, loss: advance(1, loss=loss),
        )
    return state.after(model=state.model.eval(), quantized=None, calibration_rows=0, note=asdict(facts))
