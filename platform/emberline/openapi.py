"""The routed API as an OpenAPI 3.1 document: what each model of some archives takes and gives, at the router's port.

Schemas come from what the archives say of their inputs. A model whose handler is the user's own, or whose archive other
tools made, takes whatever that handler takes, so its bodies are left open.

Source: OpenAPI 3.1.1; the Open Inference Protocol's REST specification for the paths under /v2.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emberline import __version__
from emberline.archivefile import ArchiveInfo
from emberline.artifact import Artifact
from emberline.errors import EmberlineError
from emberline.recipe import Input

Json = dict[str, Any]

_KINDS = ("tensor", "image", "text", "ranking", "detection", "segmentation")
_PICTURES = ("image", "detection", "segmentation")
_OURS = {f"{name}_handler.py": name for name in (*_KINDS, "cascade")}
_MAX_ROWS = 4096  # of one request, as handlers/ember_protocol.py has it
_MAX_TEXT = 1_000_000
_MAX_ID_BYTES = 256
_ERRORS = {
    "400": "The body, a field of it, or the unit cannot be used; `field` names what.",
    "404": "Nothing is served at this path.",
    "413": "The body is larger than the router takes.",
    "429": "More requests a second than the router lets through; `Retry-After` says when to come back.",
    "500": "The model failed on this input.",
    "503": "No free worker, or the version is not there yet; `Retry-After` says when to come back.",
    "504": "The model did not answer in time.",
}
_UNIT: Json = {
    "name": "x-unit-id",
    "in": "header",
    "required": False,
    "description": "Whom the request is for, 1 to 256 bytes; required while the model has an experiment. The same unit "
    "always meets the same variant. An Experiment may name another header.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_-]+$"},
}


def document(archives: Iterable[ArchiveInfo], *, server: str) -> Json:
    """The document for all models of these archives.

    Args:
        server: the router's address.

    Raises:
        EmberlineError: two versions of a model take different inputs, so that no one schema is right.
    """
    models: dict[str, list[ArchiveInfo]] = {}
    for info in archives:
        models.setdefault(info.model, []).append(info)
    paths: Json = _fixed_paths()
    for model, infos in sorted(models.items()):
        paths |= _model_paths(model, _the_one(model, infos))
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Emberline's router",
            "version": __version__,
            "summary": "Predictions of models by their names, and outcomes of them.",
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, "Outcomes": _OUTCOMES},
            "responses": {f"E{code}": _error_response(code, text) for code, text in _ERRORS.items()},
        },
    }


def _the_one(model: str, infos: Sequence[ArchiveInfo]) -> ArchiveInfo:
    """One archive of a model, whose versions must all take the same."""
    first = infos[0]
    for other in infos[1:]:
        if _inputs(other) != _inputs(first):
            raise EmberlineError(
                f"takes other inputs of {model} than {first.path}",
                place=other.path,
                hint="name the archives of one generation: emberline openapi ARCHIVE …",
            )
    return next((info for info in infos if info.handler in _OURS), first)


def _inputs(info: ArchiveInfo) -> tuple[Input, ...]:
    return info.artifact.preprocessing.inputs if info.artifact is not None else ()


def _model_paths(model: str, info: ArchiveInfo) -> Json:
    kind, artifact = _OURS.get(info.handler), info.artifact
    known = kind is not None and artifact is not None
    body = _bodies(kind or "", artifact) if known and artifact else {"*/*": {}}
    answer = _answers(kind or "", artifact) if known and artifact else {}
    codes = ("400", "413", "429", "500", "503", "504")
    infer: Json = {
        "summary": f"Open Inference Protocol v2 call of {model}",
        "operationId": f"infer_{model}",
        "parameters": [_UNIT],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _infer_request(artifact)}}},
        "responses": {"200": _json("The outputs by name.", _INFER_ANSWER), **_refused(*codes)},
    }
    return {
        f"/predictions/{model}": {
            "post": {
                "summary": f"Predict with {model}",
                "operationId": f"predict_{model}",
                "parameters": [_UNIT],
                "requestBody": {"required": True, "content": body},
                "responses": {"200": _json("The prediction.", answer), **_refused(*codes)},
            }
        },
        **({f"/v2/models/{model}/infer": {"post": infer}} if known else {}),
        f"/v2/models/{model}": {
            "get": {
                "summary": f"What {model} takes and gives",
                "operationId": f"metadata_{model}",
                "responses": {"200": _json("The model's metadata.", _OBJECT), **_refused("503", "504")},
            }
        },
        f"/v2/models/{model}/ready": {
            "get": {
                "summary": f"Whether {model} answers",
                "operationId": f"ready_{model}",
                "responses": {"200": _json("It does.", _OBJECT), "503": _json("It does not.", _OBJECT)},
            }
        },
    }


def _bodies(kind: str, artifact: Artifact) -> Json:
    """Content by media type."""
    specs = artifact.preprocessing.inputs
    one = _instance(specs)
    listed = _object({"instances": {"type": "array", "items": one, "minItems": 1, "maxItems": _MAX_ROWS}})
    forms = [one, listed]
    if kind in ("ranking", "cascade"):
        forms.append(_ranking(specs))
    content: Json = {"application/json": {"schema": {"anyOf": forms}}}
    bare = specs[0].kind if kind == "cascade" else kind
    if bare in _PICTURES and len(specs) == 1:
        content |= {media: {} for media in ("image/jpeg", "image/png")}
    if bare == "text" and len(specs) == 1:
        content["text/plain"] = {"schema": {"type": "string", "minLength": 1, "maxLength": _MAX_TEXT}}
    return content


def _answers(kind: str, artifact: Artifact) -> Json:
    numbers = {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array"}]}}
    label: Json = {"type": "string", "enum": list(artifact.labels)}
    if kind == "detection":
        box = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
        found = _object({"box": box, "label": label, "score": {"type": "number"}})
        single = _object({"detections": {"type": "array", "items": found}})
    elif kind == "segmentation":
        mask = {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"}
        single = _object({"mask": mask, "shares": _object({name: {"type": "number"} for name in artifact.labels})})
    elif artifact.labels:
        single = _object({"label": label, "score": {"type": "number"}, "scores": numbers})
    else:
        single = _object({"outputs": numbers})
    forms = [single, _object({"predictions": {"type": "array", "items": single}})]
    if kind in ("ranking", "cascade"):
        ranked = _object({"index": {"type": "integer"}, "score": {"type": "number"}})
        ranked = {**ranked, "properties": {**ranked["properties"], "id": {}}}
        forms.append(_object({"ranking": {"type": "array", "items": ranked}}))
    return {"anyOf": forms}


def _instance(specs: Sequence[Input]) -> Json:
    return _object({spec.name: _value(spec) for spec in specs})


def _value(spec: Input) -> Json:
    if spec.kind == "text":
        return {"type": "string", "minLength": 1, "maxLength": _MAX_TEXT, "pattern": r"\S"}
    if spec.kind == "image":
        return {"type": "string", "contentEncoding": "base64", "description": "A JPEG or PNG file."}
    value: Json = {"type": "number" if spec.dtype.startswith("float") else "integer"}
    for key, bound in (("minimum", spec.minimum), ("maximum", spec.maximum)):
        if bound is not None:
            value[key] = bound
    flat = 1
    for size in reversed(spec.shape):
        flat *= size
        value = {"type": "array", "items": value, "minItems": size, "maxItems": size}
    if len(spec.shape) <= 1:
        return value
    innermost = value
    while innermost["type"] == "array":
        innermost = innermost["items"]
    return {"anyOf": [value, {"type": "array", "items": innermost, "minItems": flat, "maxItems": flat}]}


def _ranking(specs: Sequence[Input]) -> Json:
    """Items, and a context that they share; which inputs stand where is the client's choice."""
    inputs = {spec.name: _value(spec) for spec in specs}
    identity: Json = {"type": ["string", "integer", "null"], "minimum": -(2**63), "maximum": 2**64 - 1}
    item: Json = {"type": "object", "properties": {"id": identity, **inputs}, "additionalProperties": True}
    return {
        "type": "object",
        "properties": {
            "context": {"type": "object", "properties": inputs},
            "items": {"type": "array", "items": item, "minItems": 1, "maxItems": _MAX_ROWS},
            "top": {"type": "integer", "minimum": 1},
        },
        "required": ["items"],
        "additionalProperties": False,
    }


