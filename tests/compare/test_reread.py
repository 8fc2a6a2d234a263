"""Files that change while DuckDB reads them."""

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emberline.compare.reread import read_rows
from emberline.errors import EmberlineError


def reader(path, after_each):
    """Counts the rows of a file, and does something before the count, or the failure, is known."""
    calls = []

    def read():
        calls.append(path)
        try:
            with duckdb.connect(":memory:") as connection:
                return connection.execute("SELECT count(*) FROM read_parquet($1)", [str(path)]).fetchone()[0]
        finally:
            after_each(len(calls))

    return read, calls


@pytest.fixture
def torn(tmp_path):
    """A file whose footer tells of other rows than it has, as between two versions of one."""
    path = tmp_path / "exposures/part=00/exposures-1.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 rows of another file PAR1")
    return path


def replace(path):
    fresh = path.with_suffix(".partial")
    pq.write_table(pa.table({"n": range(7)}), fresh)
    fresh.replace(path)


def test_a_file_replaced_while_it_was_read_is_read_again(torn, tmp_path):
    read, calls = reader(torn, lambda call: replace(torn) if call == 1 else None)
    assert read_rows(tmp_path, read) == 7
    assert len(calls) == 2


def test_a_file_that_was_merged_before_it_was_opened_is_looked_for_again(torn, tmp_path):
    replace(torn)

    def read():
        listed = sorted(tmp_path.glob("**/*.parquet"))
        torn.rename(torn.with_name("exposures-1-x2.parquet")) if torn.exists() else None
        return sum(pq.read_metadata(path).num_rows for path in listed)

    assert read_rows(tmp_path, read) == 7


def test_a_broken_file_is_read_once(torn, tmp_path):
    read, calls = reader(torn, lambda _call: None)
    with pytest.raises(EmberlineError, match=torn.name):
        read_rows(tmp_path, read)
    assert len(calls) == 1


def test_files_that_never_stay_end_in_an_error(torn, tmp_path):
    read, calls = reader(torn, lambda call: torn.write_bytes(b"PAR1" + b"x" * (20 + call) + b"PAR1"))
    with pytest.raises(EmberlineError, match="cannot be read"):
        read_rows(tmp_path, read)
    assert 1 < len(calls) < 10
