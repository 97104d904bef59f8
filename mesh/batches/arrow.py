"""pyarrow, where it is installed: an extra. It brings no types, so that what it makes is named here.

Raises, when imported: SetupError where pyarrow is missing.
"""

from __future__ import annotations

from typing import Any

from mesh.errors import SetupError

try:
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet
except ImportError as error:  # pragma: no cover - it is there wherever tests run
    raise SetupError("batches need pyarrow: pip install 'inference-mesh[batch]'") from error

__all__ = ["Batch", "Column", "Schema", "Type", "compute", "csv", "json", "pa", "parquet"]

pa: Any = pyarrow
compute: Any = pyarrow.compute
csv: Any = pyarrow.csv
json: Any = pyarrow.json
parquet: Any = pyarrow.parquet

Batch = Any
"""A `pyarrow.RecordBatch`: some rows."""
Column = Any
"""A `pyarrow.Array`: one column of some rows."""
Schema = Any
"""A `pyarrow.Schema`: names and types of columns."""
Type = Any
"""A `pyarrow.DataType`."""
