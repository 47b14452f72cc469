"""An S3 look-alike with one bucket that keeps every version, and what is in it."""

import gzip
import sys
import time

import boto3


def client(endpoint):
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing-secret"}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)


def serve(told):
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    s3 = client(f"http://127.0.0.1:{port}")
    s3.create_bucket(Bucket="records")
    s3.put_bucket_versioning(Bucket="records", VersioningConfiguration={"Status": "Enabled"})
    with open(told, "w") as file:
        file.write(str(port))
    while True:
        time.sleep(3600)


def once(endpoint):
    """Every key was written exactly once: a second write would be a second version, and rows that count twice."""
    found = client(endpoint).list_object_versions(Bucket="records")
    versions = [version["Key"] for version in found.get("Versions", [])]
    assert versions and not found.get("DeleteMarkers"), found
    assert len(versions) == len(set(versions)), versions
    return versions


def check(endpoint, records, key):
    assert once(endpoint) == [key], (once(endpoint), key)
    found = client(endpoint).get_object(Bucket="records", Key=key)
    assert found["ContentEncoding"] == "gzip", found
    assert found["ContentType"] == "application/json", found
    with open(records, "rb") as file:
        written = file.read()
    body = found["Body"].read()
    assert gzip.decompress(body) == written
    print(f"ok: {key}: {len(written)} bytes of records in {len(body)} bytes, gzip, application/json, one version")


if __name__ == "__main__":
    {"serve": serve, "once": once, "check": check}[sys.argv[1]](*sys.argv[2:])
