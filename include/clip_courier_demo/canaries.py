"""Every identifying string that a demo world contains, listed, so that a test can look for it where it must not be."""

from typing import Any

import numpy as np

from clip_courier_demo import identities, utterances
from clip_courier_demo.clips import ClipPlan
from clip_courier_demo.dealing import Ints
from clip_courier_demo.people import People
from clip_courier_demo.recordings import Recording

KINDS = ("names", "ids", "emails", "phones", "serials", "addresses")

# In larger worlds a sample is listed, which always includes everyone who is named in a file or in speech.
_ALL_BELOW_CLIPS = 5_000
_SAMPLE = 500


def list_canaries(plan: ClipPlan, people: People, recordings: list[Recording], events: int) -> dict[str, list[str]]:
    """Canaries by kind, sorted; IP addresses count as addresses, and whoever looks for them should ignore case.

    Spoken ones stand as the text has them and as the recogniser writes them.
    """
    random = np.random.default_rng([people.seed, 9])
    owners = np.array([one.owner for one in recordings])

    def sample(count: int, always: Ints) -> Ints:
        if len(plan) <= _ALL_BELOW_CLIPS or count <= _SAMPLE:
            return np.arange(count)
        return np.union1d(random.choice(count, size=_SAMPLE, replace=False), always)

    none = np.array([], dtype=np.int64)
    clips = sample(len(plan), owners)
    persons = sample(len(people), plan.speaker[owners])
    calls = sample(int(plan.call.max()) + 1, none)
    records = sample(events, none)
    found = _written(people, clips, persons, calls, records)
    for one in recordings:
        for secret in one.said.secrets:
            found[secret.kind] |= {secret.text, " ".join(utterances.tokens(secret.text))}
    return {kind: sorted(found[kind]) for kind in KINDS}


def _written(people: People, clips: Ints, persons: Ints, calls: Ints, records: Ints) -> dict[str, set[str]]:
    """What stands in columns, paths and tags."""
    seed = people.seed
    columns: dict[str, list[Any]] = {
        "names": [part(seed, persons) for part in (identities.surnames, identities.first_names, identities.full_names)],
        "ids": [
            identities.clip_ids(seed, clips),
            identities.person_ids(seed, persons),
            identities.call_ids(seed, calls),
            identities.record_ids(seed, records),
        ],
        "emails": [identities.account_emails(seed, persons)],
        "phones": [identities.phone_numbers(seed, persons, people.locale[persons])],
        "serials": [identities.device_serials(seed, persons)],
        "addresses": [identities.ip_addresses(seed, clips)],
    }
    return {kind: {text for part in parts for text in part.to_pylist()} for kind, parts in columns.items()}
