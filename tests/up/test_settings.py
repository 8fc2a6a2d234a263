"""The arguments each verb of a stack is called with."""

from pathlib import Path

import pytest

from emberline.errors import InvalidSetting
from emberline.recipe import load_recipe
from emberline.up.examples import curl_lines, page_address
from emberline.up.settings import Settings, archives, default_version, route_arguments, serve_arguments

RECIPE = Path(__file__).parents[2] / "recipes/digits.yaml"
SETTINGS = Settings(RECIPE, port=9000, serve_port=9100, dashboard_port=9200)


def test_the_router_knows_every_version_and_falls_back_to_the_baseline() -> None:
    recipe = load_recipe(RECIPE)
    arguments = [str(argument) for argument in route_arguments(SETTINGS, recipe, 9300)]
    assert "digits@1.0=127.0.0.1:9100" in arguments
    assert "digits@1.1=127.0.0.1:9100" in arguments
    assert arguments[arguments.index("--default") + 1] == "digits=1.0"
    assert default_version(recipe) == "1.0"


def test_serving_gets_the_recipes_archives_only() -> None:
    arguments = [str(argument) for argument in serve_arguments(SETTINGS, load_recipe(RECIPE))]
    assert arguments[:2] == ["store/digits-1.0.mar", "store/digits-1.1.mar"]


def test_a_recipe_without_an_archive_section_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="archive"):
        archives(load_recipe(RECIPE, ["archive=null"]), Path("store"))


def test_curl_lines_ask_with_values_the_inputs_accept() -> None:
    plain, infer = curl_lines(SETTINGS, load_recipe(RECIPE))
    assert "http://127.0.0.1:9000/predictions/digits" in plain
    assert '{"pixels":[[8,8,' in plain
    assert '"shape":[1,8,8],"datatype":"FP32","data":[8,8,' in infer
    assert page_address(SETTINGS) == "http://127.0.0.1:9000/dashboard/"
