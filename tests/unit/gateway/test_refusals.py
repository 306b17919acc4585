"""Every error has a status, a body and headers that clients understand."""

import json

import pytest

from services.gateway.refusals import Refused, answer, as_json, as_map, headers
from shared.errors import BadRequest, BatonError, Code, Draining, Overloaded, Unauthorised


@pytest.mark.parametrize("code", list(Code))
def test_24_to_27_every_code_has_an_error_object_and_a_status_that_clients_know(code: Code) -> None:
    error = Refused(code, "why", 120.0)
    body = json.loads(as_json(error))["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"]
    status = answer(error).status
    assert status in {400, 401, 403, 404, 413, 429, 499, 500, 502, 503, 504}
    again = headers(error)
    if status in {429, 503}:
        assert 1 <= int(again["retry-after"]) < 60
        assert again["x-baton-reason"] == str(code)
    elif status >= 500:
        assert again == {"x-should-retry": "false"}
    elif status == 401:
        assert again == {"www-authenticate": "Bearer"}
    else:
        assert again == {}


def test_contended_and_absent_are_told_apart() -> None:
    assert answer(Overloaded("full")).status == 429
    assert answer(Draining("leaving")).status == 503
    assert answer(Refused(Code.NO_CAPACITY, "none")).status == 503


def test_an_unforeseen_error_keeps_its_insides_to_itself() -> None:
    assert "secret" not in as_json(BatonError("secret path")).decode()
    assert "secret" not in str(as_map(BatonError("secret path")))


def test_a_missing_key_says_how_to_send_one() -> None:
    assert answer(Unauthorised()).status == 401
    assert headers(Unauthorised()) == {"www-authenticate": "Bearer"}


def test_a_nats_client_hears_the_parameter_too() -> None:
    assert as_map(BadRequest("wrong", "n")) == {
        "error": {"code": "bad_request", "message": "wrong", "retryable": False, "param": "n"}
    }
