"""Check Kubernetes manifests: check_kuberay.py FILE... Needs kubernetes-validate, which carries Kubernetes' schemas.

Kubernetes' own kinds are held against the strict schemas of VERSION. Of KubeRay's RayCluster and RayJob, no package
carries the schema: the fields below are those of its API reference for ray.io/v1, release 1.6, without `status`. Every
field must be one of them, of its type, and there if required; each pod template must be a strict PodTemplateSpec of
Kubernetes. Rules between fields are not checked, but those of authentication.
"""

import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

VERSION = "1.33"
TEXT, NUMBER, COUNT, FLAG = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
TEXTS = {"type": "object", "additionalProperties": TEXT}
ANY = {"type": "object"}  # of another API; not used by the manifests


def _object(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


GROUP = {"rayStartParams": TEXTS, "template": ANY, "resources": TEXTS, "labels": TEXTS}
HEAD = _object("template", **GROUP, serviceType=TEXT, headService=ANY, enableIngress=FLAG)
WORKERS = _object(
    "groupName template",
    **GROUP,
    groupName=TEXT,
    suspend=FLAG,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    idleTimeoutSeconds=COUNT,
    scaleStrategy=_object(workersToDelete={"type": "array", "items": TEXT}),
)
CLUSTER = _object(
    "headGroupSpec rayVersion authOptions",
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
    rayVersion=TEXT,
    authOptions=_object("mode secretName", mode={"const": "token"}, secretName=TEXT),
    suspend=FLAG,
    managedBy=TEXT,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=ANY,
    headServiceAnnotations=TEXTS,
    gcsFaultToleranceOptions=ANY,
    upgradeStrategy=ANY,
)
JOB = _object(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    rayClusterSpec=CLUSTER,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterPodTemplate=ANY,
    submitterConfig=_object(backoffLimit=COUNT),
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    metadata=TEXTS,
    clusterSelector=TEXTS,
    managedBy=TEXT,
    deletionStrategy=ANY,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    entrypointResources=TEXT,
    entrypointNumCpus=NUMBER,
    entrypointNumGpus=NUMBER,
    ttlSecondsAfterFinished=COUNT,
    shutdownAfterJobFinishes=FLAG,
    suspend=FLAG,
)
RAY = {"RayCluster": CLUSTER, "RayJob": JOB}


def check(manifest: dict[str, Any]) -> None:
    """Raise ValidationError if the manifest is wrong."""
    if manifest["apiVersion"] != "ray.io/v1":
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        return
    kind, spec = manifest["kind"], manifest["spec"]
    whole = _object("apiVersion kind metadata spec", apiVersion=TEXT, kind=TEXT, metadata=ANY, spec=RAY[kind])
    jsonschema.validate(manifest, whole)
    cluster = spec if kind == "RayCluster" else spec["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    templates += [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    for template in templates:
        shell = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": manifest["metadata"], "template": template}
        kubernetes_validate.validate(shell, VERSION, strict=True)


def main() -> int:
    """Check each file; print what is wrong."""
    wrong = 0
    for name in sys.argv[1:]:
        manifests = list(yaml.safe_load_all(Path(name).read_text("utf-8")))
        assert manifests, f"{name} is empty"
        for manifest in manifests:
            label = f"{name}: {manifest['kind']} {manifest['metadata']['name']}"
            try:
                check(manifest)
                print(f"{label}: valid")
            except jsonschema.ValidationError as error:
                print(f"{label}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}")
                wrong += 1
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
