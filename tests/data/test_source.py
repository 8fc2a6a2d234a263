"""A user's own data source, good and bad."""

import numpy as np
import pytest

from emberline.data import Splits, check_splits, load, rows_from_arrays
from emberline.errors import EmberlineError, InvalidSetting
from emberline.recipe import Data

MODULE = """
import numpy as np
from emberline.data import Splits, rows_from_arrays
def good(rows=4):
    part = rows_from_arrays("x", np.zeros((rows, 2)), np.zeros(rows, int))
    return Splits(part, part, part)
def fails():
    raise OSError("no such bucket")
def wrong():
    return [1, 2]
"""


@pytest.fixture
def search(tmp_path, monkeypatch):
    (tmp_path / "mine_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_module_beside_the_recipe_is_found(search):
    assert len(load(Data(source="mine_data:good", arguments={"rows": 7}), search).train) == 7


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mine_data:nothing", "function is 'nothing'; a function of mine_data is required"),
        ("mine_datums:good", "module is 'mine_datums'; a module that can be imported is required"),
        ("mine_data:fails", "data.source mine_data:fails: failed with OSError: no such bucket"),
        ("mine_data:wrong", "what it returned is 'list'; emberline.data.Splits is required"),
    ],
)
def test_what_is_wrong_with_a_source_is_named(search, source, message):
    with pytest.raises(EmberlineError) as error:
        load(Data(source=source), search)
    assert message in str(error.value)


def test_zero_rows_are_refused():
    none, some = rows_from_arrays("x", np.zeros((0, 2)), np.zeros(0, int)), rows_from_arrays("x", [[1.0]], [0])
    with pytest.raises(EmberlineError, match="split 'train' has zero rows"):
        check_splits(Splits(none, some, some), 2, "mine")


def test_a_label_out_of_range_is_named_with_its_row_and_split():
    good, bad = rows_from_arrays("x", [[1.0], [2.0]], [0, 1]), rows_from_arrays("x", [[1.0], [2.0]], [0, 5])
    with pytest.raises(
        InvalidSetting, match=r"mine, split 'validation': label of row 1 is 5; 0 to 1.*\nhint: name every class"
    ):
        check_splits(Splits(good, bad, good), 2, "mine")


def test_labels_that_do_not_fit_the_rows_are_refused():
    with pytest.raises(InvalidSetting, match="one for each of 2 rows"):
        rows_from_arrays("x", [[1.0], [2.0]], [0])
    with pytest.raises(InvalidSetting, match="whole numbers in one dimension"):
        rows_from_arrays("x", [[1.0]], [0.5])
