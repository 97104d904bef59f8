"""`jobs:`: each mistake in its place and in plain words, and what is left out has the default that the page states."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from mesh.layers import LAYERS
from mesh.topology import GraphCallbacks, GraphJobs, GraphTls, Plan, json_schema
from mesh.topology.source import read
from tests.unit.topology.given import FOLDER, GOOD, changed, compiled, told

EMBEDDED = f"{GOOD}jobs: {{}}\n"
ELSEWHERE = f"""\
{GOOD}jobs:
  store: ["nats://10.0.0.1:4222", "tls://nats-2.example.com"]
  credentials: __SELF__
  tls: {{ca: __SELF__, cert: __SELF__, key: __SELF__}}
  replicas: 3
  folder: data
  payloads: s3://bucket/a/prefix
  workers: 2
  concurrency: 8
  lease: 5s
  attempts: 3
  backoff: {{first: 10ms, most: 1s}}
  ttl: 2h
  dead_letter: {{ttl: 7d, max_bytes: 64MiB}}
  max_queued: 1000
  max_queued_bytes: 16MiB
  max_payload: 1MiB
  callbacks: {{allow: ["localhost:8080", "*.Example.com", "[::1]:443"], key_file: __SELF__, attempts: 2, timeout: 1s}}
  batches: {{inputs: [.], outputs: [out/deep]}}
