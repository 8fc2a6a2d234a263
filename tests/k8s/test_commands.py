"""Every command, option, port and probe in the manifests is one that the command line has."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from emberline.cli import VERBS, app
from emberline.paper import MANIFEST
from emberline.recipe import load_recipe
from emberline.signing import signature_of


def _words(container: dict[str, Any]) -> list[str]:
    """The command line with the variables filled in that Kubernetes fills in."""
    given = {entry["name"]: entry.get("value", "filled-in") for entry in container.get("env", ())}
    words = [*container["command"], *container.get("args", ())]
    return [re.sub(r"\$\((\w+)\)", lambda match: given[match[1]], word) for word in words]


def _arguments(words: list[str]) -> tuple[Any, dict[str, Any]]:
    """The verb's function and its arguments, defaults included, as the command line itself parses them."""
    function, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    bound.apply_defaults()
    return function, bound.arguments


def _of_verb(manifests: Any, verb: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Containers that run a verb, each with the verb's arguments."""
    words = [(container, _words(container)) for _, container in manifests.containers]
    return [(container, _arguments(line)[1]) for container, line in words if line[:2] == ["emberline", verb]]


def test_every_command_is_one_that_parses(manifests):
    for name, container in manifests.containers:
        words = _words(container)
        assert words[0] in {"emberline", "torchrun", "sh"}, name
        if words[0] == "emberline":
            assert words[1] in VERBS, name
            function, _ = _arguments(words)
            assert inspect.unwrap(function).__name__ == words[1], name


def test_the_verbs_of_the_path_are_all_there(manifests):
    lines = [_words(container) for _, container in manifests.containers]
    verbs = {line[1] for line in lines if line[0] == "emberline"}
    launcher = set() if any(line[0] == "torchrun" for line in lines) else {"train"}
    assert verbs == {"rendezvous", "compress", "archive", "serve", "route", "rollout"} | launcher


def test_torchrun_starts_the_worker_that_ours_starts(rendered):
    from torch.distributed.run import get_args_parser

    (line,) = [words for _, c in rendered("torchrun").containers if (words := _words(c))[0] == "torchrun"]
    parsed = get_args_parser().parse_args(line[1:])
    assert (parsed.module, parsed.training_script) == (True, "emberline.train.worker")
    assert parsed.rdzv_endpoint == "rendezvous-digits:29400"
    assert importlib.util.find_spec(parsed.training_script) is not None
    asked = subprocess.run(
        [sys.executable, "-m", parsed.training_script, "--help"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    for word in parsed.training_script_args:
        if word.startswith("--"):
            assert word.partition("=")[0] in asked.stdout


def test_recipes_named_in_the_manifests_are_in_the_image(manifests, k8s, root):
    assert "COPY recipes /recipes\n" in (k8s / "image/Dockerfile").read_text()
    named = {
        word.partition("/recipes/")[2] for _, c in manifests.containers for word in _words(c) if "recipes/" in word
    }
    assert named == {"digits.yaml"}
    assert (root / "recipes/digits.yaml").is_file()


def test_jobs_wait_for_papers_that_the_stage_before_writes(manifests, root):
    recipe = load_recipe(root / "recipes/digits.yaml")
    waits = [_words(container)[2] for _, container in manifests.containers if _words(container)[0] == "sh"]
    waited = {path for wait in waits for path in re.findall(r"test -f (\S+?)(?:;|\s)", wait)}
    signatures = {
        str(signature_of(Path("store") / f"{recipe.archive.model}-{version}.mar"))
        for version in recipe.archive.versions.values()
    }
    assert waited == {f"runs/{recipe.run}/{MANIFEST}"} | signatures


def test_waiting_ends_at_once_when_the_paper_is_there_or_the_pod_has_to_go(rendered, tmp_path):
    (wait, *_) = [c["command"] for _, c in rendered("demo").containers if c["command"][0] == "sh"]
    waiting = subprocess.Popen(wait, cwd=tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    waiting.terminate()
    assert waiting.wait(5) == 143
    paper = tmp_path / re.findall(r"test -f (\S+?);", wait[2])[0]
    paper.parent.mkdir(parents=True)
    paper.touch()
    assert subprocess.run(wait, cwd=tmp_path, check=False, timeout=5).returncode == 0


def test_serve_listens_where_the_service_leads_and_is_probed_where_it_is_healthy(manifests):
    served = _of_verb(manifests, "serve")
    assert served
    for container, arguments in served:
        assert [port["containerPort"] for port in container["ports"]] == [arguments["port"]]
        assert arguments["host"] == "0.0.0.0"
        assert not arguments["allow_unsigned"]
        for probe, path in (("startupProbe", "readyz"), ("readinessProbe", "readyz"), ("livenessProbe", "livez")):
            python, flag, code = container[probe]["exec"]["command"]
            assert (python, flag) == ("python", "-c")
            assert f"'http://127.0.0.1:{arguments['health_port']}/{path}'" in code
            compile(code, probe, "exec")


def test_serves_health_port_has_what_the_probes_ask_for(manifests):
    from emberline.serve import health

    source = inspect.getsource(health)
    for container, _ in _of_verb(manifests, "serve"):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = re.search(r":8088(/\w+)", container[probe]["exec"]["command"][2])[1]
            assert f'Route("{path}"' in source


def test_a_probe_fails_where_nobody_answers(rendered):
    ((container, _), *_) = _of_verb(rendered("demo"), "serve")
    _, flag, code = container["readinessProbe"]["exec"]["command"]
    closed = code.replace(":8088", ":9")
    assert subprocess.run([sys.executable, flag, closed], check=False, capture_output=True, timeout=10).returncode == 1


def test_routers_reach_every_version_of_the_experiment_at_its_service(manifests):
    from emberline.route.settings import parse_defaults, parse_upstreams

    services = {service["metadata"]["name"]: service["spec"] for service in manifests.of("Service")}
    (experiment,) = manifests.of("Experiment")
    ((container, arguments),) = _of_verb(manifests, "route")
    upstreams = parse_upstreams(arguments["upstream"])
    assert {served.version for served in upstreams} == {v["version"] for v in experiment["spec"]["variants"]}
    for served, address in upstreams.items():
        assert served.model == experiment["spec"]["model"]
        assert address.port in {port["port"] for port in services[address.host]["ports"]}
        (pod,) = manifests.pods_matching(services[address.host]["selector"])
        assert f"store/{served.model}-{served.version}.mar" in pod["spec"]["containers"][0]["args"]
    control = next(v["version"] for v in experiment["spec"]["variants"] if v.get("control"))
    assert parse_defaults(arguments["default"]) == {experiment["spec"]["model"]: control}
    assert [port["containerPort"] for port in container["ports"]] == [arguments["port"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in {"/livez", "/readyz"}


def test_routers_mount_the_config_map_that_the_controller_may_write(manifests):
    ((_, arguments),) = _of_verb(manifests, "route")
    (pod,) = manifests.pods_matching({"emberline.dev/component": "route"})
    (name,) = [v["name"] for v in pod["spec"]["volumes"] if "configMap" in v]
    (mount,) = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == name]
    assert str(arguments["experiments"]) == mount["mountPath"]
    (config,) = manifests.of("ConfigMap")
    (role,) = manifests.of("Role")
    assert [config["metadata"]["name"]] in [rule.get("resourceNames") for rule in role["rules"]]


def test_each_router_has_a_spool_of_its_own(manifests):
    (pod,) = manifests.pods_matching({"emberline.dev/component": "route"})
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    (mount,) = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["mountPath"] == "/work/data/spool"]
    assert "emptyDir" in volumes[mount["name"]]


def test_the_controller_watches_its_own_namespace_and_the_routers_service(manifests):
    ((container, arguments),) = _of_verb(manifests, "rollout")
    assert arguments["kubernetes"] is True
    assert container["env"] == [{"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]
    host = arguments["route"].removeprefix("http://")
    (service,) = [s for s in manifests.of("Service") if s["metadata"]["name"] == host]
    assert [port["port"] for port in service["spec"]["ports"]] == [80]


def test_the_controllers_rights_are_the_calls_it_makes(manifests):
    from emberline.rollout import kubernetes_store

    source = inspect.getsource(kubernetes_store)
    calls = set(re.findall(r"self\._(?:custom|core)\.(\w+)", source))
    needed = {
        "list_namespaced_custom_object": ("experiments", "list"),
        "patch_namespaced_custom_object_status": ("experiments/status", "patch"),
        "read_namespaced_config_map": ("configmaps", "get"),
        "patch_namespaced_config_map": ("configmaps", "patch"),
    }
    assert calls == set(needed)
    (role,) = manifests.of("Role")
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert granted == set(needed.values())


def test_agents_meet_at_the_rendezvous_service(manifests):
    services = {service["metadata"]["name"]: service["spec"] for service in manifests.of("Service")}
    ((container, arguments),) = _of_verb(manifests, "rendezvous")
    assert [port["containerPort"] for port in container["ports"]] == [arguments["port"]]
    for _, train in _of_verb(manifests, "train"):
        host, _, port = train["rdzv_endpoint"].partition(":")
        assert [int(port)] == [one["port"] for one in services[host]["ports"]]
        assert train["rdzv_backend"] == "c10d"
        assert "is_host=0" in train["rdzv_conf"]


def test_as_first_process_of_its_container_the_store_still_ends_when_told_to(rendered):
    """A kernel drops signals that process 1 has not asked for; then each pod would take its whole grace to go."""
    namespace = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user may not make a process namespace")
    ((container, _),) = _of_verb(rendered("demo"), "rendezvous")
    words = [word.replace("0.0.0.0", "127.0.0.1").replace("29400", "0") for word in _words(container)]
    command = [*namespace, sys.executable, "-m", "emberline.cli", *words[1:]]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as outside:
        assert "listens on" in outside.stderr.readline()
        (first,) = psutil.Process(outside.pid).children()
        first.terminate()
        try:
            assert outside.wait(8) == 0
        finally:
            if first.is_running():
                first.kill()


def test_the_image_runs_as_the_user_of_the_pods_and_has_their_folders(k8s, manifests):
    dockerfile = (k8s / "image/Dockerfile").read_text()
    (user,) = {pod["spec"]["securityContext"]["runAsUser"] for pod in manifests.pods}
    assert f"USER {user}:{user}" in dockerfile
    assert "WORKDIR /work\nUSER" in dockerfile
    for _, container in manifests.containers:
        for mount in container.get("volumeMounts", ()):
            assert mount["mountPath"].startswith(("/work", "/tmp", "/dev/shm", "/etc/emberline")), mount


def test_the_image_gets_all_that_the_wheel_is_made_of(root):
    ignore = (root / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*"
    kept = {line[1:] for line in ignore if line.startswith("!")}
    assert kept >= {
        "platform",
        "handlers",
        "k8s",
        "recipes",
        "pyproject.toml",
        "hatch_build.py",
        "constraints.txt",
        "README.md",
    }
    assert all((root / name).exists() for name in kept)


def test_make_apply_waits_for_the_crd_that_there_is(root, k8s):
    (crd,) = yaml.safe_load_all((k8s / "crd/experiments.yaml").read_text())
    dry = subprocess.run(
        ["make", "-n", "apply", "OVERLAY=gpu"], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    first, wait, last = [line for line in dry.splitlines() if line.startswith("kubectl")]
    assert first.endswith("apply -k k8s/crd")
    assert f"crd/{crd['metadata']['name']}" in wait
    assert last.endswith("apply -k k8s/overlays/gpu")
