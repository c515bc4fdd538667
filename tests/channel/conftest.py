"""Makes the tests importable as ``tests.channel``, for ``pytest`` as well as ``python -m pytest``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
pytest.register_assert_rewrite("tests.channel.conformance", "tests.channel.support")
