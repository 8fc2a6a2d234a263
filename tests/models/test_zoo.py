"""The nets that come with Emberline: their sizes as published, and each rebuilt elsewhere after pruning."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from emberline.artifact import Artifact, to_json
from emberline.compress.stages.prune import remove_channels
from emberline.errors import EmberlineError, MissingFile
from emberline.models import create, example_inputs
from emberline.models.encoder import encoder, from_bert, pretrained
from emberline.models.mobilenet import mobilenet_v2
from emberline.models.resnet import resnet18
from emberline.recipe import Input, Model, Preprocessing, Prune

PIXELS = Preprocessing(inputs=(Input(name="image", shape=(3, 32, 32)),))
TOKENS = Preprocessing(inputs=(Input(name="ids", dtype="int64", shape=(12,), minimum=1),))
MIXED = Preprocessing(inputs=(Input(name="numbers", shape=(5,)), Input(name="categories", dtype="int64", shape=(2,))))
ZOO = {
    "resnet8": (Model(factory="emberline.models.resnet:resnet8"), PIXELS),
    "resnet18": (
        Model(factory="emberline.models.resnet:resnet18", arguments={"width": 16, "num_classes": 10}),
        PIXELS,
    ),
    "mobilenet": (
        Model(
            factory="emberline.models.mobilenet:mobilenet_v2",
            arguments={"width": 0.35, "num_classes": 10, "small_input": True},
        ),
        PIXELS,
    ),
    "encoder": (
        Model(
            factory="emberline.models.encoder:encoder",
            arguments={
                "classes": 2,
                "vocabulary": 60,
                "width": 32,
                "layers": 2,
                "heads": 4,
                "inner": 64,
                "table": 16,
                "positions": 16,
            },
        ),
        TOKENS,
    ),
    "ranker": (Model(factory="emberline.models.ranker:ranker", arguments={"numbers": 5, "categories": [7, 9]}), MIXED),
}
REBUILD = """
import json, sys
from pathlib import Path
import torch
from emberline import models
from emberline.artifact import Artifact
torch.set_num_threads(1)
for folder in map(Path, sys.argv[1:]):
    artifact = Artifact.model_validate_json((folder / "artifact.json").read_bytes())
    model = models.build(folder, artifact)
    with torch.no_grad():
        outputs = model(*torch.load(folder / "inputs.pt")).tolist()
    (folder / "outputs.json").write_text(json.dumps(outputs))
"""


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def inputs_of(preprocessing):
    torch.manual_seed(1)
    return tuple(
        torch.randint(1, 7, one.shape) if one.dtype == torch.int64 else torch.randn(one.shape)
        for one in example_inputs(preprocessing, 3)
    )


def test_the_nets_have_the_sizes_that_their_papers_state():
    assert count(resnet18()) == 11_689_512  # He et al. 2016; torchvision's net of that name
    assert count(mobilenet_v2()) == 3_504_872  # Sandler et al. 2018: 3.5M
    assert count(encoder()) == 22_713_216 - 147_840 - 2 * 384  # MiniLM-L6 without its pooler and its table of types


@pytest.mark.parametrize("name", ZOO)
def test_a_net_answers_each_row_alone_as_in_a_batch(name):
    model, preprocessing = ZOO[name]
    net, inputs = create(model).eval(), inputs_of(preprocessing)
    with torch.no_grad():
        torch.testing.assert_close(net(*inputs)[1:2], net(*[one[1:2] for one in inputs]), rtol=1e-4, atol=1e-5)


def test_padding_changes_no_answer_of_the_encoder():
    net = create(ZOO["encoder"][0]).eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(net(ids), net(torch.nn.functional.pad(ids, (0, 6))))


def test_pruned_nets_are_rebuilt_by_another_process_with_equal_outputs(tmp_path):
    expected = {}
    for name, (model, preprocessing) in ZOO.items():
        torch.manual_seed(0)
        net, inputs = create(model).eval(), inputs_of(preprocessing)
        before, edits = count(net), ()
        for ratio in (0.5, 0.3):  # pruned twice, as a recipe may
            more, changed = remove_channels(net, Prune(stage="prune", ratio=ratio), 4, inputs)
            edits += more
            assert changed
        assert count(net) < 0.8 * before
        folder = tmp_path / name
        folder.mkdir()
        save_file(net.state_dict(), folder / "model.safetensors")
        artifact = Artifact(model=model, edits=edits, weights="model.safetensors", preprocessing=preprocessing)
        (folder / "artifact.json").write_bytes(to_json(artifact))
        torch.save(inputs, folder / "inputs.pt")
        with torch.no_grad():
            expected[name] = net(*inputs).tolist()
    folders = [str(tmp_path / name) for name in ZOO]
    subprocess.run([sys.executable, "-c", REBUILD, *folders], check=True, timeout=120)
    for name in ZOO:
        got = json.loads((tmp_path / name / "outputs.json").read_text())
        np.testing.assert_allclose(got, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_published_weights_start_an_encoder_with_a_classifier_of_its_own(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(bert_like(), path)
    shape = {"vocabulary": 20, "width": 8, "layers": 1, "heads": 2, "inner": 16}
    net = pretrained(str(path), classes=3, positions=4, **shape)
    assert torch.equal(net.positions.weight, from_bert(bert_like())["positions.weight"][:4])
    assert net.classifier.weight.shape == (3, 8)
    with pytest.raises(EmberlineError, match="layers"):
        pretrained(str(path), positions=4, **{**shape, "layers": 2})
    with pytest.raises(MissingFile, match="elsewhere"):
        pretrained(str(tmp_path / "elsewhere"), **shape)


def test_weights_of_a_bert_like_checkpoint_fit_the_encoder():
    net = encoder(vocabulary=20, width=8, layers=1, heads=2, inner=16, positions=6)
    net.load_state_dict(from_bert(bert_like()), strict=True)


def bert_like() -> dict[str, torch.Tensor]:
    """A checkpoint of one layer, always the same."""
    torch.manual_seed(0)
    names = ["query", "key", "value"]
    width, inner = 8, 16
    matrix, vector = torch.randn(width, width), torch.randn(width)
    checkpoint = {
        "embeddings.word_embeddings.weight": torch.randn(20, width),
        "embeddings.position_embeddings.weight": torch.randn(6, width),
        "embeddings.token_type_embeddings.weight": torch.randn(2, width),
        "pooler.dense.weight": matrix,
    }
    for norm in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"):
        checkpoint |= {f"{norm}.LayerNorm.weight": vector, f"{norm}.LayerNorm.bias": vector}
    for layer in [*[f"attention.self.{name}" for name in names], "attention.output.dense"]:
        checkpoint |= {f"encoder.layer.0.{layer}.weight": matrix, f"encoder.layer.0.{layer}.bias": vector}
    checkpoint["encoder.layer.0.intermediate.dense.weight"] = torch.randn(inner, width)
    checkpoint["encoder.layer.0.intermediate.dense.bias"] = torch.randn(inner)
    checkpoint["encoder.layer.0.output.dense.weight"] = torch.randn(width, inner)
    checkpoint["encoder.layer.0.output.dense.bias"] = vector
    return {name: tensor.clone() for name, tensor in checkpoint.items()}
