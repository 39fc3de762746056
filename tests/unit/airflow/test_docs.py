"""The pages say what is so: their examples can be used, their tables are the code's."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.sdk import BaseOperator

from airflow_provider_kitops.cluster.job import job_objects
from airflow_provider_kitops.cluster.names import TaskKey
from airflow_provider_kitops.cluster.outcome import Outcome, outcome_of
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.cluster.waiting import Waiting, waiting_for
from airflow_provider_kitops.get_provider_info import CONNECTION_FIELDS, get_provider_info
from airflow_provider_kitops.operators._base import KitopsBaseOperator
from airflow_provider_kitops.operators._jobs import JobFailed, KubernetesProgramOperator
from airflow_provider_kitops.operators.copy import KitCopyOperator
from airflow_provider_kitops.operators.gate import PromotionGateOperator
from airflow_provider_kitops.operators.inspection import (
    KitDiffOperator,
    KitInfoOperator,
    KitInspectOperator,
    KitListOperator,
)
from airflow_provider_kitops.operators.judge import LLMJudgeOperator
from airflow_provider_kitops.operators.kubernetes import (
    FineTuneKubernetesOperator,
    GenerateKubernetesOperator,
    WorkloadKubernetesOperator,
)
from airflow_provider_kitops.operators.pack import KitPackOperator
from airflow_provider_kitops.operators.promote import ModelKitPromoteOperator, ModelKitRollbackOperator
from airflow_provider_kitops.operators.pull import KitPullOperator
from airflow_provider_kitops.operators.push import KitPushOperator
from airflow_provider_kitops.operators.remove import KitRemoveOperator
from airflow_provider_kitops.operators.tag import KitTagOperator
from airflow_provider_kitops.operators.unpack import KitUnpackOperator
from airflow_provider_kitops.operators.untag import KitUntagOperator
from airflow_provider_kitops.operators.workload import (
    FineTuneLocalOperator,
    GenerateLocalOperator,
    WorkloadLocalOperator,
)
from airflow_provider_kitops.sensors.tag import ModelKitTagSensor
from airflow_provider_kitops.triggers._follow import _Following
from airflow_provider_kitops.triggers._watch import View
from airflow_provider_kitops.workload.mounts import DOCKER_CONFIG, SIGNING_KEY
from airflow_provider_kitops.workload.spec import WorkloadSpec

DOCS = Path(__file__).parents[3] / "docs"
PACKAGE = DOCS.parent / "airflow_provider_kitops"
OPERATORS = [
    KitPackOperator,
    KitPushOperator,
    KitPullOperator,
    KitCopyOperator,
    KitTagOperator,
    KitUntagOperator,
    KitRemoveOperator,
    KitUnpackOperator,
    KitInfoOperator,
    KitInspectOperator,
    KitDiffOperator,
    KitListOperator,
    ModelKitTagSensor,
    FineTuneLocalOperator,
    GenerateLocalOperator,
    WorkloadLocalOperator,
    FineTuneKubernetesOperator,
    GenerateKubernetesOperator,
    WorkloadKubernetesOperator,
    LLMJudgeOperator,
    PromotionGateOperator,
    ModelKitPromoteOperator,
    ModelKitRollbackOperator,
]


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", (DOCS / "operators.md").read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(operator: type[BaseOperator]) -> str:
    found = [text for title, text in sections().items() if operator.__name__ in title.split(", ")]
    assert len(found) == 1, f"{operator.__name__} has no section of its own"
    return found[0]


def own_arguments(operator: type[BaseOperator]) -> set[str]:
    names: set[str] = set()
    for cls in operator.__mro__:
        if cls.__module__.startswith("airflow_provider_kitops") and "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters.values()
            names |= {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    return names


def test_the_examples_make_one_dag() -> None:
    code = re.findall(r"^```python\n(.*?)^```$", (DOCS / "operators.md").read_text(encoding="utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    try:
        exec("\n".join(code), names)
    finally:
        if "dag" in names:
            names["dag"].__exit__(None, None, None)
    dag = names["dag"]
    assert {type(task) for task in dag.tasks} >= set(OPERATORS)
    assert dag.get_task("promote").get_flat_relative_ids(upstream=True) >= {
        "gate",
        "judge",
        "fine_tune",
        "pack_dataset",
    }


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_every_argument_is_documented_in_docstring_and_page(operator: type[BaseOperator]) -> None:
    documented = set(re.findall(r":param (\w+):", operator.__doc__ or ""))
    assert documented == own_arguments(operator)
    told = set(re.findall(r"`(\w+)`", section(operator)))
    assert own_arguments(operator) - {"kitops_conn_id"} <= told


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_what_the_docstring_calls_templated_is(operator: type[BaseOperator]) -> None:
    assert isinstance(operator.template_fields, tuple)
    documentation = " ".join((operator.__doc__ or "").split())
    entries = re.split(r"(?=:param |:return:)", documentation)
    templated = {
        entry.split()[1].rstrip(":") for entry in entries if entry.startswith(":param") and "templated)" in entry
    }
    assert templated == set(operator.template_fields)


@pytest.mark.parametrize(
    "operator",
    [each for each in OPERATORS if each not in (KitPackOperator, KitUnpackOperator)],
    ids=lambda operator: operator.__name__,
)
def test_the_page_says_which_arguments_are_required(operator: type[BaseOperator]) -> None:
    rows = [line.split(" | ", 1) for line in section(operator).splitlines() if line.startswith("| `")]
    told = {name: meaning for names, meaning in rows for name in re.findall(r"`(\w+)`", names)}
    required = {
        parameter.name
        for cls in operator.__mro__
        if cls.__module__.startswith("airflow_provider_kitops") and "__init__" in vars(cls)
        for parameter in inspect.signature(cls.__init__).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty
    }
    assert {name for name in required if "required" not in told[name]} == set()
    optional = own_arguments(operator) - required - {"kitops_conn_id"}
    assert {name for name in optional if told[name].startswith("required")} == set()


def test_every_option_of_airflow_cfg_is_documented() -> None:
    options = get_provider_info()["config"]["kitops"]["options"]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", sections()["Options"], re.M))
    assert set(told) == set(options)
    assert told["execution"] == options["execution"]["default"]


def test_the_page_of_the_connection_names_every_field() -> None:
    text = (DOCS / "connection.md").read_text(encoding="utf-8")
    assert set(CONNECTION_FIELDS) <= set(re.findall(r"`(\w+)`", text))


def test_every_operator_goes_through_the_one_mapping_of_errors() -> None:
    for operator in OPERATORS:
        if operator is not ModelKitTagSensor:
            assert issubclass(operator, KitopsBaseOperator)
            assert operator.execute is KitopsBaseOperator.execute


def test_every_module_with_operators_is_announced_to_airflow() -> None:
    (announced,) = get_provider_info()["operators"]
    modules = {operator.__module__ for operator in OPERATORS if operator is not ModelKitTagSensor}
    assert set(announced["python-modules"]) == modules


def page_text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page_text(name), re.M | re.S)


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table whose first cell is code."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """What the examples of the guide define."""
    found: dict[str, Any] = {}
    exec("\n".join(blocks("kubernetes.md", "python")), found)
    return found


def test_the_examples_of_the_guide_make_one_dag(guide: dict[str, Any]) -> None:
    tasks = guide["dag"].tasks
    assert {task.task_id for task in tasks} == {"fine_tune", "count", "fine_tune_and_tell"}
    assert all(isinstance(task, KubernetesProgramOperator) for task in tasks)
    assert JobSettings.model_validate(guide["JOB"]).pod_override


def test_the_option_of_the_example_can_be_used() -> None:
    (text,) = [line.partition("=")[2] for line in "".join(blocks("kubernetes.md", "ini")).splitlines() if "job" in line]
    assert JobSettings.model_validate(json.loads(text)).namespace == "training"


def test_the_callback_tells_how_the_job_failed(guide: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    task = type("Task", (), {"task_id": "fine_tune"})
    failed = JobFailed(Outcome("Killed", "work was killed.", detail="step 12"))
    with caplog.at_level(logging.ERROR, "training"):
        guide["tell"]({"ti": task, "exception": failed})
        guide["tell"]({"ti": task, "exception": ValueError("something else")})
        guide["tell"]({"ti": task})
    told = [record.getMessage() for record in caplog.records]
    assert told[:2] == [
        "fine_tune failed: Killed: work was killed.\nstep 12",
        "fine_tune failed: something else",
    ]


_VERBS = {"read": "get"}
_RESOURCES = {"job": "jobs", "pod": "pods", "pod_log": "pods/log", "secret": "secrets", "config_map": "configmaps"}


def test_the_role_allows_what_the_code_does_and_no_more() -> None:
    files = (PACKAGE / "hooks" / "_jobs.py", *(PACKAGE / "triggers").glob("*.py"))
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    calls = re.findall(r"\b([a-z]+)_namespaced_([a-z_]+)\b", code)
    done = {(_RESOURCES[thing], _VERBS.get(verb, verb)) for verb, thing in calls}
    assert "watch.Watch(" in code
    done.add(("pods", "watch"))
    role, binding = yaml.safe_load_all(blocks("kubernetes.md", "yaml")[0])
    told = {(thing, verb) for rule in role["rules"] for thing in rule["resources"] for verb in rule["verbs"]}
    assert told == done
    assert {rule["apiGroups"][0] for rule in role["rules"] if rule["resources"] == ["jobs"]} == {"batch"}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def reasons() -> set[str]:
    """The words that an outcome, or a wait, is called by in the code."""
    found: set[str] = set()
    for file in ("cluster/outcome.py", "cluster/waiting.py", "triggers/_follow.py"):
        tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
        given: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                given.setdefault(node.targets[0].id, []).append(node.value)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            if node.func.id not in ("Outcome", "Waiting", "outcome"):
                continue
            first = node.args[0]
            values = given.get(first.id, []) if isinstance(first, ast.Name) else [first]
            texts = [each.value for value in values for each in ast.walk(value) if isinstance(each, ast.Constant)]
            found |= {text for text in texts if isinstance(text, str) and re.fullmatch("[A-Z][A-Za-z]+", text)}
    return found


def failures() -> list[list[str]]:
    return list(table_rows(page_text("kubernetes-failures.md")))


def test_every_reason_of_the_code_is_in_the_table_and_no_other() -> None:
    known = reasons()
    assert "StepUnavailable" in known
    assert {cells[0].strip("`") for cells in failures()} == known


def ended(container: str, code: int, message: str = "", reason: str = "Error", **more: Any) -> dict[str, Any]:
    """A pod whose container has ended."""
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return pod_with(initContainerStatuses=[{"name": container, "state": state}], phase="Failed", **more)


def pod_with(**status: Any) -> dict[str, Any]:
    resources = {"limits": {"memory": "16Gi"}}
    work = {"name": "work", "image": "harbor.example.com/team/train@sha256:1f…", "resources": resources}
    metadata = {"name": "fine-tune-1a2b3c4d-1-x7k2p", "creationTimestamp": "2026-11-21T10:00:00Z"}
    spec = {"nodeName": "node-7", "initContainers": [work], "containers": []}
    return {"metadata": metadata, "spec": spec, "status": status}


def of_pod(pod: dict[str, Any]) -> Outcome | None:
    """What a failed Job with this pod came to."""
    return outcome_of(job_with("Failed", message="Job has reached the specified backoff limit"), [pod])


def job_with(condition: str, **more: Any) -> dict[str, Any]:
    job = {"metadata": {"name": "fine-tune-1a2b3c4d-1"}, "spec": {"activeDeadlineSeconds": 43200}}
    return {**job, "status": {"conditions": [{"type": condition, "status": "True", **more}]}}


def waits(container: str = "work", reason: str = "", message: str = "", **status: Any) -> Waiting | None:
    """What a Job waits for whose pod is in this state."""
    states = [{"name": container, "state": {"waiting": {"reason": reason, "message": message}}}] if reason else []
    pod = pod_with(**{"phase": "Pending", "initContainerStatuses": states, **status})
    return waiting_for({"metadata": {}, "spec": {}}, [pod], JobSettings())


def given_up(waiting: Waiting | None) -> Outcome:
    assert waiting is not None
    assert waiting.patience is not None
    return waiting.given_up(waiting.since + timedelta(seconds=max(waiting.patience, 1)))


def unplaced(reason: str, message: str) -> Waiting | None:
    return waits(conditions=[{"type": "PodScheduled", "status": "False", "reason": reason, "message": message}])


def disrupted(reason: str, message: str) -> Outcome | None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return of_pod(pod_with(conditions=[condition], phase="Failed"))


def told(error: str, *, transient: bool) -> str:
    return json.dumps({"error": error, "transient": transient})


async def followed(*, deadline: float | None = None, refused: str = "") -> Outcome | None:
    view = View("x", job={"metadata": {}, "spec": {}, "status": {}}, refused=refused)
    return _Following(view, JobSettings(), lambda line: None, deadline).outcome()


def lingering() -> Waiting | None:
    over = {"exitCode": 0, "finishedAt": "2026-11-21T11:00:00Z"}
    states = [{"name": "publish", "state": {"terminated": over}}, {"name": "proxy", "state": {"running": {}}}]
    return waiting_for({"metadata": {}, "spec": {}}, [pod_with(containerStatuses=states)], JobSettings())


def examples() -> list[Outcome | Waiting | None]:
    """What the table shows, as the code says it."""
    published = {"exitCode": 0, "message": json.dumps({"digest": "sha256:9b…"})}
    done = pod_with(containerStatuses=[{"name": "publish", "state": {"terminated": published}}])
    mute = pod_with(containerStatuses=[{"name": "publish", "state": {"terminated": {"exitCode": 0}}}])
    suspended = {"metadata": {}, "spec": {"suspend": True}}
    begun = {"metadata": {"namespace": "training", "name": "fine-tune-1a2b3c4d-1"}, "spec": {}}
    ending = pod_with(phase="Running")
    ending["metadata"]["deletionTimestamp"] = "2026-11-21T11:00:00Z"
    refused = "Cannot push to harbor.example.com/news/classifier: the registry answers 403."
    full = 'Usage of EmptyDir volume "scratch" exceeds the limit "50Gi".'
    away = "harbor.example.com does not answer: connection refused."
    return [
        outcome_of(job_with("Complete"), [done]),
        of_pod(ended("work", 3, "Traceback …\nValueError: the label column is missing")),
        of_pod(ended("work", 137, reason="OOMKilled")),
        of_pod(ended("work", 1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")),
        of_pod(ended("work", 128, "exec: no such file: /train", reason="StartError")),
        of_pod(ended("work", 137)),
        of_pod(ended("work", 143)),
        of_pod(ended("publish", 4, told(refused, transient=False))),
        of_pod(ended("fetch", 7, told(away, transient=True))),
        outcome_of(job_with("Complete"), [mute]),
        outcome_of(job_with("Complete"), []),
        waiting_for(suspended, [], JobSettings()),
        unplaced("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"),
        lingering(),
        given_up(unplaced("Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")),
        given_up(waits()),
        given_up(waits("work", "ImagePullBackOff", "Back-off pulling image")),
        given_up(waits("work", "InvalidImageName")),
        given_up(waits("fetch", "CreateContainerConfigError", 'secret "x" not found')),
        disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),
        of_pod(pod_with(phase="Failed", reason="Evicted", message=full)),
        of_pod(pod_with(phase="Failed", message="Pod was terminated in response to imminent node shutdown.")),
        outcome_of(job_with("Failed", reason="DeadlineExceeded"), []),
        asyncio.run(followed(deadline=1.0)),
        outcome_of(job_with("Failed", message="Job has reached the specified backoff limit"), []),
        outcome_of(None, []),
        of_pod(ended("work", 255, reason="Unknown")),
        given_up(waiting_for(begun, [], JobSettings())),
        given_up(waiting_for(begun, [ending], JobSettings())),
        asyncio.run(followed(refused="403 Forbidden: jobs.batch is forbidden")),
    ]


def test_the_messages_are_those_of_the_code() -> None:
    made = examples()
    assert None not in made
    assert [cells[2] for cells in failures() if cells[2] not in {each.message for each in made if each}] == []
    told = {(cells[0].strip("`"), cells[2]): cells[4] for cells in failures()}
    assert {(each.reason, each.message) for each in made if each} == set(told)
    for each in made:
        assert each is not None
        cell = told[each.reason, each.message]
        if isinstance(each, Waiting) or each.succeeded:
            assert cell == "–"
        else:
            assert cell.startswith("yes" if each.retry else "no"), each.reason


def pod() -> dict[str, Any]:
    """A pod with everything in it."""
    digest = "sha256:" + "1" * 64
    spec = WorkloadSpec.of(
        inputs={"model": f"demo/model@{digest}"},
        image=f"harbor.example.com/team/train@{digest}",
        command=["train"],
        output={"reference": "demo/out:v1", "kitfile": {"manifestVersion": "1.0.0"}},
    )
    objects = job_objects(
        spec,
        JobSettings(gpu=1, cache={"persistentVolumeClaim": {"claimName": "cache"}}),
        task=TaskKey("dag", "run", "task"),
        name="fine-tune-1",
        mounted="fine-tune-1",
        namespace="training",
        steps_image=spec.image,
        files={},
        secrets={DOCKER_CONFIG: b"{}", SIGNING_KEY: b"key"},
    )
    found: dict[str, Any] = objects.job["spec"]["template"]["spec"]
    return found


#: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
_RESTRICTED_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
}


def test_the_pod_is_of_the_level_that_the_page_says() -> None:
    spec = pod()
    assert "*restricted*" in page_text("security.md")
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(spec)
    assert {key for volume in spec["volumes"] for key in volume if key != "name"} <= _RESTRICTED_VOLUMES
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] != 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not {"privileged", "runAsUser", "runAsNonRoot", "procMount"} & set(container["securityContext"])
        assert not any("hostPort" in port for port in container.get("ports", []))


def test_credentials_are_mounted_where_the_page_says() -> None:
    spec = pod()
    keys = {
        volume["name"]: {item["key"] for item in volume["secret"]["items"]}
        for volume in spec["volumes"]
        if "secret" in volume
    }
    seen = {
        container["name"]: set().union(*(keys.get(mount["name"], set()) for mount in container["volumeMounts"]))
        for container in (*spec["initContainers"], *spec["containers"])
    }
    assert seen == {"fetch": {DOCKER_CONFIG}, "work": set(), "publish": {DOCKER_CONFIG, SIGNING_KEY}}
    assert spec["automountServiceAccountToken"] is False


def test_the_policies_of_the_page_about_security_can_be_used(guide: dict[str, Any]) -> None:
    (text,) = blocks("security.md", "yaml")
    namespace, policy = yaml.safe_load_all(text)
    assert policy["metadata"]["namespace"] == namespace["metadata"]["name"]
    found: dict[str, Any] = {}
    exec(blocks("security.md", "python")[0], found)
    for task in guide["dag"].tasks:
        found["task_policy"](task)
    forbidden = type("Task", (), {"task_id": "x", "job": {"pod_override": {}}})
    with pytest.raises(AirflowClusterPolicyViolation, match="pod_override"):
        found["task_policy"](forbidden)
    with pytest.raises(AirflowClusterPolicyViolation):
        found["task_policy"](type("Task", (), {"task_id": "x", "job": "{{ params.job }}"}))
