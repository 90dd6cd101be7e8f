# Everything runs in .venv; nothing needs installing by hand but Python 3.11+ (Java 17+ only for Spark).

PYTHON ?= python3
RAW ?=
EXIT ?=

.PHONY: demo test browser lint serve clean

demo: .venv/.installed
	.venv/bin/alchemy demo $(if $(RAW),--raw '$(RAW)') $(if $(EXIT),--exit)

test: .venv/.installed browser
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/alchemy models pull
	.venv/bin/pytest

# What no Python package brings: Chromium for the page, promtool for the alerts. Their tests skip without.
browser:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && ! { command -v chromium && command -v promtool; } >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium prometheus fonts-noto-cjk >/dev/null; \
	fi

lint: .venv/.installed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/mypy

serve: .venv/.installed
	.venv/bin/alchemy serve

# Generated things only: the raw data and what was made of it stay in data/.
clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Without the constraints pip looks for a working set for a quarter of an hour.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@
