"""An identity provider for tests: its keys, its tokens, its key server."""

import asyncio
import json
import time
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from shared.config import JwtSettings

RSA_KEY = rsa.generate_private_key(65537, 2048)


OTHER_RSA = rsa.generate_private_key(65537, 2048)


SHORT_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505  it is to be refused


EC_KEY = ec.generate_private_key(ec.SECP256R1())


EC_384 = ec.generate_private_key(ec.SECP384R1())


ISSUER, AUDIENCE = "https://id.example", "baton"


def public(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", **more}


def token(key: Any = RSA_KEY, alg: str = "RS256", kid: str | None = "r1", **changed: Any) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": time.time() + 300, **changed}
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=alg, headers={"kid": kid} if kid else {})


class Provider:
    """An identity provider's key server that says what a test tells it."""

    def __init__(self) -> None:
        self.keys: Any = [public(RSA_KEY, "r1"), public(EC_KEY, "e1")]
        self.body: bytes | None = None
        self.status = 200
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        await self.may_answer.wait()
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        return web.Response(body=body, status=self.status)


def settings(url: str, **changed: Any) -> JwtSettings:
    return JwtSettings(**{"jwks_url": url, "issuer": ISSUER, "audience": AUDIENCE, "leeway_s": 5.0, **changed})
