"""docker-compose.yaml against the Compose schema, against Airflow as it is installed, and against our own code."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from check_jsonschema import builtin_schemas

from clip_courier.settings import credentials_from, load_settings

PROJECT = Path(__file__).resolve().parents[1]
COMPOSE = (PROJECT / "docker-compose.yaml").read_text(encoding="utf-8")
EXAMPLE = (PROJECT / ".env.example").read_text(encoding="utf-8")

# contracts §7
OUR_VARIABLES = {
    "CLIP_COURIER_ROOT",
    "CLIP_COURIER_LANDING",
    "CLIP_COURIER_VENDORS",
    "CLIP_COURIER_POLICY",
    "CLIP_COURIER_LEDGER",
}
OUR_CONNECTIONS = {"clip_courier_pgp", "clip_courier_pseudonyms", "clip_courier_sampling"}
# What each service listens on inside the networks: the defaults of their programs, which nothing here changes.
LISTENING = {("postgres", 5432), ("redis", 6379), ("airflow-apiserver", 8080), ("sftp", 22)}

PARSE_COMMANDS = """
import json, sys
from airflow.cli import cli_parser
refused = []
for words in json.load(sys.stdin):
    try:
        cli_parser.get_parser().parse_args(words)
    except SystemExit:
        refused.append(words)
json.dump(refused, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


@pytest.fixture(scope="module")
def airflow_services(services: dict[str, Any]) -> dict[str, Any]:
    chosen = {
        name: service for name, service in services.items() if service.get("image", "").startswith("clip-courier")
    }
    assert len(chosen) >= 6
    return chosen


@pytest.fixture(scope="module")
def make_env() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_env", PROJECT / "deploy" / "make_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def env(make_env: ModuleType) -> dict[str, str]:
    """What `make deploy-env` writes, as Compose reads it."""
    lines = [line.split("=", 1) for line in make_env.fill(EXAMPLE).splitlines() if line and not line.startswith("#")]
    return {name: value.strip("'") for name, value in lines}


@pytest.fixture(scope="module")
def environment(services: dict[str, Any], env: dict[str, str]) -> dict[str, dict[str, str]]:
    """Service → its environment, with the variables filled in."""
    return {
        name: {key: interpolate(str(value), env) for key, value in service.get("environment", {}).items()}
        for name, service in services.items()
    }


def interpolate(text: str, env: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: env[match[1]], text)


def words_of(command: str | list[str]) -> list[str]:
    return command.split() if isinstance(command, str) else list(command)


def names_in_example() -> set[str]:
    return set(re.findall(r"^(\w+)=", EXAMPLE, re.MULTILINE))


# -- against the schema ----------------------------------------------------------------------------------------------


def test_compose_matches_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = builtin_schemas.get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose)] == []


def test_compose_schema_refuses_a_key_that_it_does_not_know(compose: dict[str, Any]) -> None:
    schema = builtin_schemas.get_builtin_schema("vendor.compose-spec")
    validator = jsonschema.validators.validator_for(schema)(schema)
    broken = {**compose, "services": {**compose["services"], "redis": {"imagee": "redis"}}}
    assert not validator.is_valid(broken)


# -- secrets ---------------------------------------------------------------------------------------------------------


def test_every_variable_is_required_with_a_message() -> None:
    without_comments = re.sub(r"^\s*#.*$", "", COMPOSE, flags=re.MULTILINE)
    used = re.findall(r"(?<!\$)\$\{?(\w+)(:\?[^}]+)?", without_comments)
    assert used
    assert [name for name, message in used if not message] == []


def test_env_example_names_every_variable_and_no_other() -> None:
    assert names_in_example() == set(re.findall(r"\$\{(\w+):\?", COMPOSE))


def test_env_example_holds_no_secret() -> None:
    filled = re.findall(r"^(\w+)=(.+)$", EXAMPLE, re.MULTILINE)
    assert [name for name, _ in filled] == ["LANDING_FOLDER", "VENDORS_FOLDER"]


def test_compose_itself_holds_no_secret(services: dict[str, Any]) -> None:
    secret = re.compile(r"PASSWORD|SECRET|FERNET|_CONN_|HOST_KEY|REDISCLI_AUTH|BROKER_URL|RESULT_BACKEND|LEDGER$")
    plain = [
        f"{name}: {key}"
        for name, service in services.items()
        for key, value in service.get("environment", {}).items()
        if secret.search(key) and not key.endswith("_FILE") and "${" not in str(value)
    ]
    assert plain == []


def test_make_env_fills_every_variable(env: dict[str, str]) -> None:
    assert set(env) == names_in_example()
    assert all(env.values())
    assert not any("'" in value for value in env.values())


def test_make_env_leaves_an_existing_file_alone(make_env: ModuleType, tmp_path: Path) -> None:
    target = tmp_path / ".env"
    target.write_text("KEPT=1\n")
    assert make_env.main(target, tmp_path / "stand-in") == 0
    assert target.read_text() == "KEPT=1\n"
    assert not (tmp_path / "stand-in").exists()