def _infer_request(artifact: Artifact | None) -> Json:
    specs = artifact.preprocessing.inputs if artifact is not None else ()
    names = [spec.name for spec in specs]
    tensor = _object(
        {
            "name": {"type": "string", "enum": names} if names else {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            "datatype": {"type": "string", "enum": ["BYTES", "FP32", "FP64", "INT32", "INT64", "UINT8"]},
            "data": {"type": "array", "minItems": 1},
        }
    )
    inputs = {"type": "array", "items": tensor, "minItems": max(1, len(names))}
    outputs = {"type": "array", "items": _object({"name": {"type": "string"}})}
    request = _object({"inputs": inputs})
    optional: Json = {"id": {"type": "string"}, "outputs": outputs, "parameters": {"type": "object"}}
    return {**request, "properties": {**request["properties"], **optional}}


def _fixed_paths() -> Json:
    asked = (
        ("/v2", "Name and version of the router", "server_metadata"),
        ("/v2/health/live", "Whether the router is there", "live"),
        ("/v2/health/ready", "Whether the router is ready", "ready"),
        ("/livez", "Whether the router is there", "livez"),
        ("/readyz", "Whether the router is ready", "readyz"),
    )
    paths: Json = {
        path: {
            "get": {
                "summary": summary,
                "operationId": name,
                "responses": {"200": _json("It is so.", _OBJECT), "503": _json("Not now.", _OBJECT)},
            }
        }
        for path, summary, name in asked
    }
    paths["/v1/outcomes"] = {
        "post": {
            "summary": "Hand in what became known after predictions",
            "operationId": "outcomes",
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Outcomes"}}},
            },
            "responses": {
                "202": _json("All of it is on the disk.", _object({"accepted": {"type": "integer"}})),
                **_refused("400", "413", "429", "503"),
            },
        }
    }
    return paths


