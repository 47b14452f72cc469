"""Loads records into ClickHouse with the schema that the dashboard's database has, and reads them back.

Usage: records.py RECORDS (one JSON object a line)
"""

import copy
import json
import struct
import sys
import tempfile

import chdb

TEXTS = "Map(String, String)"
SCHEMA = ", ".join(
    [
        "timestamp UInt64, schema_version String, name String, repo String, head_branch String, head_sha String",
        "workflow_id UInt64, run_attempt UInt32, job_id UInt64",
        "runners Array(Tuple(name String, type String, cpu_info String, cpu_count UInt32, avail_mem_in_gb UInt32,"
        f" gpu_info String, gpu_count UInt32, avail_gpu_mem_in_gb UInt32, extra_info {TEXTS}))",
        f"benchmark Tuple(name String, mode String, dtype String, extra_info {TEXTS})",
        f"model Tuple(name String, type String, backend String, origins Array(String), extra_info {TEXTS})",
        f"metric Tuple(name String, benchmark_values Array(Float32), target_value Float32, extra_info {TEXTS})",
    ]
)


def load(lines):
    """What ClickHouse reads of these lines."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(line + "\n" for line in lines))
        file.flush()
        query = f"SELECT * FROM file('{file.name}', JSONEachRow, $${SCHEMA}$$)"
        return [json.loads(row) for row in str(chdb.query(query, "JSONEachRow")).splitlines()]


def parameters(record):
    """The parameters of a record, as the dashboard's queries read them."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        args = "tupleElement(benchmark, 'extra_info')['args']"
        columns = ", ".join(f"JSONExtractString({args}, '{key}') AS {key}" for key in record["benchmark"]["extra_info"]["args"])
        query = f"SELECT {columns} FROM file('{file.name}', JSONEachRow, $${SCHEMA}$$)"
        return json.loads(str(chdb.query(query, "JSONEachRow")))


def single(value):
    """The value as Float32 holds it."""
    return struct.unpack("f", struct.pack("f", value))[0]


def text(value):
    return value if isinstance(value, str) else json.dumps(value)


def check_rows(written, read):
    assert len(written) == len(read) > 0, (len(written), len(read))
    for ours, theirs in zip(written, read, strict=True):
        for key in ["schema_version", "name", "repo", "head_branch", "head_sha", "run_attempt"]:
            assert ours[key] == theirs[key], key
        for key in ["timestamp", "workflow_id", "job_id"]:
            assert ours[key] == int(theirs[key]), key
        for key, value in ours["runners"][0].items():
            assert theirs["runners"][0][key] == value, key
        assert theirs["model"]["name"] == ours["model"]["name"]
        assert theirs["metric"]["name"] == ours["metric"]["name"]
        values = [single(value) for value in ours["metric"]["benchmark_values"]]
        assert [single(value) for value in theirs["metric"]["benchmark_values"]] == values
        for key, value in ours["metric"]["extra_info"].items():
            assert key in theirs["metric"]["extra_info"], key
            if isinstance(value, str):
                assert theirs["metric"]["extra_info"][key] == value, key
        assert theirs["benchmark"]["extra_info"]["use_compile"] in ("true", "false")
        assert json.loads(theirs["benchmark"]["extra_info"]["args"]) == ours["benchmark"]["extra_info"]["args"]


def check_parameters(record):
    for key, read in parameters(record).items():
        written = record["benchmark"]["extra_info"]["args"][key]
        assert read == text(written) or float(read) == float(written), (key, read, written)


def check_rejected(record):
    """ClickHouse loses a whole file over each of these; the program's own tests refuse the same forms."""

    def changed(change):
        other = copy.deepcopy(record)
        change(other)
        return json.dumps(other)

    forms = {
        "a float for a UInt": changed(lambda it: it.update(timestamp=1790000000.5)),
        "a negative UInt": changed(lambda it: it.update(job_id=-1)),
        "an ISO timestamp": changed(lambda it: it.update(timestamp="2026-09-21T14:13:20Z")),
        "a UUID": changed(lambda it: it.update(workflow_id="0190c9a5-7c1f-4f3a-9d3e-2b1f0c9a57c1")),
        "a scalar for values": changed(lambda it: it["metric"].update(benchmark_values=1.0)),
        "NaN in a map": changed(lambda it: it["metric"]["extra_info"].update(duration=float("nan"))),
    }
    for name, form in forms.items():
        try:
            load([json.dumps(record), form])
        except RuntimeError:
            continue
        raise AssertionError(f"ClickHouse took {name}")
    return len(forms)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = file.read().splitlines()
    written = [json.loads(line) for line in lines]
    check_rows(written, load(lines))
    kinds = {record["metric"]["name"]: record for record in written}
    for record in kinds.values():
        check_parameters(record)
    rejected = check_rejected(written[0])
    print(f"{len(written)} records of {len(kinds)} metrics read back equal; {rejected} forms rejected")


main()