def test_make_env_makes_all_that_a_night_needs(make_env: ModuleType, tmp_path: Path) -> None:
    assert make_env.main(tmp_path / ".env", tmp_path / "stand-in") == 0
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert any((tmp_path / "stand-in" / "landing" / "clips").iterdir())
    vendors = load_settings({"CLIP_COURIER_VENDORS": str(tmp_path / "stand-in" / "vendors")}).vendors()
    assert sorted(vendors) == sorted(make_env.vendors_in(EXAMPLE))
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "stand-in").glob("*.private.asc")] == [0o600] * 2


def test_env_is_neither_committed_nor_built_into_the_image() -> None:
    assert ".env" in (PROJECT / ".gitignore").read_text().splitlines()
    assert (PROJECT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_secrets_of_one_service_are_not_given_to_another(environment: dict[str, dict[str, str]]) -> None:
    holders = {
        name for name, variables in environment.items() if any(key.startswith("AIRFLOW_CONN_") for key in variables)
    }
    assert holders == {"airflow-worker", "clip-courier"}


# -- against Airflow -------------------------------------------------------------------------------------------------


def known_options() -> set[tuple[str, str]]:
    """Section and key of all that Airflow and the Celery provider can be told, read without importing Airflow."""
    spec = importlib.util.find_spec("airflow")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    config = yaml.safe_load((package / "config_templates" / "config.yml").read_text(encoding="utf-8"))
    info = importlib.util.spec_from_file_location("info", package / "providers" / "celery" / "get_provider_info.py")
    assert info is not None
    assert info.loader is not None
    module = importlib.util.module_from_spec(info)
    info.loader.exec_module(module)
    config |= module.get_provider_info()["config"]
    return {(section, key) for section, content in config.items() for key in content["options"]}


def test_every_airflow_variable_is_an_option_of_airflow(environment: dict[str, dict[str, str]]) -> None:
    known = known_options()
    keys = {key for variables in environment.values() for key in variables if key.startswith("AIRFLOW__")}
    assert len(keys) > 10
    assert [key for key in keys if tuple(key.lower().split("__")[1:]) not in known] == []


def test_every_command_is_one_of_airflow(services: dict[str, Any], tmp_path: Path) -> None:
    commands = [words_of(service["command"]) for name, service in services.items() if name.startswith("airflow-")]
    checks = [words_of(service["healthcheck"]["test"])[1:] for service in services.values() if "healthcheck" in service]
    scripts = [line.split() for line in (PROJECT / "deploy/airflow/init").read_text().splitlines()]
    commands += [words_of(words[0])[1:] for words in checks if words[0].startswith("airflow ")]
    commands += [
        [*words[1:4], "1", "text"] if words[1] == "pools" else words[1:]
        for words in scripts
        if words[:1] == ["airflow"]
    ]
    by_airflow = [words for words in commands if words[0] != "bash"]
    assert ["api-server"] in by_airflow
    assert ["db", "migrate"] in by_airflow
    refused = tmp_path / "refused.json"
    home = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    subprocess.run(
        [sys.executable, "-c", PARSE_COMMANDS, str(refused)],
        input=json.dumps(by_airflow), text=True, env=home, check=True, capture_output=True,
    )  # fmt: skip
    assert json.loads(refused.read_text()) == []


def test_all_of_airflow_shares_its_keys(
    airflow_services: dict[str, Any], environment: dict[str, dict[str, str]]
) -> None:
    for key in (
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__API_AUTH__JWT_ISSUER",
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CELERY__BROKER_URL",
        "AIRFLOW__CELERY__RESULT_BACKEND",
    ):
        assert len({environment[name][key] for name in airflow_services}) == 1, key


def test_the_image_is_the_airflow_that_is_tested() -> None:
    pinned = re.search(r"^apache-airflow==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    base = re.search(
        r"^FROM apache/airflow:slim-(\S+)-python3\.11$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE
    )
    assert pinned is not None
    assert base is not None
    assert base[1] == pinned[1]


def test_the_two_locks_of_the_image_pin_no_package_twice() -> None:
    names = [
        set(re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==", (PROJECT / file).read_text(), re.MULTILINE))
        for file in ("requirements.txt", "deploy/requirements.txt")
    ]
    assert names[1]
    assert names[0] & names[1] == set()


# -- against the repository ------------------------------------------------------------------------------------------


def test_every_host_path_exists(compose: dict[str, Any]) -> None:
    missing = []
    for name, service in compose["services"].items():
        if "build" in service and not (PROJECT / service["build"] / "Dockerfile").is_file():
            missing.append(f"{name}: build {service['build']}")
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("."):
                missing += [] if (PROJECT / source).exists() else [f"{name}: {source}"]
            elif not source.startswith(("${LANDING_FOLDER:?", "${VENDORS_FOLDER:?")):
                missing += [] if source in compose["volumes"] else [f"{name}: volume {source}"]
    assert missing == []


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "deploy/sftp/Dockerfile"])
def test_every_file_that_an_image_copies_exists(dockerfile: str) -> None:
    path = PROJECT / dockerfile
    copied = re.findall(r"^COPY (?:--\S+ )?(\S+) \S+$", path.read_text(), re.MULTILINE)
    assert copied
    assert [source for source in copied if not (path.parent / source).exists()] == []


