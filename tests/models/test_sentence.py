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


def test_a_sentence_that_fills_its_length_is_answered_as_the_same_one_with_padding():
    torch.manual_seed(0)
    model = create(load_recipe(assets.folder("recipes") / "sst2.yaml").model).eval()
    with torch.no_grad():
        model.words.weight.abs_()  # so that a pair of padding, which says its bias, is the strongest of all
        model.pairs.weight.copy_(-model.pairs.weight.abs())
        model.pairs.bias.fill_(5)
        ids = torch.randint(1, 8192, (4, 9))
        torch.testing.assert_close(model(ids), model(torch.nn.functional.pad(ids, (0, 7))), rtol=1e-5, atol=1e-5)
