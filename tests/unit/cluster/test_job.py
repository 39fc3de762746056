"""What is asked of Kubernetes: one pod whose containers run one after the other, each seeing no more than it needs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kitops.cluster.job import JobObjects, checkpoints_directory, is_queued, job_objects, mounted_by
from airflow_provider_kitops.cluster.names import MANAGED_BY, SPECIFICATION, TASK, TaskKey
from airflow_provider_kitops.cluster.settings import JobSettings
from airflow_provider_kitops.oci.credentials import Credentials
from airflow_provider_kitops.oci.errors import InvalidInput
from airflow_provider_kitops.oci.store import StoreConfig
from airflow_provider_kitops.workload.mounts import DOCKER_CONFIG, PROXY, SIGNING_KEY, job_files
from airflow_provider_kitops.workload.spec import WorkloadSpec

IMAGE = f"ghcr.io/demo/train@sha256:{'b' * 64}"
STEPS = f"ghcr.io/demo/steps@sha256:{'c' * 64}"
TASK_KEY = TaskKey("dag", "run", "tune")
SECRETS = {DOCKER_CONFIG: b"{}", PROXY: b"http://proxy", SIGNING_KEY: b"key"}
TAKEN = {"KITOPS_INPUTS", "KITOPS_CONFIG", "KITOPS_OUTPUT", "KITOPS_CHECKPOINTS"}

MOUNTED_NAME = "mounted-0123abcd"


def spec_of(**changes: Any) -> WorkloadSpec:
    fields: dict[str, Any] = {
        "inputs": {"base": f"demo/base@sha256:{'a' * 64}"},
        "image": IMAGE,
        "command": ["train", "--fast"],
        "output": {"reference": "demo/model:v1", "kitfile": {"manifestVersion": "1.0.0"}},
        "env": {"A": "b"},
    }
    return WorkloadSpec.of(**{**fields, **changes})


def objects_of(
    spec: WorkloadSpec | None = None,
    *,
    secrets: Mapping[str, bytes] = SECRETS,
    files: Mapping[str, str] | None = None,
    task_timeout: float | None = None,
    attempt: str = "1",
    **settings: Any,
) -> JobObjects:
    return job_objects(
        spec or spec_of(),
        JobSettings.model_validate(settings),
        task=TASK_KEY,
        name=TASK_KEY.job_name(attempt),
        mounted=MOUNTED_NAME,
        namespace="models",
        steps_image=STEPS,
        files={"spec.json": "{}"} if files is None else files,
        secrets=secrets,
        deadline=task_timeout,
    )


def pod_of(objects: JobObjects) -> dict[str, Any]:
    pod: dict[str, Any] = objects.job["spec"]["template"]["spec"]
    return pod


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}


def mounts(pod: dict[str, Any], container: str) -> dict[str, dict[str, Any]]:
    return {each["mountPath"]: each for each in containers(pod)[container]["volumeMounts"]}


def volumes(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in pod["volumes"]}


def readable_secrets(pod: dict[str, Any], container: str) -> set[str]:
    """The keys of Secrets that a container finds, as a kubelet projects them: without items all of them."""
    found: set[str] = set()
    for mount in containers(pod)[container]["volumeMounts"]:
        source = volumes(pod)[mount["name"]].get("secret")
        if source:
            found |= {item["path"] for item in source.get("items") or []} or {"everything"}
    return found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """What Kubernetes makes of a command's or variable's text (third_party/forked/golang/expansion)."""
    result, at = "", 0
    while at < len(text):
        if text[at] == "$" and at + 1 < len(text):
            after = text[at + 1]
            end = text.find(")", at + 2) if after == "(" else -1
            if after == "$":
                result, at = result + "$", at + 2
            elif end >= 0:
                name = text[at + 2 : end]
                result, at = result + variables.get(name, f"$({name})"), end + 1
            else:
                result, at = result + "$" + after, at + 2
        else:
            result, at = result + text[at], at + 1
    return result


def test_kubernetes_rules_are_what_this_module_takes_them_for() -> None:
    variables = {"A": "1"}
    cases = {"$(A)": "1", "$$(A)": "$(A)", "$$$(A)": "$1", "$(B)": "$(B)", "$A $(A": "$A $(A", "$": "$", "$$": "$"}
    assert {text: expanded(text, variables) for text in cases} == cases


tricky = st.lists(st.sampled_from(["$", "(", ")", "A", "HOME", "x", " "]), max_size=12).map("".join)


@given(st.lists(tricky, min_size=1, max_size=3), st.dictionaries(st.sampled_from(["A", "B"]), tricky, max_size=2))
def test_the_program_gets_its_arguments_and_variables_as_they_were_written(
    command: list[str], env: dict[str, str]
) -> None:
    work = containers(pod_of(objects_of(spec_of(command=command, env=env))))["work"]
    variables: dict[str, str] = {}
    for each in work["env"]:  # each may refer to those before it
        variables[each["name"]] = expanded(each["value"], variables)
    assert [expanded(each, variables) for each in work["command"]] == command
    assert {name: variables[name] for name in env} == env


def test_the_containers_run_one_after_the_other() -> None:
    pod = pod_of(objects_of())
    assert [each["name"] for each in pod["initContainers"]] == ["fetch", "work"]
    assert [each["name"] for each in pod["containers"]] == ["publish"]
    assert pod["restartPolicy"] == "Never"
    found = containers(pod)
    assert (found["fetch"]["image"], found["work"]["image"], found["publish"]["image"]) == (STEPS, IMAGE, STEPS)
    assert found["work"]["command"] == ["train", "--fast"]
    assert found["fetch"]["command"][-1] == "fetch"
    assert found["publish"]["command"][-1] == "publish"


@pytest.mark.parametrize(
    ("secrets", "fetch", "publish"),
    [
        (SECRETS, {DOCKER_CONFIG, PROXY}, {DOCKER_CONFIG, PROXY, SIGNING_KEY}),
        ({DOCKER_CONFIG: b"{}"}, {DOCKER_CONFIG}, {DOCKER_CONFIG}),
        ({SIGNING_KEY: b"key"}, set(), {SIGNING_KEY}),
        ({}, set(), set()),
    ],
)
def test_the_program_sees_no_secret_and_only_publish_the_signing_key(
    secrets: dict[str, bytes], fetch: set[str], publish: set[str]
) -> None:
    pod = pod_of(objects_of(secrets=secrets))
    assert readable_secrets(pod, "work") == set()
    assert readable_secrets(pod, "fetch") == fetch
    assert readable_secrets(pod, "publish") == publish
    for volume in volumes(pod).values():
        assert volume.get("secret", {}).get("defaultMode", 0) & 0o007 == 0


def test_a_step_and_the_program_share_what_they_have_to_and_no_more() -> None:
    pod = pod_of(objects_of(cache={"persistentVolumeClaim": {"claimName": "blobs"}}))
    work, fetch, publish = (mounts(pod, name) for name in ("work", "fetch", "publish"))
    assert set(work) == {"/in", "/config", "/out", "/checkpoints", "/tmp", "/dev/shm"}
    assert work["/in"]["readOnly"]
    assert work["/config"]["readOnly"]
    assert set(fetch) == {"/in", "/config", "/out", "/tmp", "/state", "/kitops/job", "/kitops/secret", "/cache"}
    assert set(publish) == (set(fetch) | {"/checkpoints"}) - {"/cache", "/in", "/config"}
    assert publish["/out"]["readOnly"] is True
    assert fetch["/in"]["subPath"] == work["/in"]["subPath"] == "in"
    assert fetch["/kitops/job"]["readOnly"]
    assert len({each["subPath"] for each in fetch.values() if each["name"] == "scratch"}) == 5
    used = {each["name"] for name in containers(pod) for each in mounts(pod, name).values()}
    assert used == set(volumes(pod))


def test_nothing_is_privileged() -> None:
    pod = pod_of(objects_of())
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["enableServiceLinks"] is False
    for container in containers(pod).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_a_token_is_mounted_only_for_an_account_that_is_named() -> None:
    pod = pod_of(objects_of())
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    pod = pod_of(objects_of(service_account="trainer"))
    assert pod["automountServiceAccountToken"] is True
    assert pod["serviceAccountName"] == "trainer"


def test_checkpoints_have_a_directory_for_each_task_and_its_work() -> None:
    claim = {"persistentVolumeClaim": {"claimName": "checkpoints"}}
    pod = pod_of(objects_of(checkpoints=claim))
    assert volumes(pod)["checkpoints"] == {"name": "checkpoints", **claim}
    directory = checkpoints_directory(TASK_KEY, spec_of())
    for container in ("work", "publish"):
        assert mounts(pod, container)["/checkpoints"]["subPath"] == directory
    same = spec_of(resources={"memory": "64Gi"}, image=IMAGE.replace("b" * 64, "d" * 64))
    assert checkpoints_directory(TASK_KEY, same) == directory
    for task, spec in (
        (TASK_KEY, spec_of(command=["train", "--slow"])),
        (TASK_KEY, spec_of(config={"seed": 1})),
        (TASK_KEY, spec_of(inputs={"base": f"demo/base@sha256:{'e' * 64}"})),
        (TaskKey("dag", "other", "tune"), spec_of()),
        (TaskKey("dag", "run", "tune", 1), spec_of()),
    ):
        assert checkpoints_directory(task, spec) != directory


def test_each_container_has_temporary_files_of_its_own() -> None:
    pod = pod_of(objects_of())
    assert len({mounts(pod, name)["/tmp"]["subPath"] for name in containers(pod)}) == 3
    # Nor does a step import what lies in its working directory.
    for step in ("fetch", "publish"):
        assert containers(pod)[step]["command"][:3] == ["python", "-P", "-m"]


def test_a_job_begins_suspended_and_is_tried_as_the_settings_say() -> None:
    job = objects_of(backoff_limit=5, ttl=600, grace_period=7).job
    spec = job["spec"]
    assert (spec["suspend"], spec["completions"], spec["parallelism"]) == (True, 1, 1)
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (5, 600)
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 7
    assert "ttlSecondsAfterFinished" in objects_of(on_finish="keep").job["spec"], "until the task has told its end"


def test_a_container_that_pod_override_adds_ends_the_job_when_it_fails() -> None:
    extra = {"name": "extra", "image": IMAGE}
    override = {
        "initContainers": [extra, {"name": "sidecar", "restartPolicy": "Always", "image": IMAGE}],
        "containers": [{"name": "proxy", "image": IMAGE}],
    }
    rules = objects_of(pod_override=override).job["spec"]["podFailurePolicy"]["rules"]
    named = [rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule]
    assert named == ["fetch", "work", "publish", "extra", "proxy"]


def test_what_ends_a_job_at_once_and_what_costs_a_try() -> None:
    rules = objects_of().job["spec"]["podFailurePolicy"]["rules"]

    def decision(container: str, code: int, *, disrupted: bool = False) -> str:
        """The first rule that matches, as the Job controller goes through them; else a try is counted."""
        for rule in rules:
            if disrupted and any(each["type"] == "DisruptionTarget" for each in rule.get("onPodConditions", [])):
                return str(rule["action"])
            codes = rule.get("onExitCodes")
            if codes and codes["containerName"] == container:
                assert codes["operator"] == "NotIn"
                if code not in codes["values"]:
                    return str(rule["action"])
        return "Count"

    assert decision("work", 143, disrupted=True) == "Ignore"
    assert decision("work", 1, disrupted=True) == "Ignore"
    assert [decision("work", code) for code in (1, 3, 137, 143)] == ["FailJob", "FailJob", "FailJob", "Count"]
    assert [decision("fetch", code) for code in (1, 137, 143)] == ["FailJob", "Count", "Count"]
    assert [decision("publish", code) for code in (1, 137, 143)] == ["FailJob", "FailJob", "Count"]


@pytest.mark.parametrize(
    ("deadline", "timeout", "expected"),
    [(None, None, None), (60, None, 60), (None, 90.4, 90), (60, 90, 60), (None, 0.2, 1)],
)
def test_the_deadline_is_the_settings_or_else_the_tasks(
    deadline: float | None, timeout: float | None, expected: int | None
) -> None:
    settings: dict[str, Any] = {} if deadline is None else {"deadline": deadline}
    assert objects_of(task_timeout=timeout, **settings).job["spec"].get("activeDeadlineSeconds") == expected


def test_a_queue_is_kueues_business() -> None:
    queued, usual = objects_of(queue="team"), objects_of()
    assert queued.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert is_queued(queued.job)
    assert not is_queued(usual.job)
    assert not is_queued({"metadata": {}})
    # Kueue would take a pod with the label for one of its own.
    assert "kueue.x-k8s.io/queue-name" not in queued.job["spec"]["template"]["metadata"]["labels"]


def test_job_and_pod_are_found_by_what_made_them() -> None:
    objects = objects_of(labels={"team": "a"}, annotations={"note": "b"})
    for labels in (objects.job["metadata"]["labels"], objects.job["spec"]["template"]["metadata"]["labels"]):
        assert dict(MANAGED_BY).items() <= labels.items()
        assert labels["team"] == "a"
        assert labels[TASK] == TASK_KEY.label
        assert spec_of().digest.removeprefix("sha256:").startswith(labels[SPECIFICATION])
    assert objects.job["metadata"]["annotations"]["note"] == "b"
    assert objects.job["metadata"]["annotations"]["airflow-provider-kitops.dev/task-id"] == "tune"


def test_the_program_gets_what_it_asks_for() -> None:
    work = containers(pod_of(objects_of(cpu=2, memory="4Gi", gpu=1, shared_memory="2Gi")))["work"]
    wanted = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    assert work["resources"] == {"requests": wanted, "limits": wanted}
    assert containers(pod_of(objects_of()))["work"]["resources"] == {}
    shared = volumes(pod_of(objects_of(shared_memory="2Gi")))["shared-memory"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


def test_the_program_finds_its_directories_whatever_its_variables_are() -> None:
    work = containers(pod_of(objects_of(spec_of(env={"HOME": "/out"}))))["work"]
    variables = {each["name"]: each["value"] for each in work["env"]}
    assert len(variables) == len(work["env"])
    assert variables["HOME"] == "/out"
    assert variables.items() >= {"KITOPS_INPUTS": "/in", "KITOPS_OUTPUT": "/out"}.items()
    assert set(variables) >= TAKEN


def test_a_person_has_the_last_word_on_the_pod() -> None:
    override = {
        "hostNetwork": True,
        "securityContext": {"runAsUser": 1000},
        "initContainers": [{"name": "work", "resources": {"limits": {"memory": "1Gi"}}}],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "enableServiceLinks": None,
    }
    pod = pod_of(objects_of(pod_override=override))
    assert pod["hostNetwork"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert [each["name"] for each in pod["initContainers"]] == ["fetch", "work"]
    assert containers(pod)["work"]["image"] == IMAGE
    assert containers(pod)["work"]["resources"] == {"limits": {"memory": "1Gi"}}
    assert {"data", "scratch"} <= set(volumes(pod))
    assert "enableServiceLinks" not in pod


def test_what_is_mounted_has_a_name_of_its_own() -> None:
    objects = objects_of(image_pull_secrets=["mine"])
    assert objects.secret is not None
    assert objects.config_map["metadata"]["name"] == objects.secret["metadata"]["name"] == MOUNTED_NAME
    pod = pod_of(objects)
    assert pod["imagePullSecrets"] == [{"name": "mine"}, {"name": MOUNTED_NAME}]
    assert volumes(pod)["job"]["configMap"]["name"] == volumes(pod)["secret"]["secret"]["secretName"] == MOUNTED_NAME
    assert mounted_by(objects.job) == MOUNTED_NAME


def test_another_attempt_differs_by_name_alone() -> None:
    settings: dict[str, Any] = {"image_pull_secrets": ["mine"], "cache": {"secret": {"secretName": "not-ours"}}}
    first, other = objects_of(**settings), objects_of(attempt="2", **settings)
    one, two = (each.job["metadata"]["name"] for each in (first, other))
    assert one != two
    text = json.dumps([other.job, other.config_map, other.secret])
    assert one not in text
    assert json.loads(text.replace(two, one)) == [first.job, first.config_map, first.secret]


def test_what_is_mounted_goes_with_the_job() -> None:
    objects = objects_of()
    job = {"metadata": {**objects.job["metadata"], "uid": "the-uid"}}
    config_map, secret = objects.owned(job)
    assert secret is not None
    for thing in (config_map, secret):
        (owner,) = thing["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", "the-uid", True)
        assert owner["name"] == objects.job["metadata"]["name"]
        assert thing["metadata"]["name"] == MOUNTED_NAME
        assert thing["metadata"]["namespace"] == "models"
    assert "ownerReferences" not in objects.config_map["metadata"]
    assert objects_of(secrets={}).owned({"metadata": {"name": "a", "uid": "x"}})[1] is None


def test_images_are_pulled_with_the_credentials_of_the_registry() -> None:
    objects = objects_of()
    assert objects.secret is not None
    assert objects.secret["type"] == "kubernetes.io/dockerconfigjson"
    assert pod_of(objects)["imagePullSecrets"] == [{"name": objects.secret["metadata"]["name"]}]
    anonymous = objects_of(secrets={PROXY: b"x"})
    assert anonymous.secret is not None
    assert anonymous.secret["type"] == "Opaque"
    assert "imagePullSecrets" not in pod_of(anonymous)


def test_no_password_is_anywhere_but_in_the_secret() -> None:
    config = StoreConfig(registry="registry.example.com", proxy="http://user:proxy-password@proxy:3128")
    files, secrets = job_files(
        spec_of(), config, Credentials("user", "registry-password"), signing_key=b"-----signing-key"
    )
    objects = objects_of(files=files, secrets=secrets)
    text = json.dumps([objects.job, objects.config_map])
    for hidden in ("registry-password", "proxy-password", "signing-key"):
        assert hidden not in text
        assert base64.b64encode(hidden.encode()).decode()[:12] not in text
    assert objects.secret is not None
    assert base64.b64decode(objects.secret["data"][SIGNING_KEY]) == b"-----signing-key"


def test_a_workload_without_an_image_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs an image"):
        objects_of(spec_of(image=""))
