"""Street addresses are masked only where the options ask for it."""

import pickle

import pytest

from alchemy.settings import CleanOptions
from alchemy.text.sanitize import Sanitizer

ON, OFF = Sanitizer(b"salt", addresses=True), Sanitizer(b"salt")

ADDRESSES = [
    "1600 Amphitheatre Parkway, Mountain View, CA 94043",
    "350 Fifth Avenue",
    "742 Evergreen Terrace",
    "12 N. Main St., Apt 4",
    "10 Downing Street, London SW1A 2AA",
    "Musterstraße 12a, 10115 Berlin",
    "Hauptstr. 5",
    "Berliner Allee 7",
    "12 bis rue de la Paix, 75002 Paris",
    "Via Roma 5",
    "Calle de Alcalá 42",
    "Kerkstraat 7",
    "北京市海淀区中关村大街27号",
    "南京东路100号3栋501室",
]
HARMLESS = [
    "3 ways to drive a road test on Main Street",
    "Court case 12, version 5 of the highway code",
    "see place 4 and avenue B",
    "the way 5 Different Things work",
    "Monitoring 5, String 3, Buffer 16",
    "via Kafka 3.4 and rue the day",
    "编号27号和大家一起走",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_masked_when_asked_for_and_stays_otherwise(address):
    text = f"They live at {address}."
    masked = ON.mask(text)
    assert masked.startswith("They live at <ADDRESS_")
    assert not set(address.split()) & set(masked.replace(".", " ").split())
    assert ON.mask(masked) == masked
    assert OFF.mask(text) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_an_address_stays(text):
    assert ON.mask(text) == text


def test_the_choice_survives_pickling_and_is_off_by_default():
    assert pickle.loads(pickle.dumps(ON)).find("350 Fifth Avenue")  # noqa: S301 - our own bytes
    assert CleanOptions().street_addresses is False
