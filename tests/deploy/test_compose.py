"""docker-compose.yml: valid, hardened, and consistent with the files it mounts. There is no docker here: it is read, not run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.integration.servers import free_port, missing
from workers.broker import check_access, connect, require_no_eviction, wait_for
from workers.cli import app
from workers.embedded import server_binary
from workers.errors import BrokerUnavailableError
from workers.settings import load_settings
from workers.signatures import secret_bytes
from workers.web.auth import parse_keys

ONE_SHOT = {"migrate", "objects-volume"}
WITHOUT_A_SHELL = {"broker-exporter"}
BROKER_USERS = ["producer", "api", "ingest", "janitor", "worker", "exporter"]
OURS = {"api", "ingest", "janitor", "worker", "worker-gpu", "migrate"}


@pytest.fixture(scope="module")
def compose(deploy):
    return yaml.safe_load((deploy.parent / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def services(compose):
    return compose["services"]


@pytest.fixture(scope="module")
def made_secrets(deploy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    for _again in range(2):  # what is there stays
        subprocess.run(["sh", str(deploy / "make_secrets.sh"), str(folder)], check=True, capture_output=True, timeout=20)
        first = {path.name: path.read_text() for path in folder.iterdir()}
    return folder, first


def test_secrets_of_a_broker_with_one_password_give_way(deploy, tmp_path):
    (tmp_path / "broker_exporter").write_text('{"redis://broker:6379": "old"}')
    (tmp_path / "ledger_password").write_text("mine")
    subprocess.run(["sh", str(deploy / "make_secrets.sh"), str(tmp_path)], check=True, capture_output=True, timeout=20)
    assert "old" not in (tmp_path / "broker_exporter").read_text()
    assert (tmp_path / "ledger_password").read_text() == "mine"


def test_compose_fits_its_specification(accepts):
    accepts("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_the_parts_are_there(services):
    assert OURS | {"broker", "ledger", "objects", "prometheus", "grafana", "alertmanager"} <= set(services)
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_every_container_is_hardened(services):
    for name, service in services.items():
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), f"{name} must not run as root"
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name
        assert service["pids_limit"] > 0, name
        assert service["stop_grace_period"] == "60s", name
        assert not {"privileged", "network_mode", "pid", "ipc", "userns_mode"} & set(service), name
        assert not any("docker.sock" in str(volume) for volume in service.get("volumes", [])), name


def test_every_container_has_a_healthcheck_unless_it_ends_or_cannot(services):
    for name, service in services.items():
        disabled = service["healthcheck"].get("disable", False)
        assert disabled == (name in ONE_SHOT | WITHOUT_A_SHELL), name


def test_ports_are_open_on_this_machine_only(services):
    open_ports = [port for service in services.values() for port in service.get("ports", [])]
    assert open_ports
    for port in open_ports:
        assert port.startswith("127.0.0.1:"), port


def test_images_have_exact_tags(services):
    for name, service in services.items():
        image, _, tag = service["image"].partition(":")
        assert tag, name
        assert tag != "latest", name
        if image != "veriframe":
            assert re.search(r"\d+\.\d+", tag), f"{name}: {tag} moves"


def test_no_secret_is_written_in_the_file(services, compose):
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEYS|LEDGER_URL|BROKER_URL|CREDENTIALS", variable):
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"
                assert str(value).removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable} is not mounted"
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name


def test_secrets_are_made_once_and_fit_each_other(compose, made_secrets, monkeypatch):
    folder, texts = made_secrets
    assert {path.name: path.read_text() for path in folder.iterdir()} == texts
    assert set(compose["secrets"]) <= set(texts)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert texts["ledger_password"] in texts["ledger_url"]
    for role in BROKER_USERS:
        assert texts[f"broker_url_{role}"] == f"redis://{role}:{texts[f'broker_password_{role}']}@broker:6379/0"
    assert len({texts[f"broker_password_{role}"] for role in BROKER_USERS}) == len(BROKER_USERS)
    assert re.findall(r"^user (\w+) on ", texts["broker_users"], flags=re.MULTILINE) == BROKER_USERS
    assert "SHA256" not in texts["broker_users"], "a user of broker/users.acl that make_secrets.sh gives no password"
    assert not any(texts[f"broker_password_{role}"] in texts["broker_users"] for role in BROKER_USERS)
    assert json.loads(texts["broker_exporter"]) == {"redis://exporter@broker:6379": texts["broker_password_exporter"]}
    access = re.search(r"aws_access_key_id = (\w+)", texts["s3_credentials"])
    assert json.loads(texts["s3_config"])["identities"][0]["credentials"][0]["accessKey"] == access[1]

    monkeypatch.setenv("VERIFRAME_API_KEYS", texts["api_keys"])
    (key,) = parse_keys(load_settings().api_keys)
    assert key.digest == hashlib.sha256(texts["api_key"].encode()).hexdigest()
    assert len(secret_bytes(texts["webhook_secret"])) >= 24, "Standard Webhooks asks for 24 to 64 bytes"


def test_each_part_is_its_own_user_of_the_broker(services):
    for part, user in {"api": "api", "ingest": "ingest", "janitor": "janitor", "worker": "worker", "worker-gpu": "worker"}.items():
        mounted = {secret for secret in services[part]["secrets"] if secret.startswith("broker")}
        assert mounted == {f"broker_url_{user}"}, part
        environment = services[part]["environment"]
        assert environment["VERIFRAME_BROKER_URL_FILE"] == f"/run/secrets/broker_url_{user}"
        assert environment["VERIFRAME_BROKER_STRICT"] == "true"
        assert services[part]["networks"] == ["inside"] or part in ("api", "janitor"), part
    exporter = services["broker-exporter"]
    assert exporter["environment"]["REDIS_ADDR"] == "redis://exporter@broker:6379"
    assert exporter["environment"]["REDIS_USER"] == "exporter"
    assert exporter["secrets"] == ["broker_exporter"]


def test_the_broker_is_durable_and_never_evicts(services):
    command = " ".join(services["broker"]["command"])
    assert "--appendonly yes" in command
    assert "--requirepass" not in command, "one password for all; the users are in broker/users.acl"
    assert "--maxmemory-policy noeviction" in command
    limit = {"m": 1, "g": 1024}
    (used,) = re.findall(r"--maxmemory (\d+)mb", command)
    allowed = services["broker"]["mem_limit"]
    assert int(used) <= 0.8 * int(allowed[:-1]) * limit[allowed[-1]], "AOF rewrites copy pages: leave room"


def test_commands_exist(services):
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    for name in OURS:
        program, command = services[name]["command"]
        assert program == "veriframe"
        assert command in commands


def test_workers_end_before_they_are_killed(services, deploy):
    assert load_settings().exit_seconds < int(services["worker"]["stop_grace_period"].removesuffix("s"))
    for name in ("worker", "worker-gpu"):
        own = int(services[name]["environment"]["VERIFRAME_MEMORY_LIMIT_BYTES"])
        assert own < 0.9 * int(services[name]["mem_limit"].removesuffix("g")) * 2**30


def test_prometheus_scrapes_services_that_exist(services, deploy):
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for part in ("api", "ingest", "janitor", "worker"):
        (found,) = jobs[f"veriframe-{part}"]["dns_sd_configs"]
        assert set(found["names"]) <= set(services)
        assert part in found["names"]
        port = 8080 if part == "api" else int(services[part]["environment"]["VERIFRAME_METRICS_PORT"])
        assert found["port"] == port


def test_who_judges_and_who_shows_videos_reads_the_same_stores(services):
    for part in ("api", "worker", "worker-gpu"):
        environment, volumes = services[part]["environment"], services[part]["volumes"]
        assert environment["AWS_SHARED_CREDENTIALS_FILE"] == "/run/secrets/s3_credentials", part
        assert environment["AWS_ENDPOINT_URL_S3"].endswith("http://objects:8333}"), part
        assert [volume for volume in volumes if volume.endswith(":/media:ro")], part
        assert "/scratch" in volumes, "copies go to a disk, not to the memory of a tmpfs"
    assert "s3_credentials" not in services["ingest"]["secrets"] + services["janitor"]["secrets"]


def test_what_is_mounted_is_there(services, deploy):
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else volume["source"]
            if source.startswith("./"):
                assert (deploy.parent / source).exists(), source


def test_grafana_finds_the_board_and_its_source(services, deploy):
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"] if volume.startswith("./")]
    (provider,) = yaml.safe_load((deploy / "grafana/provisioning/dashboards/veriframe.yml").read_text())["providers"]
    assert provider["options"]["path"] in mounted
    (source,) = yaml.safe_load((deploy / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"]


def is_healthy(test, folder, *, port):
    """The health check of the file, with the client of this machine."""
    client = shutil.which("valkey-cli") or shutil.which("redis-cli")
    if client is None:
        missing("redis-server")
    _cmd, shell, flag, command = test
    for there, here in (("$$", "$"), ("valkey-cli", f"{client} -p {port}"), ("/run/secrets", str(folder))):
        assert there in command
        command = command.replace(there, here)
    return subprocess.run([shell, flag, command], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.integration
def test_the_brokers_command_line_gives_a_durable_broker_with_a_user_per_part(services, made_secrets, tmp_path):
    """The command of the file, run on the Valkey server of the embedded broker."""
    folder, texts = made_secrets
    (tmp_path / "data").mkdir()
    port = free_port()
    there = {
        "valkey-server": str(server_binary()),
        "/data": str(tmp_path / "data"),
        "/run/secrets/broker_users": str(folder / "broker_users"),
    }
    assert set(there) <= set(services["broker"]["command"])
    command = [there.get(part, part) for part in services["broker"]["command"]]
    with (tmp_path / "log").open("wb") as log:
        broker = subprocess.Popen([*command, "--port", str(port), "--bind", "127.0.0.1"], stdout=log, stderr=log)
    try:
        url = texts["broker_url_api"].replace("@broker:6379", f"@127.0.0.1:{port}")
        client = connect(url)
        wait_for(client, seconds=15)
        require_no_eviction(client)
        facts = client.info()
        assert facts["aof_enabled"] == 1
        assert facts["maxmemory"] == 768 * 2**20
        check_access(client, url.replace("127.0.0.1", "broker"), strict=True, is_private=True)
        client.close()
        assert is_healthy(services["broker"]["healthcheck"]["test"], folder, port=port)
        assert not is_healthy(services["broker"]["healthcheck"]["test"], folder, port=free_port())
        with pytest.raises(BrokerUnavailableError):
            wait_for(connect(f"redis://127.0.0.1:{port}/0"), seconds=0.1)
    finally:
        broker.terminate()
        broker.wait(timeout=10)
