"""From names to modules, and back from artifacts."""

import pytest
import torch
import torch_pruning
from safetensors.torch import save_file

from emberline.artifact import Artifact
from emberline.errors import CorruptPaper, EmberlineError
from emberline.models import apply_edits, build, create, edits_of, example_inputs, failing_layer, resolve
from emberline.recipe import Input, Model, Preprocessing, Step

DIGITS = Preprocessing(inputs=(Input(name="pixels", shape=(8, 8)),), steps=(Step(op="reshape", shape=(1, 8, 8)),))
IMAGES = Preprocessing(
    inputs=(Input(name="image", kind="image"),),
    steps=(Step(op="resize", size=(32, 32)), Step(op="scale", by=0.1), Step(op="channels_first")),
)


def pruned(reference: str, preprocessing: Preprocessing, layer: str):
    """A model with channels removed twice in the same layer, and the edits."""
    model = create(Model(factory=reference))
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example_inputs(preprocessing, 2))
    for channels in ([0, 3], [1]):
        module = model.get_submodule(layer)
        graph.get_pruning_group(module, torch_pruning.prune_conv_out_channels, channels).prune()
    return model, edits_of(graph.pruning_history())


@pytest.mark.parametrize(
    ("reference", "preprocessing", "layer"),
    [
        ("emberline.models.digits:digits_cnn", DIGITS, "features.0"),
        ("emberline.models.resnet:resnet8", IMAGES, "4.first"),
    ],
)
def test_a_pruned_model_is_rebuilt_in_its_shape_with_its_weights(tmp_path, reference, preprocessing, layer):
    model, edits = pruned(reference, preprocessing, layer)
    assert [edit.removed for edit in edits] == [(0, 3), (1,)]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    artifact = Artifact(
        model=Model(factory=reference), edits=edits, weights="model.safetensors", preprocessing=preprocessing
    )
    again = build(tmp_path, artifact)
    inputs = [torch.randn_like(one) for one in example_inputs(preprocessing, 3)]
    assert torch.equal(model.eval()(*inputs), again(*inputs))
    assert (
        again.get_submodule(layer).out_channels
        == create(Model(factory=reference)).get_submodule(layer).out_channels - 3
    )


def test_weights_of_another_model_are_refused(tmp_path):
    save_file(create(Model(factory="emberline.models.resnet:resnet8")).state_dict(), tmp_path / "model.safetensors")
    artifact = Artifact(
        model=Model(factory="emberline.models.digits:digits_cnn"), weights="model.safetensors", preprocessing=DIGITS
    )
    with pytest.raises(CorruptPaper, match="required: the weights of its own model"):
        build(tmp_path, artifact)


def test_an_edit_of_a_layer_that_is_gone_is_refused():
    model, edits = pruned("emberline.models.digits:digits_cnn", DIGITS, "features.0")
    with pytest.raises(EmberlineError, match=r"layer 'features.0' is not there"):
        apply_edits(torch.nn.Linear(2, 2), edits, example_inputs(DIGITS))
    assert model is not None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:net", "module is 'no_such_module'; a module that can be imported is required"),
        ("emberline.models.mlp:mpl", "function is 'mpl'; a function of emberline.models.mlp is required"),
        ("builtins:dict", "what it returned is 'dict'; a torch.nn.Module is required"),
        ("emberline.models.mlp:mlp", "failed with TypeError: mlp() missing 2 required positional arguments"),
        ("broken_user_module:net", "imports 'not_installed_anywhere', which is not installed"),
    ],
)
def test_what_is_wrong_with_a_factory_is_named(tmp_path, monkeypatch, reference, message):
    (tmp_path / "broken_user_module.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EmberlineError) as error:
        create(Model(factory=reference), tmp_path)
    assert message in str(error.value)


def test_the_layer_whose_forward_failed_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(4, 1)))
    with pytest.raises(RuntimeError) as error:
        model(torch.zeros(1, 2))
    assert failing_layer(error.value, model) == "1.1 (Linear)"


def test_resnet8_has_the_size_that_mlperf_tiny_states():
    model = resolve("emberline.models.resnet:resnet8")()
    # Banbury et al. 2021, table 1: 96 kB as int8 with its metadata; 78k parameters in the reference implementation
    assert 77_000 < sum(one.numel() for one in model.parameters()) < 79_000
