import base64

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from alchemy.errors import BadInput
from serving.people import passwords
from serving.people.passwords import check_strength, hash_password, is_outdated, verify_password

ITERATIONS = passwords.ITERATIONS  # before any fixture lowers it


def test_at_least_six_hundred_thousand_iterations_are_done() -> None:
    assert ITERATIONS >= 600_000


def test_a_hash_is_what_another_implementation_of_pbkdf2_makes() -> None:
    scheme, iterations, salt, digest = hash_password("correct horse battery").split("$")
    other = PBKDF2HMAC(SHA256(), 32, salt.encode(), int(iterations)).derive(b"correct horse battery")
    assert (scheme, base64.b64encode(other).decode()) == ("pbkdf2_sha256", digest)


def test_only_the_same_password_is_right_and_hashes_of_it_differ() -> None:
    first, second = hash_password("correct horse battery"), hash_password("correct horse battery")
    assert first != second
    assert verify_password("correct horse battery", first)
    assert verify_password("correct horse battery", second)
    assert not verify_password("correct horse batterz", first)
    assert not verify_password("", first)


def test_a_letter_is_the_same_however_a_keyboard_composes_it() -> None:
    assert verify_password(
        "cafe\u0301 creme br\u00fbl\u00e9e", hash_password("caf\u00e9 creme br\u00fbl\u00e9e")
    )


def test_nobodys_password_takes_the_same_work_and_is_never_right(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, work = hash_password("correct horse battery"), []
    derive = passwords._derive
    monkeypatch.setattr(
        passwords, "_derive", lambda p, s, iterations: work.append(iterations) or derive(p, s, iterations)
    )
    assert not verify_password("something else", encoded)
    assert not verify_password("something else", None)
    assert not verify_password("", None)
    assert work == [passwords.ITERATIONS] * 3


def test_an_endless_password_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_derive", None)
    assert not verify_password("x" * 1_000_000, "pbkdf2_sha256$1000$salt$hash")


def test_a_hash_of_fewer_iterations_is_outdated(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = hash_password("correct horse battery")
    assert not is_outdated(encoded)
    monkeypatch.setattr(passwords, "ITERATIONS", passwords.ITERATIONS + 1)
    assert is_outdated(encoded)


@pytest.mark.parametrize("password", ["short", "x" * 257, "aaaaaaaaaaaaaaaa", "ann-is-my-name-2"])
def test_an_easy_password_is_refused_without_being_repeated(password: str) -> None:
    with pytest.raises(BadInput) as error:
        check_strength(password, "ann")
    assert password not in str(error.value)
