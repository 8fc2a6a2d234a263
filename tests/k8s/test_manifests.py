"""The rendered manifests: what a 1.34 API server checks, and what we promise beyond that."""

import re
import shutil
import subprocess
import tomllib

import kubernetes_validate
import pytest
import yaml

from emberline.experiment import load_experiment
from emberline.recipe import load_recipe

KUBERNETES = "1.34"


def test_every_document_is_of_the_schema_with_no_unknown_field(manifests):
    for document in manifests.documents:
        if document["kind"] != "Experiment":  # a test of its own holds it against the CRD
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_base_and_overlays_parse_and_name_only_files_that_exist(k8s):
    kustomizations = sorted(k8s.rglob("kustomization.yaml"))
    assert len(kustomizations) >= 7
    for path in kustomizations:
        content = yaml.safe_load(path.read_text())
        patches = [patch["path"] for patch in content.get("patches", ()) if "path" in patch]
        for name in (*content.get("resources", ()), *content.get("components", ()), *patches):
            assert (path.parent / name).exists(), f"{path} names {name}"
    for path in (k8s / "base").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] != "Kustomization":
                kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_rendering_again_changes_nothing(render, k8s):
    folder = k8s / "overlays/gpu"
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; nothing is rendered")
    again = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True).stdout
    assert again == render("gpu")


def test_no_name_is_generated(manifests):
    for document in manifests.documents:
        name = document["metadata"]["name"]
        assert not re.search(r"-[a-z0-9]{10}$", name), name
        assert "generateName" not in document["metadata"]


def test_applying_again_takes_nothing_from_what_rollout_wrote(manifests):
    (config,) = manifests.of("ConfigMap")
    assert "data" not in config
    for experiment in manifests.of("Experiment"):
        assert "status" not in experiment


def test_finished_jobs_stay_so_that_applying_again_starts_none(manifests):
    for job in manifests.of("Job"):
        assert "ttlSecondsAfterFinished" not in job["spec"]


def test_job_pods_are_never_restarted_in_place(manifests):
    for job in manifests.of("Job"):
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        assert job["spec"].get("completionMode") == "Indexed" or "backoffLimitPerIndex" not in job["spec"]
        ignored, *_, failing = job["spec"]["podFailurePolicy"]["rules"]
        assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert failing["action"] == "FailJob"


def test_a_preemption_notice_is_no_failure_and_wrong_usage_is_one(manifests):
    from emberline.train.preemption import PREEMPTED

    (train,) = [job for job in manifests.of("Job") if job["metadata"]["name"].startswith("train-")]
    by_code = {
        code: rule["action"]
        for rule in train["spec"]["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", ())
    }
    assert by_code == {PREEMPTED: "Ignore", 2: "FailJob"}


def test_training_can_lose_all_pods_but_one(manifests):
    (train,) = [job for job in manifests.of("Job") if job["metadata"]["name"].startswith("train-")]
    words = [*train["spec"]["template"]["spec"]["containers"][0]["args"]]
    assert f"--nnodes=1:{train['spec']['parallelism']}" in words
    assert train["spec"]["completions"] == train["spec"]["parallelism"]


def test_jobs_are_named_by_the_run(manifests, root):
    run = load_recipe(root / "recipes/digits.yaml").run
    assert {job["metadata"]["name"] for job in manifests.of("Job")} == {f"train-{run}", f"compress-{run}"}


def test_every_image_is_ours_and_of_this_version(manifests, root):
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    for name, container in manifests.containers:
        repository, _, tag = container["image"].partition(":")
        assert (repository, tag.removesuffix("-cuda")) == ("emberline", version), name
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_every_container_is_bounded_and_has_no_rights(manifests):
    for name, container in manifests.containers:
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
    for pod in manifests.pods:
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_only_the_controller_has_a_token_and_its_role_names_what_it_writes(manifests):
    for pod in manifests.pods:
        is_controller = pod["metadata"]["labels"]["emberline.dev/component"] == "rollout"
        assert pod["spec"].get("automountServiceAccountToken", True) is is_controller
    (role,) = manifests.of("Role")
    for rule in role["rules"]:
        assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
        assert rule["resources"] != ["configmaps"] or rule["resourceNames"] == ["emberline-experiments"]
    assert not manifests.of("ClusterRole")


