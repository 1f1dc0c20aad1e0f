"""What a person says for each of Meta-World's 50 tasks, and which ten are MT10."""

from types import MappingProxyType

from vlakit.checked import read_yaml
from vlakit.files import ASSETS

_CONTENT = read_yaml(ASSETS / "metaworld.yaml")
SENTENCES = MappingProxyType(_CONTENT["sentences"])
BENCHMARKS = MappingProxyType({"MT10": tuple(_CONTENT["mt10"]), "MT50": tuple(sorted(SENTENCES))})
