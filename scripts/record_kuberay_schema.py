"""Hold the KubeRay example against KubeRay's schema of a RayJob; write down what it uses of it.

    python scripts/record_kuberay_schema.py ray.io_rayjobs.yaml > tests/unit/kuberay_rayjob.json

The argument is the custom resource definition of an operator's release
(helm-chart/kuberay-operator/crds in github.com/ray-project/kuberay). Exit status 1 where the
example does not fit it: that is what `kubectl apply --dry-run=server` would say, without a cluster.
What is written is the part of the schema that the example's fields meet, which a unit test holds
the example against; a field that is new in the example asks for a new recording.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "kuberay_job.yaml"
TOP = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
RULES = ("type", "enum", "pattern", "required", "anyOf", "minimum", "maximum")

Schema = dict[str, Any]


def strict(schema: Schema) -> Schema:
    """The schema with unknown fields refused, as the API server does with --dry-run=server."""
    found = {rule: schema[rule] for rule in RULES if rule in schema}
    if "properties" in schema:
        found["properties"] = {name: strict(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        found["items"] = strict(schema["items"])
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    return found


def used(schema: Schema, values: list[Any]) -> Schema:
    """The part of the schema that the values' fields meet."""
    found = dict(schema)
    if "properties" in schema:
        objects = [value for value in values if isinstance(value, dict)]
        names = sorted({name for value in objects for name in value})
        found["properties"] = {
            name: used(schema["properties"][name], [one[name] for one in objects if name in one])
            for name in names
            if name in schema["properties"]
        }
    if "items" in schema:
        items = [item for value in values if isinstance(value, list) for item in value]
        found["items"] = used(schema["items"], items)
    return found


def faults(schema: Schema, example: Any) -> list[str]:
    """What does not fit, with its place."""
    errors = Draft202012Validator(schema).iter_errors(example)
    return sorted(f"{error.json_path}: {error.message[:300]}" for error in errors)


def schema_of(definition: Any, version: str) -> Schema:
    """The strict schema of one version in a custom resource definition."""
    (found,) = [one for one in definition["spec"]["versions"] if one["name"] == version]
    schema = found["schema"]["openAPIV3Schema"]
    return strict(schema | {"properties": schema["properties"] | TOP})


def main() -> int:
    definition = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    schema = schema_of(definition, example["apiVersion"].partition("/")[2])
    found = faults(schema, example)
    for fault in found:
        print(f"{EXAMPLE.name}: {fault}", file=sys.stderr)
    if not found:
        print(json.dumps(used(schema, [example]), indent=1, sort_keys=True))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
