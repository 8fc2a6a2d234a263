"""Checkpoints behind a real S3 API, served on this machine."""

import json
import os
import sys

import pytest
import torch

from emberline import process
from emberline.train import fence
from emberline.train.checkpoint import Checkpoints

pytest.importorskip("s3fs", reason="pip install 'emberline[s3]'")
pytest.importorskip("moto", reason="a server that speaks S3: pip install 'moto[server,s3]'")


@pytest.fixture
def s3(tmp_path, monkeypatch):
    import boto3
    from botocore.exceptions import EndpointConnectionError

    port = process.free_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = process.start(command, name="S3 server", log=tmp_path / "server.log", env=dict(os.environ))
    client = boto3.client("s3")

    def bucket():
        try:
            client.create_bucket(Bucket="bucket")
        except EndpointConnectionError:  # not up yet
            return False
        return True

    process.wait_until(bucket, 100, "the S3 server")
    yield "s3://bucket/runs/toy"
    server.stop()


@pytest.mark.long
def test_an_overtaken_world_cannot_commit_to_s3_and_damage_there_is_caught(tmp_path, s3):
    def checkpoints():
        return Checkpoints(tmp_path / "run", digest="abc", keep=2, location=s3)

    old = checkpoints()
    first = old.claim_generation()
    for step in (10, 20, 30):
        old.save(step, {"model/weight": torch.full((1000,), float(step))}, seed=0, generation=first)
    new = checkpoints()
    second = new.claim_generation()
    with pytest.raises(fence.Fenced):
        old.save(40, {"model/weight": torch.zeros(1)}, seed=0, generation=first)
    assert new.newest_step() == 30
    new.save(50, {"model/weight": torch.full((1000,), 50.0)}, seed=0, generation=second)
    import boto3

    client = boto3.client("s3")
    keys = [one["Key"] for one in client.list_objects_v2(Bucket="bucket")["Contents"]]
    assert not [key for key in keys if "step-000010" in key or "step-000020" in key]  # retention
    state = "runs/toy/checkpoints/step-000050.g000002/state.safetensors"
    content = bytearray(client.get_object(Bucket="bucket", Key=state)["Body"].read())
    content[-3] ^= 1
    client.put_object(Bucket="bucket", Key=state, Body=bytes(content))
    skipped = []
    loaded = new.load_newest(skipped)
    assert (loaded.step, float(loaded.tensors["model/weight"][0])) == (30, 30.0)
    assert "content is xxh3" in skipped[0].why
    record = json.loads(client.get_object(Bucket="bucket", Key="runs/toy/generations/000002.json")["Body"].read())
    assert record == {"accepted": ["step-000020.g000001", "step-000030.g000001"]}