def test_the_image_context_holds_what_the_image_copies() -> None:
    allowed = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (?:--\S+ )?(\S+) \S+$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE))
    assert copied == allowed


def test_every_variable_of_ours_is_in_the_contract(environment: dict[str, dict[str, str]]) -> None:
    ours = {key for variables in environment.values() for key in variables if key.startswith("CLIP_COURIER_")}
    assert ours
    assert ours <= OUR_VARIABLES


def test_our_paths_lie_on_volumes(services: dict[str, Any], environment: dict[str, dict[str, str]]) -> None:
    targets = [
        volume["target"] if isinstance(volume, dict) else volume for volume in services["airflow-worker"]["volumes"]
    ]
    assert environment["airflow-worker"]["CLIP_COURIER_LANDING"] in targets
    assert environment["airflow-worker"]["CLIP_COURIER_VENDORS"] in targets
    assert f"courier:{environment['airflow-worker']['CLIP_COURIER_ROOT']}" in targets


def test_what_others_write_is_read_only(services: dict[str, Any]) -> None:
    mounts = [mount for s in services.values() for mount in s.get("volumes", []) if isinstance(mount, dict)]
    assert {mount["target"] for mount in mounts} == {"/opt/airflow/landing", "/opt/airflow/vendors"}
    assert all(mount["read_only"] for mount in mounts)


def test_every_connection_is_one_that_the_contract_names(environment: dict[str, dict[str, str]]) -> None:
    given = {
        key.removeprefix("AIRFLOW_CONN_").lower()
        for variables in environment.values()
        for key in variables
        if key.startswith("AIRFLOW_CONN_")
    }
    of_vendors = given - OUR_CONNECTIONS
    assert given >= OUR_CONNECTIONS
    assert all(re.fullmatch(r"sftp_[a-z][a-z0-9_]*", conn_id) for conn_id in of_vendors)
    assert {vendor.sftp_conn_id for vendor in load_settings({}).vendors().values()} <= of_vendors


def test_every_connection_can_be_read(environment: dict[str, dict[str, str]]) -> None:
    worker = environment["airflow-worker"]
    for key in (key for key in worker if key.startswith("AIRFLOW_CONN_")):
        connection = credentials_from(worker, key.removeprefix("AIRFLOW_CONN_").lower())
        assert connection.extra or connection.password


def test_every_host_that_is_named_is_a_service(
    services: dict[str, Any], environment: dict[str, dict[str, str]]
) -> None:
    values = {value for variables in environment.values() for value in variables.values() if "://" in value}
    named = {(url.hostname, url.port) for url in map(urlsplit, values)}
    worker = environment["airflow-worker"]
    connections = [json.loads(value) for key, value in worker.items() if key.startswith("AIRFLOW_CONN_SFTP_")]
    named |= {(connection["host"], connection["port"]) for connection in connections}
    assert {name for name, _ in LISTENING} <= set(services)
    assert named == LISTENING


def test_services_that_speak_share_a_network(services: dict[str, Any]) -> None:
    worker = set(services["airflow-worker"]["networks"])
    assert all(worker & set(services[name]["networks"]) for name, _ in LISTENING)


def test_nothing_is_open_to_the_world(services: dict[str, Any]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"airflow-apiserver": ["127.0.0.1:8080:8080"]}


def test_pools_that_are_made_are_the_pools_that_are_used() -> None:
    made = set(
        re.findall(r"^airflow pools set (\w+) \d+ ", (PROJECT / "deploy/airflow/init").read_text(), re.MULTILINE)
    )
    dags = "\n".join(path.read_text(encoding="utf-8") for path in (PROJECT / "dags").glob("*.py"))
    used = set(re.findall(r"""\bpool["']?\s*[=:]\s*["'](\w+)["']""", dags))
    assert made
    assert used == made


def scripts() -> list[Path]:
    files = [*(PROJECT / "deploy").rglob("*"), PROJECT / "bin/bootstrap", PROJECT / ".ci/run"]
    return [file for file in files if file.is_file() and file.read_bytes()[:2] == b"#!"]


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)
def test_scripts_are_executable_and_have_no_syntax_error(script: Path) -> None:
    shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
    assert os.access(script, os.X_OK)
    checked = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_sshd_accepts_the_configuration_of_the_stand_in(tmp_path: Path) -> None:
    key = tmp_path / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    config = (PROJECT / "deploy/sftp/sshd_config").read_text().replace("/etc/ssh/host_key", str(key))
    (tmp_path / "sshd_config").write_text(config)
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    assert sshd is not None, "install OpenSSH's server (Debian: apt-get install openssh-server)"
    checked = subprocess.run([sshd, "-t", "-f", tmp_path / "sshd_config"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
