"""What is refused before Envoy sees it, and that Envoy takes the rest."""

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from emberline.errors import InvalidSetting
from emberline.experiment import Experiment, Status, parse_experiment
from emberline.experiment.unit import Layer
from emberline.process import free_port
from emberline.route.bootstrap import CDS, MIRRORED_RDS, RDS, render_bootstrap
from emberline.route.envoy import validate
from emberline.route.publish import Publisher
from emberline.route.render import render
from emberline.route.settings import Address, Limits, Settings, parse_address, parse_defaults, parse_upstreams

UPSTREAMS = parse_upstreams(["digits@1.0=127.0.0.1:1", "digits@1.1=serve-1-1.models.svc:8085", "other@2=[::1]:3"])
SETTINGS = Settings(UPSTREAMS, {"digits": "1.0", "other": "2"}, Address("127.0.0.1", 1), Address("127.0.0.1", 2))


def experiment(folder, name="trial", model="digits", treatment="1.1", salt=None, **status) -> Experiment:
    document = {
        "apiVersion": "emberline.dev/v1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "model": model,
            "salt": salt,
            "variants": [{"name": "new", "version": treatment}, {"name": "old", "version": "1.0", "control": True}],
            "primary": {"metric": "correct"},
            "ramp": [{"weight": 5000}],
        },
        "status": status,
    }
    return parse_experiment(document, folder / f"{name}.yaml")


def weighted(rendering) -> list[tuple[str, int]]:
    routes = rendering.routes["virtual_hosts"][0]["routes"]
    clusters = next(route for route in routes if "weighted_clusters" in route.get("route", {}))
    return [(c["name"], c["weight"]) for c in clusters["route"]["weighted_clusters"]["clusters"]]


def test_before_rollout_has_begun_everybody_gets_the_control(tmp_path):
    assert weighted(render((experiment(tmp_path),), SETTINGS)) == [("trial/new@1.1", 0), ("trial/old@1.0", 10_000)]


def test_a_winner_keeps_its_traffic_and_its_metadata_when_the_loser_is_served_no_more(tmp_path):
    shipped = experiment(tmp_path, phase="Shipped", weights={"new": 10_000, "old": 0})
    settings = Settings(parse_upstreams(["digits@1.1=127.0.0.1:1"]), {}, Address("127.0.0.1", 1))
    rendering = render((shipped,), settings)
    assert weighted(rendering) == [("trial/new@1.1", 10_000)]
    assert list(rendering.clusters) == ["trial/new@1.1"]
    assert rendering.asked == {("digits", "1.1")}
    asked = [route for route in rendering.routes["virtual_hosts"][0]["routes"] if "/v2/models/" in str(route["match"])]
    assert asked[0]["route"]["cluster"] == "trial/new@1.1"
    assert "trial/old@1.0" not in str(rendering.routes) + str(rendering.mirrored)
    with pytest.raises(InvalidSetting, match=r"digits@1.0'; a version with an upstream"):
        render((experiment(tmp_path, phase="RolledBack", weights={"new": 0, "old": 10_000}),), settings)


def test_treatments_come_first_whatever_the_order_of_the_status(tmp_path):
    ramping = experiment(tmp_path, weights={"old": 9000, "new": 1000})
    rendering = render((ramping,), SETTINGS)
    assert weighted(rendering) == [("trial/new@1.1", 1000), ("trial/old@1.0", 9000)]
    assert rendering.asked == {("digits", "1.0"), ("digits", "1.1"), ("other", "2")}
    assert render((), SETTINGS).asked == {("digits", "1.0"), ("other", "2")}


def test_equal_experiments_render_equally_and_others_do_not(tmp_path):
    one, same = (render((experiment(tmp_path),), SETTINGS) for _ in range(2))
    moved = render((experiment(tmp_path, weights={"new": 1, "old": 9999}),), SETTINGS)
    assert one.version == same.version != moved.version


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"treatment": "3.0"}, "trial: spec.variants.new.version is 'digits@3.0'"),
        ({"model": "unheard-of"}, "none of this model is known"),
        ({"weights": {"new": 1, "old": 1}}, "sum to 10000"),
        ({"weights": {"new": -1, "old": 10_001}}, "from 0"),
        ({"weights": {"new": 5000, "older": 5000}}, "['older']"),
    ],
)
def test_an_experiment_that_cannot_be_routed_is_refused_by_name(tmp_path, changes, fact):
    with pytest.raises(InvalidSetting, match="trial") as refused:
        render((experiment(tmp_path, **changes),), SETTINGS)
    assert fact in str(refused.value)


