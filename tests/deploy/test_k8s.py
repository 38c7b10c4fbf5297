"""Kubernetes manifests: every object against the bundled schemas, the overlays as kubectl renders them, and our own rules."""

from __future__ import annotations

import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from workers.settings import load_settings

VERSION = "1.31"
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject"}
OVERLAYS = ("cpu", "gpu", "keda")


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def validate(document):
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.fixture(scope="module")
def base(deploy):
    return [document for path in sorted((deploy / "k8s" / "base").glob("*.yml")) for document in documents(path.read_text())]


@pytest.fixture(scope="module")
def deployments(base):
    return {document["metadata"]["name"]: document for document in base if document["kind"] == "Deployment"}


@pytest.fixture(scope="module")
def rendered(deploy):
    """What kubectl makes of each overlay. Debian's own kubectl is too old for `patches`, so CI cannot install one: absent means skipped."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: the overlays are not rendered (every manifest file is still validated)")
    made = {}
    for name in OVERLAYS:
        answer = subprocess.run(
            [kubectl, "kustomize", str(deploy / "k8s" / "overlays" / name)], capture_output=True, text=True, timeout=60, check=False
        )
        assert answer.returncode == 0, answer.stderr
        assert "deprecated" not in answer.stderr
        made[name] = documents(answer.stdout)
    return made


def pod(deployment):
    return deployment["spec"]["template"]["spec"]


def test_every_object_fits_its_schema(base):
    checked = [document["kind"] for document in base if document["kind"] not in CUSTOM | {"Kustomization"}]
    assert len(checked) >= 13
    for document in base:
        if document["kind"] not in CUSTOM | {"Kustomization"}:
            validate(document)


def test_a_misspelt_field_is_noticed(deployments):
    wrong = {**deployments["veriframe-api"], "spec": {**deployments["veriframe-api"]["spec"], "replicaz": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(wrong)


def test_kustomizations_name_files_that_exist(deploy):
    for path in (deploy / "k8s").rglob("kustomization.yml"):
        body = yaml.safe_load(path.read_text())
        named = [
            *body.get("resources", []),
            *body.get("components", []),
            *(patch["path"] for patch in body.get("patches", []) if "path" in patch),
        ]
        named += [file for maker in body.get("configMapGenerator", []) for file in maker["envs"]]
        for name in named:
            assert (path.parent / name).exists(), f"{path}: {name}"
        if path.parent.name == "base":
            others = {file.name for file in path.parent.iterdir()} - {"kustomization.yml"}
            assert others == set(named), "a file that no kustomization names is dead"


def test_pods_are_hardened_and_limited(deployments):
    assert set(deployments) == {f"veriframe-{part}" for part in ("api", "ingest", "janitor", "worker")}
    for name, deployment in deployments.items():
        spec = pod(deployment)
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, "the service veriframe-api would set VERIFRAME_API_PORT"
        assert spec["terminationGracePeriodSeconds"] == 60, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), name
            assert "memory" in container["resources"]["limits"], name
            assert "cpu" in container["resources"]["requests"], name
            for variable in container["env"]:
                if re.search("URL|KEYS|SECRET", variable["name"]):
                    key = variable["value"].removeprefix("/run/secrets/veriframe/")
                    (secret,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
                    keys = {item["path"]: item["key"] for item in secret["items"]}
                    assert key in keys, f"{name}: {key} is not mounted"
                    assert key != "broker_url" or keys[key] == f"broker_url_{container['name']}", "each part is its own user of the broker"
        assert all("emptyDir" in volume or "secret" in volume for volume in spec["volumes"]), name


def test_every_deployment_has_a_disruption_budget_that_lets_a_node_be_drained(base, deployments):
    budgets = {document["metadata"]["name"]: document["spec"] for document in base if document["kind"] == "PodDisruptionBudget"}
    assert set(budgets) == set(deployments)
    for name, budget in budgets.items():
        assert budget["selector"]["matchLabels"] == deployments[name]["spec"]["selector"]["matchLabels"]
        assert budget.get("minAvailable", 0) < deployments[name]["spec"]["replicas"]


def test_selectors_labels_and_ports_fit_each_other(base, deployments):
    for name, deployment in deployments.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ports = {port["name"] for container in pod(deployment)["containers"] for port in container["ports"]}
        (probe,) = {container["livenessProbe"]["httpGet"]["port"] for container in pod(deployment)["containers"]}
        assert probe in ports, name
    (monitor,) = [document["spec"] for document in base if document["kind"] == "PodMonitor"]
    assert all(
        monitor["selector"]["matchLabels"].items() <= d["spec"]["template"]["metadata"]["labels"].items() for d in deployments.values()
    )
    assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} == {"metrics", "http"}


def test_nothing_is_allowed_that_is_not_named(base):
    policies = {document["metadata"]["name"]: document["spec"] for document in base if document["kind"] == "NetworkPolicy"}
    deny = policies["veriframe-deny"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(deny)
    for spec in policies.values():
        for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
            assert rule.get("ports"), "a rule without ports opens all of them"
            for peer in [*rule.get("to", []), *rule.get("from", [])]:
                if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0":
                    assert "169.254.0.0/16" in peer["ipBlock"]["except"], "the metadata address must stay out of reach"


def test_the_rule_object_carries_every_group_of_prometheus(base, deploy):
    (rule,) = [document for document in base if document["kind"] == "PrometheusRule"]
    sources = [yaml.safe_load(path.read_text())["groups"] for path in sorted((deploy / "prometheus" / "rules").glob("*.yml"))]
    assert rule["spec"]["groups"] == [group for groups in sources for group in groups]


def test_the_autoscaler_asks_recorded_series_and_counts_running_work(deploy):
    (scaler,) = documents((deploy / "k8s" / "overlays" / "keda" / "scaled-object.yml").read_text())
    spec = scaler["spec"]
    recorded = {
        rule["record"]
        for group in yaml.safe_load((deploy / "prometheus" / "rules" / "recording.yml").read_text())["groups"]
        for rule in group["rules"]
    }
    assert set(spec) == {
        "scaleTargetRef",
        "pollingInterval",
        "cooldownPeriod",
        "minReplicaCount",
        "maxReplicaCount",
        "fallback",
        "advanced",
        "triggers",
    }
    asked = set()
    for trigger in spec["triggers"]:
        metadata = trigger["metadata"]
        # the fallback works for this metric type only; a threshold is a string in KEDA; no answer must be an error
        assert (trigger["type"], trigger["metricType"], metadata["ignoreNullValues"]) == ("prometheus", "AverageValue", "false")
        assert float(metadata["threshold"]) > 0
        assert isinstance(metadata["threshold"], str)
        asked |= {name for name in recorded if name in metadata["query"]}
        assert re.findall(r"[a-z]+:[\w:]+", metadata["query"])[0] in recorded
    assert {"veriframe:queue_work_seconds:predicted", "queue:veriframe_queue_in_flight:leader"} <= asked
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_render_to_valid_objects(rendered, overlay):
    for document in rendered[overlay]:
        if document["kind"] not in CUSTOM:
            validate(document)
    maps = {document["metadata"]["name"] for document in rendered[overlay] if document["kind"] == "ConfigMap"}
    used = {
        source["configMapRef"]["name"]
        for document in rendered[overlay]
        if document["kind"] == "Deployment"
        for container in pod(document)["containers"]
        for source in container["envFrom"]
    }
    assert used == maps


def test_the_gpu_overlay_gives_each_worker_one_device_and_keeps_its_hardening(rendered):
    (worker,) = [d for d in rendered["gpu"] if d["kind"] == "Deployment" and d["metadata"]["name"] == "veriframe-worker"]
    (container,) = pod(worker)["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert container["image"] == "veriframe:cuda"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert environment["VERIFRAME_DEVICE"] == "cuda"
    assert environment["VERIFRAME_MEMORY_LIMIT_BYTES"] == "21474836480"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {volume["name"] for volume in pod(worker)["volumes"]} == {"scratch", "tmp", "connections", "media"}


def test_videos_are_read_by_who_judges_and_who_shows_them_and_written_by_nobody(deploy, deployments):
    for overlay in ("cpu", "gpu"):
        body = yaml.safe_load((deploy / "k8s" / "overlays" / overlay / "kustomization.yml").read_text())
        assert body["components"] == ["../../components/media"]
    patches = {}
    for path in (deploy / "k8s" / "components" / "media").glob("*.yml"):
        if path.name != "kustomization.yml":
            (patch,) = documents(path.read_text())
            patches[patch["metadata"]["name"]] = patch
    assert set(patches) == {"veriframe-api", "veriframe-worker"}
    for name, patch in patches.items():
        (volume,), (container,) = pod(patch)["volumes"], pod(patch)["containers"]
        (mount,) = container["volumeMounts"]
        assert volume["persistentVolumeClaim"]["readOnly"] is True
        assert mount == {"name": volume["name"], "mountPath": str(load_settings().media_roots[0]), "readOnly": True}
        assert container["name"] in {each["name"] for each in pod(deployments[name])["containers"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rendered_review_pages_find_the_videos(rendered, overlay):
    mounts = {
        document["metadata"]["name"]: {
            mount["mountPath"]: mount.get("readOnly", False) for mount in pod(document)["containers"][0]["volumeMounts"]
        }
        for document in rendered[overlay]
        if document["kind"] == "Deployment"
    }
    assert {name for name, paths in mounts.items() if "/media" in paths} == {"veriframe-api", "veriframe-worker"}
    assert all(paths["/media"] for paths in mounts.values() if "/media" in paths)


def test_the_autoscaler_owns_the_number_of_workers(rendered):
    (worker,) = [d for d in rendered["keda"] if d["kind"] == "Deployment" and d["metadata"]["name"] == "veriframe-worker"]
    assert "replicas" not in worker["spec"]
