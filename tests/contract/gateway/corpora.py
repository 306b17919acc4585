"""Requests that are wrong in every way we know, and a way to make more: HTTP, JSON, MessagePack.

Each random one comes from a seed, so a failure can be had again.
"""

import json
import random
from typing import Any

import msgpack

BODY = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}).encode()
CHAT = "POST /v1/chat/completions HTTP/1.1"
CHUNKED = "Transfer-Encoding: chunked"
SIZED = f"Content-Length: {len(BODY)}"


def chance(seed: int) -> random.Random:
    """A source of randomness that can be had again."""
    return random.Random(seed)  # noqa: S311


def http(first: str, *headers: str, body: bytes = b"", end: str = "\r\n") -> bytes:
    """Put a request together, however wrong its parts are."""
    return end.join([first, *headers, "", ""]).encode("latin-1") + body


def chunks(*sizes_and_data: tuple[bytes, bytes]) -> bytes:
    """A chunked body with sizes as they are given."""
    return b"".join(b"%b\r\n%b\r\n" % one for one in sizes_and_data)


SMUGGLED = http("GET /smuggled HTTP/1.1", "Host: x")

HTTP: dict[str, bytes] = {
    # first lines
    "nothing but line ends": b"\r\n\r\n\r\n\r\n",
    "no version": http("GET /v1/models"),
    "only a method": http("GET"),
    "two spaces": http("GET  /v1/models HTTP/1.1", "Host: x"),
    "a tab": http("GET\t/v1/models\tHTTP/1.1", "Host: x"),
    "an unknown version": http("GET / HTTP/9.9", "Host: x"),
    "a version without a point": http("GET / HTTP/11", "Host: x"),
    "http/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    "a method of control characters": http("G\x01T / HTTP/1.1", "Host: x"),
    "a very long method": http("A" * 20_000 + " / HTTP/1.1", "Host: x"),
    "a very long path": http("GET /" + "a" * 100_000 + " HTTP/1.1", "Host: x"),
    "a path of NUL": http("GET /\x00 HTTP/1.1", "Host: x"),
    "a path of bad escapes": http("GET /v1/models/%zz%f HTTP/1.1", "Host: x"),
    "a path of escaped NUL": http("GET /v1/models/%00 HTTP/1.1", "Host: x"),
    "a path of escaped bytes that are no text": http("GET /v1/models/%ff%fe HTTP/1.1", "Host: x"),
    "a path that climbs": http("GET /v1/models/../../../etc/passwd HTTP/1.1", "Host: x"),
    "an absolute path": http("GET http://elsewhere/v1/nothing HTTP/1.1", "Host: x"),
    "a broken absolute path": http("GET http://[::1 HTTP/1.1", "Host: x"),
    "a port that is none": http("GET http://x:99999999/ HTTP/1.1", "Host: x"),
    "a star": http("GET * HTTP/1.1", "Host: x"),
    "connect": http("CONNECT elsewhere:443 HTTP/1.1", "Host: elsewhere:443"),
    "bytes above ascii": http("GET /\xff\xfe HTTP/1.1", "Host: x"),
    "random bytes": chance(1).randbytes(4000),
    "zeros": bytes(4000),
    # headers
    "a header without a colon": http("GET /v1/nothing HTTP/1.1", "Host x"),
    "a header without a name": http("GET /v1/nothing HTTP/1.1", ": x"),
    "a space before the colon": http("GET /v1/nothing HTTP/1.1", "Host : x"),
    "a folded header": http("GET /v1/nothing HTTP/1.1", "Host: x", "A: b", " c"),
    "a fold at once": http("GET /v1/nothing HTTP/1.1", " Host: x"),
    "NUL in a header": http("GET /v1/nothing HTTP/1.1", "Host: x", "A: b\x00c"),
    "a bare carriage return in a header": http("GET /v1/nothing HTTP/1.1", "Host: x", "A: b\rSet: c"),
    "lone line feeds": http("GET /v1/nothing HTTP/1.1", "Host: x", end="\n"),
    "lone carriage returns": http("GET /v1/nothing HTTP/1.1", "Host: x", end="\r"),
    "two hosts": http("GET /v1/nothing HTTP/1.1", "Host: x", "Host: y"),
    "a huge header": http("GET /v1/nothing HTTP/1.1", "Host: x", "A: " + "b" * 200_000),
    "headers without end": b"GET /v1/nothing HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
    "a name of symbols": http("GET /v1/nothing HTTP/1.1", "Host: x", "(a)[b]: c"),
    "injection by the request id": http("GET /v1/nothing HTTP/1.1", "Host: x", "X-Request-Id: a\tb"),
    "an id of bytes": http("GET /v1/nothing HTTP/1.1", "Host: x", "X-Request-Id: \xff\xfe"),
    "a key of bytes": http("GET /v1/nothing HTTP/1.1", "Host: x", "Authorization: Bearer \xff\xfe\xed"),
    "a trace that is none": http("GET /v1/nothing HTTP/1.1", "Host: x", "traceparent: 00-zz-\xff-01"),
    "a scenario of bytes": http(CHAT, "Host: x", SIZED, "x-baton-scenario: \xff\xfe", body=BODY),
    "an upgrade": http("GET /v1/nothing HTTP/1.1", "Host: x", "Connection: upgrade", "Upgrade: websocket"),
    "an upgrade to http/2": http("GET /v1/nothing HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    "an unknown expectation": http(CHAT, "Host: x", SIZED, "Expect: 200-maybe", body=BODY),
    # lengths
    "two lengths": http(CHAT, "Host: x", SIZED, "Content-Length: 1", body=BODY + SMUGGLED),
    "two lengths in one": http(CHAT, "Host: x", "Content-Length: 5, 6", body=BODY + SMUGGLED),
    "a length below zero": http(CHAT, "Host: x", "Content-Length: -1", body=BODY + SMUGGLED),
    "a length with a sign": http(CHAT, "Host: x", f"Content-Length: +{len(BODY)}", body=BODY + SMUGGLED),
    "a length of letters": http(CHAT, "Host: x", "Content-Length: abc", body=BODY + SMUGGLED),
    "a length in hex": http(CHAT, "Host: x", "Content-Length: 0x10", body=BODY + SMUGGLED),
    "a length with an underscore": http(CHAT, "Host: x", "Content-Length: 1_0", body=BODY + SMUGGLED),
    "a length of many digits": http(CHAT, "Host: x", "Content-Length: " + "9" * 400, body=BODY),
    "an empty length": http(CHAT, "Host: x", "Content-Length:", body=BODY + SMUGGLED),
    "a length and chunks": http(CHAT, "Host: x", SIZED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and a length": http(CHAT, "Host: x", CHUNKED, "Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks twice": http(CHAT, "Host: x", CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks that are not last": http(CHAT, "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "an encoding nobody has": http(CHAT, "Host: x", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "an encoding hidden by a tab": http(CHAT, "Transfer-Encoding:\x0bchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks in http/1.0": http(CHAT[:-1] + "0", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "a body that is too long for its length": http(CHAT, "Host: x", "Content-Length: 10", body=BODY),
    "a body that never comes": http(CHAT, "Host: x", SIZED),
    "half a body": http(CHAT, "Host: x", SIZED, body=BODY[:20]),
    "a compressed body that is none": http(CHAT, "Host: x", SIZED, "Content-Encoding: gzip", body=BODY),
    # chunks
    "a chunk size of letters": http(CHAT, CHUNKED, body=chunks((b"zz", BODY))),
    "a chunk size below zero": http(CHAT, CHUNKED, body=chunks((b"-5", BODY))),
    "a chunk size with 0x": http(CHAT, CHUNKED, body=chunks((b"0x10", BODY))),
    "a chunk size of many digits": http(CHAT, CHUNKED, body=chunks((b"f" * 40, BODY))),
    "an empty chunk size": http(CHAT, CHUNKED, body=chunks((b"", BODY))),
    "a chunk that is longer than it says": http(CHAT, CHUNKED, body=chunks((b"3", BODY))),
    "a chunk without its line end": http(CHAT, CHUNKED, body=b"3\r\nabc3\r\nabc\r\n0\r\n\r\n"),
    "a long chunk extension": http(CHAT, CHUNKED, body=chunks((b"3;" + b"a" * 100_000, b"abc"))),
    "chunks that do not end": http(CHAT, CHUNKED, body=chunks(*[(b"1", b" ")] * 50)),
    "a bad trailer": http(CHAT, CHUNKED, body=b"0\r\nbad trailer\r\n\r\n"),
    "a huge trailer": http(CHAT, CHUNKED, body=b"0\r\nA: " + b"b" * 100_000 + b"\r\n\r\n"),
    # several
    "pipelined nonsense": http("GET /v1/nothing HTTP/1.1", "Host: x") + b"\x00\x01\x02\r\n\r\n",
    "pipelined good and bad": http(CHAT, "Host: x", SIZED, body=BODY) + http(CHAT, "Content-Length: x"),
    "many pipelined": http("GET /v1/nothing HTTP/1.1", "Host: x") * 200,
}

DEEP = 100_000
JSON: dict[str, bytes] = {
    "nothing": b"",
    "space": b" \n\t ",
    "half an object": b'{"model":"chat"',
    "two objects": b"{}{}",
    "text after it": BODY + b"x",
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "utf-16": BODY.decode().encode("utf-16"),
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "a string": b'"messages"',
    "single quotes": b"{'model':'chat'}",
    "comments": b'{"model":"chat"/* why */}',
    "a trailing comma": b'{"model":"chat",}',
    "NaN": BODY.replace(b"2}", b"NaN}"),
    "Infinity": BODY.replace(b"2}", b"-Infinity}"),
    "a number without end": BODY.replace(b"2}", b"1" * 100_000 + b"}"),
    "an exponent without end": BODY.replace(b"2}", b"1e" + b"9" * 5_000 + b"}"),
    "a number above all": BODY.replace(b"2}", b"1e999}"),
    "a number with leading zeros": BODY.replace(b"2}", b"002}"),
    "a hex number": BODY.replace(b"2}", b"0x2}"),
    "a lone surrogate": BODY.replace(b"hello", b"\\ud800"),
    "surrogates the wrong way": BODY.replace(b"hello", b"\\udc00\\ud800"),
    "an encoded surrogate": BODY.replace(b"hello", b"\xed\xa0\x80"),
    "overlong utf-8": BODY.replace(b"hello", b"\xc0\xaf"),
    "cut utf-8": BODY.replace(b"hello", b"\xf0\x9f"),
    "a control character": BODY.replace(b"hello", b"he\x01llo"),
    "NUL": BODY.replace(b"hello", b"\x00"),
    "a bad escape": BODY.replace(b"hello", b"\\x41"),
    "deep lists": b'{"model":"chat","metadata":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "deep objects": b'{"model":"chat","metadata":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "deep where no list belongs": b'{"model":' + b"[" * DEEP,
    "deep and not closed": b"[" * DEEP,
    "a deep schema": BODY[:-1]
    + b',"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":'
    + b'{"not":' * 5_000
    + b"{}"
    + b"}" * 5_000
    + b"}}}",
    "a schema that holds itself": BODY[:-1]
    + b',"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"$ref":"#"}}}}',
    "a key twice, badly": b'{"messages":5,' + BODY[1:] + b"}",
    "an empty key": BODY[:-1] + b',"":1}',
    "many keys": b"{" + b",".join(b'"k%d":1' % k for k in range(50_000)) + b"}",
    "many messages": b'{"model":"chat","messages":[' + b",".join([b'{"role":"user","content":""}'] * 20_000) + b"]}",
    "a long name": BODY.replace(b'"chat"', b'"' + b"c" * 500_000 + b'"'),
    "random bytes": chance(2).randbytes(5_000),
}

GOOD: dict[str, Any] = {"v": 1, "prompt": "hello", "max_tokens": 2, "stop": ["x"], "logit_bias": {5: 1.0}}
PACKED = msgpack.packb(GOOD)
MESSAGEPACK: dict[str, bytes] = {
    "nothing": b"",
    "the byte that is never used": b"\xc1",
    "text": b"prompt",
    "a list": msgpack.packb(["prompt"]),
    "a number": msgpack.packb(5),
    "nil": msgpack.packb(None),
    "a map with numbers for keys": msgpack.packb({1: 2}),
    "a map with bytes for keys": msgpack.packb({b"prompt": "x"}),
    "a map with nil for a key": b"\x81\xc0\x01",
    "a map with a list for a key": b"\x81\x90\x01",
    "a map with a map for a key": b"\x81\x80\x01",
    "two maps": PACKED + PACKED,
    "half a map": PACKED[:-3],
    "a map that says it is huge": b"\xdf\xff\xff\xff\xff" + PACKED,
    "a list that says it is huge": b"\x81\xa6prompt\xdd\xff\xff\xff\xff",
    "a string that says it is huge": b"\x81\xa6prompt\xdb\xff\xff\xff\xff",
    "bytes that say they are huge": b"\x81\xa6prompt\xc6\xff\xff\xff\xff",
    "an extension": b"\x81\xa6prompt" + msgpack.packb(msgpack.ExtType(5, b"x")),
    "an extension that says it is huge": b"\x81\xa6prompt\xc9\xff\xff\xff\xff\x05",
    "a time": b"\x81\xa6prompt" + msgpack.packb(msgpack.Timestamp(1)),
    "a time out of range": b"\x81\xa6prompt\xc7\x0c\xff" + b"\xff" * 12,
    "a string that is no text": b"\x81\xa6prompt\xa2\xff\xfe",
    "a surrogate": b"\x81\xa6prompt\xa3\xed\xa0\x80",
    "bytes for text": msgpack.packb({"prompt": b"hello"}),
    "not a number": msgpack.packb({"prompt": "x", "temperature": float("nan")}),
    "infinity": msgpack.packb({"prompt": "x", "temperature": float("inf")}),
    "a huge number": msgpack.packb({"prompt": "x", "seed": 2**64 - 1}),
    "deep lists": b"\x81\xa8metadata" + b"\x91" * 900 + b"\xc0",
    "deeper lists": b"\x81\xa8metadata" + b"\x91" * 100_000 + b"\xc0",
    "deep maps": b"\x81\xa8metadata" + b"\x81\xa1a" * 50_000 + b"\xc0",
    "the same key twice": b"\x82\xa6prompt\x05\xa6prompt\x06",
    "a key of the wrong kind": msgpack.packb({"prompt": "x", "api_key": {"a": 1}}),
    "a version that is a map": msgpack.packb({"prompt": "x", "v": {}}),
    "a version that is not a number": msgpack.packb({"prompt": "x", "v": float("nan")}),
    "both kinds of request": msgpack.packb({"prompt": "x", "messages": []}),
    "only messages that are nil": msgpack.packb({"messages": None}),
    "zeros": bytes(100_000),
    "random bytes": chance(3).randbytes(5_000),
}


def mutated(good: bytes, draw: random.Random, spices: list[bytes]) -> bytes:
    """Change a good request in one to four places."""
    data = bytearray(good)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(6):
            case 0 if data:
                data[at % len(data)] = draw.randrange(256)
            case 1:
                data[at:at] = draw.randbytes(draw.randint(1, 8))
            case 2:
                del data[at : at + draw.randint(1, 20)]
            case 3:
                data[at:at] = draw.choice(spices)
            case 4:
                data[at:at] = data[max(0, at - 30) : at]
            case _:
                del data[at:]
    return bytes(data)


HTTP_SPICES = [
    b"\r\n", b"\n", b"\r", b"\x00", b":", b" ", b"\t", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"HTTP/1.0", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"%00",
]  # fmt: skip
JSON_SPICES = [
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"-1", b"1e400", b"\\ud800", b"\xff", b'"stream":true,',
    b'"n":128,', b'"logprobs":true,', b'"stop":["a"],', b"\\u0000", b"9" * 30,
]  # fmt: skip
MESSAGEPACK_SPICES = [
    b"\xc0",
    b"\xc1",
    b"\x90",
    b"\x80",
    b"\xdf\xff\xff\xff\xff",
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xa1x",
    b"\xc4\x01x",
]
