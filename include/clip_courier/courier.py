"""The façade: every verb in the order of the night, and the only place where the parts are put together.

The command line and Airflow call this and nothing else. What differs between them (where secrets come from, what time
it is, who watches) is given at the edge. A stage that brings heavy libraries along (pandas, word lists, statistics) is
imported by its verb: the process that delivers for hours carries none of them.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier import leak_gate, leaks, outbound, recalls, reports, selection, wanted
from clip_courier.batch_files import overdue, read_crosswalk
from clip_courier.disclosure import Gate
from clip_courier.errors import (
    ConnectionInvalid,
    CourierError,
    CrosswalkMissing,
    GateClosed,
    LeakFound,
    NotSentAgain,
    QueryFailed,
    ReturnOverdue,
    ScanIncomplete,
    ServerUnreachable,
    VendorUnknown,
)
from clip_courier.holdings import Holdings
from clip_courier.landing import Landing
from clip_courier.ledger import CANCELLED, RETURNED, WITH_VENDOR, Batch, Ledger, parse_stamp
from clip_courier.model import (
    BATCH_ID,
    Clock,
    Connection,
    Credentials,
    NightFolder,
    Outcome,
    Progress,
    locked,
    silent,
    write_parquet,
)
from clip_courier.overview import Overview, overview
from clip_courier.pgp import Keyring, OwnKey, open_keyring
from clip_courier.pseudonyms import Pseudonyms, last_pseudonyms, pseudonyms_for
from clip_courier.settings import Policy, Settings, Vendor
from clip_courier.sftp import Drop, SftpEndpoint, connect
from clip_courier.unpacking import Part, Unpacking

if TYPE_CHECKING:
    from clip_courier.loading import Loading

log = logging.getLogger("clip_courier")

# Two keep a line busy while one of them waits for gpg; more gain nothing on a machine of two cores.
_CONNECTIONS = 2
# What came in time was collected within the hour.
_COLLECTED_WITHIN = timedelta(hours=1)
# How long a worker waits for others to hang up.
_CONNECTION_WAIT_S = 600

# Reasons of a clip that was left out which will hold on every other night as well.
_LASTING = "^(mask_without_timing|audio_.*)$"

_WORDS = pa.schema([("language", pa.string()), ("word", pa.string())])


class Courier:
    """One verb a method. `clock` tells what "now" is, so that every verb can be replayed."""

    def __init__(self, settings: Settings, credentials: Credentials, clock: Clock, progress: Progress = silent) -> None:
        self._settings, self._credentials, self._clock, self._progress = settings, credentials, clock, progress
        self._root = settings.root
        self._root.prepare()
        self._ledger = Ledger(settings.ledger_url)
        self._landing = Landing(self._root.landing)

    # -- outbound ----------------------------------------------------------------------------------------------

    def select(self, night: date) -> Outcome:
        """Stage 1: who may be heard, and a sample of them."""
        with self._working(f"night-{night}"):
            return _logged(selection.select(self._root.night(night), self._clock(), self._selection(night)))

    def plan(self, night: date) -> Outcome:
        """What `select` would choose, stratum by stratum, and what limits it; nothing is written."""
        return selection.plan(night, self._clock(), self._selection(night))

    def _selection(self, night: date) -> selection.Selection:
        from clip_courier import warehouse

        policy, holdings = self._policy(), self._holdings(night)
        return selection.Selection(
            landing=self._landing,
            policy=policy,
            sampling_key=self._credentials("clip_courier_sampling"),
            pseudonyms=self._pseudonyms(night),
            taken=lambda: holdings.taken(recalls.tombstones(self._root)),
            set_aside=lambda: self._rejected_before(night),
            exposure=lambda: holdings.exposure(policy.sampling.exposure_days),
            spread=lambda: warehouse.spread_of_scores(self._root.warehouse),
        )

    def validate(self, night: date) -> Outcome:
        """Stage 2: every row of the landing window judged, and Great Expectations over its counts and the sample."""
        from clip_courier import quality

        folder, policy = self._root.night(night), self._policy()
        with self._working(f"night-{night}"):
            given = quality.Validation(
                landing=self._landing,
                policy=policy,
                pseudonyms=self._pseudonyms(night),
                oldest=selection.oldest_partition(selection.selected_at(folder), policy),
                progress=self._progress,
            )
            return _logged(quality.validate(folder, given))

    def manifest(self, night: date, vendor: str | None = None) -> Outcome:
        """Stage 3: batches without raw columns, for every vendor or for one."""
        from clip_courier import manifests

        vendors = self._settings.vendors()
        if vendor is not None:
            self._settings.vendor(vendor)
        folder, holdings = self._root.night(night), self._holdings(night)
        given = manifests.Cutting(
            landing=self._landing,
            ledger=self._ledger,
            pseudonyms=self._pseudonyms(night),
            vocabulary=lambda: self._vocabulary(folder),
            taken=lambda: holdings.taken(recalls.tombstones(self._root)),
            held=holdings.held,
            call_distance_seconds=self._policy().sampling.call_distance_seconds,
            beep_margin_ms=self._policy().disclosure.beep_margin_ms,
            gate=self._gate(),
            progress=self._progress,
        )
        with self._working(f"night-{night}"):
            return _logged(manifests.manifest(folder, list(vendors.values()), self._clock(), given, vendor))

    def workers(self, night: date) -> list[dict[str, object]]:
        """How the deliveries of a night can be shared out: a worker for each connection that a vendor gives us, as long
        as there are batches for it, and one in any case, which tells what is wrong with a vendor.
        """
        shares = []
        for name, each in self._settings.vendors().items():
            waiting = len(outbound.waiting_batches(name, self._root.night(night), self._ledger))
            try:
                workers = max(1, min(waiting, self._connections(each)))
            except CourierError:
                workers = 1
            shares += [{"vendor": name, "worker": n, "workers": workers} for n in range(1, workers + 1)]
        return shares

    def deliver(self, night: date, vendor: str | None = None, workers: int = 1) -> Outcome:
        """Stage 4: sealed and sent, vendor by vendor; one vendor's failure does not keep the others waiting.

        As one of several `workers` it takes its share of the vendor's connections; which batches, their leases tell.
        """
        folder = self._root.night(night)
        folder.require(folder.assigned, "manifest")
        leaving = leak_gate.LeakGate(self._landing)

        def one(each: Vendor) -> Outcome:
            self._check_gate(each)
            with self._working():
                return outbound.deliver(each, folder, self._delivery(each, leaving, workers))

        return self._for_each("deliver", vendor, one)

    def deliver_again(self, batch_id: str) -> Outcome:
        """Once more what a vendor has lost, without what may not leave any more: that is recalled."""
        batch = self._ledger.batch(batch_id)
        if batch is None:
            raise NotSentAgain("no batch has this id")
        each = self._settings.vendor(batch.vendor)
        self._check_gate(each)

        def open_recalls() -> None:
            with self._working("recall"):
                _logged(recalls.open_recalls(self._root, self._ledger, self._refusals, self._clock(), each.name))

        # Nothing of it may come back meanwhile.
        with self._working(f"collect-{each.name}"):
            given = self._delivery(each, leak_gate.LeakGate(self._landing), workers=1)
            return _logged(outbound.deliver_again(each, batch_id, given, open_recalls))

    def _delivery(self, vendor: Vendor, leaving: leak_gate.LeakGate, workers: int) -> outbound.Delivery:
        return outbound.Delivery(
            root=self._root,
            ledger=self._ledger,
            landing=self._landing,
            open_keyring=lambda: self._keyring(vendor),
            signer_fingerprint=self._own_key().fingerprint,
            open_drop=self._drop(vendor),
            open_another=self._drop(vendor, waits=False),
            connections=max(1, self._connections(vendor) // workers),
            is_read_back=self._is_read_back(vendor),
            refusals=self._refusals,
            gate=self._gate(),
            leak_scan=leaving.scan,
            clock=self._clock,
            progress=self._progress,
        )

    def night(self, night: date, vendor: str | None = None) -> Outcome:
        """The whole way out: select, validate, manifest, deliver."""
        outcome = Outcome("night", is_new=False)
        for part in (
            self.select(night),
            self.validate(night),
            self.manifest(night, vendor),
            self.deliver(night, vendor),
        ):
            outcome.add(part)
        return outcome

    # -- inbound -----------------------------------------------------------------------------------------------

    def collect(self, vendor: str | None = None) -> Outcome:
        """Stage 5: what vendors returned since."""
        from clip_courier import inbound

        leaving = leak_gate.LeakGate(self._landing)

        def one(each: Vendor) -> Outcome:
            working = self._working(f"collect-{each.name}")
            with working, self._keyring(each) as keyring, self._drop(each)() as drop:
                given = inbound.Collection(
                    root=self._root,
                    ledger=self._ledger,
                    keyring=keyring,
                    recalled=lambda batch_id: recalls.recalls_by_ref(self._root, batch_id),
                    leaving=leaving.check,
                    progress=self._progress,
                )
                outcome = inbound.collect(each, self._clock(), drop, given)
            if self._awaits_withholding(each):
                outcome.add(self.load())
            return outcome

        return self._for_each("collect", vendor, one)

    def _awaits_withholding(self, vendor: Vendor) -> bool:
        """Whether analysts still see what a return that is not loaded marks as not to be read."""
        waiting = {b.batch_id for b in self._ledger.batches(vendor=vendor.name, states=[RETURNED])}
        counts = self._ledger.row_counts(vendor.name)
        return any(c.batch_id in waiting and c.sensitive_rows + c.distress_rows for c in counts)

    def overdue(self, vendor: str | None = None) -> Outcome:
        """Fails when a batch is past its due time and clips of it are owed: the schedule's alarm."""
        outcome = Outcome("overdue", {"overdue": 0}, is_new=False)
        for batch, owed in overdue(self._root, self._ledger, self._clock() - _COLLECTED_WITHIN, vendor):
            outcome.count("overdue")
            late = ReturnOverdue(
                f"batch {batch.batch_id} of vendor {batch.vendor} was due at {batch.due_at}: {owed} clips"
            )
            outcome.failures.append(late)
        return outcome

    def owed_since(self) -> datetime | None:
        """When the longest overdue batch was due; None when nothing is overdue."""
        late = overdue(self._root, self._ledger, self._clock() - _COLLECTED_WITHIN)
        return min((parse_stamp(batch.due_at) for batch, _ in late if batch.due_at), default=None)

    def load(self) -> Outcome:
        """Stage 6: scores, and the warehouse published."""
        from clip_courier import loading

        with self._working("load"):
            return _logged(loading.load(self._clock(), self._loading()))

    def _loading(self) -> "Loading":
        from clip_courier.loading import Loading

        return Loading(
            root=self._root,
            ledger=self._ledger,
            vocabulary=self._vocabulary,
            pseudonyms=self._own_pseudonyms,
            recalled_keys=self._recalled_keys,
        )

    def _recalled_keys(self) -> pa.Array:
        return recalls.tombstones(self._root)["clip_key"].combine_chunks()

    def returns(self, vendor: str | None = None) -> Outcome:
        """The whole way in: collect, load."""
        outcome = Outcome("returns", is_new=False)
        outcome.add(self.collect(vendor))
        outcome.add(self.load())
        return outcome

    # -- at any time -------------------------------------------------------------------------------------------

    def recall(self, vendor: str | None = None) -> Outcome:
        """Honour withdrawals: cut what is not sent, recall what is, forget our own copies, then tell the vendors.

        The analysts' file is built anew when something was forgotten that it held; its readers keep the old one until
        they close it.

        What is ours to do is done first, and for every vendor that was ever sent anything: no server that is down and
        no vendor whose file is gone can keep a person waiting.
        """
        if vendor is not None:
            self._settings.vendor(vendor)
        outcome = Outcome("recall", {"vendors": {}}, is_new=False)
        with self._working("recall"):
            for name in [vendor] if vendor else sorted({b.vendor for b in self._ledger.batches()}):
                withdrawn = outbound.withdraw(name, self._root, self._ledger, self._refusals, self._clock())
                outcome.add(_logged(withdrawn), name)
                opened = recalls.open_recalls(self._root, self._ledger, self._refusals, self._clock(), name)
                outcome.add(_logged(opened), name)
            with self._working("load"):
                outcome.add(_logged(recalls.forget(self._root, self._ledger, self._refusals, self._clock())))
                leak_gate.forget(self._root, self._landing)
                self._publish_without(outcome)
            self._tell(vendor, outcome)
        self._sweep()
        if not outcome.is_new:
            outcome.say("recall: nothing to withhold, recall or forget")
        return outcome

    def _publish_without(self, outcome: Outcome) -> None:
        """No byte of what was forgotten stays in the analysts' file. Whatever hinders that, vendors are told."""
        from clip_courier import loading

        try:
            try:
                outcome.add(_logged(loading.republish(self._clock(), self._loading())))
            except QueryFailed:
                outcome.add(_logged(loading.load(self._clock(), self._loading())))
        except CourierError as failed:
            log.error("recall: the warehouse still holds what was forgotten: %s: %s", type(failed).__name__, failed)
            outcome.failures.append(failed)

    def _tell(self, only: str | None, outcome: Outcome) -> None:
        """Notices to every vendor with an open recall, and receipts from it."""
        vendors, leaving = self._settings.vendors(), leak_gate.LeakGate(self._landing)
        for name in sorted({r.vendor for r in self._ledger.recalls(only) if r.state != "RECEIPTED"}):
            try:
                if name not in vendors:
                    raise VendorUnknown(f"vendor {name} has open recalls and no file")
                each = vendors[name]
                with self._keyring(each) as keyring:
                    given = recalls.Recalling(
                        root=self._root,
                        ledger=self._ledger,
                        keyring=keyring,
                        open_drop=self._drop(each),
                        leaving=leaving.check,
                        clock=self._clock,
                    )
                    outcome.add(_logged(recalls.notify(each, given)), name)
            except CourierError as failed:
                log.error("recall: vendor %s: %s: %s", name, type(failed).__name__, failed)
                outcome.failures.append(failed)

    def status(self, night: date | None = None, vendor: str | None = None) -> Outcome:
        """Where every night and batch is, what is overdue, which recalls are open; a named vendor's file is read."""
        if vendor is not None:
            self._settings.vendor(vendor)
        return self.overview(night, vendor).outcome()

    def overview(self, night: date | None = None, vendor: str | None = None) -> Overview:
        """The same as values, for pages. It asks for no secret."""
        return overview(self._root, self._ledger, self._clock(), night, vendor)

    def report(self, period: reports.Period) -> Outcome:
        """One page about a night or a week, from what is published."""
        with self._working("report"):
            return _logged(reports.report(self._root, period, self._clock()))

    def verify(self) -> Outcome:
        """Prove what is on record: the audit chain, and that every clip a vendor has can be named and recalled.

        Raises:
            AuditBroken, CrosswalkMissing: the record is not whole.
        """
        events = self._ledger.verify_chain()
        batches = [b for b in self._ledger.batches() if b.state != CANCELLED]
        clips = sum(self._accounted(batch) for batch in batches)
        counts: dict[str, object] = {"events": events, "batches": len(batches), "clips": clips}
        return Outcome(
            "verify",
            counts,
            [f"verify: {events} audit events are unbroken; {clips} clips in {len(batches)} batches are accounted for"],
            is_new=False,
        )

    def verify_leaks(
        self,
        night: date | None = None,
        vendor: str | None = None,
        also: Sequence[Path] = (),
        databases: Sequence[str] = (),
    ) -> Outcome:
        """Look for identifying values in all that was written or shown; of one night, or for one vendor.

        `also` are further files and folders, `databases` URLs of databases, such as Airflow's.

        Raises:
            LeakFound, ScanIncomplete: as failures of the outcome.
        """
        if vendor is not None:
            self._settings.vendor(vendor)

        def places(unpacking: Unpacking) -> Iterator[Part]:
            for path, name in self._shown_files(night, vendor):
                yield from unpacking.file(path, name)
            for other in also:
                for path, name in leaks.files_under(other) if other.is_dir() else [(other, "")]:
                    yield from unpacking.file(path, f"{other.name}/{name}".rstrip("/"))
            for number, url in enumerate([*self._ledger_elsewhere(), *databases], start=1):
                yield from unpacking.database(url, f"database {number}")

        words = {word for folder in self._root.nights() for word in leak_gate.shown_words(folder)}
        searched = leaks.search(wanted.everything(self._landing, words), places)
        return _told_leaks(searched)

    def _shown_files(self, night: date | None, vendor: str | None) -> Iterator[tuple[Path, str]]:
        """Files under the root that are not private; with a night or vendor none that is another's alone."""
        private = [self._root.crosswalk.name, *([p] if (p := self._landing_inside()) else [])]
        for path, name in leaks.files_under(self._root.path, private):
            parts = Path(name).parts
            batches = [found["vendor"] for part in parts if (found := BATCH_ID.match(part.lstrip(".").split(".")[0]))]
            if vendor is not None and any(other != vendor for other in batches):
                continue
            if night is not None and parts[0] in ("nights", "data_docs") and parts[1] != night.isoformat():
                continue
            yield path, name

    def _landing_inside(self) -> str | None:
        """The name of the landing zone where it lies right under the root."""
        landing = Path(self._root.landing).absolute()
        return landing.name if landing.parent == self._root.path.absolute() else None

    def _ledger_elsewhere(self) -> list[str]:
        """The ledger's database where it is no file under the root, which is looked through anyway."""
        return [] if self._settings.ledger_url.startswith("sqlite") else [self._settings.ledger_url]

    def _accounted(self, batch: Batch) -> int:
        """The clips of a batch: each is in the crosswalk, or was recalled."""
        crosswalk = read_crosswalk(self._root.night(batch.night_date), batch.batch_id)
        # Between a tombstone and the end of `recall` a clip may stand in both.
        named = recalls.recalled_refs(self._root, batch.batch_id).union(crosswalk["clip_ref"].to_pylist())
        if batch.state in WITH_VENDOR and len(named) != batch.clip_count:
            raise CrosswalkMissing(f"batch {batch.batch_id}: {batch.clip_count} clips left, {len(named)} can be named")
        return len(named)

    # -- the parts ---------------------------------------------------------------------------------------------

    @contextmanager
    def _working(self, name: str | None = None) -> Iterator[None]:
        """Whoever does the same work at the same time waits; the steps of a crash are then the only ones to fear.

        Without a name several may: `deliver` has a lease for each batch.
        """
        with locked(self._root.lock("work"), is_shared=True), ExitStack() as alone:
            if name:
                alone.enter_context(locked(self._root.lock(name)))
            yield

    def _sweep(self) -> None:
        """When nobody works, what lies half written is a killed run's, and may hold anybody's rows."""
        with locked(self._root.lock("work"), waits=False) as is_quiet:
            for leftover in self._root.crosswalk.rglob(".*.part") if is_quiet else ():
                leftover.unlink(missing_ok=True)

    def _for_each(self, verb: str, only: str | None, one: Callable[[Vendor], Outcome]) -> Outcome:
        """Do it for one vendor, or for all of them: then a failure is kept and the next vendor has its turn."""
        if only is not None:
            return _logged(one(self._settings.vendor(only)))
        outcome = Outcome(verb, {"vendors": {}}, is_new=False)
        for name, each in self._settings.vendors().items():
            try:
                outcome.add(_logged(one(each)), name)
            except GateClosed as closed:
                outcome.say(f"{verb}: gate closed for {closed}")
            except CourierError as failed:
                log.error("%s: vendor %s: %s: %s", verb, name, type(failed).__name__, failed)
                outcome.failures.append(failed)
        return outcome

    def _policy(self) -> Policy:
        return self._settings.policy()

    def _pseudonyms(self, night: date) -> Pseudonyms:
        longest = timedelta(days=self._policy().disclosure.epoch_max_days)
        pseudonyms = pseudonyms_for(self._credentials("clip_courier_pseudonyms"), night, longest)
        if "+" in pseudonyms.epoch:
            log.warning(
                "the key of the pseudonyms has served for %d days and more: epoch %s has its own refs, but only with a"
                " key of its own can the old one be destroyed; add an epoch to the connection clip_courier_pseudonyms",
                longest.days,
                pseudonyms.epoch,
            )
        return pseudonyms

    def _own_pseudonyms(self, night: date) -> Pseudonyms:
        """For the keys of transcribers: of the night's epoch, or of today's where that one is destroyed."""
        connection = self._credentials("clip_courier_pseudonyms")
        try:
            return last_pseudonyms(connection, night)
        except ConnectionInvalid:
            return last_pseudonyms(connection, self._clock().date())

    def _gate(self) -> Gate:
        policy = self._policy().disclosure
        return Gate(self._root, self._ledger, policy, lambda: recalls.tombstones(self._root), self._refusals)

    def _refusals(self, clips: pa.Table) -> Mapping[str, str]:
        return selection.refusals(self._landing, self._policy(), self._clock(), clips)

    def _check_gate(self, vendor: Vendor) -> None:
        today = self._clock().date()
        lapsed = vendor.lapsed_on(today)
        if lapsed:
            raise GateClosed(f"vendor {vendor.name}: {', '.join(lapsed)} not valid on {today}")

    def _holdings(self, night: date) -> Holdings:
        """A clip that may be drawn was recorded within retention, so a vendor that has it got it since."""
        since = self._clock() - timedelta(days=self._policy().sampling.retention_days + 1)
        return Holdings(self._root, self._ledger, night, since)

    def _rejected_before(self, night: date) -> pa.Table:
        """Clips that other nights rejected for what they are: at validation, or when their sound was to be masked."""
        ids = [selection.SET_ASIDE.empty_table()]
        for folder in self._root.nights():
            if folder.night != night and folder.rejected.exists() and folder.selected.exists():
                rows = pq.read_table(folder.selected, columns=["clip_id", "clip_key"])
                bad = [pq.read_table(folder.rejected, columns=["clip_key"])]
                for path in folder.left_out_files():
                    left = pq.read_table(path)
                    bad.append(left.filter(pc.match_substring_regex(left["reason"], _LASTING)).select(["clip_key"]))
                keys = pa.concat_tables(bad)["clip_key"]
                ids.append(rows.filter(pc.is_in(rows["clip_key"], keys)).select(["clip_id"]))
        return pa.concat_tables(ids)

    def _vocabulary(self, folder: NightFolder) -> Mapping[str, frozenset[str]]:
        """The words that may be shown on a night, by language; decided once a night."""
        from clip_courier.redaction import harmless_words

        if not folder.vocabulary.exists():
            words = harmless_words(selection.said_by_many(self._landing, self._policy(), self._clock()))
            rows = [{"language": language, "word": w} for language, said in sorted(words.items()) for w in sorted(said)]
            write_parquet(pa.Table.from_pylist(rows, _WORDS), folder.vocabulary)
        shown: dict[str, set[str]] = {}
        for row in pq.read_table(folder.vocabulary).to_pylist():
            shown.setdefault(row["language"], set()).add(row["word"])
        return {language: frozenset(words) for language, words in shown.items()}

    def _own_key(self) -> OwnKey:
        connection = self._credentials("clip_courier_pgp")
        fingerprint = str(connection.extra.get("fingerprint") or "").replace(" ", "").upper()
        if not fingerprint:
            raise ConnectionInvalid(f"connection {connection.conn_id}: extra.fingerprint is missing")
        return OwnKey(fingerprint, _private_key(connection), connection.password or "")

    @contextmanager
    def _keyring(self, vendor: Vendor) -> Iterator[Keyring]:
        with open_keyring(self._own_key(), self._settings.public_keys(vendor)) as keyring:
            yield keyring

    def _drop(self, vendor: Vendor, *, waits: bool = True) -> Callable[[], AbstractContextManager[Drop]]:
        """A connection to the vendor's server, of as many as it lets us have at once from all our workers together."""
        connection = self._credentials(vendor.sftp_conn_id)
        missing = [name for name in ("host", "login") if not getattr(connection, name)]
        if not connection.extra.get("host_key"):
            missing.append("extra.host_key")
        if missing:
            raise ConnectionInvalid(f"connection {connection.conn_id}: {', '.join(missing)} is missing")
        passphrase = connection.extra.get("private_key_passphrase")
        endpoint = SftpEndpoint(
            host=str(connection.host),
            port=connection.port or 22,
            login=str(connection.login),
            host_key=str(connection.extra["host_key"]),
            private_key=_private_key(connection),
            private_key_passphrase=str(passphrase) if passphrase else None,
            remote_root=vendor.remote_root,
        )
        places = [f"sftp {vendor.name} {n}" for n in range(self._connections(vendor))]
        timeout_s = _number(connection, "timeout_s", default=30, most=600)

        @contextmanager
        def connected() -> Iterator[Drop]:
            with self._ledger.any_lease(places, wait_s=_CONNECTION_WAIT_S if waits else 0) as place:
                if place is None:
                    raise ServerUnreachable(
                        f"all {len(places)} connections that vendor {vendor.name} allows are in use"
                    )
                with connect(endpoint, timeout_s=timeout_s) as drop:
                    yield drop

        return connected

    def _connections(self, vendor: Vendor) -> int:
        return _number(self._credentials(vendor.sftp_conn_id), "max_connections", default=_CONNECTIONS, most=16)

    def _is_read_back(self, vendor: Vendor) -> bool:
        connection = self._credentials(vendor.sftp_conn_id)
        found = str(connection.extra.get("read_back") or "content")
        if found not in ("content", "size"):
            raise ConnectionInvalid(f"connection {connection.conn_id}: extra.read_back must be content or size")
        return found == "content"


