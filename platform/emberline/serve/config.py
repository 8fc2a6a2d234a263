"""What TorchServe is told: its properties, its logging, its command line. Pure text, so a test can read it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

# Halves the memory of the JVM; more than a front end of byte buffers needs.
VMARGS = ("-Xmx512m", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED")

MAX_MESSAGE_BYTES = 16 << 20


@dataclass(frozen=True)
class Ports:
    """Where one instance listens; all but inference always on loopback."""

    inference: int
    management: int
    metrics: int
    health: int


def properties(
    *,
    host: str,
    ports: Ports,
    grpc_ports: tuple[int, int],
    store: Path,
    queue_size: int,
    response_timeout_s: int,
    devices: Sequence[int] = (),
) -> str:
    """config.properties: closed to everything but the private store."""
    lines = {
        "inference_address": f"http://{host}:{ports.inference}",
        "management_address": f"http://127.0.0.1:{ports.management}",
        "metrics_address": f"http://127.0.0.1:{ports.metrics}",
        # gRPC cannot be turned off and is not offered: it stays on loopback ports nobody is told
        "grpc_inference_address": "127.0.0.1",
        "grpc_management_address": "127.0.0.1",
        "grpc_inference_port": grpc_ports[0],
        "grpc_management_port": grpc_ports[1],
        "model_store": store,
        # an archive is code: only what was verified into the private store may ever be loaded
        "allowed_urls": f"file://{re.escape(str(store))}/.*".replace("\\", "\\\\"),  # properties eat one backslash
        "enable_model_api": "true",
        "install_py_dep_per_model": "false",
        "enable_envvars_config": "false",
        # token mode answers 400 on /ping and renews keys hourly; who may ask is decided in front of the router
        "disable_token_authorization": "true",
        # handlers get bytes and parse them faster than the front end's default
        "decode_input_request": "false",
        "disable_system_metrics": "true",
        "metrics_mode": "prometheus",
        "job_queue_size": queue_size,
        "default_response_timeout": response_timeout_s,
        # above what the router lets through: TorchServe refuses by a 413 without a body, the router with a reason
        "max_request_size": MAX_MESSAGE_BYTES,
        "max_response_size": MAX_MESSAGE_BYTES,
        # a version's workers take the visible GPUs in turns; without devices nothing is said, for users' own handlers
        **({"number_of_gpu": len(devices)} if devices else {}),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def log_configuration(*, front: Path, workers: Path) -> str:
    """log4j2.xml: the front end's warnings to one file; what workers print, at INFO, to another.

    A worker's traceback arrives as MODEL_LOG lines at INFO: with that logger at WARN it would be lost.
    """
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
{_rolling("front", front, "%d{ISO8601} %-5p %c{1} %m%n")}
{_rolling("workers", workers, "%d{ISO8601} %-5p %t %m%n")}
  </Appenders>
  <Loggers>
    <Logger name="MODEL_LOG" level="info" additivity="false"><AppenderRef ref="workers"/></Logger>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="io.netty" level="error"/>
    <Logger name="org.apache" level="off"/>
    <Root level="warn"><AppenderRef ref="front"/></Root>
  </Loggers>
</Configuration>
"""


def _rolling(name: str, file: Path, pattern: str) -> str:
    """An appender of 20 MB a file, three old ones kept; `.1` is the newest of them, as who follows the file expects."""
    path = escape(str(file), {'"': "&quot;"})
    return f"""    <RollingFile name="{name}" fileName="{path}" filePattern="{path}.%i">
      <PatternLayout pattern="{pattern}"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="3" fileIndex="min"/>
    </RollingFile>"""


def command(
    *,
    java: Path,
    site: Path,
    python: Path,
    work: Path,
    store: Path,
    class_path: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[str]:
    """The JVM itself, without the `torchserve` wrapper: SIGTERM to the wrapper would orphan the JVM."""
    return [
        str(java),
        *VMARGS,
        *options,
        f"-Dmodel_server_home={site}",
        f"-Dlog4j.configurationFile=file://{work / 'log4j2.xml'}",
        f"-Djava.io.tmpdir={work / 'temp'}",
        "-cp",
        ":".join(class_path or (f"{site}/ts/frontend/*",)),
        "org.pytorch.serve.ModelServer",
        "--python",
        str(python),
        "-f",
        str(work / "config.properties"),
        "-s",
        str(store),
        "-ncs",  # config snapshots would restore old addresses: the desired state is ours
    ]


def environment(
    base: Mapping[str, str],
    *,
    work: Path,
    threads: int,
    response_timeout_s: int,
    devices: Sequence[int] = (),
    memory_share: float | None = None,
) -> dict[str, str]:
    """The JVM's environment, which its workers inherit.

    Variables that would override our settings from outside are left out.
    """
    visible = ",".join(map(str, devices))
    gpus = {"CUDA_VISIBLE_DEVICES": visible, "EMBERLINE_DEVICES": visible} if devices else {}
    if memory_share is not None:
        gpus["EMBERLINE_DEVICE_MEMORY_SHARE"] = str(memory_share)
    kept = {k: v for k, v in base.items() if not k.startswith("TS_") and k not in ("LOG_LOCATION", "METRICS_LOCATION")}
    return {
        **kept,
        "TEMP": str(work / "temp"),  # pid file and worker sockets: one folder an instance, or instances collide
        "TMPDIR": str(work / "temp"),
        "LOG_LOCATION": str(work / "logs"),
        "METRICS_LOCATION": str(work / "logs"),
        "PATH": os.pathsep.join(p for p in (kept.get("PATH", ""),) if p) or os.defpath,
        # one thread a worker: workers, not threads, fill the cores
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "EMBERLINE_THREADS": str(threads),
        "EMBERLINE_RESPONSE_TIMEOUT_S": str(response_timeout_s),
        **gpus,
    }
