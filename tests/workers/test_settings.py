"""Settings come from VERIFRAME_* and nowhere else, and survive the trip to a child process."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import workers
from workers.broker import connect
from workers.errors import SettingsError
from workers.settings import Settings, base_environment, load_settings


def test_environment_wins_over_defaults_and_options_over_both(monkeypatch):
    monkeypatch.setenv("VERIFRAME_CONCURRENCY", "7")
    monkeypatch.setenv("VERIFRAME_MEDIA_ROOTS", '["/a", "/b"]')
    assert load_settings().concurrency == 7
    assert load_settings().media_roots == (Path("/a"), Path("/b"))
    assert load_settings(concurrency=3).concurrency == 3
    assert load_settings(concurrency=None).concurrency == 7


def test_settings_survive_the_trip_through_an_environment(monkeypatch, tmp_path):
    original = Settings(state_dir=tmp_path, webhook_secret="whsec_" + "a" * 40, http_allowed_hosts=("a.example",), lease_seconds=5.5)
    for name, value in original.as_environment().items():
        monkeypatch.setenv(name, value)
    again = load_settings()
    assert again == original
    assert again.webhook_secret.get_secret_value() == "whsec_" + "a" * 40


def test_secrets_do_not_print():
    assert "hunter2" not in repr(Settings(webhook_secret="hunter2"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VERIFRAME_CONCURRENCY", "0"),
        ("VERIFRAME_CONCURRENCY", "many"),
        ("VERIFRAME_MEDIA_TEMPLATE", "/media/x.mp4"),
        ("VERIFRAME_MEDIA_TEMPLATE", "/media/{tenant}-{video_id}.mp4"),
        ("VERIFRAME_MEDIA_TEMPLATE", "/media/{video_id}/{tenant}/x.mp4"),
        ("VERIFRAME_MEDIA_TEMPLATE", "/media/{name}/{video_id}.mp4"),
        ("VERIFRAME_VIDEO_HARD_SECONDS", "1"),
        ("VERIFRAME_MEDIA_ROOTS", "/media"),
        ("VERIFRAME_EXIT_SECONDS", "1"),
        ("VERIFRAME_TRUSTED_PROXIES", '["proxy.internal"]'),
        ("VERIFRAME_TRUSTED_PROXIES", '["10.1.2.3/8"]'),
    ],
)
def test_impossible_settings_are_refused_with_a_sentence(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"correct or unset|could not be read"):
        load_settings()


def test_a_file_gives_a_variable_its_value_and_children_get_the_value(monkeypatch, tmp_path):
    (tmp_path / "url").write_text("redis://:a b'c$d@broker\n")
    (tmp_path / "keys").write_text('["admin:abc"]\n')
    monkeypatch.setenv("VERIFRAME_BROKER_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("VERIFRAME_API_KEYS_FILE", str(tmp_path / "keys"))
    read = load_settings()
    assert (read.broker_url, read.api_keys) == ("redis://:a b'c$d@broker", ("admin:abc",))
    assert read.as_environment()["VERIFRAME_BROKER_URL"] == read.broker_url
    assert load_settings(broker_url="redis://option").broker_url == "redis://option"


def test_a_file_that_cannot_be_read_or_a_value_given_twice_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VERIFRAME_BROKER_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(SettingsError, match=r"VERIFRAME_BROKER_URL_FILE names .*No such file.*mount the secret"):
        load_settings()
    (tmp_path / "url").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"not UTF-8.*mount the secret"):
        load_settings()
    (tmp_path / "url").write_text("x")
    monkeypatch.setenv("VERIFRAME_BROKER_URL", "y")
    with pytest.raises(SettingsError, match=r"both VERIFRAME_BROKER_URL and VERIFRAME_BROKER_URL_FILE .* keep one"):
        load_settings()


def test_children_get_our_variables_only_from_us(monkeypatch):
    monkeypatch.setenv("VERIFRAME_CONCURRENCY", "7")
    assert not [name for name in base_environment() if name.startswith("VERIFRAME_")]


def test_only_settings_reads_the_environment():
    package = Path(workers.__file__).parent
    readers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("environ", "getenv")
                and isinstance(node.value, ast.Name)
                and node.value.id == "os"
            ):
                readers.add(path.relative_to(package).as_posix())
    assert readers - {"demo.py", "demo_clips.py"} == {"settings.py"}


def test_an_address_of_the_broker_that_is_none_tells_no_password():
    with pytest.raises(SettingsError, match="%2F") as refused:
        connect("redis://:S3cr/et@broker:6379/0")
    assert "S3cr" not in str(refused.value)
    assert refused.value.__suppress_context__, "a trace would show the parser's own words"