def _told_leaks(searched: leaks.Searched) -> Outcome:
    """Kind, place and number of each leak; never a value."""
    found = sum(leak.count for leak in searched.leaks)
    left_out = ", ".join(f"{reason} {count}" for reason, count in searched.not_looked_for.items())
    counts: dict[str, object] = {
        "files": searched.files,
        "bytes": searched.scanned_bytes,
        "values": searched.values,
        "not_looked_for": searched.not_looked_for,
        "hits": found,
        "leaks": [asdict(leak) for leak in searched.leaks],
        "unopened": searched.unopened,
    }
    outcome = Outcome("verify", counts, is_new=False)
    for leak in searched.leaks:
        where = ", ".join(part for part in (leak.place, leak.member, leak.column) if part)
        outcome.say(f"verify: {leak.kind}, {leak.count} times, in {where}, from byte {leak.offset}")
    outcome.say(
        f"verify: {searched.values} identifying values looked for in {searched.files} places"
        f" ({searched.scanned_bytes} bytes): {found} found; not looked for: {left_out}"
    )
    if searched.leaks:
        first = searched.leaks[0]
        outcome.failures.append(LeakFound(first.kind, first.place, first.column, found))
    outcome.failures += [ScanIncomplete(f"{place} cannot be looked through") for place in searched.unopened]
    return outcome


def _number(connection: Connection, name: str, *, default: int, most: int) -> int:
    """A whole number from 1 on out of a connection's extra."""
    found = str(connection.extra.get(name, default))
    if not (found.isascii() and found.isdecimal() and 1 <= int(found) <= most):
        raise ConnectionInvalid(f"connection {connection.conn_id}: extra.{name} must be 1 to {most}")
    return int(found)


def _private_key(connection: Connection) -> str:
    text, path = connection.extra.get("private_key"), connection.extra.get("key_file")
    if bool(text) == bool(path):
        raise ConnectionInvalid(f"connection {connection.conn_id}: extra needs either private_key or key_file")
    if text:
        return str(text)
    try:
        return Path(str(path)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConnectionInvalid(f"connection {connection.conn_id}: key_file cannot be read") from None


def _logged(outcome: Outcome) -> Outcome:
    """INFO when something was done, DEBUG when nothing was due."""
    for line in outcome.lines:
        log.log(logging.INFO if outcome.is_new else logging.DEBUG, "%s", line)
    return outcome
