from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import SetupError
from mesh.jobs.callbacks.signing import TOLERANCE_S, read_keys, sign, verify

KEY = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OTHER = bytes(range(32))


def test_the_example_of_the_standard_is_signed_as_it_says() -> None:
    # https://github.com/standard-webhooks/standard-webhooks, the test vector of its libraries.
    body = b'{"test": 2432232314}'
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert sign([KEY], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == signature
    assert verify([KEY], signature, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, now=1614265331.5)


def test_without_a_key_nothing_is_signed_and_nothing_is_believed() -> None:
    assert sign([], "a", 1, b"") == ""
    assert not verify([KEY], "", "a", 1, b"", now=1)
    assert not verify([], sign([KEY], "a", 1, b""), "a", 1, b"", now=1)


@given(st.text("ab.1", max_size=5), st.integers(0, 10**9), st.binary(max_size=20), st.data())
@settings(max_examples=100)
def test_a_changed_message_is_not_believed(name: str, at: int, body: bytes, data: st.DataObject) -> None:
    signature = sign([KEY], name, at, body)
    assert verify([KEY], signature, name, at, body, now=at)
    changed = data.draw(st.binary(max_size=20).filter(lambda other: other != body))
    assert not verify([KEY], signature, name, at, changed, now=at)
    assert not verify([KEY], signature, name, at + 1, body, now=at)
    assert not verify([OTHER], signature, name, at, body, now=at)


def test_while_a_key_is_replaced_either_fits() -> None:
    signature = sign([OTHER, KEY], "a", 1, b"body")
    assert len(signature.split()) == 2
    assert verify([KEY], signature, "a", 1, b"body", now=1)
    assert verify([OTHER], signature, "a", 1, b"body", now=1)


@pytest.mark.parametrize("away_s", [-TOLERANCE_S - 1, TOLERANCE_S + 1])
def test_an_old_message_is_not_believed(away_s: int) -> None:
    assert not verify([KEY], sign([KEY], "a", 1000, b""), "a", 1000, b"", now=1000 + away_s)


def test_a_key_file_has_a_key_a_line() -> None:
    text = f"# new\nwhsec_{base64.b64encode(OTHER).decode()}\n\n{base64.b64encode(KEY).decode()}\n"
    assert read_keys(text, "keys") == (OTHER, KEY)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "keys: 0 keys"),
        ("# nothing\n", "keys: 0 keys"),
        ("\nnot base64!\n", "keys:2: .*base64"),
        (base64.b64encode(b"short").decode(), "keys:1: .*24 to 64 bytes, and not 5"),
        (base64.b64encode(bytes(65)).decode(), "keys:1: .*not 65"),
        ((base64.b64encode(KEY).decode() + "\n") * 5, "keys: 5 keys"),
    ],
)
def test_what_is_no_key_is_told_with_its_line(text: str, told: str) -> None:
    with pytest.raises(SetupError, match=told):
        read_keys(text, "keys")


def test_a_key_that_is_refused_is_not_repeated() -> None:
    with pytest.raises(SetupError) as caught:
        read_keys("c2VjcmV0", "keys")
    assert "c2VjcmV0" not in str(caught.value)
    assert "secret" not in str(caught.value)
