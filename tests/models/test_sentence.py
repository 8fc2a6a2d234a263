"""The classifier of sentences."""

import torch

from emberline import assets
from emberline.models import create, example_inputs
from emberline.recipe import load_recipe


def test_the_recipes_net_takes_what_its_preprocessing_gives_and_ignores_padding():
    recipe = load_recipe(assets.folder("recipes") / "sst2.yaml")
    model = create(recipe.model).eval()
    (ids,) = example_inputs(recipe.preprocessing, rows=3)
    assert (ids.shape, ids.dtype) == ((3, 48), torch.int64)
    scores = model(ids)
    assert scores.shape == (3, 2)
    assert torch.allclose(model(ids[:, :20]), scores, atol=1e-6)
