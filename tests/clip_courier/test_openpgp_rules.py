"""The rules over what gpg 2.2 cannot be made to say here: other versions, and answers that contradict themselves."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from clip_courier.errors import KeyUnusable, ReturnUntrusted, SealFailed
from clip_courier.openpgp_rules import Answer, check_opening, check_passphrase, check_sealing, keys_listed, status_lines

OURS, THEIRS = "A" * 40, "B" * 40
GOOD = f"""\
[GNUPG:] ENC_TO A8D9295A7DAE4FA1 18 0
[GNUPG:] DECRYPTION_KEY {OURS} {OURS} -
gpg: encrypted with 255-bit ECDH key
[GNUPG:] BEGIN_DECRYPTION
[GNUPG:] DECRYPTION_INFO 2 9 0
[GNUPG:] PLAINTEXT 62 1795500988 x
[GNUPG:] NEWSIG
[GNUPG:] GOODSIG 1F01267AECF4602F Vendor
[GNUPG:] VALIDSIG {THEIRS} 2026-11-24 1795500988 0 4 0 22 10 00 {THEIRS}
[GNUPG:] DECRYPTION_OKAY
[GNUPG:] GOODMDC
[GNUPG:] END_DECRYPTION
"""
SEALED = f"""\
[GNUPG:] BEGIN_SIGNING H8
[GNUPG:] BEGIN_ENCRYPTION 2 9
[GNUPG:] SIG_CREATED S 22 8 00 1795501233 {OURS}
[GNUPG:] END_ENCRYPTION
"""


def answer(text: str, returncode: int = 0) -> Answer:
    return Answer(returncode, list(status_lines(text.encode().splitlines(keepends=True))))


def without(text: str, keyword: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if f" {keyword}" not in line)


def test_check_opening_accepts_the_good_answer():
    assert check_opening(answer(GOOD), signers={THEIRS}) == (THEIRS, datetime(2026, 11, 24, 6, 16, 28, tzinfo=UTC))


@pytest.mark.parametrize(
    "keyword",
    "DECRYPTION_KEY BEGIN_DECRYPTION PLAINTEXT NEWSIG GOODSIG VALIDSIG DECRYPTION_OKAY GOODMDC END_DECRYPTION".split(),
)
def test_check_opening_wants_each_line_exactly_once(keyword):
    with pytest.raises(ReturnUntrusted):
        check_opening(answer(without(GOOD, keyword)), signers={THEIRS})
    if keyword != "DECRYPTION_KEY":
        [line] = [line for line in GOOD.splitlines() if f" {keyword}" in line]
        with pytest.raises(ReturnUntrusted):
            check_opening(answer(f"{GOOD}{line}\n"), signers={THEIRS})


@pytest.mark.parametrize("keyword", ["BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NO_PUBKEY"])
def test_check_opening_lets_no_good_line_outweigh_a_bad_one(keyword):
    with pytest.raises(ReturnUntrusted):
        check_opening(answer(f"{GOOD}[GNUPG:] {keyword} 1F01267AECF4602F\n"), signers={THEIRS})


def test_check_opening_goes_by_the_exit_status_too():
    with pytest.raises(ReturnUntrusted) as refused:
        check_opening(answer(GOOD, returncode=2), signers={THEIRS})
    assert refused.value.reason == "damaged"
    assert "Vendor" not in str(refused.value)


def test_check_opening_pins_the_primary_key_and_not_the_subkey():
    subkey = GOOD.replace(f"VALIDSIG {THEIRS}", f"VALIDSIG {'C' * 40}")
    assert check_opening(answer(subkey), signers={THEIRS})[0] == THEIRS
    with pytest.raises(ReturnUntrusted):
        check_opening(answer(subkey), signers={"C" * 40})


def test_check_sealing_accepts_the_good_answer():
    check_sealing(answer(SEALED), by=OURS, to=THEIRS, signatures="S")
    check_sealing(answer(without(SEALED, "SIG_CREATED")), by=OURS, to=THEIRS, signatures="")


@pytest.mark.parametrize(
    "told",
    [
        answer(SEALED, returncode=2),
        replace(answer(SEALED), returncode=None),
        answer(SEALED.replace("ENCRYPTION 2 9", "ENCRYPTION 0 9 2")),  # AEAD, as gpg 2.4 would write it
        answer(SEALED.replace("ENCRYPTION 2 9", "ENCRYPTION 2 2")),  # Triple-DES
        answer(SEALED + "[GNUPG:] BEGIN_ENCRYPTION 2 9\n"),
        answer(without(SEALED, "SIG_CREATED")),
        answer(SEALED.replace("SIG_CREATED S", "SIG_CREATED D")),
        answer(without(SEALED, "END_ENCRYPTION")),
        answer(""),
    ],
)
def test_check_sealing_refuses_any_other_answer(told):
    with pytest.raises(SealFailed):
        check_sealing(told, by=OURS, to=THEIRS, signatures="S")


@pytest.mark.parametrize("line", ["INV_RECP 10", "INV_SGNR 9", "FAILURE sign-encrypt 67108875", "ERROR x 11_BAD"])
def test_check_sealing_tells_a_key_from_an_accident(line):
    with pytest.raises(KeyUnusable):
        check_sealing(answer(f"{SEALED}[GNUPG:] {line}\n", returncode=2), by=OURS, to=THEIRS, signatures="S")


def test_check_passphrase_takes_other_codes_for_other_faults():
    check_passphrase(answer("[GNUPG:] FAILURE sign-encrypt 33587235\n[GNUPG:] ERROR\n", returncode=2), OURS)


def test_status_lines_end_at_the_newline_and_nowhere_else():
    text = "[GNUPG:] GOODSIG 1 x\x85[GNUPG:] VALIDSIG 2\u2028[GNUPG:] NEWSIG\x0b\n gpg: [GNUPG:] BADSIG\n[GNUPG:] \n"
    assert [keyword for keyword, _ in status_lines(text.encode().splitlines(keepends=True))] == ["GOODSIG"]


def test_keys_listed_reads_a_listing_whatever_its_user_ids_say():
    listing = (
        "tru::1:1795500967:1:3:1:5\n"
        "pub:u:255:22:1F01267AECF4602F:1795500967:1858572967::u:::scESC:::::ed25519:::0:\n"
        f"fpr:::::::::{OURS}:\n"
        "uid:u::::1795500967::D718::\x85\x85sub\x85fpr:::::::::0:\n"
        "sub:r:9999:99:A8D9295A7DAE4FA1:1795500967:::::e:::::cv25519::\n"
        f"fpr:::::::::{THEIRS}:\n"
        "fpr:::::::::stray:\n"
    )
    primary, subkey = keys_listed(listing.encode())
    assert (primary.fingerprint, primary.algorithm, primary.length_bits) == (OURS, "EdDSA", 255)
    assert primary.expires_at == datetime(2028, 11, 23, 6, 16, 7, tzinfo=UTC)
    assert (subkey.fingerprint, subkey.validity, subkey.expires_at) == (THEIRS, "r", None)
    assert subkey.fault(primary.created_at) == "revoked"
    assert replace(subkey, validity="-").fault(primary.created_at) == "of an algorithm that is not accepted (99)"
    assert replace(primary, capabilities="scESCD").fault(primary.created_at) == "disabled or invalid"