_OBJECT: Json = {"type": "object"}
_ERROR: Json = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "field": {"type": "string"}, "request_id": {"type": "string"}},
    "required": ["error"],
}
_ID: Json = {"type": "string", "minLength": 1, "maxLength": _MAX_ID_BYTES // 4}  # a letter takes up to four bytes
_OUTCOMES: Json = {
    "type": "object",
    "properties": {
        "outcomes": {
            "type": "array",
            "minItems": 1,
            "maxItems": 10_000,
            "items": {
                "type": "object",
                "properties": {
                    "event_id": _ID,
                    "unit": _ID,
                    "request_id": _ID,
                    "metric": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"},
                    "value": {"type": "number"},
                    "time": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e11},
                },
                "required": ["event_id", "unit", "metric", "value"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["outcomes"],
    "additionalProperties": False,
}
_INFER_ANSWER: Json = {
    "type": "object",
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "outputs": {"type": "array", "items": {"type": "object", "required": ["name", "shape", "datatype", "data"]}},
    },
    "required": ["model_name", "model_version", "outputs"],
}


def _object(properties: Mapping[str, Json]) -> Json:
    """An object that has all of these and nothing else."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _json(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _error_response(code: str, text: str) -> Json:
    response = _json(text, {"$ref": "#/components/schemas/Error"})
    if code in ("429", "503"):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return response


def _refused(*codes: str) -> Json:
    return {code: {"$ref": f"#/components/responses/E{code}"} for code in codes}
