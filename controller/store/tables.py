"""The tables. JSON is kept as text, so that any database SQLAlchemy speaks to will do."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()


def _run_id() -> Column[str]:
    return Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)


runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("created_at", String(40), nullable=False),
    Column("state", String(16), nullable=False),
    Column("configuration", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("elapsed_s", Float, nullable=False),
    Column("owner", String(255), nullable=False),
    Column("algorithm_state", LargeBinary),
)

trials = Table(
    "trials",
    metadata,
    _run_id(),
    Column("trial_id", String(16), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("objective_values", Text, nullable=False),
    Column("violation", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("training_s", Float, nullable=False),
    Column("measuring_s", Float, nullable=False),
    Column("measurements", Text, nullable=False),
    Column("flags", Text, nullable=False),
    Column("told", Boolean, nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    _run_id(),
    Column("request_id", String(128), primary_key=True),
    Column("trial_id", String(16), nullable=False),
    Column("device", String(255), nullable=False),
    Column("measurement", Text, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    _run_id(),
    Column("trial_id", String(16), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

curves = Table(
    "curves",
    metadata,
    _run_id(),
    Column("name", String(128), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("value", Float, nullable=False),
)
