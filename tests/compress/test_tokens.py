"""Texts of any length: packages whose number of tokens is free, and what is refused on the way to them."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from emberline import assets
from emberline.artifact import Package, Tokens
from emberline.compress.agreement import require_agreement
from emberline.compress.context import Context
from emberline.compress.program import require_usable, trace
from emberline.compress.stages.export import export
from emberline.compress.stages.quantize import quantize
from emberline.compress.state import State
from emberline.compress.target import this_machine
from emberline.errors import StageFailed
from emberline.models.encoder import encoder
from emberline.recipe import Compress, Data, Export, Input, Model, Preprocessing, Quantize, Recipe
from emberline.runlog import RunLog

loader, probing = (assets.handler_module(name) for name in ("ember_packages", "ember_probe"))
LENGTH, VOCABULARY = 20, 60


class Bag(nn.Module):
    """A mean over all tokens, padding included: what it says depends on how much of that there is."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(VOCABULARY, 4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.out(self.table(ids).mean(1))


class Flat(nn.Module):
    """Takes texts of one length alone."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(VOCABULARY, 4), nn.Linear(4 * LENGTH, 2)

    def forward(self, ids):
        return self.out(self.table(ids).flatten(1))


class Counts(nn.Module):
    """The sum of a text's tokens, wrong from a number of tokens on."""

    def __init__(self, wrong_from):
        super().__init__()
        self.wrong_from = wrong_from

    def forward(self, ids):
        total = ids.sum(1, keepdim=True).float()
        return torch.cat([total, 1 + total * (1 + ids.shape[1] // self.wrong_from)], 1)


@pytest.fixture
def context(tmp_path):
    """Sentences of 1 to 24 words, from Parquet."""
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{one}" for one in random.integers(0, 50, 1 + row % 24)) for row in range(80)]
    pq.write_table(pa.table({"text": texts, "label": random.integers(0, 2, 80)}), tmp_path / "rows.parquet")
    rows = str(tmp_path / "rows.parquet")
    arguments = {"train": rows, "validation": 0.4, "test": rows, "inputs": {"text": "text"}, "label": "label"}
    settings = Compress(artifacts={"fp32": {"stages": [{"stage": "export"}]}}, batch_sizes=(1, 5))
    recipe = Recipe(
        run="texts",
        model=Model(factory="torch.nn:Identity"),
        data=Data(source="emberline.data.parquet:parquet", arguments=arguments),
        preprocessing=preprocessing(),
        labels=("no", "yes"),
        compress=settings,
    )
    made = Context(recipe, settings, None, this_machine(), ("aoti",), RunLog(), max_batch=8)
    made.scratch = tmp_path / "scratch"
    return made


def preprocessing(**more):
    spec = Input(name="text", kind="text", tokenizer="words", vocabulary=VOCABULARY, length=LENGTH, **more)
    return Preprocessing(inputs=(spec,))


def with_padding_to_length(context):
    return replace(context, recipe=context.recipe.model_copy(update={"preprocessing": preprocessing(padding="length")}))


def small_encoder():
    torch.manual_seed(0)
    return encoder(2, vocabulary=VOCABULARY, width=16, layers=1, heads=2, inner=32, positions=LENGTH).eval()


def described(context, *packages):
    spec = context.recipe.preprocessing.model_dump(mode="json")
    return {"preprocessing": spec, "labels": [], "packages": [one.model_dump(mode="json") for one in packages]}


@pytest.mark.long
@pytest.mark.parametrize("backend", ["aoti", "onnx", "openvino"])
def test_an_int8_package_takes_texts_of_any_length_and_says_so(context, backend):
    if backend != "aoti":
        pytest.importorskip({"onnx": "onnxruntime", "openvino": "nncf"}[backend])
    context.backends = (backend,)
    state = quantize(State(small_encoder()), Quantize(stage="quantize", calibration_rows=32), context)
    state = export(state, Export(stage="export", backends=(backend,), max_batch=8), context)
    package, interpreted = state.packages
    assert package.tokens == interpreted.tokens == {"text": Tokens(least=8, most=LENGTH)}
    assert package.int8_kernels >= len(state.int8_layers) > 0
    ids = context.validation[0][0]
    chain = described(context, *state.packages)
    model = loader.open_chosen(state.folder, chain, chain["packages"][0], (), print)
    alone = np.concatenate([model((ids[row : row + 1],))[0] for row in range(8)])
    (together,) = model((ids[:8],))
    assert np.abs(together - alone).max() < 0.05 * np.abs(alone).max()  # int8 rounds ties either way
    assert probing.probe_here(state.folder, chain, chain["packages"][0]) is None
    fixed = {**chain["packages"][1], "tokens": {}}  # an older paper's: whole length, whatever the texts
    exact = [
        loader.open_chosen(state.folder, chain, one, (), print)((ids[:8],))[0] for one in (chain["packages"][1], fixed)
    ]
    assert np.abs(exact[0] - exact[1]).max() < 1e-5


def test_what_only_pads_is_left_out_of_a_batch_where_the_package_allows():
    seen = []

    def program(arrays):
        seen.append(arrays[0].shape)
        return [np.zeros((len(arrays[0]), 2))]

    ids = np.zeros((5, LENGTH), np.int64)
    for row, tokens in enumerate([1, 11, 3, 2, 20]):
        ids[row, :tokens] = 7
    for tokens in ((8,), ()):
        loader.LoadedModel(program, {"max_batch": 2}, (ids[0],), (), tokens)((ids,))
    assert seen == [(2, 11), (2, 8), (1, 20), *[(2, 20), (2, 20), (1, 20)]]


def test_a_package_that_is_wrong_at_one_length_alone_is_refused_and_the_length_named(context, tmp_path):
    tokens = torch.export.Dim("tokens", min=8, max=LENGTH)
    shapes = ({0: torch.export.Dim("rows", min=1, max=8), 1: tokens},)
    for wrong_from in (LENGTH + 1, LENGTH):
        with torch.no_grad():
            program = torch.export.export(Counts(wrong_from), context.example(2, "middle"), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / f"{wrong_from}.pt2")
    state = State(Counts(LENGTH + 1).eval())
    right, wrong = (
        Package(file=f"{one}.pt2", backend="exported", precision="fp32", max_batch=8) for one in (LENGTH + 1, LENGTH)
    )
    assert require_agreement(state, right, tmp_path, context) < 1e-5
    with pytest.raises(StageFailed, match="away from its reference at batch 1, 20 tokens"):
        require_agreement(state, wrong, tmp_path, context)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [(Bag, "away from the same text's with padding"), (Flat, r"layer out \(Linear\) fails on texts of other lengths")],
)
def test_a_model_that_needs_one_length_is_refused_and_told_of_the_setting_that_takes_it(context, model, complaint):
    torch.manual_seed(0)
    net = model().eval()
    with pytest.raises(StageFailed, match=complaint) as error:
        require_usable(net, context)
    assert "padding: length" in error.value.hint
    fixed = with_padding_to_length(context)
    require_usable(net, fixed)
    assert trace(net, fixed, stage="export").module()(*fixed.example(3)).shape == (3, 2)
    assert {one.shape[1] for one in fixed.example(3)} == {LENGTH}


def test_text_inputs_say_how_they_are_padded_and_others_cannot():
    assert json.loads(preprocessing().model_dump_json())["inputs"][0]["padding"] is None
    with pytest.raises(ValueError, match="padding does nothing with kind tensor"):
        Input(name="x", shape=(3,), padding="length")
