"""The files that start a cluster: valid by Ray's and KubeRay's schemas, closed to the outside, and consistent."""

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from offsft.config.loading import load
from services.settings import Generator, Routing, Serving, validate
from tests.programs import require

ROOT = Path(__file__).parents[3]
SHAPES = yaml.safe_load((ROOT / "cluster" / "shapes.yaml").read_text())
# The CRDs of ray-project/kuberay: helm-chart/kuberay-operator/crds of a checkout, or their v1 schemas as JSON.
CRDS = Path(os.environ.get("OFFSFT_KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay-crds"))
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}


def launcher():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@cache
def manifests(overlay):
    """The output of `kubectl kustomize` for an overlay, by kind."""
    require("kubectl")
    command = ["kubectl", "kustomize", str(ROOT / "cluster" / "kuberay" / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}


@cache
def schema(kind):
    """The kind's v1 schema, with unknown fields as errors, as for the API server."""
    told, whole = CRDS / f"{KINDS[kind]}.v1.schema.json", CRDS / f"ray.io_{KINDS[kind]}.yaml"
    if told.exists():
        return strict(json.loads(told.read_text()))
    if whole.exists():
        versions = yaml.safe_load(whole.read_text())["spec"]["versions"]
        return strict(next(v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1"))
    pytest.skip(
        f"no CRDs in {CRDS}; set OFFSFT_KUBERAY_CRDS to helm-chart/kuberay-operator/crds of ray-project/kuberay"
    )


def wrong(document):
    """The schema's errors for a manifest. (`jsonschema.validate` would also check the large schema itself.)"""
    return [error.message for error in jsonschema.Draft202012Validator(schema(document["kind"])).iter_errors(document)]


def strict(tree):
    if isinstance(tree, list):
        return [strict(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    out = {key: strict(value) for key, value in tree.items()}
    is_object = isinstance(tree.get("properties"), dict) and tree.get("type") == "object"
    if is_object and not tree.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


def pod_specs(cluster):
    """Name and pod spec of each group of a cluster."""
    yield "head", cluster["headGroupSpec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group


def test_the_launchers_file_passes_what_ray_up_checks():
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(launcher())
    validate_config(prepared)
    # Ray's own defaults would install a nightly build and open the dashboard to everyone.
    assert prepared["setup_commands"] == []
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(launcher() | {"max_worker": 3}))


def test_the_launchers_nodes_are_those_of_the_shapes():
    config = launcher()
    types = config["available_node_types"]
    assert types.keys() == SHAPES["nodes"].keys()
    assert config["max_workers"] == sum(node["max"] for node in SHAPES["nodes"].values())
    for name, node in SHAPES["nodes"].items():
        found, machine = types[name], node["machine"]
        assert found["resources"]["CPU"] == node["cpus_for_work"] <= machine["cpus"]
        assert found["resources"].get("GPU", 0) == machine["gpus"]
        assert found["max_workers"] == node["max"]
        assert found["labels"] == {"group": name}
        assert found["node_config"]["InstanceType"] == machine["aws"]
    comments = (ROOT / "cluster.yaml").read_text()
    assert all(f"machineType: {node['machine']['gcp']}" in comments for node in SHAPES["nodes"].values())
    assert types["spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    docker = config["docker"]
    assert (docker["head_image"], docker["worker_image"]) == (SHAPES["image"]["cpu"], SHAPES["image"]["gpu"])
    options = " ".join(docker["run_options"])
    assert f"RAY_JOB_STOP_WAIT_TIME_S={SHAPES['stop_wait_s']}" in options
    assert f"OFFSFT_STORAGE={SHAPES['storage']}" in options


def test_the_launchers_cluster_is_closed():
    config = launcher()
    (head,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "--num-cpus=0" in head
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    token = next(o for o in config["docker"]["run_options"] if "RAY_AUTH_TOKEN_PATH" in o).split("=")[1]
    assert str(Path(token).parent) in config["file_mounts"]
    open_to = [(rule["FromPort"], rule["ToPort"]) for rule in config["provider"]["security_group"]["IpPermissions"]]
    assert open_to == [(22, 22)]
    assert "0.0.0.0/0" not in str(config["provider"])


@pytest.mark.parametrize("overlay", ["gpu", "cpu-test"])
def test_the_manifests_pass_kuberays_schemas(overlay):
    for kind in KINDS:
        assert not wrong(manifests(overlay)[kind])


def test_a_manifest_with_a_misspelt_field_does_not_pass():
    document = json.loads(json.dumps(manifests("gpu")["RayCluster"]))
    document["spec"]["workerGroupSpecs"][0]["template"]["spec"]["restartPolcy"] = "Never"
    assert "restartPolcy" in wrong(document)[0]


def test_the_manifests_nodes_are_those_of_the_shapes():
    cluster = manifests("gpu")["RayCluster"]["spec"]
    assert cluster["rayVersion"] == SHAPES["ray"]
    found = dict(pod_specs(cluster))
    assert found.keys() == SHAPES["nodes"].keys()
    for name, node in SHAPES["nodes"].items():
        pod, machine = node["pod"], node["machine"]
        (container,) = found[name]["template"]["spec"]["containers"]
        requests = container["resources"]["requests"]
        assert (requests["cpu"], requests["memory"]) == (str(pod["cpus"]), f"{pod['memory_gib']}Gi")
        assert requests.get("nvidia.com/gpu", 0) == pod["gpus"] == machine["gpus"]
        assert (pod["cpus"], pod["memory_gib"]) < (machine["cpus"], machine["memory_gib"])
        assert found[name].get("maxReplicas", 0) == node["max"]
        assert found[name]["labels"] == {"group": name}
        assert container["image"] == SHAPES["image"]["gpu" if pod["gpus"] else "cpu"]
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert environment["OFFSFT_STORAGE"] == SHAPES["storage"]
        assert environment["RAY_JOB_STOP_WAIT_TIME_S"] == str(SHAPES["stop_wait_s"])


@pytest.mark.parametrize("overlay", ["gpu", "cpu-test"])
def test_job_and_service_get_the_same_cluster(overlay):
    made = manifests(overlay)
    cluster = made["RayCluster"]["spec"]
    assert made["RayJob"]["spec"]["rayClusterSpec"] == cluster
    assert made["RayService"]["spec"]["rayClusterConfig"] == cluster
    assert [name for name, _ in pod_specs(cluster)] == {"gpu": ["head", "gpu", "spot"], "cpu-test": ["head", "cpu"]}[
        overlay
    ]
    assert made["RayJob"]["spec"]["entrypoint"].startswith("python -m jobs.pipeline jobs/recipes/")
    assert (ROOT / made["RayJob"]["spec"]["entrypoint"].split()[-1]).exists()


@pytest.mark.parametrize("overlay", ["gpu", "cpu-test"])
def test_the_manifests_cluster_is_closed(overlay):
    made = manifests(overlay)
    cluster = made["RayCluster"]["spec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert not {"serviceType", "enableIngress", "headService"} & cluster["headGroupSpec"].keys()
    labels = made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    for _, group in pod_specs(cluster):
        assert group["template"]["metadata"]["labels"] == labels
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["terminationGracePeriodSeconds"] > SHAPES["stop_wait_s"]
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    for rule in made["NetworkPolicy"]["spec"]["ingress"]:
        from_ray = rule["from"] == [{"podSelector": {"matchLabels": labels}}]
        assert from_ray or {port["port"] for port in rule["ports"]} <= {8000, 8265}
        assert rule["from"], "an empty list would mean everybody"


@pytest.mark.parametrize(("overlay", "on_gpus"), [("gpu", True), ("cpu-test", False)])
def test_the_services_applications_are_those_of_the_local_ones_on_the_overlays_machines(overlay, on_gpus):
    applications = yaml.safe_load(manifests(overlay)["RayService"]["spec"]["serveConfigV2"])["applications"]
    wanted = yaml.safe_load((ROOT / "services" / "local.yaml").read_text())["applications"]
    keys = ("name", "route_prefix", "import_path")
    assert [[a.get(key) for key in keys] for a in applications] == [[a.get(key) for key in keys] for a in wanted]
    gateway, generator = (app["args"] for app in applications)
    assert gateway["recipe"] == generator["recipe"]
    assert (load(ROOT / generator["recipe"], []).engine.gpus > 0) is on_gpus
    validate(Serving, gateway, "gateway")
    validate(Generator, generator, "generator")
    validate(Routing, applications[0]["deployments"][0]["user_config"], "routing")


def test_the_image_is_of_the_versions_and_of_what_the_repository_has():
    lines = (ROOT / "cluster" / "Dockerfile").read_text()
    assert re.findall(r"^ARG PYTHON=(\S+)", lines, re.M) == [SHAPES["python"]]
    user = re.findall(r"^USER (\d+):", lines, re.M)
    assert user
    assert user[-1] != "0"
    for lock in ("gpu", "cpu"):
        assert f"ray=={SHAPES['ray']}\n" in (ROOT / "requirements" / f"{lock}.lock").read_text()
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(\S+) ", lines, re.M)
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert {source.split("/")[0] for source in copied} == {entry.split("/")[0] for entry in let_in}
    gone = [source for source in copied if not (ROOT / source.replace("${FLAVOUR}", "gpu")).exists()]
    if gone == ["services"]:
        pytest.skip("services/ is not there")
    assert not gone
