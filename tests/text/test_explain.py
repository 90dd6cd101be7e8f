"""`alchemy sanitize`: what would be masked and why, never the value."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from alchemy.cli import app
from alchemy.text.explain import explain
from alchemy.text.sanitize import Sanitizer

SANITIZER = Sanitizer(b"salt of the tests")
TEXT = """first line
write to jane@example.com and password=hunter2x
-----BEGIN RSA PRIVATE KEY-----
aB3dE5gH7jK9mN1p
-----END RSA PRIVATE KEY-----
host 10.24.20.77
data: cGFzc3dvcmQ9VHIwdWI0ZG9yMw==
"""


def test_every_value_is_told_with_its_line_kind_and_rule_also_after_a_block_of_lines():
    told = [(one.line, one.kind, one.rule, one.encoded) for one in explain(TEXT, SANITIZER)]
    assert told == [
        (2, "EMAIL", "email", False),
        (2, "SECRET", "assignment", False),
        (3, "PRIVATE_KEY", "private-key-block", False),
        (6, "IP", "ipv4", False),
        (7, "SECRET", "assignment", True),
    ]


def test_a_sample_shows_the_surroundings_as_they_are_published():
    sample = explain(TEXT, SANITIZER)[0].sample
    assert sample.startswith(f"write to {SANITIZER.pseudonym('EMAIL', 'jane@example.com')} and password=")
    samples = "".join(one.sample for one in explain(TEXT, SANITIZER))
    assert not any(value in samples for value in ("jane", "hunter2x", "aB3dE5", "10.24", "cGFz"))


@pytest.mark.usefixtures("_plain_settings")
def test_the_command_prints_json_and_says_what_it_cannot_read(tmp_path: Path):
    file = tmp_path / "a.log"
    file.write_text(TEXT)
    result = CliRunner().invoke(app, ["sanitize", str(file), "--json"])
    assert result.exit_code == 0
    assert [row["line"] for row in orjson.loads(result.stdout)] == [2, 2, 3, 6, 7]
    assert "email" in CliRunner().invoke(app, ["sanitize", str(file)]).stdout
    file.write_text("nothing here")
    assert orjson.loads(CliRunner().invoke(app, ["sanitize", str(file), "--json"]).stdout) == []
    file.write_bytes(bytes(range(32)) * 40)
    refused = CliRunner().invoke(app, ["sanitize", str(file)])
    assert (refused.exit_code, "is not a text" in refused.output) == (1, True)
    assert CliRunner().invoke(app, ["sanitize", str(tmp_path / "gone")]).exit_code == 1


@pytest.fixture
def _plain_settings(monkeypatch, tmp_path):
    from alchemy import settings

    monkeypatch.chdir(tmp_path)
    settings.load_settings.cache_clear()
    yield
    settings.load_settings.cache_clear()
