"""The gateway's certificate: read, checked, and read again at a reload. Owns no connection."""

import ssl

from shared.config import GatewaySettings
from shared.errors import ConfigError


def open_tls(settings: GatewaySettings) -> ssl.SSLContext | None:
    """Make the context that new connections are welcomed with; None for plain HTTP. Raises ConfigError."""
    if not settings.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as error:
        where = f"gateway.tls_cert {settings.tls_cert} with gateway.tls_key {settings.tls_key}"
        raise ConfigError([f"{where} cannot be used: {_why(error)}"]) from error
    if settings.tls_client_ca:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ValueError) as error:
            raise ConfigError(
                [f"gateway.tls_client_ca {settings.tls_client_ca} cannot be used: {_why(error)}"]
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    """Asked for when the key is encrypted: without it, OpenSSL would ask the terminal and wait."""
    raise ValueError("the key is encrypted; give one that is not, readable by the gateway alone")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM file of that kind"
    return getattr(error, "strerror", None) or str(error)