""".replace("__SELF__", Path(__file__).name)
SCHEMA = Draft202012Validator(json_schema(LAYERS))
OURS = "is for a store elsewhere, and this one is the mesh's own (write store: [nats://host:4222], or take it out)"
NO_SERVER = "is no address of a store: write nats://host:4222 or tls://host:4222"
NO_HOST = "names no host: write host, host:port or *.domain, without a scheme or a path"
NO_BUCKET = "is no place for payloads: write s3://bucket/prefix, or leave it out"
TAKEN = "is what a process for jobs is called (choose another name)"


def test_a_file_without_jobs_has_none() -> None:
    graph = compiled(GOOD).graph
    assert graph.jobs is None
    assert graph.schedules == ()


def test_what_is_left_out_has_the_defaults_of_the_page() -> None:
    made = compiled(EMBEDDED).graph.jobs
    assert made == GraphJobs(folder=str(FOLDER / ".mesh/digits"))
    assert made is not None
    assert made.embedded
    assert (made.workers, made.concurrency, made.lease_s, made.attempts) == (1, 4, 30.0, 8)
    assert (made.backoff_first_s, made.backoff_most_s, made.ttl_s) == (1.0, 60.0, 86_400.0)
    assert (made.dead_ttl_s, made.dead_max_bytes) == (14 * 86_400.0, 1 << 30)
    assert (made.max_queued, made.max_queued_bytes, made.max_payload_bytes) == (100_000, 1 << 30, 64 << 20)
    assert made.callbacks == GraphCallbacks(allow=(), key_file="", attempts=8, timeout_s=5.0)


def test_the_page_of_the_file_states_the_defaults() -> None:
    page = (Path(__file__).parents[3] / "docs" / "topology.md").read_text()
    jobs, schedules = re.findall(r"## (?:Jobs|Schedules)\n.*?```yaml\n(.*?)```", page, re.DOTALL)
    assert compiled(GOOD + jobs).graph == compiled(EMBEDDED).graph
    assert [one.name for one in compiled(GOOD + schedules).graph.schedules] == ["nightly"]


def test_everything_may_be_said() -> None:
    me = str(Path(__file__))
    assert compiled(ELSEWHERE).graph.jobs == GraphJobs(
        servers=("nats://10.0.0.1:4222", "tls://nats-2.example.com"),
        credentials=me,
        tls=GraphTls(ca=me, cert=me, key=me),
        replicas=3,
        folder=str(FOLDER / "data"),
        payloads="s3://bucket/a/prefix",
        workers=2,
        concurrency=8,
        lease_s=5.0,
        attempts=3,
        backoff_first_s=0.01,
        backoff_most_s=1.0,
        ttl_s=7200.0,
        dead_ttl_s=7 * 86_400.0,
        dead_max_bytes=64 << 20,
        max_queued=1000,
        max_queued_bytes=16 << 20,
        max_payload_bytes=1 << 20,
        callbacks=GraphCallbacks(
            allow=("localhost:8080", "*.example.com", "[::1]:443"), key_file=me, attempts=2, timeout_s=1.0
        ),
        batch_inputs=(str(FOLDER),),
        batch_outputs=(str(FOLDER / "out/deep"),),
    )


@pytest.mark.parametrize("text", [EMBEDDED, ELSEWHERE])
def test_the_schema_takes_what_the_compiler_takes(text: str) -> None:
    SCHEMA.validate(read(text, "t.yaml").value)


def test_jobs_do_not_change_what_a_graph_answers() -> None:
    digests = {compiled(text).graph.digest for text in (GOOD, EMBEDDED, ELSEWHERE)}
    assert len(digests) == 1


def test_a_plan_with_jobs_can_be_sent_to_another_process() -> None:
    plan = compiled(ELSEWHERE).plan("two")
    adapter = TypeAdapter(Plan)
    assert adapter.validate_json(adapter.dump_json(plan)) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan


@pytest.mark.parametrize(
    ("jobs", "problems"),
    [
        # Its shape.
        ("jobs:", ["30:6: 'jobs' has to be a mapping, not nothing"]),
        ("jobs: [a]", ["30:7: 'jobs' has to be a mapping, not ['a']"]),
        ("job: {}", ["30:1: 'job' is no part of a topology (did you mean 'jobs'?)"]),
        ("jobs: {leese: 5s}", ["30:8: 'leese' is not taken here (did you mean 'lease'?)"]),
        ("jobs: {dead_letter: {tl: 5s}}", ["30:22: 'tl' is not taken here (did you mean 'ttl'?)"]),
        ("jobs: {lease: 500ms}", ["30:15: 'lease' has to be at least 1s, not '500ms'"]),
        ("jobs: {lease: 2h}", ["30:15: 'lease' has to be at most 3600s, not '2h'"]),
        ("jobs: {ttl: 400d}", ["30:13: 'ttl' has to be at most 366d, not '400d'"]),
        ("jobs: {attempts: 0}", ["30:18: 'attempts' has to be at least 1, not 0"]),
        ("jobs: {workers: 65}", ["30:17: 'workers' has to be at most 64, not 65"]),
        ("jobs: {max_queued_bytes: 1KiB}", ["30:26: 'max_queued_bytes' has to be at least 1MiB, not '1KiB'"]),
        # Where jobs are kept.
        (
            "jobs: {store: here}",
            ["30:15: 'store' has to be embedded, or a list of addresses such as [nats://host:4222], not 'here'"],
        ),
        ("jobs: {store: []}", ["30:15: 'store' may not be empty"]),
        ("jobs: {store: [host:4222]}", [f"30:16: 'store[0]': 'host:4222' {NO_SERVER}"]),
        ("jobs: {store: ['nats://a/b']}", [f"30:16: 'store[0]': 'nats://a/b' {NO_SERVER}"]),
        ("jobs: {store: ['nats://a:65536']}", ["30:16: 'store[0]': 65536 is no port: the last one is 65535"]),
        (
            "jobs: {store: ['nats://me:secret@a']}",
            [
                "30:16: 'store[0]': a password has no place in an address: write it into a file, and name that as "
                "credentials"
            ],
        ),
        ("jobs: {store: ['nats://a', 'nats://a']}", ["30:28: 'nats://a' comes twice"]),
        (
            "jobs: {store: ['nats://a'], replicas: 2}",
            ["30:39: 'replicas': a message is kept 1, 3 or 5 times, and not 2"],
        ),
        ("jobs: {store: ['nats://a'], replicas: true}", ["30:39: 'replicas' has to be a whole number, not true"]),
        ("jobs: {replicas: 3}", [f"30:8: 'replicas' {OURS}"]),
        ("jobs: {store: embedded, credentials: a}", [f"30:25: 'credentials' {OURS}"]),
        ("jobs: {tls: {}}", [f"30:8: 'tls' {OURS}"]),
        ("jobs: {store: ['nats://a'], credentials: nobody}", ["30:42: 'nobody' is not there"]),
        ("jobs: {store: ['nats://a'], credentials: .}", ["30:42: '.' is a folder"]),
        (
            "jobs: {store: ['nats://a'], tls: {cert: given.py}}",
            ["30:41: 'cert' goes with 'key', which is missing"],
        ),
        ("jobs: {store: ['nats://a'], tls: {key: given.py}}", ["30:40: 'key' goes with 'cert', which is missing"]),
        ("jobs: {folder: given.py}", ["30:16: 'given.py' cannot be made: 'given.py' is no folder"]),
        ("jobs: {folder: given.py/a/b}", ["30:16: 'given.py/a/b' cannot be made: 'given.py' is no folder"]),
        ("jobs: {payloads: bucket}", [f"30:18: 'payloads': 'bucket' {NO_BUCKET}"]),
        ("jobs: {payloads: s3://x}", [f"30:18: 'payloads': 's3://x' {NO_BUCKET}"]),
        ("jobs: {payloads: s3://bucket//a}", [f"30:18: 'payloads': 's3://bucket//a' {NO_BUCKET}"]),
        # How they are tried.
        ("jobs: {backoff: {first: 2m}}", ["30:25: the first wait is longer than the longest, 60s"]),
        ("jobs: {backoff: {first: 2s, most: 1s}}", ["30:25: the first wait is longer than the longest, 1s"]),
        # Who is told.
        ("jobs: {callbacks: {allow: localhost}}", ["30:27: 'callbacks.allow' has to be a list, not 'localhost'"]),
        ("jobs: {callbacks: {allow: ['*']}}", [f"30:28: 'callbacks.allow[0]': '*' {NO_HOST}"]),
        ("jobs: {callbacks: {allow: ['a.*.b']}}", [f"30:28: 'callbacks.allow[0]': 'a.*.b' {NO_HOST}"]),
        ("jobs: {callbacks: {allow: ['http://a']}}", [f"30:28: 'callbacks.allow[0]': 'http://a' {NO_HOST}"]),
        ("jobs: {callbacks: {allow: ['a:0']}}", ["30:28: 'callbacks.allow[0]': 0 is no port: the last one is 65535"]),
        (
            "jobs: {callbacks: {allow: [127.1]}}",
            ["30:28: 'callbacks.allow[0]' has to be a text, not 127.1 (put it in quotes)"],
        ),
        (
            "jobs: {callbacks: {allow: [127.0.1, '[::g]', '*.10.0.0.1', a..b]}}",
            [
                "30:28: 'callbacks.allow[0]': '127.0.1' is no IP address as it is usually written",
                f"30:37: 'callbacks.allow[1]': '[::g]' {NO_HOST}",
                "30:46: 'callbacks.allow[2]': '10.0.0.1' is an address, which has no names below it",
                "30:60: 'callbacks.allow[3]': 'a..b' is no name of a host",
            ],
        ),
        ("jobs: {callbacks: {allow: [a], key_file: nobody}}", ["30:42: 'nobody' is not there"]),
        (
            "jobs: {callbacks: {key_file: given.py}}",
            ["30:30: a key, and nobody is told anything (write callbacks.allow)"],
        ),
        # What batches may read and write.
        ("jobs: {batches: {inputs: [nobody]}}", ["30:27: 'nobody' is not there"]),
        ("jobs: {batches: {inputs: [given.py]}}", ["30:27: 'given.py' is no folder"]),
        (
            "jobs: {batches: {outputs: [new, given.py/a]}}",
            ["30:33: 'given.py/a' cannot be made: 'given.py' is no folder"],
        ),
    ],
)
def test_a_mistake_is_told_in_its_place(jobs: str, problems: list[str]) -> None:
    assert told(f"{GOOD}{jobs}\n") == problems


@pytest.mark.parametrize("name", ["jobs", "jobs-0", "nats-server"])
def test_no_worker_is_called_as_a_process_for_jobs_is(name: str) -> None:
    text = changed("    front: {", f"    {name}: {{", EMBEDDED)
    assert told(text) == [f"28:5: '{name}' {TAKEN}"]
    assert told(changed("    front: {", f"    {name}: {{")) == []


def test_no_node_is_called_so_either_since_a_worker_may_be_called_as_its_node() -> None:
    assert told(EMBEDDED.replace("large", "jobs")) == [f"16:3: 'jobs' {TAKEN}"]


def test_what_is_wrong_in_one_place_does_not_hide_the_rest() -> None:
    text = f"{GOOD}jobs: {{lease: 1ms, backoff: {{first: 2m}}, attempts: no, folder: given.py}}\n"
    assert [one.split(": ", 1)[0] for one in told(text)] == ["30:15", "30:37", "30:52", "30:64"]
