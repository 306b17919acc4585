"""URLs of Redis behind Sentinels and in a cluster: what they mean, and what is said of wrong ones."""

import pytest

from shared.config.checks import redis_url
from shared.config.redis_url import CLUSTER_FORM, SENTINEL_FORM, RedisNodes, parse


def test_a_sentinel_url_names_the_sentinels_the_service_and_both_sign_ins() -> None:
    url = "rediss+sentinel://me:p%40w@a:1,[::1],c/baton/3?sentinel_user=watch&sentinel_password=s%2F&ssl_ca_certs=/ca"
    nodes = (("a", 1), ("::1", 26379), ("c", 26379))
    assert parse(url) == RedisNodes(
        "sentinel", nodes, "baton", 3, "me", "p@w", "watch", "s/", tls=True, ssl_ca_certs="/ca"
    )
    assert "p@w" not in repr(parse(url))
    assert "s/" not in repr(parse(url))


def test_a_cluster_url_names_nodes_that_know_the_others() -> None:
    assert parse("redis+cluster://:pw@a,b:7000/0") == RedisNodes("cluster", (("a", 6379), ("b", 7000)), password="pw")


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis+sentinel://", f"is no URL of the form {SENTINEL_FORM} or {CLUSTER_FORM}"),
        ("redis+sentinel://a:26379", f"must name the service that the Sentinels watch: {SENTINEL_FORM}"),
        ("redis+sentinel://a/b/c", f"must name the service that the Sentinels watch: {SENTINEL_FORM}"),
        ("redis+sentinel://a/b/0/1", f"must name the service that the Sentinels watch: {SENTINEL_FORM}"),
        ("redis+cluster://a/1", "names a database; a Redis Cluster has only number 0"),
        ("redis+cluster://" + ",".join("a" * 20), "names 20 servers; 16 are enough to find the others"),
        ("redis+cluster://a?db=1", "has an option that is none of sentinel_password, sentinel_user, ssl_ca_certs"),
        ("redis://a:1,b:1", "is no URL of the form redis://host:port"),
    ],
)
def test_a_wrong_url_is_refused_by_what_is_wrong(url: str, fault: str) -> None:
    assert redis_url(url) == fault


@pytest.mark.parametrize("url", ["redis+sentinel://:s3cret/x@h:1/svc", "redis+cluster://a:0", "redis+cluster://a:99999",
                                 "redis+cluster://:s3?cret@h", "redis+cluster://a,,b"])  # fmt: skip
def test_a_wrong_server_is_refused_without_its_password(url: str) -> None:
    fault = redis_url(url)
    assert fault
    assert "s3" not in fault
    assert "cret" not in fault


@pytest.mark.parametrize("url", ["", "redis://h:1/0", "rediss://h", "redis+sentinel://h/s", "redis+cluster://h"])
def test_a_right_url_passes(url: str) -> None:
    assert redis_url(url) == ""
