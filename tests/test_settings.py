"""Settings and the model catalog: parsed once, refused readably, secrets never shown."""

from pathlib import Path

import pytest

from alchemy.catalog import load_catalog
from alchemy.errors import BadConfig
from alchemy.settings import load_settings
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # away from a developer's .env
    for name in (
        "ALCHEMY_STORE",
        "S3_BUCKET",
        "ALCHEMY_PROFILE",
        "ALCHEMY_SALT",
        "REDIS_URL",
        "ALCHEMY_API_KEY",
        "ALCHEMY_JWT_SECRET",
        "ALCHEMY_AUTH",
        "ALCHEMY_HOST",
        "ALCHEMY_HISTORY_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    load_settings.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def _restore() -> None:
    load_settings.cache_clear()


def test_a_laptop_needs_no_settings() -> None:
    settings = load_settings()
    assert settings.profile == "dev"
    assert settings.store_url == "data"


def test_production_names_every_secret_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCHEMY_PROFILE", "production")
    monkeypatch.setenv("ALCHEMY_SALT", "pepper-and-salt")
    with pytest.raises(BadConfig) as error:
        load_settings()
    assert "ALCHEMY_API_KEY, ALCHEMY_JWT_SECRET, REDIS_URL" in str(error.value)
    assert "pepper" not in str(error.value)


PRODUCTION = {
    "ALCHEMY_PROFILE": "production",
    "ALCHEMY_SALT": "pepper-and-salt",
    "ALCHEMY_API_KEY": "an-operators-key",
    "ALCHEMY_JWT_SECRET": "a secret of at least thirty-two bytes",
    "REDIS_URL": "redis://localhost:6379/0",
}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ALCHEMY_JWT_SECRET", "short-secret", "ALCHEMY_JWT_SECRET is shorter than 32 bytes"),
        ("ALCHEMY_AUTH", "open", "refuses ALCHEMY_AUTH=open"),
        ("ALCHEMY_HISTORY_KEY", "11" * 31, "ALCHEMY_HISTORY_KEY: every key is 64 hexadecimal digits"),
        ("ALCHEMY_HISTORY_KEY", "11" * 32 + ",wrong-key", "ALCHEMY_HISTORY_KEY"),
    ],
)
def test_production_does_not_start_with_weak_secrets_and_shows_none(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    for variable, text in {**PRODUCTION, name: value}.items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(BadConfig) as error:
        load_settings()
    assert told in str(error.value)
    for secret in ("short-secret", "1111", "wrong-key", "pepper", "an-operators-key"):
        assert secret not in str(error.value)


@pytest.mark.parametrize(
    ("variables", "login"),
    [
        ({}, "open"),
        ({"ALCHEMY_HOST": "localhost"}, "open"),
        ({"ALCHEMY_HOST": "::1"}, "open"),
        ({"ALCHEMY_HOST": "0.0.0.0"}, "required"),  # noqa: S104
        ({"ALCHEMY_HOST": "192.0.2.1", "ALCHEMY_AUTH": "open"}, "open"),
        ({"ALCHEMY_API_KEY": "k"}, "required"),
        ({"ALCHEMY_JWT_SECRET": "x" * 32}, "required"),
        ({"ALCHEMY_JWT_SECRET": "x" * 32, "ALCHEMY_AUTH": "open"}, "open"),
        ({"ALCHEMY_AUTH": "required"}, "required"),
        (PRODUCTION, "required"),
    ],
)
def test_only_a_laptop_that_talks_to_itself_asks_nobody_who_they_are(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], login: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings().login == login


def test_a_wrong_value_is_named_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCHEMY_CHUNK__TARGET_TOKENS", "2")
    with pytest.raises(BadConfig, match=r"chunk\.target_tokens.*32"):
        load_settings()


def test_the_bucket_of_the_contract_is_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_BUCKET", "lora-data")
    assert load_settings().store_url == "s3://lora-data"


def test_the_shipped_catalog_is_offline_and_has_the_contracts_adapter() -> None:
    catalog = load_catalog(ROOT / "models.yaml")
    assert (catalog.model_c.lora.r, catalog.model_c.lora.alpha) == (16, 32)
    assert not catalog.model_a.uses_llm
    assert not catalog.model_d.uses_llm
    assert catalog.model_d.temperature == 0.3


def test_variables_expand_and_a_key_turns_the_model_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-secret")
    catalog = load_catalog(ROOT / "models.yaml")
    assert catalog.model_a.uses_llm
    assert "sk-secret" not in repr(catalog)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model_a: [", "not YAML"),
        ("- a", "must be a mapping"),
        ("model_a: {model_id: ${NOT_SET_ANYWHERE}}", "NOT_SET_ANYWHERE"),
        ("model_a: {model_id: x, typo: 1}", "model_a.typo"),
        ("model_c: {model_id: x, lora: {r: 0}}", "model_c.lora.r"),
        ("adapters: {support: {sources: [sap]}}", "adapters.support.sources"),
    ],
)
def test_a_wrong_catalog_says_where(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(BadConfig) as error:
        load_catalog(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_catalog_says_which_variable_points_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="ALCHEMY_CATALOG"):
        load_catalog(tmp_path / "none.yaml")
