"""What TorchServe is told, as text."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from pydantic import ValidationError

from emberline.recipe import Serve
from emberline.route.settings import Limits
from emberline.serve import config

PORTS = config.Ports(8085, 8086, 8087, 8088)


def settings(**changes):
    how = {"host": "127.0.0.1", "ports": PORTS, "grpc_ports": (1, 2), "store": Path("/w/store")}
    text = config.properties(**{**how, "queue_size": 7, "response_timeout_s": 9, **changes})
    return dict(line.split("=", 1) for line in text.splitlines())


def test_only_the_inference_port_leaves_loopback():
    told = settings(host="0.0.0.0")
    assert told.pop("inference_address") == "http://0.0.0.0:8085"
    addresses = {key: value for key, value in told.items() if key.endswith("_address")}
    assert len(addresses) == 4
    assert all("127.0.0.1" in value for value in addresses.values())


def test_whatever_the_router_lets_through_is_taken():
    told = settings()
    router = Limits().max_body_bytes
    assert int(told["max_request_size"]) > router
    assert int(told["max_response_size"]) > router


def test_only_the_private_store_may_be_loaded_from():
    told = settings(store=Path("/w/a+b.c/store"))
    pattern = told["allowed_urls"].replace("\\\\", "\\")
    assert re.fullmatch(pattern, "file:///w/a+b.c/store/digits-1.0.mar")
    assert not re.fullmatch(pattern, "file:///w/aab_c/store/digits-1.0.mar")
    assert not re.fullmatch(pattern, "http://elsewhere/store/digits-1.0.mar")
    assert told["install_py_dep_per_model"] == "false"


def test_workers_traceback_lines_are_logged_to_their_own_file():
    root = ET.fromstring(config.log_configuration(front=Path("/l/front.log"), workers=Path('/l/a "b" & c.log')))
    files = {one.get("name"): one.get("fileName") for one in root.iter("RollingFile")}
    assert files == {"front": "/l/front.log", "workers": '/l/a "b" & c.log'}
    (workers,) = [one for one in root.iter("Logger") if one.get("name") == "MODEL_LOG"]
    assert workers.get("level") == "info"
    assert workers.find("AppenderRef").get("ref") == "workers"


def test_environment_cannot_override_the_settings():
    base = {"PATH": "/bin", "TS_CONFIG_FILE": "/evil", "LOG_LOCATION": "/elsewhere", "TEMP": "/tmp", "HOME": "/h"}
    told = config.environment(base, work=Path("/w"), threads=3, response_timeout_s=4)
    assert "TS_CONFIG_FILE" not in told
    assert (told["TEMP"], told["LOG_LOCATION"], told["HOME"]) == ("/w/temp", "/w/logs", "/h")
    assert told["OMP_NUM_THREADS"] == told["EMBERLINE_THREADS"] == "3"


def test_workers_take_the_gpus_asked_for_in_turns_and_no_other_is_visible():
    told = config.environment({}, work=Path("/w"), threads=1, response_timeout_s=4, devices=(2, 3), memory_share=0.5)
    assert told["CUDA_VISIBLE_DEVICES"] == told["EMBERLINE_DEVICES"] == "2,3"
    assert told["EMBERLINE_DEVICE_MEMORY_SHARE"] == "0.5"
    assert settings(devices=(2, 3))["number_of_gpu"] == "2"
    assert "number_of_gpu" not in settings()
    assert "EMBERLINE_DEVICES" not in config.environment(
        {"CUDA_VISIBLE_DEVICES": "1"}, work=Path("/w"), threads=1, response_timeout_s=4
    )


def test_one_process_a_gpu_unless_workers_are_told():
    assert Serve(devices=(0, 1, 2)).workers == 3
    assert Serve(devices=(0, 1), workers=4, device_memory_share=0.5).workers == 4
    for wrong in (
        {"devices": (1, 1)},
        {"device_memory_share": 0.5},
        {"devices": (0,), "workers": 3, "device_memory_share": 0.5},
    ):
        with pytest.raises(ValidationError):
            Serve(**wrong)


def test_java_is_started_itself_with_its_own_folders():
    told = config.command(
        java=Path("/j/java"), site=Path("/s"), python=Path("/p/python"), work=Path("/w"), store=Path("/w/store")
    )
    assert told[0] == "/j/java"
    assert "-Djava.io.tmpdir=/w/temp" in told
    assert told[told.index("-cp") + 1] == "/s/ts/frontend/*"
    assert told[-1] == "-ncs"