def test_a_layer_that_is_drawn_as_the_holdout_is_refused_beside_one(tmp_path):
    plain = experiment(tmp_path)
    layer = Layer(name="holdout", buckets=(0, 500))
    layered = plain.model_copy(update={"spec": plain.spec.model_copy(update={"layer": layer})})
    render((layered,), SETTINGS)
    with pytest.raises(InvalidSetting, match=r"spec.layer.name is 'holdout'; a name of its own"):
        render((layered,), replace(SETTINGS, holdout=500))


def test_two_experiments_on_one_model_are_refused_and_both_named(tmp_path):
    with pytest.raises(InvalidSetting, match=r"second: .*'trial'"):
        render((experiment(tmp_path), experiment(tmp_path, name="second")), SETTINGS)


def test_an_ended_experiment_makes_way_for_one_that_goes_on(tmp_path):
    ended = experiment(tmp_path, name="a-first", phase="Shipped", weights={"new": 10_000, "old": 0}, since=9.0)
    going_on = experiment(tmp_path, name="b-next", weights={"new": 1000, "old": 9000}, phase="Ramping", since=1.0)
    assert weighted(render((ended,), SETTINGS)) == [("a-first/new@1.1", 10_000), ("a-first/old@1.0", 0)]
    assert weighted(render((ended, going_on), SETTINGS)) == [("b-next/new@1.1", 1000), ("b-next/old@1.0", 9000)]


@pytest.mark.parametrize("salt", [None, "plain", r"back\slash \1 \\2", "%REQ(x)% ünïcode {}"])
def test_envoy_itself_takes_what_is_rendered(tmp_path, salt):
    rendering = render((experiment(tmp_path, salt=salt, shadow=0.5, weights={"new": 1000, "old": 9000}),), SETTINGS)
    bootstrap = render_bootstrap(
        SETTINGS, tmp_path, Path("/dev/null"), Address("127.0.0.1", free_port()), Address("127.0.0.1", 4)
    )
    Publisher(tmp_path).write(rendering)
    validate(bootstrap, tmp_path)
    static = _static(bootstrap, tmp_path)
    validate(static, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CDS, RDS, MIRRORED_RDS}


def _static(bootstrap: dict, folder) -> dict:
    """The same without discovery, so that validation reads routes and clusters, too."""

    def resources(name: str) -> list[dict]:
        found = orjson.loads((folder / name).read_bytes())["resources"]
        return [{key: value for key, value in resource.items() if key != "@type"} for resource in found]

    static = orjson.loads(orjson.dumps(bootstrap))
    del static["dynamic_resources"]
    static["static_resources"]["clusters"] += resources(CDS)
    for listener, name in zip(static["static_resources"]["listeners"], (RDS, MIRRORED_RDS, MIRRORED_RDS), strict=True):
        connections = listener["filter_chains"][0]["filters"][0]["typed_config"]
        del connections["rds"]
        connections["route_config"] = resources(name)[0]
    return static


@pytest.mark.parametrize(
    ("parse", "texts", "fact"),
    [
        (parse_upstreams, ["digits=1"], "MODEL@VERSION=HOST:PORT"),
        (parse_upstreams, ["digits@1=h:99999"], "HOST:PORT"),
        (parse_upstreams, ["a b@c=h:1"], "MODEL@VERSION=HOST:PORT"),
        (parse_upstreams, ["a@1=h:1", "a@1=h:2"], "given twice"),
        (parse_defaults, ["digits"], "MODEL=VERSION"),
        (parse_defaults, ["digits=1", "digits=2"], "given twice"),
        (lambda texts: parse_address(texts[0], "--dashboard"), ["nowhere"], "--dashboard"),
    ],
)
def test_wrong_options_name_what_is_wanted(parse, texts, fact):
    with pytest.raises(InvalidSetting) as refused:
        parse(texts)
    assert fact in str(refused.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8080"), ("::", "http://[::1]:8080"), ("::1", "http://[::1]:8080")],
)
def test_a_router_that_listens_everywhere_is_reached_at_loopback_of_its_kind(host, url):
    assert Settings({}, {}, Address(host, 8080)).url == url


def test_a_default_without_an_upstream_is_refused_with_the_option_to_add():
    with pytest.raises(InvalidSetting, match="digits=9") as refused:
        Settings(UPSTREAMS, {"digits": "9"}, Address("127.0.0.1", 1), limits=Limits())
    assert "--upstream digits@9=HOST:PORT" in str(refused.value)


def test_a_status_of_rollout_is_what_is_rendered(tmp_path):
    status = Status(weights={"new": 2500, "old": 7500}, revision=3)
    ramping = experiment(tmp_path).model_copy(update={"status": status})
    rendering = render((ramping,), SETTINGS)
    assert (
        orjson.dumps(rendering.routes).count(ramping.config_version.encode()) == 14
    )  # answers and logs of both paths, for both kinds of bodies, and refusals
