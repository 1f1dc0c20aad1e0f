"""Where the tests' inputs lie, wherever a test itself lies."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
BRIDGE = ROOT / "src/vlakit/assets/bridge_dataset/1.0.0"
