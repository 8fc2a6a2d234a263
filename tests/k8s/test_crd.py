"""The CRD's schema says of an Experiment what the pydantic models say: field by field, and document by document."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import TypeAdapter

from emberline.errors import EmberlineError
from emberline.experiment import Spec, Status, parse_experiment
from emberline.recipe import read_yaml

Schema = dict[str, Any]
_BOUNDS = (
    *("pattern", "enum", "maxLength", "minItems", "maxItems"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
)


@pytest.fixture(scope="module")
def crd() -> Schema:
    return yaml.safe_load((Path(__file__).parents[2] / "k8s/crd/experiments.yaml").read_text())


@pytest.fixture(scope="module")
def schema(crd) -> Schema:
    (version,) = crd["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]["properties"]


def test_the_crd_is_of_kubernetes_schema(crd):
    kubernetes_validate.validate(crd, "1.34", strict=True)


def test_kubectl_renders_the_crd_unchanged(crd, render):
    assert yaml.safe_load(render("../crd")) == crd


def test_status_is_a_subresource_and_columns_read_fields_that_exist(crd, schema):
    (version,) = crd["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    for column in version["additionalPrinterColumns"]:
        first, *path = column["jsonPath"].strip(".").split(".")
        if first != "metadata":
            assert path[0] in schema[first]["properties"], column


@pytest.mark.parametrize(("part", "model"), [("spec", Spec), ("status", Status)])
def test_fields_are_those_of_the_models(schema, part, model):
    ours = TypeAdapter(model).json_schema()
    _compare(schema[part], ours, ours.get("$defs", {}), part)


def _compare(crd: Schema, ours: Schema, definitions: Schema, place: str) -> None:
    """Names, which are required, types, bounds, patterns, choices and defaults of scalars."""
    ours = _resolved(ours, definitions)
    # a duration: what it takes is tried below, document by document; and a copy of what is compared as spec
    if crd.get("x-kubernetes-int-or-string") or place == "status.spec":
        assert ours["type"] == ("object" if place == "status.spec" else "number")
        return
    assert crd["type"] == ours["type"], place
    bounds = _plain(crd)
    for key in _BOUNDS:
        if place == "spec.ramp" and key == "maxItems":
            continue  # the API server wants a bound for what its rules may cost
        assert bounds.get(key) == ours.get(key), f"{place}: {key}"
    if crd["type"] == "object" and "properties" in crd:
        assert set(crd["properties"]) == set(ours["properties"]), place
        assert set(crd.get("required", ())) == set(ours.get("required", ())), place
        for name, inner in crd["properties"].items():
            _compare(inner, ours["properties"][name], definitions, f"{place}.{name}")
            if place.startswith("status"):
                optional = {"type": "null"} in ours["properties"][name].get("anyOf", ())
                assert inner.get("nullable", False) is optional, f"{place}.{name}"  # rollout writes null there
            if "default" in inner and inner["type"] not in {"object", "array"}:
                assert inner["default"] == ours["properties"][name]["default"], f"{place}.{name}"
    elif crd["type"] == "object":
        assert crd["additionalProperties"]["type"] == ours["additionalProperties"]["type"], place
    elif crd["type"] == "array":
        _compare(crd["items"], ours["items"], definitions, f"{place}[]")


def _resolved(ours: Schema, definitions: Schema) -> Schema:
    if "anyOf" in ours:  # an optional value
        ours = next(choice for choice in ours["anyOf"] if choice.get("type") != "null")
    if "$ref" in ours:
        ours = definitions[ours["$ref"].rsplit("/", 1)[-1]]
    return ours


def _plain(crd: Schema) -> Schema:
    """OpenAPI v3.0 says `exclusiveMinimum: true` beside `minimum`; JSON Schema puts the number there."""
    plain = dict(crd)
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if plain.pop(exclusive, False):
            plain[exclusive] = plain.pop(bound)
    return plain


def _strict(crd: Any) -> Any:
    """As JSON Schema, where a field nobody declared is refused, as `kubectl apply` does."""
    if isinstance(crd, list):
        return [_strict(item) for item in crd]
    if not isinstance(crd, dict):
        return crd
    plain = {key: _strict(value) for key, value in _plain(crd).items()}
    if plain.get("type") == "object" and isinstance(plain.get("properties"), dict):
        plain.setdefault("additionalProperties", False)
    return plain


def _defaulted(value: Any, crd: Schema) -> Any:
    """The value with the schema's defaults, which the API server fills in before it validates."""
    if isinstance(value, dict):
        for name, inner in crd.get("properties", {}).items():
            if "default" in inner:
                value.setdefault(name, copy.deepcopy(inner["default"]))
            if name in value:
                value[name] = _defaulted(value[name], inner)
    if isinstance(value, list):
        return [_defaulted(item, crd.get("items", {})) for item in value]
    return value