def test_every_mount_has_its_volume_and_every_volume_its_claim(manifests):
    claims = {claim["metadata"]["name"] for claim in manifests.of("PersistentVolumeClaim")}
    for pod in manifests.pods:
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
        containers = (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
        mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", ())}
        assert mounted == set(volumes)
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in claims


def test_the_private_key_is_in_no_serving_pod(manifests):
    for name, container in manifests.containers:
        if name.startswith("serve-") and name.endswith("/serve"):
            papers = [mount for mount in container["volumeMounts"] if mount["name"] == "papers"]
            assert {mount["subPath"] for mount in papers} == {"store", "keys/signing.pub"}
            assert all(mount["readOnly"] for mount in papers)


def test_every_service_leads_to_a_port_of_some_pod(manifests):
    for service in manifests.of("Service"):
        pods = manifests.pods_matching(service["spec"]["selector"])
        assert pods, service["metadata"]["name"]
        if service["spec"].get("clusterIP") == "None":
            continue
        open_ports = {port["name"] for pod in pods for c in pod["spec"]["containers"] for port in c.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports


def test_deployments_select_their_own_pods_alone(manifests):
    for deployment in manifests.of("Deployment"):
        labels = deployment["spec"]["selector"]["matchLabels"]
        assert manifests.pods_matching(labels) == [deployment["spec"]["template"]]


def test_a_roll_out_can_always_move(manifests):
    for deployment in manifests.of("Deployment"):
        rolling = deployment["spec"]["strategy"].get("rollingUpdate")
        assert rolling is None or rolling["maxUnavailable"] + rolling["maxSurge"] > 0


def test_disruption_budgets_say_one_thing_about_pods_that_exist(manifests):
    budgets = manifests.of("PodDisruptionBudget")
    assert budgets
    for budget in budgets:
        assert ("minAvailable" in budget["spec"]) != ("maxUnavailable" in budget["spec"])
        assert budget["spec"]["maxUnavailable"] >= 1  # else a node could never be drained
        assert manifests.pods_matching(budget["spec"]["selector"]["matchLabels"])


def test_everything_is_closed_but_what_a_policy_opens(manifests):
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in manifests.of("NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    (serve,) = policies["serve"]["ingress"]
    assert serve["from"] == [{"podSelector": {"matchLabels": {"emberline.dev/component": "route"}}}]
    for spec in policies.values():
        labels = spec["podSelector"].get("matchLabels", {})
        pods = manifests.pods_matching(labels)
        assert pods
        open_ports = {
            port["containerPort"] for pod in pods for c in pod["spec"]["containers"] for port in c.get("ports", ())
        }
        for rule in spec.get("ingress", ()):
            assert {port["port"] for port in rule.get("ports", ())} <= open_ports


def test_management_metrics_and_health_ports_are_named_nowhere(manifests):
    for name, container in manifests.containers:
        assert not {port["containerPort"] for port in container.get("ports", ())} & {8086, 8087, 8088}, name
    for service in manifests.of("Service"):
        assert not {port["port"] for port in service["spec"]["ports"]} & {8086, 8087, 8088}


def test_the_overlays_experiment_is_the_recipes(k8s, root):
    recipe = load_experiment(root / "recipes/digits.experiment.yaml")
    for overlay in ("demo", "gpu"):
        assert load_experiment(k8s / "overlays" / overlay / "experiment.yaml") == recipe


def test_gpu_pods_ask_for_gpu_nodes_and_tolerate_their_taint(rendered):
    wanting = [
        pod
        for pod in rendered("gpu").pods
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
        if "nvidia.com/gpu" in container["resources"]["limits"]
    ]
    assert {pod["metadata"]["labels"]["emberline.dev/component"] for pod in wanting} == {"train", "compress", "serve"}
    for pod in wanting:
        assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert pod["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_on_one_gpu_both_services_lead_to_the_one_pod_with_both_archives(rendered):
    manifests = rendered("one-gpu")
    services = [service for service in manifests.of("Service") if service["metadata"]["name"].startswith("serve-")]
    (pod,) = manifests.pods_matching({"emberline.dev/component": "serve"})
    assert [manifests.pods_matching(service["spec"]["selector"]) for service in services] == [[pod], [pod]]
    (container,) = pod["spec"]["containers"]
    assert container["args"][:2] == ["store/digits-1.0.mar", "store/digits-1.1.mar"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
