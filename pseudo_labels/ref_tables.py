"""Rows of a pool as columns: a few hundred bytes each in place of a thousand as objects, which are made on demand."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import pyarrow as pa

from pseudo_labels.records import ImageRef, Status

ROWS_AT_ONCE = 10_000
"""Rows that exist as objects at a time."""
_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), Status: pa.string()}
SCHEMA = pa.schema([(field.name, _TYPES[field.type]) for field in fields(ImageRef)])
"""Columns in the order of the fields of ``ImageRef``."""
REGION = "region"
# Only in pools with distorted regions: all others keep the columns, the bytes and the digest that they always had.
PLAIN_SCHEMA = pa.schema([field for field in SCHEMA if field.name != REGION])
_STATUSES = {status.value: status for status in Status}


def table_of(refs: Sequence[ImageRef], schema: pa.Schema = PLAIN_SCHEMA) -> pa.Table:
    """Rows as columns of ``SCHEMA`` or ``PLAIN_SCHEMA``."""
    return pa.table({name: [getattr(ref, name) for ref in refs] for name in schema.names}, schema=schema)


def refs_of(table: pa.Table) -> Iterator[ImageRef]:
    """The rows of a table of ``table_of``, some thousands at a time as objects.

    Raises:
        KeyError: a status is none of ``Status``.
    """
    status = table.schema.get_field_index("status")
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        columns = [column.to_pylist() for column in batch.columns]
        columns[status] = [_STATUSES[name] for name in columns[status]]
        yield from map(ImageRef, *columns)
