"""Paths of the router itself: health, outcomes, the dashboard, and all that nobody promised."""

import json

from emberline import __version__
from emberline.route.clusters import DASHBOARD, OUTCOMES, Json
from emberline.route.edge import OPEN_PATHS, open_to_all
from emberline.route.pieces import GET, POST, only, refuse, set_header
from emberline.route.settings import Settings

BUSY_FILTER = "envoy.filters.http.custom_response"
OUTCOMES_PATH = "/v1/outcomes"
_SERVER_METADATA = json.dumps({"name": "emberline", "version": __version__, "extensions": []}) + "\n"


def own_routes(settings: Settings) -> list[Json]:
    """The last ones of the list: whatever no model's route has matched ends here."""
    # the router's own errors are said in its own words
    disabled = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    own = {BUSY_FILTER: disabled}
    free = open_to_all(settings.edge)
    inside: Json = {"route": {"cluster": OUTCOMES, "timeout": "5s"}, "typed_per_filter_config": own}
    # an event id counts once, so outcomes may be sent again whatever became of them
    again = {"retry_on": "connect-failure,refused-stream,reset", "num_retries": 2}
    taking = {"cluster": OUTCOMES, "timeout": "10s", "retry_policy": again}
    routes: list[Json] = [
        {"match": {"path": OUTCOMES_PATH, "headers": [POST]}, **inside, "route": taking},
        only("POST", OUTCOMES_PATH),
        {
            "match": {"path": "/livez", "headers": [GET]},
            "direct_response": {"status": 200, "body": {"inline_string": '{"live":true}\n'}},
            "response_headers_to_add": [set_header("content-type", "application/json")],
            "typed_per_filter_config": free,
        },
        {
            "match": {"path": "/v2", "headers": [GET]},
            "direct_response": {"status": 200, "body": {"inline_string": _SERVER_METADATA}},
            "response_headers_to_add": [set_header("content-type", "application/json")],
        },
        only("GET", "/v2"),
    ]
    open_inside = {**inside, "typed_per_filter_config": {**own, **free}}
    routes += [{"match": {"path": path, "headers": [GET]}, **open_inside} for path in OPEN_PATHS if path != "/livez"]
    routes.append({"match": {"safe_regex": {"regex": "/v2/models/[a-z0-9-]+/ready"}, "headers": [GET]}, **inside})
    if settings.dashboard is not None:
        routes.append(
            {
                "match": {"path_separated_prefix": "/dashboard"},
                # a page that shows an experiment as it runs may stream
                "route": {"cluster": DASHBOARD, "timeout": "0s", "idle_timeout": "3600s"},
                "typed_per_filter_config": own,
            }
        )
    routes.append({**refuse({"prefix": "/"}, 404, "nothing is served at this path"), "typed_per_filter_config": own})
    return routes
