"""What docs/topology.md says of layers is what they take."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mesh.layers import LAYERS
from mesh.units import parse_duration

PAGE = (Path(__file__).parents[3] / "docs" / "topology.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Layers\n")[2].partition("\n## ")[0]
EXAMPLES = [
    (name, given)
    for block in re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    for layer in yaml.safe_load(block[block.index("      - ") :])
    for name, given in layer.items()
]


@pytest.mark.parametrize(("name", "given"), EXAMPLES, ids=repr)
def test_examples_can_be_written(name: str, given: dict[str, object]) -> None:
    LAYERS[name].model_validate(given, context={"from_file": True})


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_has_its_row_with_all_settings_and_their_defaults(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", SECTION, re.MULTILINE)
    told = dict(re.findall(r"`(\w+)`(?: \(([^)]*)\))?(?:,|$)", row))
    fields = LAYERS[name].model_fields
    assert list(told) == [field.alias or field_name for field_name, field in fields.items()]
    for field_name, field in fields.items():
        written = told[field.alias or field_name].strip("`").split("`")[0].split(" ")[0]
        if field.is_required() or field.default in (None, ()):
            assert written == ""
        elif field_name.endswith("_s"):
            assert parse_duration(written) == field.default
        elif isinstance(field.default, bool | str):
            assert written == str(field.default).lower()
        else:
            assert float(written) == field.default
