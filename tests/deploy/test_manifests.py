"""Deployment files: they parse, what they refer to exists, their flags and variables are the processes' own."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from admin.local_cluster import UpOptions, plan_cluster
from proto.flags import FlagParser, environment_name
from tests.flags_of import parser_of

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PROCESSES = ("storagenode", "router", "admin")
PREFIX = "QUORATE_"
METRICS_PORT = 9090
# Read by proto/logging_setup.py, not a flag.
OTHER_VARIABLES = {"QUORATE_LOG_LEVEL"}


def _parser(process: str) -> FlagParser:
    return parser_of(importlib.import_module(f"{process}.main").main)


def _variables(process: str) -> set[str]:
    return {name for action in _parser(process)._actions if (name := environment_name(action))}


def _accepts(process: str, flags: list[str], environment: dict[str, str]) -> None:
    """The process's own parser takes these flags and variables, and every variable is one of its flags."""
    parser = _parser(process)
    parser._environment = environment
    parser.parse_args(flags)


def _image() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Variables and instructions of the last stage and of the whole Dockerfile."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    instructions = [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)
    ]
    environment: dict[str, str] = {}
    for word, rest in instructions:
        if word == "FROM":
            environment = {}
        elif word == "ENV":
            environment.update(part.split("=", 1) for part in shlex.split(rest))
    return environment, instructions


IMAGE_ENVIRONMENT, INSTRUCTIONS = _image()
IMAGE_VARIABLES = {k: v for k, v in IMAGE_ENVIRONMENT.items() if k.startswith(PREFIX)}
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
OURS = {name: s for name, s in COMPOSE["services"].items() if s["image"] == "quorate"}


def _documents() -> list[dict]:
    documents = []
    for resource in yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]:
        documents += [d for d in yaml.safe_load_all((KUBERNETES / resource).read_text()) if d]
    return documents


DOCUMENTS = _documents()


def _of(kind: str) -> dict[str, dict]:
    return {d["metadata"]["name"]: d for d in DOCUMENTS if d["kind"] == kind}


WORKLOADS = {**_of("StatefulSet"), **_of("Deployment")}


# the local cluster


def test_the_supervisors_command_lines_are_accepted(tmp_path):
    numbers = iter(range(2000, 2100))
    plan = plan_cluster(
        UpOptions(data_dir=tmp_path, insecure=True, fsync=False, routers=2),
        lambda name, host, wanted=0, *, shared=False: wanted or next(numbers),
        {},
        "/",
        ["quorate"],
    )
    for process in plan.processes:
        _accepts(process.argv[1], process.argv[2:], {})


# Dockerfile


