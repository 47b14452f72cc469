"""An S3 look-alike with one bucket that keeps every version, what is in it, and ways to it that fail."""

import gzip
import http.client
import http.server
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
    tell(told, port)
    while True:
        time.sleep(3600)


def tell(told, port):
    with open(told, "w") as file:
        file.write(str(port))


def loses(told, endpoint):
    """Passes every request on, and loses the answer to the first PUT: it was carried out, and nobody knows."""
    lost = []

    class Way(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server = http.client.HTTPConnection(endpoint.removeprefix("http://"))
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            if self.command == "PUT" and not lost:
                lost.append(answer.status)
                print("lost the answer", answer.status, flush=True)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_PUT = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Way)
    tell(told, server.server_port)
    server.serve_forever()


def hangs(told):
    """Takes connections and never answers."""

    class Silence(http.server.BaseHTTPRequestHandler):
        def handle(self):
            time.sleep(3600)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silence)
    tell(told, server.server_port)
    server.serve_forever()


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
    {"serve": serve, "loses": loses, "hangs": hangs, "once": once, "check": check}[sys.argv[1]](*sys.argv[2:])
