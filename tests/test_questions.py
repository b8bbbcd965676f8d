"""The analysts' questions: every query of docs/questions.md runs on the warehouse of a night, and answers."""

import re
from pathlib import Path

import duckdb
import pytest

from clip_courier_demo.stage import Stage
from snapshots import LATER, MakeCourier, crosswalk_of, landing_copy, persons_of, returned, withdraw

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "questions.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^\*\*(.+?)\*\*[^\n]*(?:\n[^\n`]+)*\n\n```sql\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)
# Of one night without a second opinion and without an accident.
MAY_BE_EMPTY = {
    "What is owed, and since when?",
    "Do two vendors hear the same in the same clip?",
    "Was something returned that should have alarmed us?",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("questions") / "warehouse.duckdb"


@pytest.fixture
def warehouse(kept: Path, stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path) -> Path:
    """A night that came back, of which one person's clips were recalled."""
    if not kept.exists():
        returned(stage, make_courier, truth)
        crosswalk = crosswalk_of(stage, "aurora-20261120-001")
        landing = landing_copy(stage, tmp_path)
        withdraw(landing, persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist()[:1])), LATER)
        courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
        courier.recall()
        courier.load()
        kept.write_bytes((stage.root / "warehouse" / "clip_courier.duckdb").read_bytes())
    return kept


def test_every_query_belongs_to_a_question() -> None:
    assert len(QUESTIONS) == TEXT.count("```sql") > 15
    assert len({question for question, _ in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize(("question", "query"), QUESTIONS, ids=[question for question, _ in QUESTIONS])
def test_question_is_answered(warehouse: Path, question: str, query: str) -> None:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        rows = connection.execute(query).fetchall()
        assert rows or question in MAY_BE_EMPTY
        if "is_accounted_for" in query:
            assert all(row[-1] for row in rows)


def test_every_table_is_asked(warehouse: Path) -> None:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    asked = " ".join(query for _, query in QUESTIONS)
    assert {table for table in tables if not re.search(rf"\b(FROM|JOIN) {table}\b", asked)} == set()