def test_dockerfile_copies_what_exists_and_everything_that_is_installed():
    stages = [i for i, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM"]
    assert len(stages) == 2
    copied = set()
    for word, rest in INSTRUCTIONS[: stages[1]]:
        if word == "COPY":
            *sources, _ = rest.split()
            copied.update(sources)
    for source in copied:
        assert (ROOT / source).exists(), source
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert packages <= copied
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied <= allowed


def test_dockerfile_ends_as_another_user_with_a_health_check():
    words = [word for word, _ in INSTRUCTIONS]
    last = dict(INSTRUCTIONS)
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert int(last["USER"].split(":")[0]) > 0
    assert json.loads(last["ENTRYPOINT"]) == ["quorate"]
    assert f":{METRICS_PORT}/healthz" in last["HEALTHCHECK"]
    compile(json.loads(last["HEALTHCHECK"].split("CMD", 1)[1])[2], "healthcheck", "exec")
    assert "QUORATE_INSECURE" not in IMAGE_ENVIRONMENT


def test_image_variables_are_flags_and_their_ports_are_exposed():
    known = set.union(*(_variables(process) for process in PROCESSES))
    assert set(IMAGE_VARIABLES) <= known
    exposed = set(dict(INSTRUCTIONS)["EXPOSE"].split())
    listening = {v.rpartition(":")[2] for k, v in IMAGE_VARIABLES.items() if k.endswith("_LISTEN")}
    assert listening == exposed
    assert IMAGE_VARIABLES["QUORATE_METRICS_LISTEN"].endswith(f":{METRICS_PORT}")


# Compose


def _hosts(text: str) -> list[tuple[str, str]]:
    return re.findall(r"([A-Za-z][\w.-]*):(\d+)", text)


@pytest.mark.parametrize("name", OURS)
def test_compose_process(name):
    service = OURS[name]
    process, *flags = service["command"]
    environment = service["environment"]
    assert all(isinstance(value, str) for value in environment.values()), (
        "YAML made it something else"
    )
    assert set(environment) <= _variables(process) | OTHER_VARIABLES
    relevant = {k: v for k, v in IMAGE_VARIABLES.items() if k in _variables(process)}
    _accepts(process, flags, {**relevant, **environment})
    assert flags[flags.index("--name") + 1] == name
    link_port = IMAGE_VARIABLES["QUORATE_LINK_LISTEN"].rpartition(":")[2]
    text = " ".join([*flags, *environment.values()])
    for host, port in _hosts(text):
        assert OURS[host]["command"][0] == "storagenode"
        assert port == link_port


def test_compose_has_the_cluster_that_it_promises():
    storage = [s for s in OURS.values() if s["command"][0] == "storagenode"]
    zones = {s["command"][s["command"].index("--az") + 1] for s in storage}
    assert (len(storage), len(zones)) == (3, 3)
    assert sum(s["command"][0] == "router" for s in OURS.values()) == 2
    members = storage[0]["environment"]["QUORATE_INITIAL_CLUSTER"].split(",")
    for service in storage:
        flags = service["command"]
        name, az, advertise = (flags[flags.index(f) + 1] for f in ("--name", "--az", "--advertise"))
        assert f"{name}@{az}={advertise}" in members
    assert len(members) == 3


def test_compose_references_exist_and_ports_stay_on_loopback():
    published = []
    for service in COMPOSE["services"].values():
        assert set(service) <= {
            *(
                "image",
                "build",
                "restart",
                "stop_grace_period",
                "networks",
                "read_only",
                "cap_drop",
            ),
            *("security_opt", "command", "environment", "volumes", "depends_on", "ports"),
        }
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert set(service.get("depends_on", [])) <= set(COMPOSE["services"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists()
            else:
                assert source in COMPOSE["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
            published.append(port.rsplit(":", 1)[0])
    assert len(set(published)) == len(published)
    build = OURS["router-0"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).exists()


def test_prometheus_scrapes_every_process():
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = {
        target: job["job_name"]
        for job in config["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    assert targets == {f"{name}:{METRICS_PORT}": s["command"][0] for name, s in OURS.items()}


def test_prometheus_rules_are_rules():
    folder = DEPLOY / "prometheus"
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    for name in config["rule_files"]:
        for group in yaml.safe_load((folder / name).read_text())["groups"]:
            for rule in group["rules"]:
                assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
                assert rule["expr"].count("(") == rule["expr"].count(")")
                for text in re.findall(r'job=~"([^"]*)"', rule["expr"]):
                    assert set(text.split("|")) <= jobs


# Kubernetes


def test_kustomization_lists_every_file():
    listed = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])
    assert listed == {p.name for p in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}


def test_kubernetes_documents_are_whole_and_unique():
    seen = set()
    for document in DOCUMENTS:
        assert {"apiVersion", "kind", "metadata"} <= document.keys()
        name = document["metadata"]["name"]
        assert (document["kind"], name) not in seen
        seen.add((document["kind"], name))
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "quorate"
    assert {kind for kind, _ in seen} >= {
        *("Namespace", "ConfigMap", "Service", "StatefulSet", "Deployment", "PodDisruptionBudget"),
    }


def _selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(name):
    spec = WORKLOADS[name]["spec"]
    template = spec["template"]
    labels = template["metadata"]["labels"]
    assert _selects(spec["selector"]["matchLabels"], labels)
    (container,) = template["spec"]["containers"]
    (process,) = container["args"]
    assert labels["app.kubernetes.io/component"] == process

    maps = _of("ConfigMap")
    environment = {k: v for k, v in IMAGE_VARIABLES.items() if k in _variables(process)}
    for source in container["envFrom"]:
        data = maps[source["configMapRef"]["name"]]["data"]
        assert all(isinstance(value, str) for value in data.values())
        assert set(data) <= _variables(process) | OTHER_VARIABLES
        environment.update(data)
    for variable in container["env"]:
        assert variable["name"] in _variables(process)
        value = variable.get("value", f"{name}-0")
        for other in re.findall(r"\$\((\w+)\)", value):
            value = value.replace(f"$({other})", environment[other])
        environment[variable["name"]] = value
    _accepts(process, [], environment)

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listening = {
        flag.removeprefix(PREFIX).removesuffix("_LISTEN").lower(): int(value.rpartition(":")[2])
        for flag, value in environment.items()
        if flag.endswith("_LISTEN")
    }
    assert ports == listening
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe in container:
            assert container[probe]["httpGet"]["port"] == "metrics"
            assert container[probe]["httpGet"]["path"] in ("/healthz", "/readyz")
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    for mount in container.get("volumeMounts", []):
        assert mount["name"] in {c["metadata"]["name"] for c in spec["volumeClaimTemplates"]}
        assert mount["mountPath"] == IMAGE_VARIABLES["QUORATE_DATA_DIR"]

    budgets = [
        budget
        for budget in _of("PodDisruptionBudget").values()
        if _selects(budget["spec"]["selector"]["matchLabels"], labels)
    ]
    assert len(budgets) == 1
    if process == "storagenode":
        assert environment["QUORATE_NAME"] == f"{name}-0"
        zone = labels["quorate/az"]
        assert environment["QUORATE_AZ"] == zone
        member = f"{name}-0@{zone}={environment['QUORATE_ADVERTISE']}"
        assert member in environment["QUORATE_INITIAL_CLUSTER"].split(",")


@pytest.mark.parametrize("name", _of("Service"))
def test_service_selects_pods_that_have_its_ports(name):
    spec = _of("Service")[name]["spec"]
    chosen = [
        workload["spec"]["template"]
        for workload in WORKLOADS.values()
        if _selects(spec["selector"], workload["spec"]["template"]["metadata"]["labels"])
    ]
    assert chosen
    for template in chosen:
        (container,) = template["spec"]["containers"]
        numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
        for port in spec["ports"]:
            assert numbers[port["targetPort"]] == port["port"]


def test_addresses_name_pods_of_headless_services():
    pods = {
        f"{name}-{n}.{w['spec']['serviceName']}.quorate.svc.cluster.local"
        for name, w in _of("StatefulSet").items()
        for n in range(w["spec"]["replicas"])
    }
    services = _of("Service")
    for workload in _of("StatefulSet").values():
        assert services[workload["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
    text = " ".join(value for c in _of("ConfigMap").values() for value in c["data"].values())
    hosts = {host for host, _ in _hosts(text)}
    assert hosts == pods


def test_network_policies_select_something_and_leave_no_listener_forgotten():
    for policy in _of("NetworkPolicy").values():
        selector = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(
            _selects(selector, w["spec"]["template"]["metadata"]["labels"])
            for w in WORKLOADS.values()
        )
    assert _of("NetworkPolicy")["deny-by-default"]["spec"]["podSelector"] == {}