def _api_server_takes(document: Schema, spec_schema: Schema) -> bool:
    spec = _defaulted(copy.deepcopy(document["spec"]), spec_schema)
    try:
        jsonschema.Draft202012Validator(_strict(spec_schema)).validate(spec)
    except jsonschema.ValidationError:
        return False
    return True


def _emberline_takes(document: Schema) -> bool:
    try:
        parse_experiment(document, Path("experiment.yaml"))
    except EmberlineError:
        return False
    return True


def _set(*path: str | int, to: Any) -> Callable[[Schema], None]:
    def change(spec: Schema) -> None:
        node: Any = spec
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = to

    return change


def _drop(*path: str | int) -> Callable[[Schema], None]:
    def change(spec: Schema) -> None:
        node: Any = spec
        for part in path[:-1]:
            node = node[part]
        del node[path[-1]]

    return change


GOOD = {
    "as shipped": lambda _: None,
    "a salt": _set("salt", to="pepper"),
    "no guardrails": _drop("guardrails"),
    "no unit": _drop("unit"),
    "no alpha": _drop("alpha"),
    "kind left out": _drop("primary", "kind"),
    "seconds as a number": _set("ramp", 0, "until", "max_wait", to=90),
    "half an hour": _set("ramp", 0, "until", "max_wait", to="0.5h"),
    "no condition": _drop("ramp", 1, "until"),
}
BAD = {
    "an unknown field": _set("modle", to="digits"),
    "an unknown field inside": _set("primary", "margins", to=0.1),
    "no model": _drop("model"),
    "a model in capitals": _set("model", to="Digits"),
    "a version with a v": _set("variants", 0, "version", to="v1.1"),
    "a version that YAML read as a number": _set("variants", 0, "version", to=1.1),
    "a primary of which less is better": lambda spec: spec["primary"].update(metric="error"),
    "three variants": lambda spec: spec["variants"].append({"name": "more", "version": "2.0"}),
    "one variant": _drop("variants", 0),
    "an unknown kind": _set("primary", "kind", to="median"),
    "exceedance of nothing": _drop("guardrails", 1, "above"),
    "a rate above something": _set("primary", "above", to=3),
    "a guardrail without a bound": _drop("guardrails", 0, "max_increase"),
    "an empty ramp": _set("ramp", to=[]),
    "a step that does nothing": _drop("ramp", 0, "shadow"),
    "a step that does both": _set("ramp", 0, "weight", to=100),
    "a weight of everything and more": _set("ramp", 1, "weight", to=10_001),
    "a weight of none": _set("ramp", 1, "weight", to=0),
    "a shadow of none": _set("ramp", 0, "shadow", to=0),
    "a shadow of more than all": _set("ramp", 0, "shadow", to=1.5),
    "no units at all": _set("ramp", 1, "until", "min_units", to=0),
    "a disagreement that is always reached": _set("ramp", 0, "until", "disagreement_below", to=1),
    "a duration without a unit": _set("ramp", 0, "until", "max_wait", to="90"),
    "a duration of nothing": _set("ramp", 0, "until", "max_wait", to="0s"),
    "a number of no seconds": _set("ramp", 0, "until", "max_wait", to=0),
    "weeks": _set("ramp", 0, "until", "max_wait", to="2w"),
    "alpha of one": _set("alpha", to=1),
    "a header in capitals": _set("unit", "header", to="X-Unit"),
}


@pytest.fixture
def document(root) -> Schema:
    return read_yaml(root / "recipes/digits.experiment.yaml")


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD)
def test_both_take(document, schema, change):
    change(document["spec"])
    assert _emberline_takes(document)
    assert _api_server_takes(document, schema["spec"])


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_both_refuse(document, schema, change):
    change(document["spec"])
    assert not _emberline_takes(document)
    assert not _api_server_takes(document, schema["spec"])


def test_what_only_rules_can_say_is_said_by_rules(schema):
    """These need an API server to run; here their place and subject are held."""
    rules = {
        field: [rule["rule"] for rule in schema["spec"]["properties"][field]["x-kubernetes-validations"]]
        for field in ("variants", "ramp")
    }
    order, names = rules["variants"]
    assert "self[1].control" in order
    assert names == "self[0].name != self[1].name"
    some, sorted_weights = rules["ramp"]
    assert "exists" in some
    assert sorted_weights.endswith(".isSorted()")


def test_the_schema_is_structural(schema):
    """Types stand outside logical operators, and defaults never inside: else the API server refuses the CRD."""
    for part in ("spec", "status"):
        _structural(schema[part], part)


def _structural(node: Schema, place: str) -> None:
    assert "type" in node or node.get("x-kubernetes-int-or-string"), place
    for choice in node.get("oneOf", ()):
        assert not {"type", "default", "description", "additionalProperties"} & choice.keys(), place
        assert choice.get("properties", {}).keys() <= node["properties"].keys(), place
    if node.get("x-kubernetes-int-or-string"):
        assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], place
    for name, inner in node.get("properties", {}).items():
        _structural(inner, f"{place}.{name}")
    if "items" in node:
        _structural(node["items"], f"{place}[]")
