"""Every way in which a verb can fail, one class an outcome.

The message says what happened, in counts, file names and batch ids, never in values; the class's docstring says
what the person on duty does next. The command line prints both on one line, so the log is the runbook.
"""

import inspect


class CourierError(Exception):
    """Read the message; nothing was changed that a second run would not put right."""

    @property
    def way_out(self) -> str:
        """What to do next, on one line: the docstring of the class."""
        return " ".join(inspect.cleandoc(type(self).__doc__ or "").split())


class MachineFailed(CourierError):
    """See to the disk, memory or permissions that the message names, and run again; nothing half stays behind."""


# -- configuration ---------------------------------------------------------------------------------------------


class SettingsInvalid(CourierError):
    """Correct the named file at the named key; the schema beside it (schema/*.json) lists what may stand there."""


class ConnectionMissing(CourierError):
    """Add the connection in Airflow (Admin, Connections) or export AIRFLOW_CONN_<ID> as JSON, then run again."""


class ConnectionInvalid(CourierError):
    """Complete the connection: the README's table of connections lists what each one must hold."""


class VendorUnknown(CourierError):
    """Name a vendor that has a file in the vendors folder, or add its file and public key there."""


class GateClosed(CourierError):
    """Renew the agreement with the vendor and enter its dates in the vendor's file; the other vendors went on."""


# -- landing ---------------------------------------------------------------------------------------------------


class LandingMissing(CourierError):
    """Ask the product team to write the partition, or point CLIP_COURIER_LANDING at the right place; run again."""


class LandingUnreadable(CourierError):
    """Ask the product team to write the named file again; it is not a whole Parquet file."""


class LandingSchemaBroken(CourierError):
    """Ask the product team to write the named column with the contract's type (docs: Landing); run again."""


class ContractBroken(CourierError):
    """Open the night's Data Docs, mend the rule or the data that broke the contract, and run the night again."""


class QueryFailed(CourierError):
    """Run again; if it fails twice, a file under the root or in landing is damaged: the message names the statement."""


class StageMissing(CourierError):
    """Run the stage that comes before: select, validate, manifest, deliver, in this order."""


# -- ledger ----------------------------------------------------------------------------------------------------


class IllegalTransition(CourierError):
    """Another worker moved the batch on, or a step was left out: look at `clip-courier status`, then run again."""


class LeaseLost(CourierError):
    """Nothing to do: this worker stood still for too long and another one has taken its work over."""


class LedgerUnavailable(CourierError):
    """Check CLIP_COURIER_LEDGER and that its database answers; run again."""


class AuditBroken(CourierError):
    """Stop deliveries and keep the ledger as it is: an event was altered or removed after it was written."""


class CrosswalkMissing(CourierError):
    """Restore the crosswalk from backup before anything else is sent: without it no clip can be recalled."""


# -- disclosure ------------------------------------------------------------------------------------------------


class LinkageTooHigh(CourierError):
    """Raise `k` in disclosure.yaml, so that the batch is shown coarser, and deliver again; nothing of it has left."""


# -- sealing ---------------------------------------------------------------------------------------------------


class GnupgMissing(CourierError):
    """Install GnuPG 2.2 or newer (Debian: apt-get install gnupg) and run again."""


class KeyUnusable(CourierError):
    """Ask the key's owner for a valid key, put it beside the vendor's file with its fingerprint, and run again."""


class NotSentAgain(CourierError):
    """Name a batch that `status` has as DELIVERED; one of which something has come back is not lost."""


class SealFailed(CourierError):
    """Run again; nothing was left behind. If it fails twice, look at the free disk and at the vendor's key."""


class LeakFound(CourierError):
    """Nothing of it left: see how the named kind of value came into the named member, mend that, and run again."""

    def __init__(self, kind: str, member: str, column: str, count: int, where: str = "") -> None:
        place = f"{member}, {column}" if column else member
        super().__init__(f"{where}{count} identifying values, the first a {kind}, in {place}")
        self.kind, self.member, self.column, self.count = kind, member, column, count


class ScanIncomplete(CourierError):
    """Remove or restore the named file, which could not be looked through to its end, and run again."""


class ModelMissing(CourierError):
    """Run `bin/bootstrap`: it installs redaction's models, without which nothing leaves; none is fetched at work."""


class AudioStoreDown(CourierError):
    """See to the store of the recordings (mount, network, login) and run again; no clip was left out for it."""


class AudioUnusable(CourierError):
    """The clip is left out with this reason; ask the product team for the recording if it is needed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# -- the vendor's server ---------------------------------------------------------------------------------------


class HostKeyMismatch(CourierError):
    """Do not connect. Ask the vendor, by another channel, whether it changed its key; only then change the pin."""


class LoginRefused(CourierError):
    """Ask the vendor whether our public key is still installed for this account; do not try again before that."""


class ServerUnreachable(CourierError):
    """Nothing to do if it is brief: the next run tries again. If it lasts, call the vendor."""


class TransferFailed(CourierError):
    """Nothing to do if it is brief: no half file carries a final name, and the next run sends it again."""


class ConnectionLost(TransferFailed):
    """Nothing to do if it is brief: the next run goes on where the line broke. If it lasts, call the vendor."""


class RemoteConflict(CourierError):
    """A file of that name that is not ours lies in the vendor's outbound folder; ask the vendor to move it."""


# -- reports ---------------------------------------------------------------------------------------------------


class WarehouseMissing(CourierError):
    """Run `clip-courier load`: it publishes the warehouse that reports are read from."""


class ReportEmpty(CourierError):
    """Name a night or week that was run (`clip-courier status` lists them); `clip-courier load` publishes it first."""


# -- returns ---------------------------------------------------------------------------------------------------


class ReturnRefused(CourierError):
    """The file is refused whole and the vendor's report says why; ask the vendor to send it again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ReturnUntrusted(ReturnRefused):
    """The file is refused whole and the vendor's report says why; it must be signed by the vendor's pinned key."""


class ReturnUnreadable(ReturnRefused):
    """The file is refused whole and the vendor's report says why; its format must be one of docs/contracts.md."""


class ReturnOverdue(CourierError):
    """Ask the vendor when the named batch comes back whole; what it returned so far is in the warehouse."""
