"""Make the table of rated sentences that topologies/batch.yaml goes through: `python models/make_sentences.py`.

Writes fetched/sentences.parquet (0.9 MB, not committed): `text` and `rating`, from -4 to 4, of 10,605 sentences: both
the half that models have learnt from and the one that they have not, which `test` tells apart. Needs `make setup`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentiment_texts import halves, sentences

TABLE = Path(__file__).resolve().parent / "fetched" / "sentences.parquet"


def main() -> None:
    texts, ratings = sentences()
    _, test = halves(len(texts))
    unseen = np.zeros(len(texts), bool)
    unseen[test] = True
    table = pa.table({"text": pa.array(texts, pa.string()), "rating": ratings, "test": unseen})
    TABLE.parent.mkdir(exist_ok=True)
    pq.write_table(table, TABLE)
    print(f"{TABLE.name}: {table.num_rows:,} rows, {TABLE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
