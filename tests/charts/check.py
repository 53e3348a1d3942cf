"""Checks rendered manifests: check.py FILE [CONFIG_TARGET].

What Kubernetes' own schemas know is checked against them, what Prometheus' operator brings against its models; then what this chart
promises of each pod. Writes the gateway's configuration to CONFIG_TARGET. Prints what is wrong, one line each.
"""

import importlib
import re
import sys

import kubernetes_validate
import yaml

KUBERNETES = "1.37.0"
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
KNOWN = {
    "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PersistentVolumeClaim", "Pod",
    "PodDisruptionBudget", "Service",
}
wrong = []


def complain(document, words):
    wrong.append(f"{document['kind']} {document['metadata']['name']}: {words}")


def seconds(text):
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|d|h|m|s)", text))


def route(document):
    """The few fields of an HTTPRoute that this chart writes."""
    spec = document["spec"]
    if document["apiVersion"] != "gateway.networking.k8s.io/v1" or set(spec) != {"parentRefs", "hostnames", "rules"}:
        complain(document, f"not a route: {spec}")
    for rule in spec["rules"]:
        if not set(rule) <= {"backendRefs", "timeouts"} or not all(set(ref) == {"name", "port"} for ref in rule["backendRefs"]):
            complain(document, f"not a rule: {rule}")


def pod(document, spec):
    """What the chart promises of each pod."""
    if spec.get("automountServiceAccountToken") is not False:
        complain(document, "has a token of its service account")
    context = spec["securityContext"]
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) == 0:
        complain(document, "may run as root")
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        complain(document, "has no seccomp profile")
    for container in spec["containers"]:
        rights = container["securityContext"]
        if rights != {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}:
            complain(document, f"{container['name']} has rights: {rights}")
        if "limits" not in container["resources"]:
            complain(document, f"{container['name']} has no limits")
        for variable in container.get("env", []):
            if "value" in variable:
                complain(document, f"{variable['name']} is written in place")


def gateway(document, config):
    """How a gateway ends and starts, and where its state is."""
    spec = document["spec"]
    inner = spec["template"]["spec"]
    container = next(container for container in inner["containers"] if container["name"] == "weirkeeper")
    limits = config["limits"]
    notice, drain = seconds(limits["drain_notice"]), seconds(limits["drain"])
    longest = max([seconds(config.get("upstream", {}).get("first_byte", "2m"))]
                  + [seconds(bound) for bound in config.get("upstream", {}).get("total", {}).values()])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    if drain <= longest or inner["terminationGracePeriodSeconds"] <= before + notice + drain:
        complain(document, "would cut calls when it ends")
    probe = container["readinessProbe"]
    if notice <= probe["periodSeconds"] * probe["failureThreshold"]:
        complain(document, "closes listeners before it is seen to be unready")
    if {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} != {"/livez"}:
        complain(document, "lives by something else than /livez")
    claims = [volume for volume in inner["volumes"] if "persistentVolumeClaim" in volume]
    if config["state"] == "memory" or "redis" in config["state"]:
        if claims or spec["strategy"]["type"] != "RollingUpdate":
            complain(document, "has state of its own although it forgets or shares it")
    elif len(claims) != 1 or spec["strategy"] != {"type": "Recreate"} or spec["replicas"] > 1:
        complain(document, "shares its state")
    elif config["state"]["path"] not in [mount["mountPath"] for mount in container["volumeMounts"]]:
        complain(document, "has its state elsewhere")


documents = [document for document in yaml.safe_load_all(open(sys.argv[1], encoding="utf-8")) if document]
configs = [document for document in documents if "weirkeeper.yaml" in document.get("data", {})]
text = configs[0]["data"]["weirkeeper.yaml"]
for document in documents:
    kind = document["kind"]
    if kind in OPERATOR:
        # Takes seconds to load, and most cases do without.
        models = importlib.import_module("cloudcoil.models.prometheus_operator.v1")
        try:
            getattr(models, kind).model_validate(document, extra="forbid")
        except ValueError as error:
            complain(document, error)
    elif kind == "HTTPRoute":
        route(document)
    elif kind in KNOWN:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            complain(document, f"{'.'.join(map(str, getattr(error, 'path', [])))}: {getattr(error, 'message', error)}")
    else:
        complain(document, "is of a kind that nothing here knows")
    if kind == "Secret":
        complain(document, "this chart makes no secrets")
    if kind == "Pod":
        pod(document, document["spec"])
    if kind == "Deployment":
        pod(document, document["spec"]["template"]["spec"])
        gateway(document, yaml.safe_load(text))
if len(sys.argv) > 2:
    open(sys.argv[2], "w", encoding="utf-8").write(text)
print("\n".join(wrong), file=sys.stderr)
print(" ".join(sorted(document["kind"] for document in documents)))
sys.exit(1 if wrong else 0)
