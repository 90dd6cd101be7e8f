"""The code location: `dagster dev -m dagster_project.definitions`. It wires; what exists is in `assets`."""

from alchemy.settings import load_settings
from dagster_project.build import build_definitions

defs = build_definitions(load_settings())
