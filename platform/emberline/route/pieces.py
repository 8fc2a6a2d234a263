"""What Envoy's routes are made of: matches, headers and refusals, as Envoy spells them."""

from typing import Any

from emberline.route.clusters import Json

POST: Json = {"name": ":method", "string_match": {"exact": "POST"}}
FORM: Json = {
    "name": "content-type",
    "string_match": {"prefix": "application/x-www-form-urlencoded", "ignore_case": True},
}
GET: Json = {"name": ":method", "string_match": {"exact": "GET"}}


def only(method: str, path: str, *headers: Json) -> Json:
    return {
        **refuse({"path": path}, 405, f"only {method} is served at this path"),
        "response_headers_to_add": [set_header("allow", method), *headers],
    }


def exactly(header: str, value: str) -> Json:
    return {"name": header, "string_match": {"exact": value}}


def refuse(match: Json, status: int, text: str, field: str | None = None) -> Json:
    route: Json = {"match": match, "direct_response": {"status": status, "body": {"inline_string": text}}}
    if field is not None:
        route["metadata"] = {"filter_metadata": {"emberline": {"field": field}}}
    return route


def set_header(name: str, value: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def absent(match: Json) -> Json:
    return {**match, "invert_match": True, "treat_missing_header_as_empty": True}
