"""The fence: whatever the order of withdrawals, seals, uploads, kills and retries, no clip leaves after a no.

A state machine (Hypothesis) on real parts: landing files, gpg, OpenSSH, processes that are really killed. The oracle is
plain: who had withdrawn when the batch was released, and what the vendor could see.
"""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from clip_courier import outbound, pgp, sftp
from clip_courier.ledger import Ledger
from clip_courier.recalls import recalled_refs
from clip_courier.settings import load_settings
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT
from snapshots import MakeCourier, crosswalk_of, deliver_elsewhere, landing_copy, persons_of, refs_with, withdraw

BATCH = "aurora-20261120-001"
# Where a withdrawal may come in while a delivery runs: before and after each of these.
MOMENTS: list[tuple[Any, str]] = [
    (pgp.Keyring, "seal"),
    (Ledger, "move"),
    (sftp.Drop, "upload"),
    (outbound._Sending, "_check_lawful"),
    (sftp.Drop, "publish"),
    (sftp.Drop, "put_bytes"),
]


class Fence(RuleBasedStateMachine):
    """`withdrawn` are those who said no; `fenced` those who had when the batch was last released."""

    def __init__(self, stage: Stage, make_courier: MakeCourier, kept: Path, folder: Path) -> None:
        super().__init__()
        self.make_courier = make_courier
        shutil.rmtree(stage.root, ignore_errors=True)
        shutil.copytree(kept, stage.root)
        self.home = stage.vendors["aurora"].home / "outbound"
        shutil.rmtree(self.home)
        self.home.mkdir()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.landing = landing_copy(stage, folder)
        self.stage = replace(stage, environ={**stage.environ, "CLIP_COURIER_LANDING": str(self.landing)})
        self.crosswalk: pa.Table = crosswalk_of(stage, BATCH)
        self.persons = sorted(persons_of(self.crosswalk, set(self.crosswalk["clip_ref"].to_pylist())))
        self.withdrawn: set[str] = set()
        self.fenced: set[str] = set()
        self.seen: dict[str, set[str]] = {}  # SHA-256 of every drop that the vendor could see → the refs in it
        self.taken = 0

    def courier(self) -> Any:
        return self.make_courier(self.stage)

    # -- what may happen ---------------------------------------------------------------------------------------

    @rule(who=st.integers(0, 99))
    def withdraw(self, who: int) -> None:
        person = self.persons[who % len(self.persons)]
        if person not in self.withdrawn:
            withdraw(self.landing, {person})
            self.withdrawn.add(person)

    @rule(boundary=st.integers(1, 140))
    def deliver_and_be_killed(self, boundary: int) -> None:
        state = self.ledger().require(BATCH).state
        process, _ = deliver_elsewhere(self.stage, "aurora", boundary)
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        # Nobody withdraws while this runs. Once the batch was seen, or may have been, nothing can be kept from leaving.
        if state in ("MANIFESTED", "SEALED") or not self.seen:
            self.fenced = set(self.withdrawn)

    @rule(
        moment=st.sampled_from(MOMENTS), nth=st.sampled_from([1, 1, 1, 2]), after=st.booleans(), who=st.integers(0, 99)
    )
    def deliver_while_somebody_withdraws(self, moment: tuple[Any, str], nth: int, after: bool, who: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            self._note_the_fence(patch)
            self._interrupt(patch, *moment, nth, after, lambda: self.withdraw(who))
            assert not self.courier().deliver(NIGHT, "aurora").failures

    @rule()
    def recall(self) -> None:
        self.courier().recall("aurora")

    @rule()
    def vendor_takes_what_it_sees(self) -> None:
        drop = self.home / f"{BATCH}.tar.pgp"
        if drop.exists():
            self.taken += 1
            drop.unlink()

    # -- what must hold ----------------------------------------------------------------------------------------

    @invariant()
    def no_clip_leaves_after_a_no(self) -> None:
        drop = self.home / f"{BATCH}.tar.pgp"
        if not drop.exists():
            return
        digest = hashlib.sha256(drop.read_bytes()).hexdigest()
        if digest not in self.seen:
            self.seen[digest] = self.refs_inside()
            assert not self.seen[digest] & refs_with(self.crosswalk, self.fenced)
        assert len(self.seen) == 1, "the batch has appeared twice"
        assert self.taken == 0, "the batch has appeared again after it was taken"

    def teardown(self) -> None:
        """Let it end: then everything is delivered or cancelled, and every no is honoured."""
        with pytest.MonkeyPatch.context() as patch:
            self._note_the_fence(patch)
            assert not self.courier().deliver(NIGHT, "aurora").failures
        self.no_clip_leaves_after_a_no()
        self.courier().recall("aurora")
        batch = self.ledger().require(BATCH)
        everything = set(self.crosswalk["clip_ref"].to_pylist())
        gone = refs_with(self.crosswalk, self.withdrawn)
        left = next(iter(self.seen.values()), set())
        assert batch.state == ("DELIVERED" if left else "CANCELLED")
        assert self.seen.keys() <= {batch.sha256}
        alone = self.left_alone()
        assert everything - gone <= left | alone, "a clip was held back that nobody had withdrawn"
        kept = [row for row in self.crosswalk.to_pylist() if row["clip_ref"] in everything - gone]
        for language in {row["locale"][:2] for row in kept if row["clip_ref"] in alone}:
            # Whoever was held back for that was the last who spoke the language.
            assert len({p for row in kept if row["locale"][:2] == language for p in row["person_ids"]}) < 2
        assert recalled_refs(load_settings(self.stage.environ).root, BATCH) == left & gone
        assert [path.name for path in self.home.iterdir() if path.name.endswith(".part")] == []
        self.courier().verify()

    # -- how it is watched -------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.stage.root / 'ledger.sqlite'}")

    def left_alone(self) -> set[str]:
        """The refs that were taken out because those with whom they made up a group had withdrawn."""
        path = self.stage.root / "nights" / str(NIGHT) / "batches" / BATCH / "withheld.parquet"
        rows = pq.read_table(path).to_pylist() if path.exists() else []
        keys = {row["clip_key"] for row in rows if row["reason"] == "small_group"}
        return {row["clip_ref"] for row in self.crosswalk.to_pylist() if row["clip_key"] in keys}

    def refs_inside(self) -> set[str]:
        """The refs of the drop, as the vendor's own gpg opens it."""
        members = self.stage.vendors["aurora"].take(BATCH)
        return {Path(name).stem for name in members if name.startswith("audio/")}

    def _note_the_fence(self, patch: pytest.MonkeyPatch) -> None:
        """Whoever said no before the ledger has the batch as RELEASED must not be in it; who said so later, may be."""
        move = Ledger.move

        def noted(ledger: Ledger, batch_id: str, came_from: str, to: str, *given: Any, **fields: Any) -> None:
            if to == "RELEASED":
                self.fenced = set(self.withdrawn)
            move(ledger, batch_id, came_from, to, *given, **fields)

        patch.setattr(Ledger, "move", noted)

    @staticmethod
    def _interrupt(
        patch: pytest.MonkeyPatch, owner: Any, name: str, nth: int, after: bool, deed: Callable[[], None]
    ) -> None:
        step, calls = getattr(owner, name), [0]

        def interrupted(*given: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == nth and not after:
                deed()
            result = step(*given, **options)
            if calls[0] == nth and after:
                deed()
            return result

        patch.setattr(owner, name, interrupted)


@pytest.mark.timeout(1800)
def test_no_clip_leaves_after_a_no(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """CLIP_COURIER_FENCE says how many stories are told."""
    write_vendor(stage.folder / "vendors", "aurora", stage.vendors["aurora"].key, NIGHT, hours_per_night=0.02)
    courier = make_courier(stage)
    for verb in (courier.select, courier.validate, courier.manifest):
        verb(NIGHT)
    shutil.copytree(stage.root, tmp_path / "kept")
    assert 3 < crosswalk_of(stage, BATCH).num_rows < 30
    run_state_machine_as_test(
        lambda: Fence(stage, make_courier, tmp_path / "kept", tmp_path / "landing"),
        settings=settings(
            max_examples=int(os.environ.get("CLIP_COURIER_FENCE", "6")),
            stateful_step_count=6,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
