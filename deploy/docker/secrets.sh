#!/bin/sh
# Writes the passwords that compose.yaml needs into .env, once. Keeps an existing file; never prints a password.
set -eu
cd "$(dirname "$0")/../.."
if [ -e .env ]; then
  echo ".env exists and is kept" >&2
  exit 0
fi
umask 077
draft=.env.new
secret() { printf 'p%s' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"; } # a letter first: see deploy/nats/nats.conf
{
  for user in GATEWAY PREFILL DECODE MONITOR STANDBY OPERATOR CLIENT; do
    echo "BATON_NATS_PASSWORD_$user=$(secret)"
  done
  echo "BATON_REDIS_PASSWORD=$(secret)"
} >"$draft"
mv "$draft" .env
echo "wrote .env" >&2
